"""A request on its way: what the caller gave, split by version and typed, and what it is answered."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

import msgspec
import numpy as np

from holdfast.core.clock import stopwatch_s
from holdfast.core.inputs import read_columns, read_json, read_matrix
from holdfast.core.signature import Rows
from holdfast.core.times import microseconds
from holdfast.errors import HoldfastError, InvalidInput
from holdfast.observe.tracing import Trace
from holdfast.serve import classphrases
from holdfast.serve.lanes import Lane, Lanes
from holdfast.serve.recording import FloatArray, IntArray, RowMeta
from holdfast.serve.traffic import takes_canary

T = TypeVar("T")


class PredictRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Rows to answer, either as objects (`rows`) or column by column (`columns`).

    The key and unit columns of the system may stand among the inputs; `keys` and `units` win over them. Times that
    are not given are the time of the answer.
    """

    request_id: str
    """Names the request; the same one again is a retry and is recorded once."""
    rows: Sequence[Mapping[str, Any]] | None = None
    columns: Mapping[str, Sequence[Any]] | None = None
    matrix: FloatArray | None = None
    """All columns of a signature of numbers at once (n, columns), in the order of the signature, NaN for missing."""
    version: str = ""
    """A version to be answered by; by default the split decides."""
    keys: Sequence[Any] | None = None
    units: Sequence[Any] | None = None
    event_at: Sequence[datetime | None] | None = None
    features_known_at: Sequence[datetime | None] | None = None
    caller: str = ""
    """Name of the token that was brought; empty where everyone may ask."""
    trace: Trace | None = None
    """The trace that it belongs to, where requests are traced."""

    @property
    def count(self) -> int:
        """How many rows."""
        if self.rows is not None:
            return len(self.rows)
        if self.matrix is not None:
            return len(self.matrix)
        return len(next(iter(self.columns.values()))) if self.columns else 0


CLASS = classphrases.CLASS


class PredictAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What was answered, row by row, after it was recorded. Row i is prediction ``<request_id>:<i>``."""

    system: str
    request_id: str
    output: str
    outputs: FloatArray
    versions: Sequence[str]
    stages: Sequence[str]
    outside: IntArray
    """How many values of each row lie outside what training saw."""
    classes: tuple[str, ...] = ()
    """Where `outputs` are one number per class (n, classes): the classes in order."""

    @property
    def likeliest(self) -> list[str | None]:
        """The most likely class of each row, the first of equal ones; None where the model gave no probabilities."""
        names = (*self.classes, None)  # the last one stands at NONE
        return [names[place] for place in classphrases.likeliest(self.outputs).tolist()]


class Part(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The rows of a request that one version answers; `index` are their places in the request (None: all)."""

    lane: Lane
    rows: Rows
    index: IntArray | None


