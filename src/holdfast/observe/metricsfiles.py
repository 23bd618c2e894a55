"""Each worker's counts as a small file beside its heartbeat, so that whichever worker is asked answers for all."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import psutil

from holdfast.observe.tallies import Snapshot, Worker

SUFFIX = ".metrics"
_SAME_START_S = 2.0
"""The operating system's two answers about the start of one process may differ by so much."""


def withdraw(run_dir: Path, name: str) -> None:
    """Forget what a worker of this name left behind; a new one calls this before it counts."""
    with suppress(OSError):
        (run_dir / f"{name}{SUFFIX}").unlink()


def publish(run_dir: Path, snapshot: Snapshot) -> str:
    """Replace the file of a worker at once; returns why that failed, empty where it did not. Never raises.

    Call it with the snapshot that is about to be shown, before it is shown: then no later answer of another worker,
    which reads the file, shows smaller numbers. Where writing fails the file is taken away for the same reason.
    """
    worker = snapshot.workers[0]
    path = run_dir / f"{worker.name}{SUFFIX}"
    temporary = path.with_suffix(f".{worker.pid}.tmp")
    try:
        temporary.write_bytes(msgspec.msgpack.encode(snapshot))
        os.replace(temporary, path)
    except OSError as error:
        for left in (temporary, path):
            with suppress(OSError):
                left.unlink()
        return str(error)
    return ""


def published(run_dir: Path, without: str = "") -> Iterator[Snapshot]:
    """What the workers that live now last wrote, by name. Files that cannot be read are left out."""
    for path in sorted(run_dir.glob(f"*{SUFFIX}")):
        if path.stem == without:
            continue
        try:
            snapshot = msgspec.msgpack.decode(path.read_bytes(), type=Snapshot)
        except (OSError, msgspec.DecodeError):  # replaced, half a disk, or of another release
            continue
        if snapshot.workers and all(_lives(worker) for worker in snapshot.workers):
            yield snapshot


def _lives(worker: Worker) -> bool:
    """True while the process that wrote it runs; a later process with the same id does not count."""
    try:
        began: float = psutil.Process(worker.pid).create_time()
    except psutil.Error:
        return False
    return abs(began - worker.started_s) <= _SAME_START_S
