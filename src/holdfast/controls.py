"""What an action may touch during a tick."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from holdfast.core.protocols import Transaction
from holdfast.core.spec import SystemSpec
from holdfast.core.specelsewhere import must_have_model
from holdfast.flow import jobs, releases

Tell = Callable[[str], None]
"""Sends a message to people."""


class TickControls:
    """What an action may touch, inside the transaction that its incident is in.

    `tell` sends a message to people, and `told` is what stands on record of that.
    """

    def __init__(self, spec: SystemSpec, tx: Transaction, now: datetime, *, tell: Tell, told: str) -> None:
        self._spec = spec
        self._tx = tx
        self._now = now
        self._tell = tell
        self._told = told
        self._notices: list[str] = []

    def notify(self, text: str) -> str:
        self._notices.append(text)
        return self._told

    def send(self) -> None:
        """Send what was said, once the transaction that it is about has been committed."""
        for text in self._notices:
            self._tell(text)

    def submit(self, kind: str, payload: Mapping[str, Any]) -> str:
        must_have_model(self._spec, "nothing here can train it")
        return jobs.submit(self._tx, self._spec.system, kind, payload, self._now).id

    def rollback(self, why: str, *, by: str = "holdfast") -> str:
        must_have_model(self._spec, "go back to another version there")
        return releases.take_back(self._tx, self._spec.system, why, self._now, by)
