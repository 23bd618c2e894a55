"""A plug-in of one system that is gone, or takes other options by now, hides neither the rest of it nor the others."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from holdfast.core.clock import ManualClock
from holdfast.core.evidence import Limit
from holdfast.core.spec import Data, Decide, Gate, Label, Model, Monitor, ReleasePlan, Step, SystemSpec
from holdfast.state import memory_state, put_in_force
from holdfast.testing import START
from holdfast.views import Status, Views

DAY = timedelta(days=1)
DRIFT = Monitor(name="drift", check="drift", window=7 * DAY)
SPEC = SystemSpec(
    system="orders",
    data=Data(
        feeds={}, rows="orders", key="id", label=Label(feed="orders", column="late", known_at="ended_at"), columns={}
    ),
    model=Model(task="classification", trainer="linear"),
    gates=(Gate(check="quality", limit=Limit(at_most=0.5)),),
    release=ReleasePlan(steps=(Step(stage="live"),), decide=Decide(loss="brier", margin=0.01)),
    monitors=(DRIFT,),
)
Shown = Callable[[SystemSpec], Status]


@pytest.fixture
def shown(tmp_path: Path) -> Any:
    """The status of a state with a good system and one more, which was put in force when it could be used."""
    state = memory_state(tmp_path)

    def status(other: SystemSpec) -> Status:
        for spec in (SPEC, replace(other, system="other")):
            put_in_force(state, spec, path=Path(f"{spec.system}.yaml"), text="", now=START, by="me")
        return Views(state, ManualClock(START)).status()

    yield status
    state.close()


@pytest.mark.parametrize(
    ("monitor", "why"),
    [
        (replace(DRIFT, options={"an_older_option": 1}), "check 'drift' cannot be made: TypeError: "),
        (replace(DRIFT, check="of_a_plugin"), "check 'of_a_plugin' cannot be made: no check of kind 'of_a_plugin'"),
    ],
    ids=["an option", "a check"],
)
def test_a_check_that_cannot_be_made_says_so_beside_its_monitor(shown: Shown, monitor: Monitor, why: str) -> None:
    good, other = shown(replace(SPEC, monitors=(monitor, replace(DRIFT, name="second")))).systems
    assert (good.error, other.error) == ("", "")
    shares = [view.share.why if view.share else "" for view in other.monitors]
    assert shares[0].startswith(why)
    assert shares[1] == "not run yet"


def test_a_system_that_cannot_be_shown_says_why_and_the_others_are(
    shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(self: Views, spec: SystemSpec, *_: object) -> list[object]:
        if spec.system == "other":
            raise ImportError("no module named 'a_plugin'")
        return []

    monkeypatch.setattr(Views, "_days", gone)
    good, other = shown(SPEC).systems
    assert (good.error, other.error) == ("", "ImportError: no module named 'a_plugin'")
