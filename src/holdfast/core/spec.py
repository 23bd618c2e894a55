"""The system file as types. Reading it, with line numbers and near misses, is `core/specfile.py`."""

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Annotated, Any, Literal

import msgspec

from holdfast.core.evidence import Limit
from holdfast.core.signature import Column
from holdfast.core.spans import ALL, Span

Rate = Annotated[float, "events per 30 days"]
"""A number per 30 days; the file writes ``1 per month``, ``0.5 per week`` or ``3 per year``."""


class Section(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename=lambda name: name.rstrip("_")
):
    """Base of all sections: unknown keys are errors. A trailing underscore in a field name is not in the file."""


class Feed(Section, frozen=True, kw_only=True):
    """A stream of rows and how it joins the rows that are predicted, as of the time each was known."""

    from_: str = ""
    """Path or glob of CSV, Parquet or JSON-lines files (``.gz`` and ``.zst`` too), relative to the system file. May be
    left out only with `predictions`, for answers and labels that come over HTTP."""
    query: str = ""
    """SQL whose rows are read, as far as `known_at` has come; `from` is then a database: an SQLAlchemy URL, or
    ``$NAME`` for the environment variable that holds it."""
    event_at: str | None = None
    """Column that says when what a row tells happened; it places a predicted row in a day."""
    known_at: str | None = None
    """Column that says when a row could be known; not given: always (a lookup table)."""
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
    """How old a value that `take` joins may be; older is missing. Not given: any age."""
    fresh: timedelta | None = None
    """How old the newest row may be before the feed counts as stale."""


class Label(Section, frozen=True, kw_only=True):
    """Where the truth comes from and when."""

    feed: str
    """Name of the feed that carries it; it may be the feed that is predicted."""
    column: str
    """Column of that feed that holds it."""
    known_at: str
    """Column of that feed that says when it could be known."""
    mature_after: timedelta = timedelta(days=2)
    """How long after a block's end its labels count as complete; what is still missing then is counted, not imputed."""
    classes: tuple[str, ...] = ()
    """Its classes, three or more, for a task that is about them (`multiclass`); their order does not matter here."""


class Expect(Section, frozen=True, kw_only=True):
    """What the data must be. What breaks a hard expectation stops the snapshot; a bad row goes to quarantine."""

    unique: str | None = None
    """Column in which no value may stand twice."""
    complete: Mapping[str, float] = {}
    """Column -> least share of values present, in [0, 1]."""
    rows: int = 1
    """Least number of rows."""
    bad_rows: float = 0.05
    """Largest share of rows that may be quarantined before the snapshot is stopped, in [0, 1]."""


class Data(Section, frozen=True, kw_only=True):
    """The feeds, which of them is predicted, and what its columns are."""

    feeds: Mapping[str, Feed]
    """Feeds by name."""
    rows: str
    """Name of the feed whose rows are predicted."""
    key: str
    """Column that identifies a row; a label is matched on it."""
    unit: str | None = None
    """Column whose values stick to one version while two share the traffic; without it the key does."""
    timezone: str = "UTC"
    """Defines a day, the block of evidence; a name of the IANA time zone database."""
    label: Label
    """Where the truth comes from."""
    columns: Mapping[str, Column]
    """Features by name, after joining. What is not listed is not a feature."""
    expect: Expect = Expect()
    """What the data must be."""


class Validate(Section, frozen=True, kw_only=True):
    """Time-ordered validation."""

    folds: int = 3
    """Number of folds, each validated on the time right after what it was fitted on; 1 or more."""
    holdout: timedelta = timedelta(days=14)
    """The newest mature blocks, never fitted on, on which candidate, live and baselines are compared."""


class Model(Section, frozen=True, kw_only=True):
    """What is trained."""

    task: str
    """What is answered: a kind of task."""
    trainer: str = "lightgbm"
    """What fits it: a kind of trainer."""
    params: Mapping[str, Any] = {}
    """Options of the trainer."""
    window: Span = ALL
    """How much of the history is fitted on: ``all``, the newest ``90d``, all of it weighted by age, ``half-life 90d``,
    or ``auto``, which chooses among these at each training."""
    validate: Validate = Validate()
    """How it is validated."""
    seed: int = 7
    """Seed of everything random in training; 0 or more."""


class Stretch(Section, frozen=True, kw_only=True):
    """The answers that are the reference: either the first of each version, or those of stated days."""

    first: timedelta | None = None
    """How many days from its first answer on each version is its own reference; a new version begins its own."""
    from_: date | None = None
    """First day of a reference for every version."""
    until: date | None = None
    """Its last day."""


class Predictions(Section, frozen=True, kw_only=True):
    """Answers of a model that is served elsewhere; it stands in the place of `model`, `gates` and `release`.

    The rows of the feed `data.rows` are the answers: its `key` identifies one, its `event_at` says when it was given.
    """

    task: str
    """What is answered: a kind of task."""
    score: str = ""
    """Column of the log, and output of a payload, that holds the answer; not given: the name of the task's output. Of
    several classes the columns are ``<score>.<class>``."""
    version: str = ""
    """Column of the log, and attribute of a CloudEvent, that names the version; not given: all are of one."""
    reference: Stretch
    """Which answers are the reference: what was promised."""
    complete_after: timedelta = timedelta(hours=1)
    """How long after a day's end its answers count as complete; what comes later is taken in all the same."""


