"""The path in this process answers and records as a worker does, tells its stages, and leaves nothing behind."""

import asyncio
import os
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from holdfast.core.clock import SystemClock
from holdfast.core.inputs import read_columns
from holdfast.core.model import Facts, Model
from holdfast.core.protocols import PREDICTIONS
from holdfast.core.routes import RoutedSystem, RoutedVersion, TokenHash
from holdfast.core.signature import Column, Signature
from holdfast.core.spec import Serve
from holdfast.core.transform import Encoding, Transform
from holdfast.engines.files import FileLake
from holdfast.engines.manifest import MemoryManifest
from holdfast.errors import StateError
from holdfast.profiling.inputs import Inputs
from holdfast.profiling.measured import InputFacts
from holdfast.profiling.measuring import measured_recording, measured_repeats
from holdfast.profiling.path import Lakes, ServingPath
from holdfast.profiling.profile import SCRATCH, scratch
from holdfast.profiling.requests import Requests
from holdfast.profiling.stages import STAGES, Stopwatches
from holdfast.security.identity import new_token
from holdfast.state import memory_state

SIGNATURE = Signature(
    columns=(
        Column(name="a", type="number"),
        Column(name="b", type="number"),
        Column(name="kind", type="category", categories=("x", "y"), outside="refuse"),
    ),
    task="regression",
    output="value",
)


