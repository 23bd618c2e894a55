"""How often tests that are looked at after every day are wrong, and how many days they take.

Real streams of three data sets: two models of like kind answer the same rows, and their losses cluster by day. The
candidate overshoots the better model so far that it is worse by exactly the margin, or equally good (the border
of what is tested, where errors are most frequent). Days are drawn whole, and put together to 2,000 streams of 120
days; "runs" draws six neighbours together, which keeps the dependence between days that no test here assumes away.
Every test is Holdfast's own code, whole and in its halves, beside the comparisons that one might use instead; where
the releases test assumes symmetry, also on made days that are not. One core, under 3 minutes.
"""

import math
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy import stats

from holdfast.stats.confidence import EmpiricalBernstein, HedgedCapital, StudentMixture
from holdfast.stats.experiments import split_evidence
from holdfast.stats.sequential import (
    BETS,
    WEIGHTS,
    Direction,
    EDetector,
    betting_path,
    evidence_path,
    first_reached,
    selfnormalised_path,
)
from parts.daylosses import FILES, Answers, Array, Losses, answers, present
from parts.figures import options, report

Drawn = np.ndarray[Any, np.dtype[np.int64]]

ALPHA = 0.05
STREAMS, DAYS = 2000, 120
NEIGHBOURS = 6
SEED = 20131
MARGINS = {"nycflights13": 0.01, "elec2": 0.02, "bike_sharing": 0.005}
EFFECTS = (0.25, 0.5, 1.0)
"""Distances from the border, in standard deviations of a day's difference."""
SPLITS = 64
"""Random splits of each day's rows between the arms of an experiment."""
POWER = 0.8


def drawn(days: int, together: int, seed: int, length: int = DAYS) -> Drawn:
    """Days of each stream, (STREAMS, length): runs of so many neighbours, wrapping around the end."""
    starts = np.random.default_rng([SEED, seed]).integers(0, days, size=(STREAMS, math.ceil(length / together)))
    return ((starts[:, :, None] + np.arange(together)) % days).reshape(STREAMS, -1)[:, :length]


def wrong(log_wealth: Array) -> float:
    """Share of streams that ever reach 1 / alpha."""
    return float(np.isfinite(first_reached(log_wealth, ALPHA)).mean())


def error(share: float) -> float:
    """Standard error of a share of all streams."""
    return math.sqrt(max(share * (1 - share), 1 / STREAMS) / STREAMS)


def mixture(per_bet: list[Array]) -> Array:
    """Log wealth of the bets' parts together, from the log wealth of each."""
    parts = [math.log(weight) + one for weight, one in zip(WEIGHTS, per_bet, strict=True)]
    return np.logaddexp.reduce(np.stack(parts))


def shares(d: Array, low: Array, high: Array, null: float, direction: Direction) -> Array:
    """Gains in units of the risk, each day or row within its own bounds."""
    gain, loss = (null - d, high - null) if direction == "below" else (d - null, null - low)
    return np.maximum(-1.0, gain / np.maximum(np.maximum(loss, (high - low) / 100), 1e-12))


def own_bounds(d: Array, low: Array, high: Array, null: float, direction: Direction) -> Array:
    """Betting on days with the bounds of the day itself, not the widest so far."""
    each = shares(d, low, high, null, direction)
    return mixture([np.cumsum(np.log1p(bet * each), axis=1) for bet in BETS])


def by_rows(losses: Losses, chosen: Drawn, null: float, direction: Direction) -> Array:
    """Betting on every row, as if rows were independent, within the widest bounds of any; looked at after each day."""
    low, high = np.full_like(losses.low, losses.low.min()), np.full_like(losses.high, losses.high.max())
    each = shares(losses.candidate - losses.live, low, high, null, direction)
    return mixture([np.cumsum(np.bincount(losses.day, np.log1p(bet * each))[chosen], axis=1) for bet in BETS])


def t_statistics(count: Array, total: Array, squares: Array, null: float) -> Array:
    """Student's t from cumulated moments; 0 where there is no spread to compare with."""
    mean = total / count
    variance = (squares - count * mean**2) / np.maximum(count - 1, 1)
    known = (count > 1) & (variance > 0)
    return np.where(known, (mean - null) / np.sqrt(np.where(known, variance / count, 1.0)), 0.0)


def t_by_rows(losses: Losses, chosen: Drawn, null: float) -> tuple[Array, Array]:
    """t and its degrees of freedom over all rows so far, after each day."""
    d = losses.candidate - losses.live
    moments = (np.ones_like(d), d, d**2)
    count, total, squares = (np.cumsum(np.bincount(losses.day, each)[chosen], axis=1) for each in moments)
    return t_statistics(count, total, squares, null), count - 1


