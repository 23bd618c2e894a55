"""Runs a training in a process of its own, so that nothing it does can take its owner down. In: a request.
Out: its result, or JobFailed with what happened.

Processes are forked from a server that has imported the heavy libraries once: the first training waits for that, the
next ones start within a moment. A training dies with the process that started it.
"""

import ctypes
import multiprocessing
import os
import resource
import signal
import sys
import traceback
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import msgspec

from holdfast.errors import HoldfastError, JobFailed
from holdfast.flow.training import RESULT, TrainingRequest, TrainingResult, read_result, train

FAILURE, LOG = "failure.json", "training.log"
PRELOADED = (
    "holdfast.flow.training",
    "holdfast.tasks.classification",
    "holdfast.trainers.lightgbm",
    "holdfast.trainers.linear",
    "holdfast.runtimes.onnx",
)
DIE_WITH_PARENT = 1
"""``PR_SET_PDEATHSIG`` of prctl(2), Linux."""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """What the process could still say before it ended: the error and its whole traceback."""

    message: str
    traceback: str


class Child:
    """A training under way. Owned by one thread."""

    def __init__(self, process: BaseProcess, request: TrainingRequest, memory_limit_mb: int | None) -> None:
        self._process = process
        self._out = request.out
        self._memory_limit_mb = memory_limit_mb

    @property
    def pid(self) -> int:
        return self._process.pid or 0

    def poll(self) -> TrainingResult | None:
        """The result, or None while it runs; never waits. Raises JobFailed when there will be none."""
        return self.wait(0)

    def wait(self, timeout_s: float | None = None) -> TrainingResult | None:
        """As `poll`, after waiting for at most `timeout_s` seconds; None waits until it ends."""
        self._process.join(timeout_s)
        code = self._process.exitcode
        if code is None:
            return None
        if code == 0:
            return read_result(self._out)
        raise JobFailed(self._why(code))

    def kill(self) -> None:
        """End it now; it leaves no result."""
        self._process.kill()
        self._process.join()

    def _why(self, code: int) -> str:
        failure = self._out / FAILURE
        if failure.exists():
            return f"training failed: {msgspec.json.decode(failure.read_bytes(), type=Failure).message}"
        limit = "" if self._memory_limit_mb is None else f" (its limit was {self._memory_limit_mb} MB)"
        if code == -signal.SIGKILL:
            return (
                f"training was killed (SIGKILL, exit {code}); most often the machine ran out of memory{limit}: "
                "shorten model.window or give the machine more memory"
            )
        last = f"; the last it wrote: {said}" if (said := _last_line(self._out / LOG)) else ""
        if code < 0:
            return f"training crashed with {signal.Signals(-code).name} (exit {code}){limit}{last}"
        return f"training ended with exit {code} and left no result{last}"


def start(request: TrainingRequest, *, memory_limit_mb: int | None = None) -> Child:
    """Start a training in its own process. `memory_limit_mb` bounds what it may map beyond its libraries.

    What an earlier attempt left in `request.out` is not taken for this one's.
    """
    request.out.mkdir(parents=True, exist_ok=True)
    for name in (RESULT, FAILURE, LOG):
        (request.out / name).unlink(missing_ok=True)
    process = _context().Process(target=_main, args=(request, memory_limit_mb), name="holdfast-train", daemon=True)
    process.start()
    return Child(process, request, memory_limit_mb)


def warm_up() -> None:
    """Start the fork server without waiting for what it imports, so that the first training starts sooner."""
    if _context().get_start_method() == "forkserver":
        forkserver.ensure_running()


def _context() -> Any:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    return context


def _main(request: TrainingRequest, memory_limit_mb: int | None) -> None:
    """What the process runs. It says why it fails in a file, because a process that was killed cannot say anything."""
    _die_with_parent()
    log = os.open(request.out / LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if memory_limit_mb is not None:
        limit = _mapped_bytes() + memory_limit_mb * 1_000_000
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        train(request)
    except BaseException as error:  # noqa: BLE001 -- whatever ends a training is said, then the process ends
        failure = Failure(message=_one_line(error, memory_limit_mb), traceback=traceback.format_exc())
        (request.out / FAILURE).write_bytes(msgspec.json.encode(failure))
        sys.exit(1)


def _one_line(error: BaseException, memory_limit_mb: int | None) -> str:
    if isinstance(error, HoldfastError):
        return str(error)
    last = traceback.format_exception_only(error)[-1].strip()
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{last} (at {Path(frame.filename).name}:{frame.lineno})"
    if isinstance(error, MemoryError) and memory_limit_mb is not None:
        return f"out of memory: it may use {memory_limit_mb} MB; {where}"
    return f"out of memory; {where}" if isinstance(error, MemoryError) else where


def _last_line(log: Path) -> str:
    """The last line that speaks of memory, else the last one: crashing libraries say more after the cause."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    return next((line for line in reversed(lines) if "memory" in line), lines[-1] if lines else "")


def _die_with_parent() -> None:
    """Linux ends this process when the fork server ends, and that ends with the process that started it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)


def _mapped_bytes() -> int:
    """Address space in use now: libraries map gigabytes that they never touch."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[0]) * resource.getpagesize() if statm.exists() else 0
