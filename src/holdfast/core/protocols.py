"""Every extension point. A reader starts here.

Plug-ins (named in a system file): Source, Trainer, Runtime, Task, Check, Action.
State (chosen by URL): Catalog, Lake, Blobs. Given to actions: Controls.
Each contract is also a suite of rules in `holdfast.testing` that every kind must pass.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeVar, runtime_checkable

import msgspec

from holdfast.core.evidence import Grade, Reading, Role, Window
from holdfast.core.records import AuditEntry, Incident, Record

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    FloatArray = np.ndarray[Any, np.dtype[np.floating[Any]]]
    Matrix = np.ndarray[Any, np.dtype[np.float64]]
    Words = np.ndarray[Any, np.dtype[np.uint32]]

R = TypeVar("R", bound=Record)


# What a system file names


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """One unit a source can give: a file. `sha256` is of its bytes, so the same content is taken once."""

    name: str
    sha256: str
    size_bytes: int


class Source(Protocol):
    """Where rows come from. Reading must not change the source and may be repeated."""

    def batches(self) -> Iterable[Batch]:
        """What can be read now, in a stable order. Raises SourceError when there is nothing to read."""

    def read(self, batch: Batch) -> "pl.DataFrame":
        """All rows of a batch, typed as the source has them. Raises SourceError naming file and cause."""


class Fitted(Protocol):
    """A model that has been fitted and can be exported."""

    params: Mapping[str, Any]
    curves: Mapping[str, list[float]]
    """``train`` and ``valid`` loss per round; empty where the method has no rounds."""

    def predict(self, x: "FloatArray") -> "FloatArray":
        """Outputs for a matrix (n, columns) of float32: shape (n,), a probability or a value; or (n, classes)."""

    def export(self, directory: Path) -> str:
        """Write the model in a portable form; returns the runtime kind that loads it (``onnx``)."""

    def export_native(self, directory: Path) -> str:
        """Write the library's own text form, never a pickle; returns the runtime kind that loads it."""


class Trainer(Protocol):
    """Fits one model. Fields of the class are its parameters in the system file. Deterministic given the seed."""

    def fit(
        self,
        x: "FloatArray",
        y: "FloatArray",
        *,
        valid: "tuple[FloatArray, FloatArray] | None",
        task: "Task",
        categories: Sequence[int],
        seed: int,
        weights: "FloatArray | None" = None,
    ) -> Fitted:
        """Fit on a matrix (n, columns) of float32 with NaN for missing, and targets (n,), or (n, 2) where the task is
        about lists.

        `categories[j]` is how many codes column j has (codes 0 .. k-1, NaN for unseen), 0 for a number.
        `valid` may stop training early; it is never fitted on. `weights` (n,), in (0, 1], say how much each row
        counts; it is only given where the file asks for it, and a trainer without it cannot weight rows.
        """


class Runtime(Protocol):
    """Runs one exported model. Made by `load(directory)`; thread-safe; same answers for the same input."""

    @classmethod
    def load(cls, directory: Path) -> "Runtime": ...

    def run(self, x: "FloatArray") -> "FloatArray":
        """Outputs for a matrix (n, columns) of float32: shape (n,), or (n, classes), float64."""


class TwoRuntime(Protocol):
    """Two models in one, for rows of which each goes to one of them."""

    def run(self, x: "FloatArray", which: "Words") -> "FloatArray":
        """Outputs (n,), of the first model where `which` (n,), uint32, is 0 and of the second where it is 1."""


@runtime_checkable
class Joining(Protocol):
    """A runtime that can run rows of two models at once."""

    def beside(self, other: Runtime) -> TwoRuntime | None:
        """This model and another one in one; None where that cannot be, or would not be faster."""


class Task(Protocol):
    """What is answered and how it is scored. Outputs are (n,), or (n, classes) where there are classes."""

    name: str
    output: str
    """Name of the model's output, for example ``probability``."""
    classes: tuple[str, ...]
    """Where an answer is one number per class: the classes in order; a label is then the place of its class, or
    -1 for one that is none of them. Empty where an answer is one number."""
    losses: tuple[str, ...]
    """Proper losses, the default first; each lower is better."""
    errors: tuple[str, ...]
    """Metrics beside the losses that can be watched day by day for a rise; each lower is better."""

    is_listwise: bool
    """Whether rows are ordered within lists; targets are then (n, 2), see `core/targets.py`."""

    def target(self, label: "pl.Series") -> "FloatArray":
        """Labels as float64 (n,), NaN where missing. Raises DataError for a label the task cannot take."""

    def loss(self, name: str, y: "FloatArray", output: "FloatArray") -> "FloatArray":
        """Loss per row (n,) of targets (n,) or (n, 2); NaN for a row by which no answer can be judged."""

    def loss_bounds(
        self, name: str, candidate: "FloatArray", live: "FloatArray", of: "FloatArray | None" = None
    ) -> "tuple[FloatArray, FloatArray]":
        """Lowest and highest that loss(candidate) - loss(live) can be per row, before the label is known.

        `of` (n,) are the lists of the rows, where the task is about some.
        """

    def metrics(self, y: "FloatArray", output: "FloatArray") -> dict[str, float]:
        """All metrics of the task on labelled rows; NaN where one is undefined (a class never occurs)."""

    def higher_is_better(self, metric: str) -> bool:
        """Direction of a metric. Raises UnknownKind-like errors with the near miss for a name it has not."""

    def refuses_label(self, value: float | str) -> str:
        """What would have been accepted instead of this label; empty when it is one."""

    def trivial(self, y: "FloatArray") -> "float | FloatArray":
        """The best constant answer for these labels: a number, or one per class (classes,)."""


