"""What is written about every answer and every label, before the caller hears of it.

The storage schemas live here. They are not derived from what travels over the wire, so either may change alone.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec
import numpy as np

from holdfast.core.answerer import Answerer
from holdfast.core.protocols import ARRIVALS, LABELS, PREDICTIONS, Field, Same, Writer
from holdfast.core.signature import Rows, Signature
from holdfast.core.spec import Serve
from holdfast.errors import NotFound, StateError
from holdfast.serve.committing import Committer

_MOST_CONSTANTS = 256

FloatArray = np.ndarray[Any, np.dtype[np.float64]]
IntArray = np.ndarray[Any, np.dtype[np.int64]]
Answered = tuple[Sequence[str], Sequence[str]]
"""The version that answered each row (n,), and in which stage."""
WriterFor = Callable[[str, str, Sequence[Field]], Writer]
"""Opens a segment: table, system and schema to a writer (`Lake.writer`)."""

_PREDICTION = (
    Field("request_id", "text"),
    Field("prediction_id", "text"),
    Field("row", "int"),
    Field("key", "text"),
    Field("unit", "text"),
    Field("event_at", "time"),
    Field("features_known_at", "time"),
    Field("predicted_at", "time"),
    Field("version", "text"),
    Field("stage", "text"),
    Field("release", "text"),
    Field("status", "text"),
    Field("error", "text"),
    Field("caller", "text"),
    Field("outside", "int"),
)
_TIMES = (Field("queue_us", "float"), Field("run_us", "float"))

_LABEL = (
    Field("label_id", "text"),
    Field("key", "text"),
    Field("output", "text"),
    Field("value", "float"),
    Field("label_known_at", "time"),
    Field("ingested_at", "time"),
    Field("source", "text"),
    Field("revision", "int"),
)


def prediction_fields(signature: Signature) -> tuple[Field, ...]:
    """Columns of the predictions table for versions of one signature: inputs as ``in.<column>``, ``out.<output>``.

    All that are numbers with fractions stand last, in the order of the matrix that they are recorded as.
    """
    texts = [Field(f"in.{c.name}", "text") for c in signature.columns if c.type == "category"]
    numbers = [Field(f"in.{c.name}", "float") for c in signature.columns if c.type != "category"]
    return (*_PREDICTION, *texts, *_TIMES, *numbers, *(Field(f"out.{name}", "float") for name in signature.outputs))


_ARRIVAL = (
    Field("arrival_id", "text"),
    Field("arrived_at", "time"),
    Field("part", "text"),
    Field("request_id", "text"),
    Field("row", "int"),
    Field("key", "text"),
    Field("predicted_at", "time"),
    Field("version", "text"),
    Field("caller", "text"),
)


def arrival_fields(signature: Signature) -> tuple[Field, ...]:
    """Columns of the arrivals table: `part` is ``whole``, ``request`` (no output) or ``response`` (no inputs)."""
    texts = [Field(f"in.{c.name}", "text") for c in signature.columns if c.type == "category"]
    numbers = [Field(f"in.{c.name}", "float") for c in signature.columns if c.type != "category"]
    return (*_ARRIVAL, *texts, *numbers, *(Field(f"out.{name}", "float") for name in signature.outputs))


def label_fields() -> tuple[Field, ...]:
    """Columns of the labels table."""
    return _LABEL


def class_fields() -> tuple[Field, ...]:
    """Columns of the labels table where labels are classes: its `value` is a place among those of the file, which may
    come to have others."""
    return (*_LABEL, Field("class", "text"))


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """What came about n answers that were given elsewhere. Times are microseconds since 1970 UTC (n,)."""

    part: Literal["whole", "request", "response"]
    request_id: Sequence[str]
    row: IntArray
    """Place of the row in its request, from 0."""
    key: Sequence[str | None]
    predicted_at: IntArray
    version: Sequence[str]
    """Empty where nothing names it."""
    arrived_at: int
    caller: str = ""
    inputs: Rows | None = None
    """None for a response."""
    outputs: FloatArray | None = None
    """(n,), or (n, classes). None for a request."""


class RowMeta(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about each of n rows beside its inputs. Times are microseconds since 1970 UTC (n,)."""

    request_id: Sequence[str]
    predicted_at: IntArray
    row: IntArray | None = None
    """Place of the row in its request, from 0; None: each is the only row of its request."""
    key: Sequence[str | None] | None = None
    unit: Sequence[str | None] | None = None
    event_at: IntArray | None = None
    """None: when it was predicted."""
    features_known_at: IntArray | None = None
    """None: when it was predicted."""
    caller: str | Sequence[str] = ""
    """Name of the token that was brought, of all rows or of each."""

    def take(self, index: IntArray) -> "RowMeta":
        """The rows at these positions."""
        chosen = index.tolist()
        return RowMeta(
            request_id=[self.request_id[i] for i in chosen],
            predicted_at=self.predicted_at[index],
            row=None if self.row is None else self.row[index],
            key=None if self.key is None else [self.key[i] for i in chosen],
            unit=None if self.unit is None else [self.unit[i] for i in chosen],
            event_at=None if self.event_at is None else self.event_at[index],
            features_known_at=None if self.features_known_at is None else self.features_known_at[index],
            caller=self.caller if isinstance(self.caller, str) else [self.caller[i] for i in chosen],
        )


