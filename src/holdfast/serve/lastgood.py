"""The routes that a worker served last, kept beside its signs of life for the next one that starts.

A worker goes on with the last good routes when the routes file is damaged or a version cannot be loaded. One that
starts then has served nothing yet; without this file it would turn away what its siblings answer.
"""

import os
from pathlib import Path

from holdfast.core.routes import Routes, decode, encode
from holdfast.errors import StateError
from holdfast.serve.lanes import Prepared

NAME = "routes.good"


def in_force(prepared: Prepared) -> Routes:
    """The routes that are really served: a system that is held back stands with its older versions."""
    systems = {name: lanes.routed for name, lanes in prepared.systems.items()}
    return Routes(generation=prepared.routes.generation, systems=systems, tokens=prepared.routes.tokens)


def keep(run_dir: Path, prepared: Prepared) -> None:
    """Replace what was kept, unless it is the same. Raises OSError when it cannot be written.

    Any worker may do it: each writes what it follows, so the newest routes are written last.
    """
    path, data = run_dir / NAME, encode(in_force(prepared))
    try:
        if path.read_bytes() == data:
            return
    except OSError:
        pass  # not there yet, or not readable: it is written anew
    temporary = run_dir / f".{NAME}.{os.getpid()}"
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def kept(run_dir: Path) -> Routes | None:
    """What was kept; None where there is nothing, or it is damaged too."""
    try:
        return decode((run_dir / NAME).read_bytes())
    except (OSError, StateError):
        return None
