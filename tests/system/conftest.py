"""Fixtures for tests of whole systems."""

import pytest

from .lives import Here


@pytest.fixture
def trains_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings run in the process of the test, not in a child of it."""
    monkeypatch.setattr("holdfast.flow.child.start", lambda request, **_: Here(request))
