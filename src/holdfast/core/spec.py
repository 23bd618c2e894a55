"""The system file as types. Reading it, with line numbers and near misses, is `core/specfile.py`."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Literal

import msgspec

from holdfast.core.evidence import Limit
from holdfast.core.signature import Column


class Section(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename=lambda name: name.rstrip("_")
):
    """Base of all sections: unknown keys are errors. A trailing underscore in a field name is not in the file."""


class Feed(Section, frozen=True, kw_only=True):
    """A stream of rows and how it joins the rows that are predicted, as of the time each was known."""

    from_: str
    """Path or glob of CSV, Parquet or JSON-lines files (``.gz`` and ``.zst`` too), relative to the system file."""
    event_at: str | None = None
    known_at: str | None = None
    """Column that says when a row could be known; none means always (a lookup table)."""
    key: tuple[str, ...] = ()
    """Columns that identify a row, so that one read twice counts once; empty means the whole row."""
    by: tuple[str, ...] = ()
    """Columns shared with the predicted rows that it is joined on."""
    take: tuple[str, ...] = ()
    """Columns whose latest known value is joined; named ``<feed>_<column>``."""
    aggregate: Mapping[str, tuple[Literal["mean", "min", "max", "sum", "count"], ...]] = {}
    """Columns that are aggregated over `last`; named ``<feed>_<column>_<function>``."""
    last: timedelta | None = None
    """How far back `aggregate` looks from the time of prediction."""
    within: timedelta | None = None
    """How old a value that `take` joins may be; older is missing. None means any age."""
    fresh: timedelta | None = None
    """How old the newest row may be before the feed counts as stale."""


class Label(Section, frozen=True, kw_only=True):
    """Where the truth comes from and when."""

    feed: str
    column: str
    known_at: str
    mature_after: timedelta = timedelta(days=2)
    """How long after a block's end its labels count as complete; what is still missing then is counted, not imputed."""


class Expect(Section, frozen=True, kw_only=True):
    """What the data must be. What breaks a hard expectation stops the snapshot; a bad row goes to quarantine."""

    unique: str | None = None
    complete: Mapping[str, float] = {}
    """Column -> least share of values present, in [0, 1]."""
    rows: int = 1
    """Least number of rows."""
    bad_rows: float = 0.05
    """Largest share of rows that may be quarantined before the snapshot is stopped, in [0, 1]."""


class Data(Section, frozen=True, kw_only=True):
    """The feeds, which of them is predicted, and what its columns are."""

    feeds: Mapping[str, Feed]
    rows: str
    """Name of the feed whose rows are predicted."""
    key: str
    unit: str | None = None
    timezone: str = "UTC"
    label: Label
    columns: Mapping[str, Column]
    """Features by name, after joining. What is not listed is not a feature."""
    expect: Expect = Expect()


class Validate(Section, frozen=True, kw_only=True):
    """Time-ordered validation."""

    folds: int = 3
    holdout: timedelta = timedelta(days=14)
    """The newest mature blocks, never fitted on, on which candidate, live and baselines are compared."""


class Model(Section, frozen=True, kw_only=True):
    """What is trained."""

    task: str
    trainer: str = "lightgbm"
    params: Mapping[str, Any] = {}
    window: timedelta | None = None
    """How much history is fitted on; None means all of it."""
    validate: Validate = Validate()
    seed: int = 7


class Gate(Section, frozen=True, kw_only=True):
    """A check that a candidate must pass."""

    check: str
    options: Mapping[str, Any] = {}
    limit: Limit = Limit()
    name: str = ""


class Monitor(Section, frozen=True, kw_only=True):
    """A check on a schedule."""

    check: str
    options: Mapping[str, Any] = {}
    limit: Limit = Limit()
    name: str = ""
    every: timedelta = timedelta(days=1)
    window: timedelta = timedelta(days=1)


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a release: ``shadow 2d``, ``canary 10% 3d`` or ``live``."""

    stage: Literal["shadow", "canary", "live"]
    share: float = 0.0
    """Share of units that a canary answers, in (0, 1)."""
    least: timedelta = timedelta(0)
    """How long the step lasts at least."""


class Decide(Section, frozen=True, kw_only=True):
    """How a release is decided: paired, per block, on mature labels."""

    loss: str
    margin: float
    """How much worse than live, in mean loss, is still accepted; greater than 0."""
    confidence: float = 0.95
    within: timedelta = timedelta(days=28)
    """Undecided after that, the old version stays."""


class ReleasePlan(Section, frozen=True, kw_only=True):
    """How a version goes live."""

    steps: tuple[Step, ...]
    decide: Decide


class Response(Section, frozen=True, kw_only=True):
    """What is done when an incident opens, or on a schedule. Exactly one of `on` and `every` is given."""

    do: str
    on: str | None = None
    """A check's kind, ``any``, or ``release``."""
    every: timedelta | None = None
    options: Mapping[str, Any] = {}
    cooldown: timedelta = timedelta(0)


class Serve(Section, frozen=True, kw_only=True):
    """How predictions are served and recorded."""

    record: Literal["process", "disk", "memory"] = "process"
    """When an answer counts as recorded: written with write(2), synced to disk, or within a second."""
    max_rows: int = 10_000
    """Most rows in one request."""
    queue: int = 4096
    """Most requests waiting; beyond it the answer is 429."""


class SystemSpec(Section, frozen=True, kw_only=True):
    """One system: what it is and what must hold."""

    system: str
    about: str = ""
    data: Data
    model: Model
    gates: tuple[Gate, ...]
    release: ReleasePlan
    monitors: tuple[Monitor, ...] = ()
    false_alarms: float = 1.0
    """Expected number of incidents per 30 days that open without cause, over all calibrated monitors."""
    responses: tuple[Response, ...] = ()
    serve: Serve = Serve()
