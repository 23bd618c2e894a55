"""What is up on a state: a lock that one supervisor holds, and a small file that says where it serves."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import psutil

from holdfast.errors import AlreadyRunning

KEEPER = "keeper"
_FILE = "up.json"
_SAME_START_S = 2.0


@contextmanager
def hold(run_dir: Path) -> Iterator[None]:
    """Be the only `up` on this state inside the block. Raises AlreadyRunning."""
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / "up.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            raise AlreadyRunning(
                f"{run_dir.parent} is in use by process {owner}; stop it first, or give this one its own --state"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


class Presence(msgspec.Struct, frozen=True, kw_only=True):
    """A supervisor that runs: where it serves and what its children are called."""

    pid: int
    started_at_s: float
    """When the process started, in seconds since 1970: process ids are used again."""
    url: str
    console: str
    workers: tuple[str, ...]
    grpc: str = ""
    """Host and port of gRPC; empty where that is not served."""


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """What preparing a state gave, told from one process to another."""

    token: str = ""
    """The secret of the first admin token, on the very first start only."""
    systems: dict[str, str] = {}
    """Each system and its live version, empty where there is none yet."""
    elsewhere: tuple[str, ...] = ()
    """Those whose model is served elsewhere."""
    error: str = ""


def write_presence(run_dir: Path, *, url: str, console: str, workers: tuple[str, ...], grpc: str = "") -> None:
    """Say that this process is up."""
    started_at_s = psutil.Process().create_time()
    here = Presence(pid=os.getpid(), started_at_s=started_at_s, url=url, console=console, workers=workers, grpc=grpc)
    temporary = run_dir / f".{_FILE}.{here.pid}"
    temporary.write_bytes(msgspec.json.encode(here))
    temporary.replace(run_dir / _FILE)


def read_presence(run_dir: Path) -> Presence | None:
    """What is up; None when nothing is, also where it died without a word."""
    try:
        there = msgspec.json.decode((run_dir / _FILE).read_bytes(), type=Presence)
        started_at_s: float = psutil.Process(there.pid).create_time()
    except (OSError, msgspec.DecodeError, psutil.Error):
        return None
    return there if abs(started_at_s - there.started_at_s) < _SAME_START_S else None


def remove_presence(run_dir: Path) -> None:
    """Say that nothing is up any more."""
    with suppress(OSError):
        (run_dir / _FILE).unlink()
