"""Prepares a state: ``python -m holdfast.processes.prepare --state DIR --by WHO FILE...``. Says how it went as JSON.

System files are put in force, the first token is made, the routes are published; then the catalog is closed.
"""

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

import msgspec

from holdfast.core.clock import SystemClock
from holdfast.core.records import SystemFile, Token
from holdfast.core.spec import SystemSpec
from holdfast.core.specfile import read_spec
from holdfast.errors import HoldfastError, StateError
from holdfast.flow.registry import current_route
from holdfast.presence import Prepared
from holdfast.processes.logs import log_to_stderr
from holdfast.state import State, open_state, put_in_force
from holdfast.tokens import EVERYWHERE, make_token

log = logging.getLogger("holdfast")


def main(arguments: Sequence[str] | None = None) -> None:
    """Prepare, say how it went, and end with 0 or the exit code of the error."""
    parser = argparse.ArgumentParser(prog="holdfast.processes.prepare")
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--by", required=True)
    parser.add_argument("files", type=Path, nargs="*")
    given = parser.parse_args(arguments)
    log_to_stderr()
    code = 0
    try:
        prepared = prepare(given.state, given.files, by=given.by)
    except HoldfastError as error:
        prepared, code = Prepared(error=str(error)), error.exit_code
    sys.stdout.write(msgspec.json.encode(prepared).decode())
    sys.exit(code)


def prepare(directory: Path, files: Sequence[Path], *, by: str) -> Prepared:
    """Make a state ready to be served. Raises SpecError for a file that is not in order."""
    now = SystemClock().now()
    state = open_state(directory)
    try:
        specs = {file: _checked(state, file) for file in files}
        _must_differ(specs)
        for file, spec in specs.items():
            put_in_force(state, spec, path=file, text=file.read_text(encoding="utf-8"), now=now, by=by)
        with state.catalog.read() as tx:
            systems = {file.system: current_route(tx, file.system).live for file in tx.find(SystemFile)}
        if not systems:
            raise StateError(f"{directory} holds no system yet; name a system file: holdfast up FILE")
        token = _first_token(state, by)
        try:
            state.publish_routes()
        except StateError as error:  # one system whose model is gone must not keep the others from being served
            log.error("%s", error)
        with state.catalog.read() as tx:
            elsewhere = tuple(f.system for f in tx.find(SystemFile) if state.spec(f).predictions is not None)
        return Prepared(token=token, systems=systems, elsewhere=elsewhere)
    finally:
        state.close()


def _checked(state: State, file: Path) -> SystemSpec:
    """The system of a file; one that is in force, unchanged, was checked when it was put there."""
    with state.catalog.read() as tx:
        known = [each for each in tx.find(SystemFile) if Path(each.path) == file]
    if known and file.is_file() and file.read_bytes() == known[0].text.encode():
        return state.spec(known[0])
    return read_spec(file)


def _first_token(state: State, by: str) -> str:
    """The secret of an admin token, made where there is none yet; else empty. Its name is one that is not taken."""
    with state.catalog.begin() as tx:
        made = tx.find(Token, EVERYWHERE)
        if any(token.role == "admin" for token in made):
            return ""
        taken = {token.name for token in made}
        name = next(name for name in _admin_names() if name not in taken)
        return make_token(tx, name, "admin", now=SystemClock().now(), by=by)


def _admin_names() -> Iterator[str]:
    yield "admin"
    yield from (f"admin {number}" for number in count(2))


def _must_differ(specs: dict[Path, SystemSpec]) -> None:
    seen: dict[str, Path] = {}
    for file, spec in specs.items():
        if spec.system in seen:
            raise HoldfastError(f"{seen[spec.system]} and {file} both describe '{spec.system}'; rename one of them")
        seen[spec.system] = file


if __name__ == "__main__":
    main()
