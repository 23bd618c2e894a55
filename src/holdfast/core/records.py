"""What the catalog keeps: one frozen record per decision. Every key begins with the system's name."""

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any, ClassVar, Literal

import msgspec

from holdfast.core.evidence import Reading, Verdict
from holdfast.core.spans import Choice


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Base of what the catalog keeps. `id` is unique within a system and kind; `state` is what it is found by."""

    table: ClassVar[str] = ""

    system: str
    id: str
    state: str = ""


class SystemFile(Record, frozen=True, kw_only=True):
    """The system file as it was put into force. `id` is ``file``."""

    table: ClassVar[str] = "system_files"

    path: str
    text: str
    spec_hash: str
    at: datetime


class FileRef(msgspec.Struct, frozen=True, kw_only=True):
    """A source file that went into a snapshot: its name, content hash and how many rows it gave."""

    feed: str
    name: str
    sha256: str
    rows: int


class Snapshot(Record, frozen=True, kw_only=True):
    """An immutable, content-addressed dataset with its lineage. `id` is the first 16 digits of `sha256`."""

    table: ClassVar[str] = "snapshots"

    sha256: str
    blob: str
    """Key of the Parquet file in the blob store."""
    at: datetime
    rows: int
    rows_read: int
    rows_dropped: int
    rows_quarantined: int
    labelled: int
    since: datetime | None
    until: datetime | None
    """First and last `known_at` in it."""
    files: tuple[FileRef, ...]
    spec_hash: str
    code: str
    """Holdfast's version and, where there is one, the commit of the working tree."""
    verdicts: tuple[Verdict, ...] = ()


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """A reference model trained beside the candidate and its metrics on the same hold-out rows."""

    name: str
    metrics: dict[str, float]
    took_s: float = 0.0


class Run(Record, frozen=True, kw_only=True):
    """One training: what went in, what came out, what it cost."""

    table: ClassVar[str] = "runs"

    state: Literal["running", "succeeded", "failed"] = "running"
    snapshot: str
    job: str = ""
    trainer: str
    params: dict[str, Any] = {}
    seed: int
    started_at: datetime
    ended_at: datetime | None = None
    took_s: float = 0.0
    cpu_s: float = 0.0
    cost: float = 0.0
    """CPU hours; a currency needs a price that the file does not state."""
    metrics: dict[str, float] = {}
    """On the hold-out blocks: the newest, never fitted on."""
    folds: tuple[dict[str, float], ...] = ()
    curves: dict[str, list[float]] = {}
    """``train`` and ``valid`` loss per round."""
    baselines: tuple[Baseline, ...] = ()
    environment: dict[str, str] = {}
    commit: str = ""
    artifact: str = ""
    """Normalised artifact hash; also the blob key of its archive."""
    runtime: str = ""
    parity: str = ""
    """How the served model was proved equal to the trained one, or why it is served natively."""
    holdout: tuple[datetime, datetime] | None = None
    holdout_rows: str = ""
    """Blob key of the scored hold-out rows: inputs, label and the outputs of candidate, linear and trivial model."""
    validated_rows: str = ""
    """Blob key of the rows that the validation folds scored: key, event_at, label and answer. Empty in runs of 0.1."""
    trained_until: datetime | None = None
    window: Choice | None = None
    """How much of the history was fitted, and why."""
    message: str = ""


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """One step in the life of a version or release."""

    at: datetime
    to: str
    why: str
    by: str = "holdfast"


class Version(Record, frozen=True, kw_only=True):
    """A registered, signed model. `id` counts up: ``1``, ``2``, ... `state` is its stage."""

    table: ClassVar[str] = "versions"

    state: str = "candidate"
    run: str
    artifact: str
    """Blob key of the artifact's archive."""
    bundle: str
    """Blob key of the OpenSSF model-signing bundle over it."""
    signature_hash: str
    at: datetime
    signed_by: str
    """Fingerprint of the public key."""
    metrics: dict[str, float] = {}
    history: tuple[Move, ...] = ()


ReleaseState = Literal[
    "candidate", "gated", "shadow", "canary", "live", "retired", "rejected", "rolled_back", "expired"
]
OPEN_STATES: tuple[ReleaseState, ...] = ("candidate", "gated", "shadow", "canary")


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """The folded evidence of a release: candidate against live, block by block, mature labels only."""

    blocks: int = 0
    rows: int = 0
    unlabelled: int = 0
    through: datetime | None = None
    """End of the newest block folded in."""
    mean: float = 0.0
    """Mean over blocks of (candidate's loss - live's loss); negative is better."""
    lowest: float = 0.0
    highest: float = 0.0
    """The widest bounds of a day's difference so far: each day is bet on within these, so that none counts for more."""
    not_worse: tuple[float, ...] = msgspec.field(default=(), name="log_wealth_not_worse")
    worse: tuple[float, ...] = msgspec.field(default=(), name="log_wealth_worse")
    """States of the test against 'worse by the margin', and against 'no worse'; stored under their names of 0.1, when
    they were log wealths only, so that a release under way then goes on."""
    goal: tuple[float, ...] = ()
    """Of a release that its goal decides: the difference of the arms, folded."""
    split: tuple[float, ...] = ()
    """And how units came to the arms in the step under way."""
    split_step: int = -1
    split_through: date | None = None
    """Which step that is, and the newest day that was counted; None before the first."""