class Check(Protocol):
    """Measures one property of a window. Pure: same windows, same readings. Fields are its options."""

    needs: ClassVar[frozenset[Role]]
    """Roles a window must carry; where one is missing the verdict is unknown and the check is not called."""
    facts: ClassVar[frozenset[str]]
    """Names of the facts it needs in `Window.facts` (see docs/checks)."""
    evidence: ClassVar[Literal["stated", "window", "stream"]]
    """How its readings are judged where the file states no limit: against the check's own stated limit, by
    calibration on windows of history, or as a stream of block means against what was promised."""
    against: ClassVar[Literal["reference", "recent", "nothing"]]
    """The baseline that `measure` wants: the rows that the model was trained on, the blocks just before the
    window, or none."""

    def measure(self, window: Window, baseline: Window | None) -> Sequence[Reading]:
        """Readings of the window; what cannot be measured is a reading with value None and a note."""

    def grade(self, reading: Reading) -> tuple[Grade, str]:
        """One of its readings against the check's own stated limit, and why in a sentence; no value is unknown.

        Asked where the file states no limit: always for "stated" evidence; for the others only while history
        is too short to calibrate, and the verdict then counts as uncalibrated.
        """


class Action(Protocol):
    """What is done about an incident. Fields of the class are its options."""

    def act(self, incident: Incident, controls: "Controls") -> str:
        """Do it, idempotently for the same incident; returns one sentence on what was done."""


class Controls(Protocol):
    """All that an action may touch."""

    def notify(self, text: str) -> str:
        """Tell people once the incident is on record; returns whether that reaches them, as a sentence."""

    def submit(self, kind: str, payload: Mapping[str, Any]) -> str:
        """Submit a job; returns its id. Submitting the same open job twice gives the same id."""

    def rollback(self, why: str) -> str:
        """Take the open release or the live version back; returns what is live now."""


# Where state lives


class Transaction(Protocol):
    """One catalog transaction: all of it or nothing."""

    def get(self, kind: type[R], system: str, id: str) -> R | None: ...

    def find(
        self, kind: type[R], system: str | None = None, *, state: Iterable[str] | None = None, newest: int | None = None
    ) -> list[R]:
        """Records in the order they were first put; of all systems when `system` is None.

        `newest` keeps only that many of the last ones, still oldest first.
        """

    def put(self, record: Record) -> None:
        """Insert, or replace the record of the same kind, system and id."""

    def next_id(self, kind: type[Record], system: str, prefix: str = "") -> str:
        """The next unused counting id, ``prefix1``, ``prefix2`` ..., for this system and kind."""

    def audit(
        self, *, at: datetime, actor: str, action: str, system: str, subject: str, detail: Mapping[str, Any]
    ) -> AuditEntry:
        """Append one entry to the hash chain, in this transaction."""

    def audit_log(self, system: str | None = None, newest: int | None = None) -> list[AuditEntry]: ...


class Catalog(Protocol):
    """What was decided. Transactions are serialised: what one reads does not change before it commits."""

    def begin(self) -> AbstractContextManager[Transaction]:
        """A transaction that commits at the end of the block, or rolls back when it raises."""

    def read(self) -> AbstractContextManager[Transaction]:
        """A consistent view for reading only; does not wait for writers."""

    def close(self) -> None: ...


FieldType = Literal["float", "int", "text", "time"]
"""Storage types: float64 (NaN is null), int64, UTF-8 text (None is null), microseconds since 1970 UTC (int64)."""


class Field(msgspec.Struct, frozen=True):
    """One column of a lake table."""

    name: str
    type: FieldType


Columns = Mapping[str, Any]
"""Column name -> numpy array (float64, int64; times as int64 microseconds) or list of str | None, all of one length."""


EMPTY: Mapping[str, Any] = MappingProxyType({})
"""No columns."""


class Same(msgspec.Struct, frozen=True):
    """Instead of a constant: in every row the column holds what another one does, and after a text its suffix."""

    column: str
    suffix: str = ""


