"""Servers taking turns: started, checked for right answers, loaded, looked at from outside, stopped."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path

import msgspec
import numpy as np
import psutil

from parts.bodies import requests
from parts.flights import NotAvailable, Trained
from parts.load import Load, drive, write_requests
from parts.servers import FLOOR, Server, Up, cpu_s, memory_mb, settle

CHECKED = 40
"""Requests of each kind whose answers are compared before a load."""
CLOSE = 1e-5
"""How far an answer may be from ONNX Runtime's own: a float32 written as text, and sums in another order."""
WARM_S = 1.0
SLOW = 0.6
"""Share of the seconds that a slow server is loaded for."""

FAILS = (NotAvailable, OSError, HTTPException, RuntimeError, psutil.Error)
"""What a server may do without spoiling the others' turns."""

Figures = dict[str, float]


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """What a server is asked. Without a form its main one."""

    name: str
    connections: int
    rows: int = 1
    form: str = ""


class Turns:
    """Figures by server and workload, one entry for each repeat; and why some are missing."""

    def __init__(self, trained: Trained, *, seconds: float) -> None:
        self.seconds = seconds
        self.figures: dict[tuple[str, str], list[Figures]] = {}
        self.starts: dict[str, list[float]] = {}
        self.floor: list[Figures] = []
        self.absent: dict[str, str] = {}
        """Why a server, or ``server: workload``, has no figures."""
        self.forms: dict[str, str] = {}
        """The main form of each server."""
        self.ours = {name: str(trained.facts[name]) for name in ("runtime", "parity")}
        """With what Holdfast runs the model, and how that was proved equal."""
        self._trained = trained
        self._rows = trained.rows.rows()

    def take(self, server: Server, workloads: Sequence[Workload], turn: str) -> None:
        """One start of a server, with all that it is asked."""
        if server.name in self.absent:
            return
        print(f"{turn}: {server.name}", flush=True)
        try:
            with server.start() as up:
                sample = {form: self._requests(server, up, form, 1)[0] for form in server.places}
                mains = {form: sample[form] for form in list(server.places)[:2]}
                took_s, main = up.first_answer(mains)
                self.starts.setdefault(server.name, []).append(took_s)
                self.forms[server.name] = main
                print(f"  first answer after {took_s:.2f} s", flush=True)
                settle(up)
                for workload in workloads:
                    self._ask(server, up, workload, main, is_cold=workload is workloads[0])
        except FAILS as why:
            self.absent[server.name] = _said(why)
            print(f"  not available: {_said(why)}", flush=True)

    def parts(self, matrix: Path) -> None:
        """The floor's parts, measured in a process of their own."""
        argv = [sys.executable, str(FLOOR), "parts", "--model", str(self._trained.model), "--rows", str(matrix)]
        done = subprocess.run(argv, stdout=subprocess.PIPE, check=True)
        self.floor.append(json.loads(done.stdout))
        print("  parts: " + "  ".join(f"{name} {value:.1f}" for name, value in self.floor[-1].items()), flush=True)

    def _ask(self, server: Server, up: Up, workload: Workload, main: str, *, is_cold: bool) -> None:
        label = f"{server.name}: {workload.name}"
        if label in self.absent:
            return
        form = workload.form or main
        made = self._requests(server, up, form, workload.rows)
        try:
            if server.name != "bare HTTP":
                self._check(server, up, made, form, workload.rows)
            file = self._trained.directory / "requests.bin"
            write_requests(file, made)
            if is_cold:
                drive(up.url, file, workload.connections, WARM_S)
            figures = self._measured(server, up, file, workload)
        except FAILS as why:
            self.absent[label] = _said(why)
            print(f"  {workload.name}: not available: {_said(why)}", flush=True)
            return
        self.figures.setdefault((server.name, workload.name), []).append(figures)
        print(
            f"  {workload.name}: {figures['requests_per_s']:,.0f}/s  p50/p99 {figures['p50_ms']:.2f}/"
            f"{figures['p99_ms']:.2f} ms  CPU {figures['worker_cpu_us']:.1f} of {figures['cpu_us']:.1f} us  "
            f"RSS {figures['rss_mb']:.0f} MB",
            flush=True,
        )

    def _requests(self, server: Server, up: Up, form: str, rows: int) -> list[bytes]:
        path, kind = server.places[form]
        return requests(kind, path, up.headers, self._rows, rows)

    def _check(self, server: Server, up: Up, made: Sequence[bytes], form: str, rows: int) -> None:
        """Compare answers with ONNX Runtime's. Raises NotAvailable where one is not right, or none of a version."""
        kind = server.places[form][1]
        answered: Counter[str] = Counter()
        checked = CHECKED * len(server.states) ** 2
        for place in range(0, len(made), max(1, len(made) // checked)):
            status, body, headers = up.ask(made[place])
            if not 200 <= status < 300:
                raise NotAvailable(f"answers {status} {' '.join(body[:200].decode(errors='replace').split())}")
            try:
                found = np.array(kind.outputs(body, headers))
            except (ValueError, KeyError, TypeError) as error:
                raise NotAvailable(f"answers what is not understood ({error!r}): {body[:200]!r}") from error
            wanted = {s: self._trained.answers[s][place * rows : (place + 1) * rows] for s in server.states}
            by = [s for s, each in wanted.items() if found.shape == each.shape and np.allclose(found, each, 0, CLOSE)]
            if not by:
                raise NotAvailable(f"answers wrong: {found[:3]} instead of {wanted['live'][:3]}")
            answered[by[0]] += 1
        if missing := set(server.states) - set(answered):
            raise NotAvailable(f"no answer came from {', '.join(missing)}")

    def _measured(self, server: Server, up: Up, file: Path, workload: Workload) -> Figures:
        workers = {each.pid for each in up.workers()}
        before = cpu_s(up)
        seconds = self.seconds * (SLOW if server.is_slow else 1)
        load = drive(up.url, file, workload.connections, seconds)
        after = cpu_s(up)
        if load.failed or not load.requests:
            raise NotAvailable(f"{load.failed} of {load.requests} requests were not answered with 2xx")
        spent = {pid: seconds - before.get(pid, 0.0) for pid, seconds in after.items()}
        return _figures(load, sum(spent.values()), sum(spent.get(pid, 0.0) for pid in workers), up)


def _said(why: Exception) -> str:
    return str(why) if isinstance(why, NotAvailable) else f"{type(why).__name__}: {why}"


def _figures(load: Load, cpu_s: float, worker_cpu_s: float, up: Up) -> Figures:
    resident_mb = memory_mb(up)
    worker_mb = [resident_mb.get(each.pid, 0.0) for each in up.workers()]
    return {
        "requests_per_s": load.requests / load.seconds,
        "p50_ms": load.p50_ms,
        "p99_ms": load.p99_ms,
        "cpu_us": cpu_s / load.requests * 1e6,
        "worker_cpu_us": worker_cpu_s / load.requests * 1e6,
        "rss_mb": sum(resident_mb.values()),
        "worker_rss_mb": max(worker_mb, default=0.0),
    }