class Pending:
    """A request that was routed and typed, and collects its answer."""

    def __init__(self, lanes: Lanes, request: PredictRequest) -> None:
        self.trace = request.trace
        self.accepted_s = stopwatch_s()
        self.system = lanes.name
        self.request_id = request.request_id
        self.caller = request.caller
        self.count = _count(lanes, request)
        keys = request.keys if request.keys is not None else _column(request, lanes.routed.key)
        units = request.units if request.units is not None else _column(request, lanes.routed.unit)
        self.keys = texts_of(keys, "keys", lanes.routed.key, self.count)
        self.units = texts_of(units, "units", lanes.routed.unit, self.count)
        if lanes.routed.is_listwise:
            self.units = [unit or self.request_id for unit in self.units]
        self.event_at = _times(request.event_at, "event_at", self.count)
        self.features_known_at = _times(request.features_known_at, "features_known_at", self.count)
        self.parts = _parts(lanes, request, self)
        self.error: HoldfastError | None = None
        self.settled: Callable[[], None] = lambda: None
        """Called once every part was filled, or the request failed."""
        self._open = len(self.parts)
        self._outputs = np.empty(self.parts[0].lane.signature.shape(self.count))
        self._outside = np.zeros(self.count, dtype=np.int64)

    def fail(self, error: HoldfastError) -> None:
        """Take that one part cannot be answered; the whole request is not, then."""
        self.error = error
        self._settle()

    def give_up(self, error: HoldfastError) -> None:
        """Fail what is not answered yet, whatever became of its parts."""
        if self._open > 0:
            self.error, self._open = error, 1
            self._settle()

    def _settle(self) -> None:
        self._open -= 1
        if self._open == 0:
            self.settled()

    def fill(self, part: Part, outputs: FloatArray) -> None:
        """Take the outputs of one part."""
        where: Any = slice(None) if part.index is None else part.index
        self._outputs[where] = outputs
        self._outside[where] = part.rows.outside
        self._settle()

    def answer(self) -> PredictAnswer:
        """The whole answer, once every part was filled."""
        by = self.parts[0].lane.by
        versions, stages = [by.version] * self.count, [str(by.stage)] * self.count
        for part in self.parts[1:]:
            for i in part.index.tolist() if part.index is not None else ():
                versions[i], stages[i] = part.lane.by.version, part.lane.by.stage
        return PredictAnswer(
            system=self.system,
            request_id=self.request_id,
            output=by.signature.output,
            outputs=self._outputs,
            versions=versions,
            stages=stages,
            outside=self._outside,
            classes=by.signature.classes,
        )


def meta_of(work: Sequence[tuple[Pending, Part]], now: datetime) -> RowMeta:
    """What is known about the rows of these parts, one after the other, predicted now."""
    predicted_at = microseconds(now)
    request_id: list[str] = []
    row: list[int] = []
    key: list[str | None] = []
    unit: list[str | None] = []
    caller: list[str] = []
    event_at: list[int] = []
    features_known_at: list[int] = []
    for pending, part in work:
        places = range(pending.count) if part.index is None else part.index.tolist()
        request_id += [pending.request_id] * len(places)
        row += places
        key += _at(pending.keys, part)
        unit += _at(pending.units, part)
        caller += [pending.caller] * len(places)
        for given, column in ((pending.event_at, event_at), (pending.features_known_at, features_known_at)):
            times = [None] * len(places) if given is None else _at(given, part)
            column += [predicted_at if time is None else time for time in times]
    return RowMeta(
        request_id=request_id,
        row=np.array(row, dtype=np.int64),
        key=key,
        unit=unit,
        caller=caller,
        event_at=np.array(event_at, dtype=np.int64),
        features_known_at=np.array(features_known_at, dtype=np.int64),
        predicted_at=np.full(len(row), predicted_at, dtype=np.int64),
    )


def _at(values: "list[T]", part: Part) -> "list[T]":
    return values if part.index is None else [values[i] for i in part.index.tolist()]


def joined(rows: Sequence[Rows]) -> Rows:
    """Rows of the same signature, one after the other."""
    if len(rows) == 1:
        return rows[0]
    return Rows(
        names=rows[0].names,
        numbers=np.concatenate([each.numbers for each in rows]),
        texts={name: [value for each in rows for value in each.texts[name]] for name in rows[0].texts},
        outside=np.concatenate([each.outside for each in rows]),
    )


def split(lanes: Lanes, units: Sequence[str]) -> list[tuple[Lane, IntArray | None]]:
    """Which lane answers which rows: sticky by unit; None stands for all rows."""
    if lanes.canary is None or lanes.routed.canary_share <= 0.0:
        return [(lanes.lane(), None)]
    is_canary = takes_canary(units, f"{lanes.name}/{lanes.routed.release}", lanes.routed.canary_share)
    count = int(is_canary.sum())
    if count == len(units):
        return [(lanes.canary, None)]
    if count == 0:
        return [(lanes.lane(), None)]
    return [(lanes.lane(), np.flatnonzero(~is_canary)), (lanes.canary, np.flatnonzero(is_canary))]


