"""How often a release that a rare event decides is decided wrongly: each day by itself, and days put together.

Two arms with known rates of an event, 2,000 streams of days each. Wrong is "not worse" where the candidate is worse by
the margin or more, and "worse" where both arms are alike. Prints one row for the table in `docs/why/sequential.md`
for each case. A minute on one core: .venv/bin/python bench/raregoals.py
"""

import sys
from typing import NamedTuple

import numpy as np

from holdfast.stats.experiments import GoalDifference

STREAMS = 2000


class Case(NamedTuple):
    """An experiment: rates (live, candidate), rows a day of both, and how long it runs. Fewer events are better."""

    rates: tuple[float, float]
    rows: tuple[int, int]
    margin: float
    days: int


CASES = (
    Case((0.002, 0.006), (900, 100), 0.004, 28),
    Case((0.0005, 0.0025), (900, 100), 0.001, 28),
    Case((0.0002, 0.0042), (270, 30), 0.002, 28),
    Case((0.002, 0.006), (900, 100), 0.004, 120),
    Case((0.001, 0.002), (500, 500), 0.001, 120),
    Case((0.002, 0.002), (500, 500), 0.001, 120),
    Case((0.004, 0.004), (900, 100), 0.004, 120),
    Case((0.10, 0.11), (900, 100), 0.01, 28),
)


def ended(case: Case, rng: np.random.Generator, *, together: bool) -> tuple[str, int]:
    """How one stream ends, and on which day."""
    goal, state = GoalDifference(), ()
    events = [rng.binomial(n, rate, case.days).tolist() for n, rate in zip(case.rows, case.rates, strict=True)]
    for day, (live, candidate) in enumerate(zip(*events, strict=True), 1):
        rare = min(live + candidate, sum(case.rows) - live - candidate)
        state = goal.fold(
            state,
            live / case.rows[0],
            candidate / case.rows[1],
            control_rows=case.rows[0],
            treatment_rows=case.rows[1],
            rare_rows=rare if together else None,
        )
        found = goal.judge(state)
        if found.low > 0:
            return "worse", day
        if found.high <= case.margin:
            return "not worse", day
    return "undecided", case.days


def main() -> None:
    """Print the table."""
    for case in CASES:
        cells = [f"{case.rates[0]:.2%}, {case.rates[1]:.2%}", f"{case.rows[0]}, {case.rows[1]}", f"{case.margin:.1%}"]
        cells.append(f"{case.days}")
        for together in (False, True):
            rng = np.random.default_rng(3)
            ends = [ended(case, rng, together=together) for _ in range(STREAMS)]
            days = [day for says, day in ends if says == "not worse"]
            cells += [f"{np.mean([end == says for end, _ in ends]):.1%}" for says in ("not worse", "worse")]
            cells.append(f"{np.median(days):.0f}" if len(days) > STREAMS / 100 else "-")
        sys.stdout.write(f"| {' | '.join(cells)} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
