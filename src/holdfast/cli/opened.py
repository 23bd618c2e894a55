"""The state that a command works on."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from holdfast.errors import StateError
from holdfast.places import CATALOG, ROUTES
from holdfast.state import State, open_state


@contextmanager
def opened(directory: Path, *, make: bool = False) -> Iterator[State]:
    """The state in a directory, closed at the end. Raises StateError where there is none, unless it is to be made."""
    if not make and not (directory / CATALOG).exists() and not (directory / ROUTES).exists():
        raise StateError(f"there is no state in {directory}; begin with `holdfast up FILE`, or name another --state")
    state = open_state(directory)
    try:
        yield state
    finally:
        state.close()
