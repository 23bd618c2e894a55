"""One incident under examination: what is known of it before anything is found out."""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl

from holdfast.core import kinds
from holdfast.core.evidence import Block, Role
from holdfast.core.protocols import Check, Task
from holdfast.core.records import Incident
from holdfast.core.spec import SystemSpec
from holdfast.flow.monitors import Reference
from holdfast.flow.predictions import LivePredictions

log = logging.getLogger(__name__)
FloatArray = npt.NDArray[np.float64]
T = TypeVar("T")

Answer = Callable[[pl.DataFrame], FloatArray]
"""The live version's model: rows that carry its inputs in, answers (n,) out."""


class Case:
    """An incident with its system, its check and its version; `notes` collects what cannot be said."""

    def __init__(
        self,
        incident: Incident,
        spec: SystemSpec,
        task: Task,
        reference: Reference,
        live: LivePredictions,
        answer: Answer | None,
        now: datetime,
    ) -> None:
        self.incident, self.spec, self.task, self.reference = incident, spec, task, reference
        self.live, self.answer, self.now = live, answer, now
        self.notes: list[str] = []
        self.about = tuple(name for name in (incident.subject, *incident.also) if name)
        self.check: Check = kinds.load("checks", incident.check)
        measured = incident.last.reading.name
        self.loss = measured if measured in task.losses else spec.release.decide.loss or task.losses[0]
        self.is_about_rows = bool(self.check.needs & {Role.INPUT, Role.OUTPUT, Role.LABEL})
        self.is_about_labels = Role.LABEL in self.check.needs

    def tried(self, what: str, part: Callable[[], T], instead: T) -> T:
        """A part of the explanation; one that fails is said in the notes, and the incident stands."""
        try:
            return part()
        except Exception as error:
            log.exception("explaining %s: %s", self.incident.id, what)
            self.notes.append(f"{what}: failed with {type(error).__name__}: {error}")
            return instead

    def window_days(self) -> int:
        """How many days the monitor looks at that found it last; 1 where it is no longer in the file."""
        monitor = next((m for m in self.spec.monitors if m.name == self.incident.last.monitor), None)
        return max(1, monitor.window.days) if monitor else 1

    def options(self) -> dict[str, Any]:
        """The check's options in the file; none where its monitor is no longer there."""
        monitor = next((m for m in self.spec.monitors if m.name == self.incident.last.monitor), None)
        return dict(monitor.options) if monitor else {}

    def window(self) -> tuple[Block, ...]:
        """The days that the monitor looks at by now, with rows or without."""
        newest = self.live.last_mature_day(self.now) if self.is_about_labels else self.live.last_complete_day(self.now)
        return self.live.window(newest - timedelta(days=self.window_days() - 1), newest, {}, self.now).blocks