def _count(lanes: Lanes, request: PredictRequest) -> int:
    most = lanes.routed.serve.max_rows
    if not request.count:
        raise InvalidInput("the request has no rows", expected="at least one row")
    if request.count > most:
        raise InvalidInput(
            f"the request has {request.count} rows, '{lanes.name}' takes {most} at most; send several requests "
            "or raise serve.max_rows",
            row=most,
            expected=f"at most {most} rows",
        )
    return request.count


def _parts(lanes: Lanes, request: PredictRequest, pending: Pending) -> list[Part]:
    if request.version:
        chosen: list[tuple[Lane, IntArray | None]] = [(lanes.lane(request.version), None)]
    elif lanes.canary is None:
        chosen = [(lanes.lane(), None)]
    else:
        pairs = zip(pending.units, pending.keys, strict=True)
        chosen = split(lanes, [unit or key or request.request_id for unit, key in pairs])
    beside = {lanes.routed.key, lanes.routed.unit}
    return [Part(lane=lane, rows=_read(lane, request, index, beside), index=index) for lane, index in chosen]


def _read(lane: Lane, request: PredictRequest, index: IntArray | None, beside: set[str]) -> Rows:
    """The inputs of a part, typed by the version that answers it."""
    not_inputs = beside - lane.names
    try:
        if request.rows is not None:
            rows = request.rows if index is None else [request.rows[i] for i in index]
            return read_json(lane.signature, [_without(row, not_inputs) for row in rows])
        if request.matrix is not None:
            return read_matrix(lane.signature, request.matrix if index is None else request.matrix[index])
        given: Mapping[str, Any] = request.columns or {}
        columns = {name: values for name, values in given.items() if name not in not_inputs}
        if index is not None:
            columns = {
                name: values[index] if isinstance(values, np.ndarray) else [values[i] for i in index]
                for name, values in columns.items()
            }
        if not columns:
            raise InvalidInput("the request names no input column", expected=f"one of {', '.join(sorted(lane.names))}")
        return read_columns(lane.signature, columns)
    except InvalidInput as error:
        if index is None:
            raise
        # The row was counted within the part; the caller knows it by its place in the request.
        row = int(index[error.row])
        message = str(error).replace(f"row {error.row}", f"row {row}", 1)
        raise InvalidInput(message, row=row, column=error.column, expected=error.expected) from error


def _without(row: Mapping[str, Any], names: set[str]) -> Mapping[str, Any]:
    # What is no object is passed on: reading it says so, with its place.
    if not isinstance(row, Mapping) or names.isdisjoint(row):
        return row
    return {name: value for name, value in row.items() if name not in names}


def _column(request: PredictRequest, name: str) -> Sequence[Any] | None:
    if not name:
        return None
    if request.rows is not None:
        return [row.get(name) if isinstance(row, Mapping) else None for row in request.rows]
    return (request.columns or {}).get(name)


def texts_of(values: Sequence[Any] | None, what: str, column: str, count: int) -> list[str | None]:
    """Keys or units as text; numbers are written out, so 7 and "7" are the same."""
    if values is None:
        return [None] * count
    _same_length(values, what, count)
    return [
        value if value is None or type(value) is str else _text(value, i, column or what)
        for i, value in enumerate(values)
    ]


def _text(value: Any, row: int, column: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InvalidInput(
            f"row {row}, column '{column}': {value!r} is neither text nor a number; it identifies the row",
            row=row,
            column=column,
            expected="text or a whole number",
        )
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _times(values: Sequence[datetime | None] | None, what: str, count: int) -> list[int | None] | None:
    if values is None:
        return None
    _same_length(values, what, count)
    return [None if value is None else microseconds(value) for value in values]


def _same_length(values: Sequence[Any], what: str, count: int) -> None:
    if len(values) != count:
        raise InvalidInput(
            f"'{what}' has {len(values)} values for {count} rows; give one for each",
            row=min(len(values), count),
            column=what,
            expected=f"{count} values",
        )
