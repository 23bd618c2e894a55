"""A feed with a time whose hour decides the label: drafted, trained, served, recorded, explained and replayed."""

import asyncio
from datetime import timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import httpx
import numpy as np
import polars as pl
import pytest
from msgspec.structs import replace

from holdfast.core.clock import SystemClock
from holdfast.core.records import Run
from holdfast.core.signature import Column
from holdfast.core.spec import SystemSpec
from holdfast.core.specdump import dump_spec
from holdfast.core.specfile import parse_spec
from holdfast.flow import lineage
from holdfast.flow.drafting import draft
from holdfast.flow.registry import get_version
from holdfast.opening import open_system
from holdfast.serve.dataplane import DataPlane
from holdfast.serve.recording import Recorder
from holdfast.state import State, open_state, put_in_force
from holdfast.wire.http import DataPlaneApp

pytestmark = pytest.mark.slow

DAYS, ROWS_A_DAY = 60, 40
ZONE = "America/New_York"


def write_feeds(directory: Path) -> None:
    """Orders of the last two months. What was booked in the evening, in New York, ends late; nothing else tells."""
    rng = np.random.default_rng(7)
    n = DAYS * ROWS_A_DAY
    start = SystemClock().now().replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=DAYS)
    at = [start + timedelta(days=i // ROWS_A_DAY, minutes=20 * (i % ROWS_A_DAY)) for i in range(n)]
    before = rng.integers(200, 9000, n).tolist()
    booked = [each - timedelta(minutes=minutes) for each, minutes in zip(at, before, strict=True)]
    evening = np.array([each.astimezone(ZoneInfo(ZONE)).hour >= 17 for each in booked])
    late = rng.random(n) < np.where(evening, 0.8, 0.2)
    orders = pl.DataFrame(
        {
            "id": [f"o{i}" for i in range(n)],
            "scheduled_at": at,
            "listed_at": [each - timedelta(hours=2) for each in at],
            "booked_at": [None if i % 50 == 0 else each for i, each in enumerate(booked)],
            "load": rng.normal(size=n),
        }
    )
    orders.write_csv(directory / "orders.csv", datetime_format="%Y-%m-%dT%H:%M:%SZ")
    ended = [each + timedelta(hours=3) for each in at]
    pl.DataFrame({"id": orders["id"], "ended_at": ended, "late": late.astype(int)}).write_parquet(
        directory / "ends.parquet"
    )


def trained(state: State, spec: SystemSpec, path: Path) -> Run:
    """The run of a first training of a system."""
    text = dump_spec(spec)
    put_in_force(state, parse_spec(text), path=path, text=text, now=SystemClock().now(), by="test")
    system = open_system(state, spec.system, SystemClock(), waits=True)
    system.submit_training("a test")
    while system.push_on():
        pass
    with state.catalog.read() as tx:
        [run] = tx.find(Run, spec.system)
    assert run.state == "succeeded", run.message
    return run


def test_a_label_that_depends_on_the_hour_is_learnt_served_recorded_and_replayed(tmp_path: Path) -> None:
    write_feeds(tmp_path)
    spec = draft(tmp_path, label="ends.late", system="orders", timezone=ZONE).spec
    assert spec.data.columns["booked_at"] == Column(name="booked_at", type="time")
    assert set(spec.data.columns) == {"booked_at", "load"}

    state = open_state(tmp_path / "state")
    run = trained(state, spec, tmp_path / "holdfast.yaml")
    without = replace(spec, system="blind", data=replace(spec.data, columns={"load": spec.data.columns["load"]}))
    without = replace(without, data=replace(without.data, expect=replace(spec.data.expect, complete={})))
    blind = trained(state, without, tmp_path / "blind.yaml")
    assert run.metrics["roc_auc"] > 0.7 > 0.6 > blind.metrics["roc_auc"]

    with state.catalog.read() as tx:
        routes = state.routes(tx)
        model = state.model(get_version(tx, "orders", "1"))
    [booked] = [column for column in model.signature.columns if column.type == "time"]
    assert (booked.low, booked.high) == (None, None)
    assert [column.part for column in model.transform.columns if column.name == "booked_at"] == [
        "hour", "weekday", "day_of_year",
    ]  # fmt: skip

    clock = SystemClock()
    plane = DataPlane(state.load_model, Recorder(state.lake.writer), clock)
    plane.follow(routes)
    app = DataPlaneApp(plane, clock, lambda: "made")

    async def ask(row: dict[str, object]) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://h") as client:
            return await client.post("/predict/orders", json=row)

    rows = [
        {"id": "evening", "load": 0.1, "booked_at": "2026-07-01T21:30:00Z"},  # 17:30 in New York, in summer
        {"id": "day", "load": 0.1, "booked_at": "2026-01-01T21:30:00Z"},  # 16:30 in winter
    ]
    with asyncio.Runner() as runner:
        answered = runner.run(ask({"rows": rows}))
        refused = runner.run(ask({"id": "x", "load": 0.1, "booked_at": "2026-07-01T21:30:00"}))
    assert answered.status_code == 200, answered.text
    evening, day = (each["probability"] for each in answered.json()["predictions"])
    assert evening > 0.6 > 0.4 > day
    assert refused.status_code == 422

    with state.catalog.read() as tx:
        for place, output in enumerate((evening, day)):
            again = lineage.replay(tx, state.lake, "orders", f"made:{place}", state.model)
            assert again.agrees
            assert again.recorded == output
        first = lineage.why(tx, state.lake, "orders", "made:0", state.model).influences[0]
    assert (first.column, first.value) == ("booked_at", "2026-07-01T21:30:00Z")
    state.close()