def t_by_days(d: Array, null: float) -> tuple[Array, Array]:
    """t and its degrees of freedom over all days so far, after each day."""
    count = np.broadcast_to(np.arange(1.0, d.shape[1] + 1), d.shape)
    return t_statistics(count, np.cumsum(d, axis=1), np.cumsum(d**2, axis=1), null), count - 1


def significant(t: Array, freedom: Array) -> Array:
    """One-sided at alpha; never before two observations."""
    return (freedom >= 1) & (t > stats.t.ppf(1 - ALPHA, np.maximum(freedom, 1)))


def student(d: Array, null: float, direction: Direction) -> Array:
    """First day on which the always-valid t interval over days leaves the null on the claimed side; else infinite."""
    sequence, first = StudentMixture(alpha=ALPHA), np.full(len(d), np.inf)
    state = sequence.start()
    for i in range(d.shape[1]):
        state = sequence.fold(state, d[:, i])
        low, high = sequence.interval(state)
        found = high < null if direction == "below" else low > null
        first[found & np.isinf(first)] = i + 1
    return first


def releases(asked: Answers) -> Iterator[dict[str, Any]]:
    """Type I errors of the releases test, at the border of each of its two claims."""
    for claim, direction, sign in (("not worse", "below", -1.0), ("worse", "above", 1.0)):
        null = MARGINS[asked.name] if claim == "not worse" else 0.0
        losses = asked.worse_by(null)
        d, low, high = (losses.per_day(each) for each in (losses.candidate - losses.live, losses.low, losses.high))
        for together in (1, NEIGHBOURS):
            chosen = drawn(d.size, together, 1)
            stream = (d[chosen], low[chosen], high[chosen], null, direction)
            rows, days = t_by_rows(losses, chosen, null), t_by_days(d[chosen], null)
            on_rows, on_days = significant(sign * rows[0], rows[1]), significant(sign * days[0], days[1])
            yield {
                "test": "release",
                "data": asked.name,
                "claim": claim,
                "days_drawn": "runs" if together > 1 else "single",
                "holdfast": wrong(evidence_path(*stream)),
                "betting": wrong(betting_path(*stream)),
                "self_normalised": wrong(selfnormalised_path(*stream)),
                "own_bounds": wrong(own_bounds(*stream)),
                "student_mixture": float(np.isfinite(student(d[chosen], null, direction)).mean()),
                "betting_on_rows": wrong(by_rows(losses, chosen, null, direction)),
                "t_on_rows_daily": float(on_rows.any(axis=1).mean()),
                "t_on_days_daily": float(on_days.any(axis=1).mean()),
                "t_on_rows_once": float(on_rows[:, -1].mean()),
                "t_on_days_once": float(on_days[:, -1].mean()),
            }


def shaped() -> Iterator[tuple[str, Array, float]]:
    """Independent days of mean 0 and spread 1, (STREAMS, DAYS), of many shapes, and their bound: positive is worse."""
    random, size = np.random.default_rng([SEED, 10]), (STREAMS, DAYS)
    yield "normal", random.normal(size=size), 10.0
    yield "Student's t, 3 degrees", random.standard_t(3, size) / math.sqrt(3), 10.0
    yield "gamma, skew 1.3", (random.gamma(4 / 1.3**2, size=size) - 4 / 1.3**2) * 1.3 / 2, 10.0
    exponential = random.exponential(size=size) - 1
    yield "exponential, skew 2", exponential, 10.0
    yield "the same mirrored", -exponential, 10.0
    for share, noise in ((0.1, 1.0), (0.1, 0.5), (0.1, 0.0), (0.02, 1.0), (0.02, 0.5), (0.02, 0.0)):
        bad = (random.random(size) < share) - share
        days = bad / math.sqrt(share * (1 - share)) + noise * random.normal(size=size)
        yield f"{share:.0%} bad days, noise {noise:g}", days / math.sqrt(1 + noise**2), 10.0
    yield "2% bad days, noise 0, bounds ±7", days, 7.0


def skewed() -> Iterator[dict[str, Any]]:
    """Type I errors of "not worse" where days are not symmetric, at its border and within bounds of some spreads."""
    for shape, days, bound in shaped():
        d = np.clip(days, -bound, bound)
        stream = (d, np.full_like(d, -bound), np.full_like(d, bound), 0.0)
        t, freedom = t_by_days(d, 0.0)
        yield {
            "test": "skew",
            "days": shape,
            "mean": float(d.mean()),
            "skew": float((d**3).mean()),
            "holdfast": wrong(evidence_path(*stream, "below")),
            "betting": wrong(betting_path(*stream, "below")),
            "self_normalised": wrong(selfnormalised_path(*stream, "below")),
            "student_mixture": float(np.isfinite(student(d, 0.0, "below")).mean()),
            "t_on_days_once": float(significant(-t, freedom)[:, -1].mean()),
        }


