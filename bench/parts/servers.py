"""Servers to be measured: how each is started, asked, looked at from outside, and stopped."""

import http.client
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import psutil

from parts.bodies import Form
from parts.flights import NotAvailable, Trained
from parts.small import up

PATIENCE_S = 90.0
SETTLED_S, LOOK_S, IDLE = 4.0, 0.5, 0.1
FIRM_S = 10.0
"""A refusal that is still given this long after the start is meant."""
FLOOR = Path(__file__).parent.parent / "peers" / "floor.py"


class Up(msgspec.Struct, frozen=True, kw_only=True):
    """A server that was started; `began_s` is when, on the clock of time.perf_counter."""

    url: str
    root: psutil.Process
    began_s: float
    headers: Mapping[str, str] = {}
    worker_words: tuple[str, ...] = ()
    """What the command line of a worker holds; empty where all processes count as workers."""

    def processes(self) -> list[psutil.Process]:
        """Its whole tree."""
        return [self.root, *self.root.children(recursive=True)]

    def workers(self) -> list[psutil.Process]:
        """Those of the tree that answer requests."""
        if not self.worker_words:
            return self.processes()
        found = []
        for each in self.processes():
            with suppress(psutil.Error):
                if set(self.worker_words) <= set(each.cmdline()):
                    found.append(each)
        return found

    def ask(self, request: bytes, patience_s: float = 10.0) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers of the answer to one whole request. Raises OSError or HTTPException."""
        place = urlsplit(self.url)
        with socket.create_connection((place.hostname, place.port), patience_s) as connection:
            connection.sendall(request)
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}

    def first_answer(self, requests: Mapping[str, bytes]) -> tuple[float, str]:
        """Seconds from the start to the first answer with 2xx, and to which of these forms. Raises NotAvailable."""
        said = "nothing listens"
        while (passed_s := time.perf_counter() - self.began_s) < PATIENCE_S and _runs(self.root):
            for form, request in requests.items():
                try:
                    status, body, _ = self.ask(request)
                except (OSError, http.client.HTTPException) as error:
                    said = f"{type(error).__name__}: {error}"
                    continue
                if 200 <= status < 300:
                    return time.perf_counter() - self.began_s, form
                said = f"{status} {body[:300].decode(errors='replace')}"
                if status in (400, 405, 415, 422) and passed_s > FIRM_S:
                    raise NotAvailable(f"answers {' '.join(said.split())}")
            time.sleep(0.005)
        raise NotAvailable(f"no answer with 2xx; the last: {' '.join(said.split())}")


def _runs(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def settle(up: Up) -> None:
    """Wait until a server that was started does nothing of its own any more, at most for some seconds."""
    until_s = time.perf_counter() + SETTLED_S
    spent_s = cpu_s(up)
    while time.perf_counter() < until_s:
        time.sleep(LOOK_S)
        before_s, spent_s = spent_s, cpu_s(up)
        if sum(spent_s.values()) - sum(before_s.values()) < IDLE * LOOK_S:
            return


def cpu_s(up: Up) -> dict[int, float]:
    """Processor seconds so far of each process of a server."""
    found = {}
    for each in up.processes():
        with suppress(psutil.NoSuchProcess):
            found[each.pid] = _process_s(each)
    return found


def _process_s(process: psutil.Process) -> float:
    """Processor seconds of all threads it ever had. Raises NoSuchProcess."""
    if platform.system() == "Linux":  # to the nanosecond; the 10 ms of cpu_times() are 1 % of a load of a second
        try:
            return time.clock_gettime(~process.pid << 3 | 2)  # what clock_getcpuclockid(3) answers
        except OSError:
            raise psutil.NoSuchProcess(process.pid) from None
    return float(sum(process.cpu_times()[:2]))


def memory_mb(up: Up) -> dict[int, float]:
    """Resident memory of each process of a server."""
    found = {}
    for each in up.processes():
        with suppress(psutil.NoSuchProcess):
            found[each.pid] = each.memory_info().rss / 1e6
    return found


Start = Callable[[], AbstractContextManager[Up]]


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """A server: its name, how it is started, and where it takes which form of request."""

    name: str
    start: Start
    places: Mapping[str, tuple[str, Form]]
    """Path and form by name of the form; the first is its main one."""
    states: tuple[str, ...] = ("live",)
    """Whose answers are right: those of ``live`` and of a second version beside it."""
    is_slow: bool = False
    """Whether shorter loads will do."""


def holdfast(trained: Trained, name: str, places: Mapping[str, tuple[str, Form]], **variant: str | int) -> Server:
    """Holdfast; `variant` may say state, record and workers. Two of other names can be up at once."""
    state, record = str(variant.get("state", "live")), str(variant.get("record", "process"))

    @contextmanager
    def start() -> Iterator[Up]:
        directory = trained.fresh(state, record)
        if variant:  # the base starts where its state was made: in another place it is put in force first
            directory = _its_own(directory, name)
        try:
            with up(directory, workers=variant.get("workers", 1)) as running:
                yield Up(
                    url=running.url,
                    root=psutil.Process(running.process.pid),
                    began_s=running.began_s,
                    headers={"Authorization": f"Bearer {running.token}"},
                    worker_words=("holdfast.processes.worker",),
                )
        except SystemExit as ended:  # it says why over several lines, the reason last
            lines = [line for line in str(ended).splitlines() if line.strip()]
            raise NotAvailable(" ".join(lines[-2:])[:300] or "`holdfast up` ended") from None

    states = ("live", "canary") if state == "canary" else ("live",)
    return Server(name=name, start=start, places=places, states=states)


def _its_own(directory: Path, name: str) -> Path:
    """Move a state to where only the server of that name runs; the next start of any makes the state anew."""
    place = directory.with_name("-".join(["up", *re.findall(r"\w+", name.lower())]))
    shutil.rmtree(place, ignore_errors=True)
    return directory.rename(place)


def process(
    name: str,
    argv: Sequence[str],
    places: Mapping[str, tuple[str, Form]],
    log: Path,
    *,
    settings: Mapping[str, str] | None = None,
    is_slow: bool = False,
) -> Server:
    """A server that is one command with its port as the last word; `settings` are environment variables."""

    @contextmanager
    def start() -> Iterator[Up]:
        port = _free_port()
        began_s = time.perf_counter()
        with log.open("w") as file:
            started = subprocess.Popen(
                [*argv, str(port)],
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=log.parent,
                env={**os.environ, **(settings or {})},
                start_new_session=True,
            )
        try:
            yield Up(url=f"http://127.0.0.1:{port}", root=psutil.Process(started.pid), began_s=began_s)
        except NotAvailable as why:
            raise NotAvailable(f"{why}; its log: {_tail(log)}") from None
        finally:
            _stop(started)

    return Server(name=name, start=start, places=places, is_slow=is_slow)


def floor(name: str, kind: str, trained: Trained, places: Mapping[str, tuple[str, Form]]) -> Server:
    """A floor server, run by the interpreter that runs this."""
    argv = [sys.executable, str(FLOOR), kind, "--model", str(trained.model), "--port"]
    return process(name, argv, places, trained.directory / f"{kind}.log")


def _stop(started: "subprocess.Popen[bytes]") -> None:
    """End a server and what it started."""
    try:
        tree = psutil.Process(started.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        tree = []
    started.terminate()
    with suppress(subprocess.TimeoutExpired):
        started.wait(8)
    for each in tree:
        try:
            each.kill()
        except psutil.NoSuchProcess:
            continue
    if started.poll() is None:
        started.send_signal(signal.SIGKILL)
        started.wait(10)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _tail(log: Path) -> str:
    """The last line of a log that tells of an error, or else its last line."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()] or ["nothing"]
    told = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return (told or lines)[-1][:200]