class Writer(Protocol):
    """Appends rows to one segment of one table. Owned by one thread at a time; `sync` may be called from any."""

    def append(
        self, columns: Columns, rows: int, *, constants: Mapping[str, Any] = EMPTY, matrix: "Matrix | None" = None
    ) -> None:
        """Record rows; durable, as the lake was opened, when this returns. Raises StateError when it cannot.

        Each column of the schema is given once: in `columns`; in `constants` where every row has the same value (str,
        int, float, or None for null), or what a column of its type in `columns` holds (`Same`); or in `matrix`, float64
        (rows, k), as one of the last k columns, which are all of type float. `columns` and `matrix` are read before
        this returns. A mapping of constants is never changed once it was given, so that what was made of it may be
        kept and serve again for the same mapping.
        """

    def sync(self) -> None:
        """Make all that was appended before the call survive a power cut. Raises StateError when it cannot.

        What was appended since the last sync that succeeded must then count as lost, though it may still be read.
        """

    def close(self) -> None:
        """Seal the segment. An unsealed one is read all the same."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of a lake table that lie together and never change. No other part ever has its name."""

    system: str
    table: str
    name: str
    rows: int
    low: int
    high: int
    """First and last time of its rows, in microseconds since 1970 UTC."""


class Lake(Protocol):
    """What was observed: append-only tables, each with one time column and one identity column."""

    def writer(self, table: str, system: str, schema: Sequence[Field]) -> Writer:
        """Open a segment of its own for a table. Schemas may differ between segments of a table."""

    def scan(
        self, table: str, system: str, *, since: datetime | None = None, until: datetime | None = None
    ) -> "pl.DataFrame":
        """Rows with since <= time < until, once each by identity, times as Datetime[us, UTC].

        Of rows in the range that share an identity, `LakeTable.keep` says which one counts.
        A column that a segment does not have is null there; no rows is a frame without columns.
        Everything appended before the call is in it, whether sealed, rolled or neither.
        """

    def parts(
        self, table: str, system: str, *, since: datetime | None = None, until: datetime | None = None
    ) -> "tuple[Sequence[Part], Callable[[], pl.DataFrame]]":
        """The parts that may hold rows of the range, and what gives the rows of the range that are in no part yet.

        Both are of one moment. Together they have every row of a scan; an identity may be in several of them, and in
        one part more than once only at different times. A lake that never makes parts has none.
        """

    def read_part(self, part: Part, columns: Sequence[str]) -> "Iterator[pl.DataFrame]":
        """Its rows in the order of time, in frames of bounded size, with those of the columns that it has.

        Raises NotFound, when it is read, for a part that others have taken the place of.
        """

    def keep(self, part: Part, name: str, data: bytes) -> None:
        """Keep what was made of a part with it, until it is gone; what had that name is replaced. No promise that a
        power cut leaves it whole. Nothing happens where the part is gone."""

    def kept(self, part: Part, name: str) -> bytes | None:
        """What was kept with a part under a name; None where nothing is."""

    def roll(self) -> int:
        """Turn sealed segments into Parquet and forget them; returns how many. Readers never miss or double a row."""

    def close(self) -> None: ...


class LakeTable(msgspec.Struct, frozen=True):
    """How a table is identified and ordered, and which of two rows with the same identity counts."""

    name: str
    time: str
    identity: str
    keep: Literal["first", "last"] = "last"
    """The first or the last that was written."""


PREDICTIONS = LakeTable("predictions", "event_at", "prediction_id", "first")
"""A request that is repeated under its id does not replace what was acknowledged."""
LABELS = LakeTable("labels", "label_known_at", "label_id")
READINGS = LakeTable("readings", "at", "reading_id")
FEEDS = LakeTable("feeds", "known_at", "row_id")
QUARANTINE = LakeTable("quarantine", "ingested_at", "row_id")
ARRIVALS = LakeTable("arrivals", "arrived_at", "arrival_id", "first")
"""What came over HTTP about answers that were given elsewhere: whole ones, and requests and responses apart."""
TABLES: Mapping[str, LakeTable] = {t.name: t for t in (PREDICTIONS, LABELS, READINGS, FEEDS, QUARANTINE, ARRIVALS)}
"""Tables by name. ``feeds/<feed>`` and ``quarantine/<feed>`` are tables of their own, ruled by their first word."""


class Blobs(Protocol):
    """Artifacts by content: keys are the sha256 of the bytes, in hexadecimal."""

    def put(self, data: bytes) -> str:
        """Store bytes, durable when this returns; storing the same bytes again changes nothing."""

    def get(self, key: str) -> bytes:
        """The bytes. Raises NotFound, or Tampered when they do not hash to the key."""

    def has(self, key: str) -> bool: ...

    def keys(self) -> Iterator[str]: ...