class Release(Record, frozen=True, kw_only=True):
    """One attempt to take a version live, with its stage and evidence."""

    table: ClassVar[str] = "releases"

    state: ReleaseState = "candidate"
    run: str
    version: str = ""
    against: str = ""
    """Version that was live when the release began; empty at a first release."""
    at: datetime
    step: int = 0
    step_since: datetime | None = None
    share: float = 0.0
    """Of the units, what the canary under way answers, as the file said when the step was taken; 0 in other steps, and
    in records of 0.1, whose share is the one of the file."""
    evidence: tuple[Verdict, ...] = ()
    comparison: Comparison = Comparison()
    why: str = ""
    history: tuple[Move, ...] = ()
    cause: str = ""
    """What asked for it: a person, a schedule, an incident."""


class Route(Record, frozen=True, kw_only=True):
    """What the data plane serves for a system: the numbered projection of the registry. `id` is ``route``."""

    table: ClassVar[str] = "routes"

    generation: int
    live: str = ""
    canary: str = ""
    canary_share: float = 0.0
    shadow: str = ""
    release: str = ""
    at: datetime | None = None


class ColumnCost(msgspec.Struct, frozen=True, kw_only=True):
    """What the shift of one column is estimated to cost, in units of the loss."""

    column: str
    cost: float
    """Estimated rise of the mean loss."""
    low: float | None = None
    high: float | None = None
    """Interval of the true cost at 95 %; None without labels of two days before."""
    usual: float | None = None
    """The same on the days before, when nothing was wrong."""


class Happening(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was changed: a deploy, a rollback, a file that was taken in."""

    at: datetime
    what: str


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """What an incident means. Each part may be absent; `note` then says why."""

    at: datetime
    """When this was found out."""
    about: tuple[str, ...] = ()
    """The subjects that were known to have gone bad by then."""
    column: str = ""
    """The column whose shift costs most; empty where none stands out."""
    began: date | None = None
    """First day that was different."""
    began_low: date | None = None
    began_high: date | None = None
    """Interval of `began` at 95 %, both days in it."""
    dated_by: str = ""
    """The daily number whose step says when it began."""
    slices: tuple[Reading, ...] = ()
    """The segments of the rows that got worse most, beyond the rest of the same days; corrected for the search."""
    loss: str = ""
    """Name of the loss that `cost` and `ranking` are in."""
    cost: float | None = None
    """How much higher the mean loss is because of it, per row."""
    cost_low: float | None = None
    cost_high: float | None = None
    """Interval of `cost` at 95 %; None where too few labels are known."""
    basis: Literal["", "labels", "estimate"] = ""
    """Whether `cost` was measured on labels that have come, or estimated without."""
    ranking: tuple[ColumnCost, ...] = ()
    """The columns that moved, costliest first."""
    changes: tuple[Happening, ...] = ()
    """What changed near the time at which it began, oldest first."""
    note: str = ""
    """What could not be said, and why."""
    is_final: bool = True
    """False while days or labels that are still to come can say more."""


class Incident(Record, frozen=True, kw_only=True):
    """One cause, from open to closed, with its verdicts."""

    table: ClassVar[str] = "incidents"

    state: Literal["open", "acknowledged", "closed"] = "open"
    cause: str
    """``check:subject``: verdicts with the same cause belong to the same incident."""
    check: str
    subject: str = ""
    opened_at: datetime
    closed_at: datetime | None = None
    last_at: datetime
    calibrated: bool = True
    """Whether history judged what was found, by one of the monitors that found it; see `Verdict`."""
    seen: int = 1
    first: Verdict
    last: Verdict
    also: tuple[str, ...] = ()
    """Other subjects that went bad with it; the costliest first, where that is known."""
    actions: tuple[Move, ...] = ()
    explained: Explanation | None = None
    """What it means: when it began, where, what it costs, what changed then."""


class Job(Record, frozen=True, kw_only=True):
    """Long work as state: claimed under a lease, run in its own process, completed by content hash."""

    table: ClassVar[str] = "jobs"

    state: Literal["queued", "running", "done", "failed"] = "queued"
    kind: str
    payload: dict[str, Any] = {}
    at: datetime
    owner: str = ""
    lease_until: datetime | None = None
    attempts: int = 0
    result: dict[str, Any] = {}
    message: str = ""
    ended_at: datetime | None = None


class Mark(Record, frozen=True, kw_only=True):
    """Where something that runs on a schedule stands: when it last ran and what it remembers."""

    table: ClassVar[str] = "marks"

    last_at: datetime | None = None
    memory: dict[str, Any] = {}


class Token(Record, frozen=True, kw_only=True):
    """An access token: only its hash is kept. Tokens belong to the state, so `system` is ``*``."""

    table: ClassVar[str] = "tokens"

    state: Literal["active", "revoked"] = "active"
    name: str
    role: Literal["admin", "client"] = "admin"
    sha256: str
    at: datetime


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One change, chained: `hash` covers everything in the entry and the hash before it."""

    seq: int
    at: datetime
    actor: str
    action: str
    system: str
    subject: str
    detail: Mapping[str, Any]
    before: str
    hash: str


RECORDS: tuple[type[Record], ...] = (SystemFile, Snapshot, Run, Version, Release, Route, Incident, Job, Mark, Token)
