"""The demonstration's traffic: recorded days, sent to a live system one request at a time."""

import re
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import polars as pl

from holdfast.core.clock import stopwatch_s
from holdfast.core.specfile import read_spec
from holdfast.errors import HoldfastError
from holdfast.flow.joins import assemble

READY_WITHIN_S = 90.0
BATCH = 8
"""Flights in a request."""
TOKEN = re.compile(r"admin token[^:]*: (\S+)")
URL = re.compile(r"POST (http://\S+)/predict/")


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """What came of the traffic."""

    prediction_id: str
    requests: int
    predictions: int
    ready_s: float
    """From `up` to the first time a version was ready to answer."""
    took_s: float


def replay_traffic(
    up: "subprocess.Popen[bytes]",
    directory: Path,
    file: str,
    state: str,
    *,
    since: datetime,
    say: Callable[[str], None],
) -> Replayed:
    """Wait until a version answers, then send every flight that was listed after `since`.

    Raises HoldfastError when nothing answers in time, or not with 200.
    """
    began = stopwatch_s()
    url, token = _announced(up, say)
    spec = read_spec(directory / file)
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=30) as client:
        _await_ready(client, spec.system, began, up)
        ready_s = stopwatch_s() - began
        tables = {name: pl.read_parquet(directory / feed.from_) for name, feed in spec.data.feeds.items()}
        rows = assemble(spec.data, tables, since=since.astimezone(UTC))
        if rows.is_empty():
            raise HoldfastError(f"no row of '{spec.data.rows}' became known after {since:%Y-%m-%d}; nothing to send")
        started = stopwatch_s()
        answered = [_send(client, spec.system, rows[i : i + BATCH], spec) for i in range(0, rows.height, BATCH)]
        took_s = stopwatch_s() - started
    ids = [prediction for answer in answered for prediction in answer]
    say(
        f"ready {ready_s:.1f} s after `up`; {len(answered):,} requests with {len(ids):,} flights were answered in "
        f"{took_s:.1f} s, each recorded before its answer was sent"
    )
    return Replayed(prediction_id=ids[0], requests=len(answered), predictions=len(ids), ready_s=ready_s, took_s=took_s)


def _announced(up: "subprocess.Popen[bytes]", say: Callable[[str], None]) -> tuple[str, str]:
    """URL and token, read from what `up` prints."""
    assert up.stdout is not None
    url = token = ""
    for line in up.stdout:
        text = line.decode().rstrip()
        say(f"  {TOKEN.sub('admin token, shown this once: hf_...', text) if 'token=' not in text else _hidden(text)}")
        url = url or (found.group(1) if (found := URL.search(text)) else "")
        token = token or (found.group(1) if (found := TOKEN.search(text)) else "")
        if "Ctrl+C" in text:
            break
    if not url or not token:
        raise HoldfastError("`holdfast up` did not say where it serves; its messages are above")
    return url, token


def _hidden(text: str) -> str:
    return re.sub(r"token=\S+", "token=hf_...", text)


def _await_ready(client: httpx.Client, system: str, began: float, up: "subprocess.Popen[bytes]") -> None:
    while stopwatch_s() - began < READY_WITHIN_S:
        if up.poll() is not None:
            raise HoldfastError(f"`holdfast up` ended with code {up.returncode}; its messages are above")
        try:
            if client.get(f"/v2/models/{system}/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise HoldfastError(f"no version of '{system}' answered within {READY_WITHIN_S:.0f} s; see `holdfast status`")


def _send(client: httpx.Client, system: str, rows: pl.DataFrame, spec: Any) -> list[str]:
    """One request; returns the ids of its predictions."""
    names = list(spec.data.columns)
    body = {
        "rows": rows.select(names).to_dicts(),
        "keys": rows["key"].to_list(),
        "units": rows["unit"].to_list(),
        "event_at": [at.isoformat() for at in rows["event_at"]],
        "features_known_at": [at.isoformat() for at in rows["known_at"]],
    }
    answer = client.post(f"/predict/{system}", json=body)
    if answer.status_code != 200:
        raise HoldfastError(f"the live system answered {answer.status_code}: {answer.text[:300]}")
    return [str(prediction["prediction_id"]) for prediction in answer.json()["predictions"]]