Done = Callable[[StateError | None], None]
"""Called once rows are recorded as their system's file asks, or with why they are not."""


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """What became of rows: given to be recorded, written, answered without a record as the file allows, refused."""

    sent: int = 0
    written: int = 0
    shed: int = 0
    lost: int = 0
    """Rows that could not be written; none of them was acknowledged."""
    late: int = 0
    """Rows among those shed and lost that were written after all."""
    waiting: int = 0
    """Rows that are accepted and not yet written."""

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            sent=self.sent + other.sent,
            written=self.written + other.written,
            shed=self.shed + other.shed,
            lost=self.lost + other.lost,
            late=self.late + other.late,
            waiting=self.waiting + other.waiting,
        )


class Recorder:
    """Appends predictions and labels, one open segment per table, system and signature. Owned by one thread.

    `writer_for` opens segments, `serve_of` says how a system records. With `call_soon` (of an event loop, safe from
    any thread) several answers share one sync to the disk; without it every call returns when all is done.
    `kept_writer_for` opens the segments of systems that record at ``memory``.
    """

    def __init__(
        self,
        writer_for: WriterFor,
        serve_of: Callable[[str], Serve] = lambda system: Serve(),
        call_soon: Callable[[Callable[[], None]], object] | None = None,
        kept_writer_for: WriterFor | None = None,
    ) -> None:
        self._writer_for = writer_for
        self._kept_writer_for = kept_writer_for or writer_for
        self._serve_of = serve_of
        self._call_soon = call_soon
        self._open: dict[tuple[str, str, str], Committer] = {}
        self._leaving: list[Committer] = []
        self._settings: dict[tuple[str, str, str], tuple[str, str] | None] = {}
        self._constants: dict[tuple[Any, ...], Mapping[str, Any]] = {}
        self._ended = Counts()

    @property
    def counts(self) -> Counts:
        """What became of the rows so far."""
        return sum(map(_counts, (*self._open.values(), *self._leaving)), self._ended)

    @property
    def lag_s(self) -> float:
        """Age in seconds of the oldest row that was accepted and is not recorded yet."""
        return max((committer.lag_s for committer in (*self._open.values(), *self._leaving)), default=0.0)

    def record_predictions(
        self,
        by: Answerer,
        rows: Rows,
        outputs: FloatArray,
        meta: RowMeta,
        *,
        queue_us: FloatArray,
        run_us: float | FloatArray,
        done: Done | None = None,
        error: str = "",
        answered: Answered | None = None,
    ) -> None:
        """Write answered rows, and call `done` when they are recorded. A row whose output is not finite has failed.

        `queue_us` (n,) is how long each row waited until its batch was run, `run_us` how long that took. `answered`
        says for each row which version did, where that is not always `by`. Without `done`, for recorders without an
        event loop: raises StateError when the rows are not recorded.
        """
        n = rows.count
        ids, places = meta.request_id, meta.row
        event_at, known_at = meta.event_at, meta.features_known_at
        columns: dict[str, Any] = {"request_id": ids, "predicted_at": meta.predicted_at, "outside": rows.outside}
        if event_at is not None:
            columns["event_at"] = event_at
        if known_at is not None:
            columns["features_known_at"] = known_at
        if places is not None:
            columns["prediction_id"] = [f"{id}:{row}" for id, row in zip(ids, places.tolist(), strict=True)]
            columns["row"] = places
        if meta.key is not None:
            columns["key"] = meta.key
        if meta.unit is not None:
            columns["unit"] = meta.unit
        if answered is not None:
            columns["version"], columns["stage"] = answered
        if not isinstance(meta.caller, str):
            columns["caller"] = meta.caller
        is_single = outputs.ndim == 1
        finite = np.isfinite(outputs if is_single else outputs.sum(axis=1))
        are_ok = bool(finite.all())
        if not are_ok:
            columns["status"] = ["ok" if ok else "failed" for ok in finite.tolist()]
        for name, values in rows.texts.items():
            columns[f"in.{name}"] = values
        if is_single:
            matrix = np.empty((n, rows.numbers.shape[1] + 3))
            matrix[:, 2:-1] = rows.numbers
            matrix[:, -1] = outputs
        else:
            width = outputs.shape[1]
            matrix = np.empty((n, rows.numbers.shape[1] + 2 + width))
            matrix[:, 2:-width] = rows.numbers
            # A row that failed in one of its numbers failed in all.
            matrix[:, -width:] = outputs if are_ok else np.where(finite[:, None], outputs, np.nan)
        matrix[:, 0] = queue_us
        matrix[:, 1] = run_us
        caller = meta.caller if isinstance(meta.caller, str) else None
        same = (
            answered is None,
            event_at is None,
            known_at is None,
            places is None,
            meta.key is None,
            meta.unit is None,
            are_ok,
        )
        constants = self._same(by, same, caller, error)
        self._committer(PREDICTIONS.name, by.system, by.signature_hash, lambda: prediction_fields(by.signature)).append(
            columns, n, constants=constants, matrix=matrix, done=done or _raised
        )

    def _same(self, by: Answerer, same: tuple[bool, ...], caller: str | None, error: str) -> Mapping[str, Any]:
        """Columns that need not be told row by row: the same object for the same values, which is written faster.

        `same` says whether that is so of the version, the time of the event, when its features were known, the place
        in the request, the key, the unit and the status.
        """
        key = (by.system, by.version, by.stage, by.release, same, caller, error)
        constants = self._constants.get(key)
        if constants is None:
            has_one_version, is_now, is_known_now, is_single, has_no_key, has_no_unit, are_ok = same
            made: dict[str, Any] = {"release": by.release, "error": error or None}
            made |= {"version": by.version, "stage": by.stage} if has_one_version else {}
            made |= {"event_at": Same("predicted_at")} if is_now else {}
            made |= {"features_known_at": Same("predicted_at")} if is_known_now else {}
            made |= {"row": 0, "prediction_id": Same("request_id", ":0")} if is_single else {}
            made |= {"key": None} if has_no_key else {}
            made |= {"unit": None} if has_no_unit else {}
            made |= {"status": "ok"} if are_ok else {}
            made |= {"caller": caller} if caller is not None else {}
            if len(self._constants) >= _MOST_CONSTANTS:
                self._constants.clear()
            constants = self._constants[key] = made
        return constants

    def record_labels(
        self,
        system: str,
        *,
        output: str,
        keys: Sequence[str],
        values: FloatArray,
        known_at: IntArray,
        ingested_at: IntArray,
        source: str | Sequence[str] = "",
        revisions: IntArray | None = None,
        classes: Sequence[str | None] | None = None,
        done: Done | None = None,
    ) -> list[str]:
        """Write labels, all or none; returns their ids. The same key, output, time, revision and value give the same.

        So a delivery that is repeated counts once, and a correction never replaces what was known before. They are
        recorded when `done` is called; `classes` names the class of each where labels are classes, None for one that is
        not known by name. Without `done`, for recorders without an event loop, when this returns. Raises
        StateError then when they are not.
        """
        n = len(keys)
        revision = np.zeros(n, dtype=np.int64) if revisions is None else revisions
        told = values.tolist() if classes is None else classes
        parts = zip(keys, known_at.tolist(), revision.tolist(), told, strict=True)
        ids = [f"{key}:{output}:{at}:{number}:{value!r}" for key, at, number, value in parts]
        columns = {
            "label_id": ids,
            "key": keys,
            "output": [output] * n,
            "value": values,
            "label_known_at": known_at,
            "ingested_at": ingested_at,
            "source": [source] * n if isinstance(source, str) else source,
            "revision": revision,
        }
        if classes is None:
            committer = self._committer(LABELS.name, system, "", label_fields)
        else:
            columns["class"] = classes
            committer = self._committer(LABELS.name, system, "class", class_fields)
        committer.append(columns, n, done=done or _raised)
        return ids

    def record_arrival(
        self, system: str, signature: Signature, arrival: Arrival, *, done: Done | None = None
    ) -> list[str]:
        """Write what came about answers that were given elsewhere, all or none; returns the ids of the predictions.

        Of the same part of the same prediction the first that came stays, so a delivery may be repeated.
        """
        n, texts = len(arrival.request_id), [c.name for c in signature.columns if c.type == "category"]
        ids = [f"{id}:{row}" for id, row in zip(arrival.request_id, arrival.row.tolist(), strict=True)]
        columns: dict[str, Any] = {
            "arrival_id": [f"{id}/{arrival.part}" for id in ids],
            "request_id": arrival.request_id,
            "row": arrival.row,
            "key": arrival.key,
            "predicted_at": arrival.predicted_at,
            "version": arrival.version,
        }
        constants: dict[str, Any] = {"part": arrival.part, "caller": arrival.caller}
        columns["arrived_at"] = np.full(n, arrival.arrived_at, dtype=np.int64)
        width = len(signature.outputs)
        matrix = np.full((n, len(signature.columns) - len(texts) + width), np.nan)
        if arrival.inputs is None:
            constants |= {f"in.{name}": None for name in texts}
        else:
            columns |= {f"in.{name}": arrival.inputs.texts[name] for name in texts}
            matrix[:, :-width] = arrival.inputs.numbers
        if arrival.outputs is not None:
            matrix[:, -width:] = arrival.outputs.reshape(n, width)
        self._committer(ARRIVALS.name, system, signature.hash(), lambda: arrival_fields(signature)).append(
            columns, n, constants=constants, matrix=matrix, done=done or _raised
        )
        return ids

    def _committer(
        self, table: str, system: str, signature_hash: str, schema: Callable[[], Sequence[Field]]
    ) -> Committer:
        key = (table, system, signature_hash)
        committer = self._open.get(key)
        if committer is None:
            serve = self._serve_of(system)
            self._settings[key] = (serve.record, serve.unrecorded)
            is_prediction = table == PREDICTIONS.name
            open_writer = self._kept_writer_for if serve.record == "memory" else self._writer_for
            committer = self._open[key] = Committer(
                lambda: open_writer(table, system, schema()),
                # A label is no answer: it is written and waited for, whatever is decided about predictions.
                record=serve.record if is_prediction or serve.record != "none" else "process",
                on_failure=serve.unrecorded if is_prediction else "refuse",
                call_soon=self._call_soon,
            )
        return committer

    def look(self) -> None:
        """Refuse or shed what has waited too long for the disk. To be called every 50 ms or so."""
        for committer in (*self._open.values(), *self._leaving):
            committer.look()

    def rotate(self, older_than_s: float) -> None:
        """Seal the segments that were opened longer ago than this, so that they can be rolled.

        A system whose file records in another way by now goes on in that way. Waits for no disk.
        """
        for key, committer in list(self._open.items()):
            if self._settings[key] == self._settings_of(key[1]):
                committer.rotate(older_than_s)
            else:
                self._leaving.append(self._open.pop(key))
        for committer in self._leaving:
            committer.rotate(0.0)
        gone = [committer for committer in self._leaving if committer.is_idle]
        self._leaving = [committer for committer in self._leaving if not committer.is_idle]
        self._ended = sum(map(_counts, gone), self._ended)

    def close(self) -> None:
        """Seal everything. The recorder may be used again; it opens new segments."""
        ending = [*self._open.values(), *self._leaving]
        self._open.clear()
        self._leaving.clear()
        for committer in ending:
            committer.close()
            self._ended = self._ended + _counts(committer)

    def _settings_of(self, system: str) -> tuple[str, str] | None:
        """How a system records now; None for one that is gone."""
        try:
            serve = self._serve_of(system)
        except NotFound:
            return None
        return serve.record, serve.unrecorded


def _raised(error: StateError | None) -> None:
    if error is not None:
        raise error


def _counts(committer: Committer) -> Counts:
    return Counts(
        sent=committer.sent,
        written=committer.written,
        shed=committer.shed,
        lost=committer.lost,
        late=committer.late,
        waiting=committer.waiting_rows,
    )
