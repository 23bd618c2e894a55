"""What `holdfast status` says of a loss: what it rests on, and what it is watched against."""

from datetime import date
from pathlib import Path

import msgspec
import pytest

from holdfast.cli.status import _system
from holdfast.core.clock import SystemClock
from holdfast.core.records import Run, Version
from holdfast.state import open_state
from holdfast.views import Day, SystemView, Views


@pytest.mark.parametrize(
    ("labelled", "said"), [(3, "newest 0.2000 on 3 rows, promised"), (500, "newest 0.2000, promised")]
)
def test_a_loss_on_few_rows_says_how_many(labelled: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    day = Day(day=date(2026, 5, 1), rows=600, labelled=labelled, loss=0.2)
    _system(SystemView(system="orders", live="1", canary="", loss="brier", promised=0.3, days=[day]))
    assert said in capsys.readouterr().out


@pytest.mark.slow
def test_the_promise_that_is_shown_is_the_one_that_is_watched(deployed: Path) -> None:
    state = open_state(deployed / "state")
    with state.catalog.begin() as tx:
        version = tx.get(Version, "orders", "2")
        assert version is not None
        run = tx.get(Run, "orders", version.run)
        assert run is not None
        worst = [dict.fromkeys(run.folds[0] if run.folds else {"brier": 0.0, "log_loss": 0.0}, 0.987)]
        tx.put(msgspec.structs.replace(run, folds=worst))
    try:
        assert Views(state, SystemClock()).status().systems[0].promised == 0.987
    finally:
        state.close()
