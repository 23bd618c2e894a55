"""The keeper, and a command, count what was rolled."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from holdfast.cli.app import main
from holdfast.core.answerer import Answerer
from holdfast.core.clock import SystemClock
from holdfast.core.inputs import read_frame
from holdfast.core.records import Version
from holdfast.core.specfile import read_spec
from holdfast.opening import open_system
from holdfast.processes.keeper import Keeper
from holdfast.serve.recording import Recorder, RowMeta
from holdfast.state import State, open_state, put_in_force

pytestmark = pytest.mark.slow

ROWS = 50


def answer(state: State, at: np.ndarray) -> None:
    """Answers of the live version, recorded and sealed as a worker does."""
    with state.catalog.read() as tx:
        version = tx.find(Version, "orders")[-1]
    signature = state.model(version).signature
    frame = pl.DataFrame({c.name: [None if c.type == "category" else 1.0] * at.size for c in signature.columns})
    by = Answerer(
        system="orders", version=version.id, stage="live", release="", signature=signature, signature_hash="s"
    )
    meta = RowMeta(request_id=[f"r{n}" for n in range(at.size)], predicted_at=at)
    recorder = Recorder(state.lake.writer)
    rows = read_frame(signature, frame)
    recorder.record_predictions(by, rows, np.full(at.size, 0.5), meta, queue_us=np.zeros(at.size), run_us=1.0)
    recorder.close()


@pytest.fixture
def kept(deployed: Path) -> Callable[[], list[Path]]:
    """The files of counts in a state with answers of yesterday whose file names a monitor for drift."""
    file = deployed / "holdfast.yaml"
    file.write_text(file.read_text(encoding="utf-8") + "  - {check: drift, every: 1d, window: 7d}\n")
    state, clock = open_state(deployed / "state"), SystemClock()
    put_in_force(state, read_spec(file), path=file, text=file.read_text(), now=clock.now(), by="test")
    yesterday = int((clock.now() - timedelta(days=1)).timestamp() * 1e6)
    answer(state, yesterday + np.arange(ROWS, dtype=np.int64) * 1_000_000)
    state.close()
    return lambda: sorted((deployed / "state" / "lake").rglob("*.counts-*"))


def test_the_keeper_counts_what_it_rolled(deployed: Path, kept: Callable[[], list[Path]]) -> None:
    state = open_state(deployed / "state")
    keeper = Keeper(state, SystemClock())
    try:
        assert kept() == []
        keeper.round()  # rolls at its end
        keeper.round()
        assert kept()
        live = open_system(state, "orders", SystemClock())
        assert list(live.count_answers()) == []
    finally:
        keeper.close()
        state.close()


def test_the_command_counts_and_counts_again(
    deployed: Path,
    kept: Callable[[], list[Path]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def said(*arguments: str) -> str:
        monkeypatch.setattr("sys.argv", ["holdfast", "buckets", "--state", str(deployed / "state"), *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        return capsys.readouterr().out

    first = json.loads(said("--json"))
    assert first["rows"] == ROWS
    assert "nothing to count" in said()
    [path] = kept()
    path.write_bytes(b"")
    assert json.loads(said("--json")) == first
    assert json.loads(said("--json", "--again")) == first
    assert f"{ROWS} rows in {first['parts']} file" in said("--again")
