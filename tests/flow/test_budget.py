"""The split of the budget as it is told: what the monitors themselves would spend, within the budget, with reasons."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from holdfast.core.evidence import Grade, Limit, Reading, Verdict
from holdfast.core.spec import Data, Decide, Gate, Label, Model, Monitor, ReleasePlan, Step, SystemSpec
from holdfast.flow.budget import OWN, SHORT, STATED, Share, level_spent, planned, spent, table
from holdfast.flow.monitors import Monitoring

DAY = timedelta(days=1)
WEEK = 7 * DAY
QUALITY = Monitor(check="quality", name="quality", options={"metric": "brier"})
WEEKLY = Monitor(check="drift", name="drift", every=WEEK, window=WEEK)
MOVING = Monitor(check="drift", name="drift.moving", window=WEEK)
DAILY = Monitor(check="drift", name="drift.daily")
SILENCE = Monitor(check="silence", name="silence")
SLICES = Monitor(check="slices", name="slices", every=WEEK, window=WEEK)
MakeSpec = Callable[..., SystemSpec]
SPEC = SystemSpec(
    system="orders",
    data=Data(
        feeds={}, rows="orders", key="id", label=Label(feed="orders", column="late", known_at="ended_at"), columns={}
    ),
    model=Model(task="classification", trainer="linear"),
    gates=(Gate(check="quality", options={"metric": "brier"}, limit=Limit(at_most=0.5)),),
    release=ReleasePlan(steps=(Step(stage="live"),), decide=Decide(loss="brier", margin=0.01)),
)


def a_verdict(**facts: Any) -> Verdict:
    reading = Reading(name="psi", value=1.0)
    return Verdict(**{"grade": Grade.PASS, "check": "drift", "reading": reading, "why": "", "monitor": "m", **facts})


@pytest.mark.slow
@pytest.mark.parametrize("monitors", [(QUALITY, DAILY), (QUALITY, SILENCE, MOVING), (QUALITY, WEEKLY), (DAILY,)])
def test_it_is_what_the_monitors_themselves_may_spend(watched: Any, monitors: tuple[Monitor, ...]) -> None:
    spec = replace(watched.spec, monitors=monitors)
    reference = replace(watched.reference, promised={"brier": 0.2})
    levels = Monitoring(spec, watched.task, watched.live).levels(reference, {})
    for share in planned(spec, days=len(reference.blocks)):
        known = levels.get(share.monitor)
        expected = 0.0 if known is None else known.level + known.look
        assert (share.level or 0.0) == pytest.approx(expected)
        assert bool(share.why) == (not expected)


@given(
    st.lists(st.tuples(st.sampled_from([QUALITY, WEEKLY, DAILY, SILENCE, SLICES]), st.integers(1, 30)), max_size=6),
    st.floats(0.05, 10),
    st.integers(0, 400),
)
def test_whatever_is_watched_the_shares_stay_within_the_budget(
    chosen: list[tuple[Monitor, int]], budget: float, days: int
) -> None:
    monitors = tuple(replace(m, name=f"{m.name} {i}", every=d * DAY) for i, (m, d) in enumerate(chosen))
    spec = replace(SPEC, monitors=monitors, false_alarms=budget)
    shares = planned(spec, days=days)
    assert [share.monitor for share in shares] == [monitor.name for monitor in spec.monitors]
    assert sum(share.a_month for share in shares) <= budget + 1e-9
    assert all((share.level is None) == bool(share.why) for share in shares)


def test_what_takes_no_share_says_why(a_spec: MakeSpec) -> None:
    stated = replace(DAILY, name="stated", limit=Limit(at_most=0.3))
    spec = a_spec(monitors=(QUALITY, WEEKLY, stated, SILENCE, SLICES))
    assert [share.why for share in planned(spec, days=0)] == [
        "",
        SHORT,
        STATED,
        OWN,
        "judged by its own level of 0.01 a look, 0.043 a month beside the budget",
    ]


def test_what_was_spent_is_told_by_the_last_verdict() -> None:
    assert spent(WEEKLY, a_verdict(level=0.05)) == Share(monitor="drift", looks=30 / 7, level=0.05)
    assert spent(WEEKLY, None).why == "not run yet"
    short = "limits stood in (not calibrated: history has 3 disjoint windows)"
    assert spent(WEEKLY, a_verdict(calibrated=False, why=short)).why == "history has 3 disjoint windows"
    assert spent(WEEKLY, a_verdict(calibrated=False, why="all is as it should be: x")).why == SHORT
    assert spent(WEEKLY, a_verdict(grade=Grade.UNKNOWN)).why == "nothing could be judged at its last look"
    assert spent(SILENCE, a_verdict(calibrated=False)).why == OWN


@pytest.mark.parametrize(
    "worst",
    [
        a_verdict(grade=Grade.UNKNOWN),
        a_verdict(grade=Grade.FAIL, calibrated=False, level=0.02, why="x (not calibrated: history has 3 windows)"),
    ],
    ids=["not measured", "measured too seldom"],
)
def test_one_column_that_is_not_calibrated_does_not_speak_for_the_rest(worst: Verdict) -> None:
    assert level_spent([worst]) is None
    level = level_spent([worst, a_verdict(level=0.05), a_verdict(level=0.05)])
    assert spent(WEEKLY, worst, level) == Share(monitor="drift", looks=30 / 7, level=0.05)


def test_a_table_has_a_dash_where_nothing_is_known() -> None:
    shares = [Share(monitor="drift", looks=30 / 7, level=0.05), Share(monitor="silence", looks=30.0, why=OWN)]
    assert table(shares) == [("  drift", "4.29", "0.05", "0.21", ""), ("  silence", "30", "-", "-", OWN)]
