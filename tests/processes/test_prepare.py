"""A state made ready to be served, in this process."""

from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.core.clock import SystemClock
from holdfast.core.records import Token
from holdfast.processes.prepare import prepare
from holdfast.state import open_state
from holdfast.tokens import holder, make_token, tokens

pytestmark = pytest.mark.slow


@pytest.fixture
def prepared(tmp_path: Path, small) -> Callable[..., Token | None]:
    """`prepared(name=role, ...)`: whom the token belongs to that was shown for a state that had these, None where none
    was shown."""

    def make(**made: str) -> Token | None:
        file, directory = small.write_file(tmp_path), tmp_path / "state"
        state = open_state(directory)
        with state.catalog.begin() as tx:
            for name, role in made.items():
                make_token(tx, name, role, now=SystemClock().now(), by="test")
        state.close()
        shown = prepare(directory, [file], by="test").token
        state = open_state(directory)
        try:
            with state.catalog.read() as tx:
                assert len(tokens(tx)) == len(made) + bool(shown)
                return holder(tx, shown) if shown else None
        finally:
            state.close()

    return make


def test_a_state_without_tokens_gets_an_admin(prepared) -> None:
    shown = prepared()
    assert (shown.name, shown.role) == ("admin", "admin")


def test_a_client_token_made_first_leaves_no_state_without_an_admin(prepared) -> None:
    shown = prepared(shop="client")
    assert (shown.name, shown.role) == ("admin", "admin")


def test_a_client_that_is_called_admin_is_none(prepared) -> None:
    shown = prepared(admin="client")
    assert (shown.name, shown.role) == ("admin 2", "admin")


def test_a_state_with_an_admin_of_any_name_gets_no_other(prepared) -> None:
    assert prepared(shop="client", ops="admin") is None