class Sum:
    """Answers the sum of the numbers; remembers how many rows it was given at a time."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def run(self, x):
        self.batches.append(len(x))
        return np.nansum(x[:, :2], axis=1).astype(np.float64)


class Shares(Sum):
    """Answers shares of three classes by the sum."""

    def run(self, x):
        parts = np.abs(np.sin(super().run(x)[:, None] + np.arange(3.0))) + 0.1
        return parts / parts.sum(axis=1, keepdims=True)


def model(classes: tuple[str, ...] = ()) -> Model:
    facts = Facts(
        system="s", task="regression", trainer="t", params={}, seed=0, runtime="sum", parity="", rows=0,
        trained_from="", trained_until="",
    )  # fmt: skip
    kinds = (Encoding(name="a"), Encoding(name="b"), Encoding(name="kind", categories=("x", "y")))
    signature = replace(SIGNATURE, classes=classes)
    return Model(signature, Transform(columns=kinds), Shares() if classes else Sum(), facts)


def inputs(a: list[float] | None = None) -> Inputs:
    values = np.array(a) if a is not None else np.arange(40.0)
    n = len(values)
    rows = read_columns(SIGNATURE, {"a": values, "b": values, "kind": ["x", "y"] * (n // 2) + ["x"] * (n % 2)})
    return Inputs(facts=InputFacts(origin="hold-out", rows=n), rows=rows, keys=[None] * n, units=[None] * n)


class Rig:
    """Requests of a model with numbers and a category, and what came of them."""

    def __init__(self, directory: Path, record: str = "process", classes: tuple[str, ...] = ()) -> None:
        self.directory = directory
        self.model = model(classes)
        self.secret, sha256 = new_token()
        self.token = TokenHash(sha256=sha256, role="client", name="me")
        version = RoutedVersion(version="3", artifact="a", directory="")
        self.routed = RoutedSystem(
            task="regression", output="value", classes=classes, live=version, serve=Serve(record=record)
        )
        self.requests = Requests("s", SIGNATURE, inputs(), key="", unit="", token=self.secret)

    def run(self, *ticks: list[bytes], watches: Stopwatches | None = None):
        lakes = Lakes(self.directory)

        async def asked():
            path = ServingPath("s", self.routed, self.model, lakes, SystemClock(), self.token, watches)
            try:
                return await (path.plain(ticks) if watches is None else path.timed(ticks)), path.recorded
            finally:
                path.close()

        try:
            return asyncio.run(asked())
        finally:
            lakes.close()

    def recorded(self):
        lake = FileLake(self.directory, MemoryManifest())
        try:
            return lake.scan(PREDICTIONS.name, "s")
        finally:
            lake.close()


@pytest.mark.parametrize("record", ["process", "disk", "memory"])
def test_what_is_sent_is_answered_by_the_model_and_recorded(tmp_path: Path, record: str) -> None:
    rig = Rig(tmp_path, record)
    taken, written = rig.run(rig.requests.of("object", 1)[:16], rig.requests.of("named", 8)[:2])
    assert taken.requests == 18
    assert written == 32 or record == "memory"
    found = rig.recorded().sort("in.a")
    assert found.height == 32
    assert found["version"].unique().to_list() == ["3"]
    assert (found["out.value"] == 2 * found["in.a"]).all()


def test_requests_of_one_tick_are_run_at_once(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.run(rig.requests.of("object", 1)[:16])
    assert rig.model.runtime.batches == [16]


def test_every_stage_of_a_usual_request_is_seen(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    ticks = [rig.requests.of("object", 1)[:16]] * 20
    taken, _ = rig.run(*ticks, watches=Stopwatches())
    assert taken.requests == 320
    assert [name for name in STAGES if taken.stages_s[name] <= 0] == []
    # Once per tick each, in and out: nothing is measured request by request.
    assert taken.switches["run"] == len(ticks)
    assert taken.switches["decode"] == len(ticks)


def test_an_unusual_request_is_answered_too(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    taken, written = rig.run(rig.requests.of("general", 1)[:4])
    assert (taken.requests, written) == (4, 4)


def test_a_refusal_ends_the_measuring_with_its_reason(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    bad = rig.requests.of("object", 1)[0].replace(b'"x"', b'"z"')
    with pytest.raises(StateError, match=r"could not be answered while measuring.*'kind'"):
        rig.run([bad])


def test_recording_is_measured_with_and_without_texts(tmp_path: Path) -> None:
    lakes = Lakes(tmp_path)
    found = measured_recording("s", "process", model(), inputs(), lakes)
    lakes.close()
    assert found.record == "process"
    assert found.row_bytes > 8 * 3
    assert 0 <= found.without_texts_us <= found.whole_us
    assert 0 <= found.write_us <= found.whole_us
    assert found.sync_us is None


def test_answers_of_several_classes_are_measured_as_any_other(tmp_path: Path) -> None:
    classes = ("calm", "rain", "storm")
    rig = Rig(tmp_path / "path", classes=classes)
    ticks = [rig.requests.of("object", 1)[:16], rig.requests.of("named", 1)[:16]] * 5
    taken, written = rig.run(*ticks, watches=Stopwatches())
    assert (taken.requests, written) == (160, 160)
    assert taken.switches["run"] == len(ticks), "they take the fast lane, a tick at once"
    assert [name for name in STAGES if taken.stages_s[name] <= 0] == []
    lakes = Lakes(tmp_path / "recording")
    found = measured_recording("s", "process", model(classes), inputs(), lakes)
    lakes.close()
    assert found.row_bytes > 8 * 5
    assert measured_repeats(model(classes), inputs([1.0, 2.0] * 32).rows, 10).share == pytest.approx(48 / 64)


@pytest.mark.parametrize(
    ("a", "size", "share"),
    [
        ([1.0, 2.0, 3.0, 4.0], 10, 0.0),
        ([1.0] * 8, 10, 0.0),
        ([1.0, 2.0] * 32, 10, 48 / 64),
        (list(np.arange(64.0)) * 2, 10, 0.0),
        (list(np.arange(64.0)) * 2, 100, 0.5),
    ],
)
def test_rows_that_come_again_are_those_a_cache_would_have_kept(a: list[float], size: int, share: float) -> None:
    # A cache looks a batch of 16 up at once, so what comes again within one is not kept yet.
    assert measured_repeats(model(), inputs(a).rows, size).share == pytest.approx(share)


def test_the_scratch_directory_is_gone_afterwards_and_what_the_dead_left_too(tmp_path: Path) -> None:
    state = memory_state(tmp_path)
    left = tmp_path / f"{SCRATCH}left"
    left.mkdir()
    (left / "segment").write_bytes(b"x")
    with scratch(state) as mine:
        assert not left.exists()
        (mine / "s").mkdir()
        with scratch(state) as other:
            assert mine.exists(), "another profile that runs took it away"
            assert other != mine
    assert os.listdir(tmp_path) == []


def test_the_scratch_directory_is_gone_after_a_failure(tmp_path: Path) -> None:
    with pytest.raises(ArithmeticError), scratch(memory_state(tmp_path)):
        raise ArithmeticError
    assert os.listdir(tmp_path) == []