def alarm_times(path: Array, threshold: float) -> Array:
    """First block at which evidence (streams, blocks) reaches a threshold; the horizon + 1 where it never does."""
    reached = path >= threshold
    return np.where(reached.any(axis=1), reached.argmax(axis=1) + 1.0, path.shape[1] + 1.0)


def detector_path(x: Array, promised: float, weights: tuple[float, ...] = WEIGHTS) -> Array:
    """Evidence of the e-detector after each block of (streams, blocks): what folding blocks one by one gives."""
    bets, parts = np.asarray(BETS)[:, None], np.asarray(weights)[:, None]
    m, path = np.zeros((len(BETS), len(x))), np.empty(x.shape)
    for i in range(x.shape[1]):
        m = (m + parts) * np.maximum(0.0, 1 + bets * (x[:, i] - promised) / promised)
        path[:, i] = m.sum(axis=0)
    return path


def folded(x: Array, promised: float) -> float:
    """The same by folding blocks one by one."""
    detector, state = EDetector(), EDetector().start()
    for each in x:
        state = detector.fold(state, float(each), promised, high=math.inf)
    return detector.evidence(state)


def detector_by_rows(losses: Losses, chosen: Drawn, promised: float) -> Array:
    """The e-detector folded row by row, looked at after each day. A day's rows are one affine map of its state."""
    path = np.zeros(chosen.shape)
    order = np.argsort(losses.day, kind="stable")
    ends = np.cumsum(np.bincount(losses.day))[:-1]
    for bet, part in zip(BETS, WEIGHTS, strict=True):
        days = np.split(np.log1p(bet * (losses.live[order] - promised) / promised), ends)
        after = [np.cumsum(day[::-1]) for day in days]
        slope = np.array([each[-1] for each in after])
        added = np.array([math.log(part) + np.logaddexp.reduce(each) for each in after])
        m = np.full(len(chosen), -np.inf)
        for i in range(chosen.shape[1]):
            m = np.logaddexp(m + slope[chosen[:, i]], added[chosen[:, i]])
            path[:, i] += np.exp(np.minimum(m, 300.0))
    return path


def detectors(asked: Answers) -> Iterator[dict[str, Any]]:
    """Days to a false alarm where the mean day keeps exactly what was promised; the guarantee is 1 / alpha = 20."""
    losses, length = asked.losses(), 400
    x = losses.per_day(losses.live)
    promised = float(x.mean())
    assert math.isclose(folded(x[:50], promised), detector_path(x[None, :50], promised)[0, -1], rel_tol=1e-9)
    for together in (1, NEIGHBOURS):
        chosen = drawn(x.size, together, 2, length)
        rows = t_statistics(
            np.bincount(losses.day).astype(float),
            np.bincount(losses.day, losses.live),
            np.bincount(losses.day, losses.live**2),
            promised,
        )
        on_days = significant(*t_by_days(x[chosen], promised))
        times = {
            "holdfast": alarm_times(detector_path(x[chosen], promised), 1 / ALPHA),
            "equal_weights": alarm_times(detector_path(x[chosen], promised, (1 / 3,) * 3), 1 / ALPHA),
            "e_detector_on_rows": alarm_times(detector_by_rows(losses, chosen, promised), 1 / ALPHA),
            "t_of_the_days_rows": alarm_times((rows > stats.norm.ppf(1 - ALPHA))[chosen], 1),
            "t_on_days_daily": alarm_times(on_days, 1),
        }
        yield {
            "test": "e-detector",
            "data": asked.name,
            "days_drawn": "runs" if together > 1 else "single",
            **{name: float(each.mean()) for name, each in times.items()},
            "standard_error": float(times["holdfast"].std() / math.sqrt(STREAMS)),
        }


def delays(asked: Answers) -> Iterator[dict[str, Any]]:
    """Days from a rise of the loss to the e-detector's alarm, at a level of 1 / 150: five monitors, 1 a month."""
    losses = asked.losses()
    x = losses.per_day(losses.live)
    chosen = drawn(x.size, 1, 9)
    for rise in (0.1, 0.2, 0.5):
        ways = {"holdfast": WEIGHTS, "equal_weights": (1 / 3,) * 3}
        paths = {
            name: detector_path(x[chosen] * (1 + rise), float(x.mean()), weights) for name, weights in ways.items()
        }
        halves = {f"{name}_half": float(np.median(alarm_times(path, 150))) for name, path in paths.items()}
        yield {"test": "delay", "data": asked.name, "rise": rise} | halves


