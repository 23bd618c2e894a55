"""The loop dies at every transaction, before and after the commit: what comes after ends the same."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from holdfast.core.clock import ManualClock, SystemClock
from holdfast.core.protocols import Catalog, Transaction
from holdfast.core.records import Job, Release, Run, Version
from holdfast.core.specfile import read_spec
from holdfast.opening import open_system
from holdfast.security import audit
from holdfast.state import State, memory_state, put_in_force

pytestmark = pytest.mark.slow


class Died(BaseException):
    """Stands for kill -9: nothing catches it."""


class Mortal:
    """A catalog that dies once at its n-th transaction for writing, before or after the commit."""

    def __init__(self, catalog: Catalog, dies_at: int, *, after: bool) -> None:
        self._catalog, self._left, self._after = catalog, dies_at, after
        self.read, self.close = catalog.read, catalog.close

    @contextmanager
    def begin(self) -> Iterator[Transaction]:
        self._left -= 1
        with self._catalog.begin() as tx:
            yield tx
            if self._left == 0 and not self._after:
                raise Died
        if self._left == 0 and self._after:
            raise Died


def run(directory: Path, feeds: Path, dies_at: int, *, after: bool) -> tuple[State, bool]:
    """First training and release, with one death; whether it came to that, and the state at the end."""
    clock = ManualClock(SystemClock().now())
    state = memory_state(directory)
    catalog = state.catalog
    file = feeds / "holdfast.yaml"
    put_in_force(state, read_spec(file), path=file, text=file.read_text(), now=clock.now(), by="test")
    state.catalog = Mortal(catalog, dies_at, after=after)
    died = False
    for _ in range(3):
        system = open_system(state, "orders", clock, waits=True)
        try:
            while system.tick():
                pass
        except Died:
            died = True
            state.catalog = catalog
            clock.advance(timedelta(minutes=3))  # the lease of the dead runs out
    return state, died


@pytest.fixture(scope="module")
def feeds(small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("feeds")
    small.write_feeds(directory)
    small.write_file(directory)
    return directory


def test_a_death_at_any_transaction_changes_nothing_in_the_end(feeds: Path, tmp_path: Path) -> None:
    undisturbed, died = run(tmp_path / "undisturbed", feeds, 0, after=False)
    assert not died
    with undisturbed.catalog.read() as tx:
        [expected] = tx.find(Version)
    deaths = 0
    for dies_at in range(1, 30):
        for after in (False, True):
            state, died = run(tmp_path / f"{dies_at}{after}", feeds, dies_at, after=after)
            deaths += died
            with state.catalog.read() as tx:
                [version], [release], [job] = tx.find(Version), tx.find(Release), tx.find(Job)
                succeeded = [each for each in tx.find(Run) if each.state == "succeeded"]
                audit.verify(tx.audit_log())
            assert (version.artifact, version.state) == (expected.artifact, "live"), (dies_at, after)
            assert (release.state, job.state, len(succeeded)) == ("live", "done", 1), (dies_at, after)
        if not died:
            break
    print(f"{deaths} deaths survived")
    assert deaths >= 10