NO_MODEL = Model(task="")
"""Stands where a file has `predictions` and no `model`."""


class Gate(Section, frozen=True, kw_only=True):
    """A check that a candidate must pass."""

    check: str
    """What is measured: a kind of check."""
    options: Mapping[str, Any] = {}
    """Options of the check; in the file they stand beside `check`."""
    limit: Limit = Limit()
    """Where a reading turns bad; in the file `at_least` and so on stand beside `check`."""
    name: str = ""
    """What verdicts call it; made of the check and its options where it is not given."""


class Monitor(Section, frozen=True, kw_only=True):
    """A check on a schedule."""

    check: str
    """What is measured: a kind of check."""
    options: Mapping[str, Any] = {}
    """Options of the check; in the file they stand beside `check`."""
    limit: Limit = Limit()
    """Where a reading turns bad; in the file `at_least` and so on stand beside `check`."""
    name: str = ""
    """What verdicts call it; made of the check and its options where it is not given."""
    every: timedelta = timedelta(days=1)
    """How often it runs."""
    window: timedelta = timedelta(days=1)
    """How much of the newest evidence it measures."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a release: ``shadow 2d``, ``canary 10% 3d`` or ``live``."""

    stage: Literal["shadow", "canary", "live"]
    share: float = 0.0
    """Share of units that a canary answers, in (0, 1)."""
    least: timedelta = timedelta(0)
    """How long the step lasts at least."""


class Decide(Section, frozen=True, kw_only=True):
    """How a release is decided, per block, on mature labels: by a loss in pairs, or by a goal on split traffic."""

    loss: str
    """A bounded loss of the task, in which both versions are compared on the same rows."""
    margin: float
    """How much worse than live, in mean loss (or in the mean label, with `goal`), is still accepted; greater than 0."""
    goal: Literal["label"] | None = None
    """``label`` where answers influence outcomes: the mean label of those whom a canary answers decides, against that
    of those whom the live version does."""
    prefer: Literal["lower", "higher"] | None = None
    """Which mean label is better; only with `goal`."""
    confidence: float = 0.95
    """How sure a decision must be, at any time it is looked at; between 0.5 and 1."""
    within: timedelta = timedelta(days=28)
    """Undecided after that, the old version stays."""


class ReleasePlan(Section, frozen=True, kw_only=True):
    """How a version goes live."""

    steps: tuple[Step, ...]
    """``shadow 2d``, ``canary 10% 3d`` and ``live``, in that order; the last is ``live``."""
    decide: Decide
    """How it is decided."""


NO_RELEASE = ReleasePlan(steps=(), decide=Decide(loss="", margin=0.0))
"""Stands where a file has `predictions` and no `release`."""


class Response(Section, frozen=True, kw_only=True):
    """What is done when an incident opens, or on a schedule. Exactly one of `on` and `every` is given."""

    do: str
    """What is done: a kind of action."""
    on: str | None = None
    """A check's kind, or ``any``."""
    every: timedelta | None = None
    """A schedule, instead of `on`."""
    options: Mapping[str, Any] = {}
    """Options of the action; in the file they stand beside `do`."""
    cooldown: timedelta = timedelta(0)
    """How long after doing it once it is not done again."""


class Serve(Section, frozen=True, kw_only=True):
    """How predictions are served and recorded."""

    record: Literal["process", "disk", "memory", "none"] = "process"
    """When an answer counts as recorded: written with write(2), synced to disk, or within a second. With ``none``
    nothing is, so nothing can be watched."""
    unrecorded: Literal["refuse", "shed"] = "refuse"
    """What happens while predictions cannot be recorded: requests are refused (503), or answered and counted."""
    cache: int = 0
    """How many answers each worker keeps for rows that come again; 0 keeps none. Every answer is recorded."""
    max_rows: int = 10_000
    """Most rows in one request."""
    queue: int = 4096
    """Most requests waiting; beyond it the answer is 429."""


MODELLED = ("model", "gates", "release")
"""Sections of a system whose model is made here, in whose place `predictions` stands."""


class SystemSpec(Section, frozen=True, kw_only=True):
    """One system: what it is and what must hold."""

    system: str
    """Its name: 1 to 64 letters, digits, ``-`` and ``_``."""
    about: str = ""
    """One sentence for people."""
    data: Data
    """What comes in."""
    model: Model = NO_MODEL
    """What is trained; required, unless `predictions` stands in its place."""
    gates: tuple[Gate, ...] = ()
    """Checks that a candidate must pass, at least one; required, unless `predictions` stands in their place."""
    release: ReleasePlan = NO_RELEASE
    """How a version goes live; required, unless `predictions` stands in its place."""
    predictions: Predictions | None = None
    """Instead of `model`, `gates` and `release`, where the model is served elsewhere and only watched here."""
    monitors: tuple[Monitor, ...] = ()
    """Checks on a schedule."""
    false_alarms: Rate = 1.0
    """Expected number of incidents per 30 days that open without cause, over all calibrated monitors."""
    responses: tuple[Response, ...] = ()
    """What is done when an incident opens, or on a schedule."""
    serve: Serve = Serve()
    """How predictions are served and recorded."""

    @property
    def task(self) -> str:
        """What is answered, here or elsewhere: a kind of task."""
        return self.model.task if self.predictions is None else self.predictions.task