def split_days(losses: Losses) -> Array:
    """Rows of each day split by chance between live (control) and candidate, so many times: (6, SPLITS, days).

    Per arm the count, sum, and sum of squares of its losses.
    """
    random = np.random.default_rng([SEED, 3])
    treated = random.random((SPLITS, losses.day.size)) < 0.5
    starts = np.searchsorted(losses.day, np.arange(losses.day[-1] + 1))

    def per_day(rows: Array) -> Array:
        return np.add.reduceat(rows, starts, axis=1)

    arms = ((~treated, losses.live), (treated, losses.candidate))
    return np.stack([per_day(arm * loss**power) for arm, loss in arms for power in (0, 1, 2)])


def split_planes(losses: Losses, chosen: Drawn) -> Array:
    """Each stream's planes split by chance, two equal arms: (6, STREAMS, DAYS); a plane keeps its arm."""
    random, days = np.random.default_rng([SEED, 4]), int(losses.day[-1]) + 1
    units = int(losses.unit.max()) + 1
    treated = (random.random((STREAMS, units)) < 0.5).astype(np.float32)
    rows = np.arange(STREAMS)[:, None]
    moments = []
    for power in (0, 1, 2):
        sums = np.bincount(losses.unit * days + losses.day, losses.live**power, units * days).reshape(units, days)
        arm = (treated @ sums.astype(np.float32)).astype(np.float64)
        moments.append((sums.sum(axis=0) - arm, arm))
    return np.stack([moments[power][arm][rows, chosen] for arm in (0, 1) for power in (0, 1, 2)])


def arms_apart(moments: Array, truth: float) -> dict[str, float]:
    """Share of streams on which the interval ever excludes the true difference; moments (6, streams, days)."""
    count, total, squares = moments[[0, 3]], moments[[1, 4]], moments[[2, 5]]
    day = total[1] / count[1] - total[0] / count[0] - truth
    ever = {name: np.zeros(len(day), dtype=bool) for name in ("holdfast", "empirical_bernstein", "hedged_capital")}
    sequences = (
        StudentMixture(alpha=ALPHA),
        EmpiricalBernstein(alpha=ALPHA, low=-1, high=1),
        HedgedCapital(alpha=ALPHA, low=-1, high=1, points=101),
    )
    for name, sequence in zip(ever, sequences, strict=True):
        state = sequence.start()
        for i in range(day.shape[1]):
            state = sequence.fold(state, day[:, i])
            low, high = sequence.interval(state)
            ever[name] |= (low > 0) | (high < 0)
    count, total, squares = (np.cumsum(each, axis=2) for each in (count, total, squares))
    variance = (squares / count - (total / count) ** 2) / count
    z = np.abs((total / count)[1] - (total / count)[0] - truth) / np.sqrt(variance.sum(axis=0))
    t, freedom = t_by_days(day, 0.0)
    on_days = (freedom >= 1) & (np.abs(t) > stats.t.ppf(1 - ALPHA / 2, np.maximum(freedom, 1)))
    on_rows = z > stats.norm.ppf(1 - ALPHA / 2)
    return {
        **{name: float(each.mean()) for name, each in ever.items()},
        "always_valid_on_rows": float((z > mixed(count.sum(axis=0))).any(axis=1).mean()),
        "t_on_rows_daily": float(on_rows.any(axis=1).mean()),
        "t_on_days_daily": float(on_days.any(axis=1).mean()),
        "t_on_rows_once": float(on_rows[:, -1].mean()),
        "t_on_days_once": float(on_days[:, -1].mean()),
    }


def mixed(rows: Array) -> Array:
    """The z that a normal mixture over rows needs: sequential z-tests as experiment platforms have them."""
    scale = rows[..., -1:] / 10
    return np.sqrt((1 + scale / rows) * np.log((rows + scale) / (scale * ALPHA**2)))


