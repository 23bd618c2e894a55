"""Servers taking turns, alone or side by side: started, checked for right answers, loaded, looked at, stopped."""

import json
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
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
TURNS = 4
"""Loads of each of two servers side by side, for one workload in one repeat."""
TURN_S = 1.0
"""How long such a load lasts: whatever slows the machine down for longer meets both. wrk counts in whole seconds."""
BASE = "base: "
"""Begins the reason where it was the base that failed: the server is asked again in the next repeat."""
SLOW = 0.6
"""Share of the seconds that a slow server is loaded for."""

FAILS = (NotAvailable, OSError, HTTPException, RuntimeError, psutil.Error)
"""What a server may do without spoiling the others' turns."""


class BaseFails(Exception):
    """The base failed, and with it what was measured beside it: of the other server that says nothing."""


Figures = dict[str, float]


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """What a server is asked. Without a form its main one."""

    name: str
    connections: int
    rows: int = 1
    form: str = ""
    base_connections: int = 0
    """Connections to the base beside it, where they are others."""


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """A server that was started and has answered."""

    server: Server
    up: Up
    form: str
    """Its main form."""
    took_s: float
    """Until the first answer."""


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One of two servers, and with what it is loaded."""

    begun: Begun
    file: Path
    connections: int


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """What two loads found, one right after the other: of a server and of the base beside it."""

    server: Figures
    base: Figures
    waiting: float
    """Share of a core that the one took which was not loaded."""

    def ratio(self, figure: str) -> float:
        """A figure of the server by that of the base."""
        return self.server[figure] / self.base[figure]


Pairs = Mapping[tuple[str, str], Sequence[Pair]]
"""By server and workload, those of all repeats."""


def medians(found: Sequence[Figures]) -> Figures:
    """Of each figure."""
    return {name: statistics.median(one[name] for one in found) for name in found[0]}


class Turns:
    """Figures by server and workload, one entry for each repeat; and why some are missing."""

    def __init__(self, trained: Trained, *, seconds: float) -> None:
        self.seconds = seconds
        self.figures: dict[tuple[str, str], list[Figures]] = {}
        self.pairs: dict[tuple[str, str], list[Pair]] = {}
        self.starts: dict[str, list[float]] = {}
        self.floor: list[Figures] = []
        self.absent: dict[str, str] = {}
        """Why a server, or ``server: workload``, has no figures, or those of fewer repeats: see `BASE`."""
        self.forms: dict[str, str] = {}
        """The main form of each server."""
        self.ours = {name: str(trained.facts[name]) for name in ("runtime", "parity")}
        """With what Holdfast runs the model, and how that was proved equal."""
        self._trained = trained
        self._rows = trained.rows.rows()

    def take(self, server: Server, workloads: Sequence[Workload], turn: str) -> None:
        """One start of a server, with all that it is asked."""
        if self._is_out(server.name):
            return
        print(f"{turn}: {server.name}", flush=True)
        try:
            with self._begun(server) as begun:
                self._note_start(begun)
                settle(begun.up)
                for workload in workloads:
                    self._ask(begun, workload, is_cold=workload is workloads[0])
        except FAILS as why:
            self._leave_out(server.name, why)

    def take_beside(self, base: Server, server: Server, workloads: Sequence[Workload], turn: str) -> None:
        """One start of a server beside the base: both stay up, and each workload loads now the one, now the other."""
        if self._is_out(server.name):
            return
        print(f"{turn}: {server.name}, beside {base.name}", flush=True)
        try:
            with self._begun(server) as begun:  # first, so that it starts with nothing beside it
                self._note_start(begun)
                with self._beside(base) as beside:
                    settle(begun.up)
                    with _of_base():
                        settle(beside.up)
                    for workload in workloads:
                        self._ask_both(beside, begun, workload)
        except (BaseFails, *FAILS) as why:
            self._leave_out(server.name, why)

    def parts(self, matrix: Path) -> None:
        """The floor's parts, measured in a process of their own."""
        argv = [sys.executable, str(FLOOR), "parts", "--model", str(self._trained.model), "--rows", str(matrix)]
        done = subprocess.run(argv, stdout=subprocess.PIPE, check=True)
        self.floor.append(json.loads(done.stdout))
        print("  parts: " + "  ".join(f"{name} {value:.1f}" for name, value in self.floor[-1].items()), flush=True)

    @contextmanager
    def _begun(self, server: Server) -> Iterator[Begun]:
        with server.start() as up:
            mains = {form: self._requests(server, up, form, 1)[0] for form in list(server.places)[:2]}
            took_s, form = up.first_answer(mains)
            yield Begun(server=server, up=up, form=form, took_s=took_s)

    @contextmanager
    def _beside(self, base: Server) -> Iterator[Begun]:
        """The base, started beside a server. Raises BaseFails where it does not start or stop."""
        with ExitStack() as stack:
            with _of_base():
                begun = stack.enter_context(self._begun(base))
            yield begun
            with _of_base():
                stack.close()

    def _is_out(self, label: str) -> bool:
        """Whether a server, or what it is asked, failed before: what only its base failed is tried again."""
        return label in self.absent and not self.absent[label].startswith(BASE)

    def _note_start(self, begun: Begun) -> None:
        self.starts.setdefault(begun.server.name, []).append(begun.took_s)
        self.forms[begun.server.name] = begun.form
        print(f"  first answer after {begun.took_s:.2f} s", flush=True)

    def _leave_out(self, label: str, why: Exception) -> None:
        self.absent[label] = _said(why)
        print(f"  {label}: not available: {_said(why)}", flush=True)

    def _ask(self, begun: Begun, workload: Workload, *, is_cold: bool) -> None:
        label = f"{begun.server.name}: {workload.name}"
        if self._is_out(label):
            return
        seconds = self.seconds * (SLOW if begun.server.is_slow else 1)
        try:
            side = self._side(begun, workload, workload.connections, "requests.bin")
            if is_cold:
                _load(side, WARM_S)
            figures = _measured(side, seconds)
        except FAILS as why:
            self._leave_out(label, why)
            return
        self.figures.setdefault((begun.server.name, workload.name), []).append(figures)
        print(f"  {workload.name}: {_text(figures)}", flush=True)

    def _ask_both(self, base: Begun, begun: Begun, workload: Workload) -> None:
        """Load both in turns, in the order A B B A, so that neither gains by coming first."""
        label = f"{begun.server.name}: {workload.name}"
        if self._is_out(label):
            return
        try:
            beside = workload.base_connections or workload.connections
            with _of_base():
                first = self._side(base, workload, beside, "requests-base.bin")
                _load(first, WARM_S)
            second = self._side(begun, workload, workload.connections, "requests.bin")
            _load(second, WARM_S)
            pairs = [_pair(first, second, is_turned=turn % 2 == 1) for turn in range(TURNS)]
        except (BaseFails, *FAILS) as why:
            self._leave_out(label, why)
            return
        key = (begun.server.name, workload.name)
        self.pairs.setdefault(key, []).extend(pairs)
        self.figures.setdefault(key, []).append(medians([pair.server for pair in pairs]))
        print(f"  {workload.name}: {_text(self.figures[key][-1])}\n    by the base: {_ratios(pairs)}", flush=True)

    def _side(self, begun: Begun, workload: Workload, connections: int, name: str) -> Side:
        """Write what it is asked to a file of that name, after a look at its answers. Raises NotAvailable."""
        form = workload.form or begun.form
        made = self._requests(begun.server, begun.up, form, workload.rows)
        if begun.server.name != "bare HTTP":
            self._check(begun.server, begun.up, made, form, workload.rows)
        file = self._trained.directory / name
        write_requests(file, made)
        return Side(begun=begun, file=file, connections=connections)

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


