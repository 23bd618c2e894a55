"""How often a release that a rare event decides is decided wrongly: each day by itself, and days put together.

Two arms with known rates of an event, 2,000 streams of days each. Wrong is "not worse" where the candidate is worse by
the margin or more, and "worse" where both arms are alike. Prints one row for the table in `docs/why/sequential.md`
for each case.

    python bench/raregoals.py --json bench/results/raregoals.json
"""

from typing import Any, NamedTuple

import numpy as np

from holdfast.stats.experiments import GoalDifference
from parts.figures import options, report

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


def measured(case: Case, streams: int) -> dict[str, Any]:
    """Shares of the streams that end each way, days alone and put together, and the median day of a "not worse"."""
    figure: dict[str, Any] = {
        "case": f"{case.rates[0]:.2%}, {case.rates[1]:.2%}",
        "rows_a_day": list(case.rows),
        "margin": case.margin,
        "days": case.days,
        "streams": streams,
    }
    for together, name in ((False, "alone"), (True, "together")):
        rng = np.random.default_rng(3)
        ends = [ended(case, rng, together=together) for _ in range(streams)]
        days = [day for says, day in ends if says == "not worse"]
        for says in ("not worse", "worse"):
            figure[f"{name}_{says.replace(' ', '_')}"] = float(np.mean([end == says for end, _ in ends]))
        figure[f"{name}_day"] = float(np.median(days)) if len(days) > streams / 100 else None
    return figure


def row(figure: dict[str, Any]) -> str:
    """A case as a row of the table in the docs."""
    cells = [figure["case"], ", ".join(map(str, figure["rows_a_day"])), f"{figure['margin']:.1%}", f"{figure['days']}"]
    for name in ("alone", "together"):
        cells += [f"{figure[f'{name}_{says}']:.1%}" for says in ("not_worse", "worse")]
        cells.append("-" if figure[f"{name}_day"] is None else f"{figure[f'{name}_day']:.0f}")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure, print the table and report."""
    given = options(__doc__, streams=STREAMS)
    figures = []
    for case in CASES:
        figures.append(measured(case, given.streams))
        print(row(figures[-1]), flush=True)
    report("raregoals", figures, given.json)


if __name__ == "__main__":
    main()