def experiments(asked: Answers) -> Iterator[dict[str, Any]]:
    """Intervals for the difference of two equally good arms that are looked at every day."""
    losses = asked.worse_by(0.0)
    by_row = split_days(losses)
    # A day of a handful of rows may leave an arm without any; such days are left out, as the product does.
    usable = np.flatnonzero(by_row[[0, 3]].min(axis=(0, 1)) >= 2)
    truth = {"rows": float(losses.per_day(losses.candidate - losses.live)[usable].mean()), "planes": 0.0}
    for together in (1, NEIGHBOURS):
        chosen = usable[drawn(usable.size, together, 5)]
        picked = np.random.default_rng([SEED, 6]).integers(0, SPLITS, chosen.shape)
        found = {"rows": by_row[:, picked, chosen]}
        if losses.unit.max() + 1 < losses.day.size:
            found["planes"] = split_planes(losses, chosen)
        for split, moments in found.items():
            told = {"test": "experiment", "data": asked.name, "split_by": split}
            yield told | {"days_drawn": "runs" if together > 1 else "single"} | arms_apart(moments, truth[split])


def splits() -> Iterator[dict[str, Any]]:
    """Traffic of 200 new units a day split as planned or not: how often, and when, a mismatch is called."""
    for share in (0.5, 0.51, 0.52, 0.55, 0.7):
        units = 200 * np.arange(1, DAYS + 1)
        arm = np.cumsum(np.random.default_rng([SEED, 7]).binomial(200, share, (STREAMS, DAYS)), axis=1)
        evidence = split_evidence(np.stack([arm, units - arm], axis=-1), (0.5, 0.5))
        z = np.abs(arm - units / 2) / np.sqrt(units / 4)
        daily = z > stats.norm.ppf(1 - ALPHA / 2)
        yield {
            "test": "split",
            "planned": 0.5,
            "share": share,
            "holdfast": wrong(evidence),
            "chi_square_daily": float(daily.any(axis=1).mean()),
            "chi_square_once": float(daily[:, -1].mean()),
            "units_half": 200 * float(np.quantile(first_reached(evidence, ALPHA), 0.5, method="higher")),
        }


def fixed_days(effect: float) -> int:
    """Days after which a one-sided t-test on days, looked at once, has the power, for an effect in deviations."""
    for days in range(2, 2000):
        beyond = stats.nct.sf(stats.t.ppf(1 - ALPHA, days - 1), days - 1, effect * math.sqrt(days))
        if beyond >= POWER:
            return days
    raise AssertionError(f"no number of days has the power for {effect}")


def decisions(asked: Answers) -> Iterator[dict[str, Any]]:
    """Days until the releases test decides, beside a t-test planned for exactly this effect."""
    for claim, direction, sign in (("not worse", "below", -1.0), ("worse", "above", 1.0)):
        null = MARGINS[asked.name] if claim == "not worse" else 0.0
        losses = asked.worse_by(null)
        d, low, high = (losses.per_day(each) for each in (losses.candidate - losses.live, losses.low, losses.high))
        chosen = drawn(d.size, 1, 8, 400)
        for effect in EFFECTS:
            moved = np.clip(d + sign * effect * d.std(), low, high)
            stream = (moved[chosen], low[chosen], high[chosen], null, direction)
            ours = first_reached(evidence_path(*stream), ALPHA)
            halves = {
                "betting": first_reached(betting_path(*stream), ALPHA),
                "betting_evenly": first_reached(betting_path(*stream, weights=(1 / 3,) * 3), ALPHA),
                "self_normalised": first_reached(selfnormalised_path(*stream), ALPHA),
                "own_bounds": first_reached(own_bounds(*stream), ALPHA),
                "student": student(moved[chosen], null, direction),
            }
            mean, spread = float((moved - null).mean()), float(moved.std())
            planned = fixed_days(abs(mean) / spread)
            yield {
                "test": "duration",
                "data": asked.name,
                "claim": claim,
                "effect": abs(mean),
                "in_deviations": abs(mean) / spread,
                "half": float(np.quantile(ours, 0.5, method="higher")),
                "power_80": float(np.quantile(ours, POWER, method="higher")),
                **{f"{name}_half": float(np.quantile(each, 0.5, method="higher")) for name, each in halves.items()},
                "betting_80": float(np.quantile(halves["betting"], POWER, method="higher")),
                "fixed_horizon_80": planned,
                "decided_by_then": float((ours <= planned).mean()),
            }


def main() -> None:
    """Measure, print, and write where asked."""
    arguments = options(__doc__ or "")
    asked = [answers(name) for name in FILES if present(name)]
    if not asked:
        sys.exit("none of the data sets is there: see DATA in bench/parts/daylosses.py")
    figures = [
        each
        for measure in (releases, detectors, delays, experiments, decisions)
        for one in asked
        for each in measure(one)
    ]
    figures += [*skewed(), *splits()]
    print(f"{STREAMS:,} streams each; a share near {ALPHA:.0%} has a standard error of {error(ALPHA):.1%}")
    report("sequential", figures, arguments.json)


if __name__ == "__main__":
    main()