@contextmanager
def _of_base() -> Iterator[None]:
    """Whatever fails in here is the base. Raises BaseFails."""
    try:
        yield
    except FAILS as why:
        raise BaseFails(_said(why)) from why


def _load(side: Side, seconds: float) -> Load:
    return drive(side.begun.up.url, side.file, side.connections, seconds)


def _measured(side: Side, seconds: float) -> Figures:
    up = side.begun.up
    workers = {each.pid for each in up.workers()}
    before = cpu_s(up)
    load = _load(side, seconds)
    spent = _spent_s(before, up)
    if load.failed or not load.requests:
        raise NotAvailable(f"{load.failed} of {load.requests} requests to {side.begun.server.name} got no 2xx")
    return _figures(load, sum(spent.values()), sum(spent.get(pid, 0.0) for pid in workers), up)


def _pair(base: Side, side: Side, *, is_turned: bool) -> Pair:
    """Load one after the other, the base first unless `is_turned`. Raises BaseFails where that is what failed."""
    found, waiting_s, began_s = {}, 0.0, time.perf_counter()
    for loaded, other in ((side, base), (base, side)) if is_turned else ((base, side), (side, base)):
        with _of_base() if other is base else nullcontext():
            before = cpu_s(other.begun.up)
        with _of_base() if loaded is base else nullcontext():
            found[loaded.begun.server.name] = _measured(loaded, TURN_S)
        with _of_base() if other is base else nullcontext():
            waiting_s += sum(_spent_s(before, other.begun.up).values())
    waiting = waiting_s / (time.perf_counter() - began_s)
    return Pair(server=found[side.begun.server.name], base=found[base.begun.server.name], waiting=waiting)


def _spent_s(before: Mapping[int, float], up: Up) -> dict[int, float]:
    """Processor seconds since then, by process."""
    return {pid: seconds - before.get(pid, 0.0) for pid, seconds in cpu_s(up).items()}


def _text(figures: Figures) -> str:
    return (
        f"{figures['requests_per_s']:,.0f}/s  p50/p99 {figures['p50_ms']:.2f}/{figures['p99_ms']:.2f} ms  "
        f"CPU {figures['worker_cpu_us']:.1f} of {figures['cpu_us']:.1f} us  RSS {figures['rss_mb']:.0f} MB"
    )


def _ratios(pairs: Sequence[Pair]) -> str:
    said = []
    for figure in ("requests_per_s", "worker_cpu_us"):
        values = [pair.ratio(figure) for pair in pairs]
        said.append(f"{figure} {statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})")
    return "  ".join([*said, f"waiting {max(pair.waiting for pair in pairs):.1%} of a core"])


def _said(why: Exception) -> str:
    if isinstance(why, BaseFails):
        return f"{BASE}{why}"
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
