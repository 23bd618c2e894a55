"""What a worker says about itself, as a small file that is replaced whole."""

import os
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
    refused: int = 0
    """Requests answered with a status of 400 or more."""


def path_of(run_dir: Path, name: str) -> Path:
    """Where the worker of this name writes."""
    return run_dir / f"{name}.json"


def write_heartbeat(run_dir: Path, name: str, beat: Heartbeat) -> None:
    """Replace the file at once: a reader sees the old one or the new one. Raises OSError when it cannot be written."""
    path = path_of(run_dir, name)
    temporary = path.with_suffix(f".{beat.pid}.tmp")
    temporary.write_bytes(msgspec.json.encode(beat))
    os.replace(temporary, path)


def read_heartbeat(run_dir: Path, name: str) -> Heartbeat | None:
    """What a worker last said; None when it has not yet, or what is there cannot be read."""
    try:
        return msgspec.json.decode(path_of(run_dir, name).read_bytes(), type=Heartbeat)
    except (OSError, msgspec.DecodeError):
        return None
