"""What a worker says about itself, as a small file that is replaced whole; and beside it, how earlier ones ended."""

import errno
import os
from contextlib import suppress
from pathlib import Path

import msgspec


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker says about itself, written again at least every half second by default."""

    pid: int
    generation: int
    at: str
    error: str = ""
    """Why it does not follow the newest routes; empty when it does."""
    held: dict[str, str] = {}
    """Systems that still follow older routes, and why."""
    recorded: int = 0
    """Rows written since it started."""
    lost: int = 0
    """Rows that could not be written; their requests were answered 503."""
    shed: int = 0
    """Rows that were answered without being recorded, as the system's file allows."""
    refused: int = 0
    """Requests answered with a status of 400 or more."""


class End(msgspec.Struct, frozen=True, kw_only=True):
    """How a process ended that was to live on."""

    pid: int
    at: str
    how: str
    """``ended with code -9``, as a part of a sentence."""


_BLOCK_BYTES = 512
"""Heartbeats are filled up to a multiple of this, so that a longer one fits where a shorter one stood."""
_MOST_ENDS_BYTES = 64 * 1024
"""When the list of ends is longer its older half is left out: a worker that dies at once would fill the disk."""
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def path_of(run_dir: Path, name: str) -> Path:
    """Where the worker of this name writes."""
    return run_dir / f"{name}.json"


def write_heartbeat(run_dir: Path, name: str, beat: Heartbeat) -> None:
    """Replace the file at once: a reader sees the old one or the new one. Raises OSError when it cannot be written.

    On a full disk it is written over the old one, or an empty file is left where there is none: a process must not
    be taken for hung because of that, and a reader who sees half of it takes it for none.
    """
    path = path_of(run_dir, name)
    data = msgspec.json.encode(beat)
    data += b" " * (-len(data) % _BLOCK_BYTES)
    temporary = path.with_suffix(f".{beat.pid}.tmp")
    try:
        temporary.write_bytes(data)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        with suppress(OSError):
            temporary.unlink()
        _write_over(path, data)
    else:
        os.replace(temporary, path)


def _write_over(path: Path, data: bytes) -> None:
    """Write where the file lies, which takes no more room; what was longer before is ended by spaces."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        try:
            os.pwrite(fd, data.ljust(os.fstat(fd).st_size), 0)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            os.utime(fd)
    finally:
        os.close(fd)


def read_heartbeat(run_dir: Path, name: str) -> Heartbeat | None:
    """What a worker last said; None when it has not yet, or what is there cannot be read."""
    try:
        return msgspec.json.decode(path_of(run_dir, name).read_bytes(), type=Heartbeat)
    except (OSError, msgspec.DecodeError):
        return None


def ends_of(heartbeat: Path) -> Path:
    """Where it stands how processes ended that wrote this heartbeat."""
    return heartbeat.with_suffix(".ends")


def note_end(heartbeat: Path, end: End) -> None:
    """Add how a process ended to the list beside its heartbeat. Raises OSError when it cannot be written."""
    path = ends_of(heartbeat)
    line = msgspec.json.encode(end) + b"\n"
    with path.open("ab") as file:
        file.write(line)
        is_long = file.tell() > _MOST_ENDS_BYTES
    if is_long:
        lines = path.read_bytes().splitlines(keepends=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_bytes(b"".join(lines[len(lines) // 2 :]))
        temporary.replace(path)


def read_ends(run_dir: Path, name: str) -> list[End]:
    """How earlier processes of this name ended, oldest first; what cannot be read is left out."""
    try:
        lines = ends_of(path_of(run_dir, name)).read_bytes().splitlines()
    except OSError:
        return []
    ends = []
    for line in lines:
        with suppress(msgspec.DecodeError):
            ends.append(msgspec.json.decode(line, type=End))
    return ends
