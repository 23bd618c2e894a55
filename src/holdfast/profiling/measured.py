"""What a profile says, as records: the figures of this process, those of the workers, and the advice."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

import msgspec

from holdfast.observe.tallies import Spent
from holdfast.profiling.stages import Stage

Form = Literal["object", "packed", "named", "general"]
FORMS: Mapping[Form, str] = {
    "object": "plain, a row as an object",
    "packed": "Open Inference, one tensor",
    "named": "Open Inference, a tensor per column",
    "general": "unusual: with parameters",
}
Origin = Literal["recorded", "hold-out"]
AT_ONCE = (1, 16, 64)
"""Requests per tick that are measured."""
USUAL_AT_ONCE = 16
"""Requests per tick of a busy worker."""
BATCH_ROWS = 32


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """Requests of one form, so many of them in one tick of the event loop. Microseconds per request."""

    form: Form
    at_once: int
    rows: int
    """Of one request."""
    cpu_us: float
    """Processor time, all threads: the median of the repeats."""
    low_us: float
    """The fastest repeat."""
    high_us: float
    """The slowest repeat."""
    wall_us: float
    """Elapsed, so waiting for a disk and for other processes is in it."""
    stages: tuple[Stage, ...]
    """Together they are `cpu_us`. Empty where the form is not a usual one, of which only the whole is measured."""

    @property
    def requests_per_s(self) -> float:
        """What one core answers in a second."""
        return 1e6 / self.cpu_us if self.cpu_us else 0.0

    @property
    def row_us(self) -> float:
        """Processor time per row."""
        return self.cpu_us / self.rows

    def stage(self, name: str) -> Stage:
        """One of its stages."""
        return next(each for each in self.stages if each.stage == name)


class InputFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows were sent."""

    origin: Origin
    rows: int
    newest: datetime | None = None
    """When the newest of them was answered; None for hold-out rows."""
    single: float | None = None
    """Share of the recorded requests that had one row, in [0, 1]; None for hold-out rows."""


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What runs, and why nothing faster does."""

    runtime: str
    trainer: str
    parity: str
    columns: int
    texts: int
    """Columns that are categories."""
    trees: int | None = None
    """None where it holds no trees, or their file cannot be looked into."""
    most_leaves: int | None = None
    """Of one tree."""
    faster: str = ""
    """A runtime that reads the same file and is faster for models that fit it; empty where there is none."""
    why_not: str = ""
    """Why that one does not take this model; empty where it does."""


class RecordingFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What recording is made of, per row in batches of 16. Microseconds."""

    record: str
    """``serve.record``."""
    row_bytes: float
    whole_us: float
    without_texts_us: float
    """The same rows without their text inputs."""
    write_us: float
    """The call of write(2) alone."""
    sync_us: float | None = None
    """One sync to the disk, elapsed; None where none is waited for."""


class Repeats(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer cache would have done for the recorded rows, in the order in which they came."""

    rows: int
    size: int
    share: float
    """Rows in [0, 1] that came again while their answer was kept."""
    lookup_us: float
    """What the cache costs per row."""


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """What the workers counted since they started, all versions together."""

    workers: int
    since: datetime
    """When the oldest of them started."""
    requests: int
    rows: int
    parts: Sequence[Spent]
    runs: int
    rows_per_run: float
    requests_per_run: float
    largest_run: int
    refused: Mapping[int, int]
    """Requests that were turned away or not recorded, by status."""
    failed: int
    written: int
    shed: int
    lost: int
    lag_s: float
    general: int
    """Requests that did not come in a usual form."""
    cache_hits: int
    cache_misses: int

    def part(self, name: str) -> Spent | None:
        """A part of the path; None where it was not measured."""
        return next((each for each in self.parts if each.phase == name), None)


class Advice(msgspec.Struct, frozen=True, kw_only=True):
    """Something to change, and the figures that say so."""

    about: str
    change: str
    why: str


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Where the time of a system's requests goes."""

    system: str
    version: str
    is_live: bool
    cores: int
    cache: int
    """``serve.cache``; what was measured here had none."""
    inputs: InputFacts
    model: ModelFacts
    cases: Sequence[Case]
    recording: RecordingFacts
    repeats: Repeats | None
    """None where the rows were not recorded ones, or a cache would not help this kind of system."""
    live: Live | None
    """None where nothing is up."""
    advice: Sequence[Advice] = ()
    took_s: float = 0.0

    def case(self, form: Form, at_once: int, rows: int = 1) -> Case | None:
        """The figures of one case; None where it was not measured."""
        wanted = (form, at_once, rows)
        return next((each for each in self.cases if (each.form, each.at_once, each.rows) == wanted), None)
