"""Requests in their usual form, from the bytes that came in to the bytes that go out, many at a time."""

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec
import numpy as np

from holdfast.core.inputs import Ranges, Reader
from holdfast.core.signature import Rows
from holdfast.serve.classphrases import ClassPhrases, likeliest
from holdfast.serve.lanes import Lane, Lanes
from holdfast.serve.paths import Place
from holdfast.serve.reading import Given
from holdfast.serve.recording import FloatArray, RowMeta

_encode = msgspec.json.Encoder().encode


class Known(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What the head of a usual request says."""

    place: Place
    lanes: Lanes
    length: int
    """Bytes of its body."""
    caller: str
    headers: tuple[tuple[bytes, bytes], ...]
    request_id: str
    is_readable: bool
    """Whether its body may be read in a single pass."""
    json_length: int = 0
    """Bytes of JSON that its body begins with, where the rest is tensors; 0 where all is JSON."""


class Origin(Protocol):
    """Where a call came from and its answer goes."""

    def answered(self, call: "Quick") -> None:
        """Send what stands in `call.payload`, or say what `call.error` is; never raises."""

    def unusual(self, call: "Quick") -> None:
        """Answer the call the general way: something in it needs a closer look."""


class Quick:
    """One request, from a whole body to its answer: plain data, because a thousand of them are alive at a time.

    `values` is what was read of it in a single pass, None where it goes the general way.
    """

    __slots__ = (
        "accepted_s",
        "answer",
        "body",
        "caller",
        "count",
        "error",
        "is_answered",
        "json_length",
        "keys",
        "known",
        "lane",
        "lanes",
        "origin",
        "payload",
        "request_id",
        "units",
        "values",
        "wants_bytes",
    )

    def __init__(
        self, origin: Origin, known: Known, body: bytes, given: Given | None, request_id: str, accepted_s: float
    ) -> None:
        self.origin = origin
        self.known = known
        self.lanes = known.lanes
        self.caller = known.caller
        self.body = body
        self.request_id = request_id
        self.accepted_s = accepted_s
        self.values: list[Any] | FloatArray | None = None
        self.count = 1
        if given is not None:
            self.values, self.count, self.keys, self.units = given.values, given.count, given.keys, given.units
            self.wants_bytes = given.wants_bytes
        self.payload = b""
        """The body of its answer, where it was answered as usual."""
        self.json_length = 0
        """Bytes of JSON that this begins with, where the rest is tensors."""
        self.answer: Any = None
        """Its answer, where that is any other."""
        self.error: Exception | None = None
        self.is_answered = False
        self.lane: Lane | None = None
        """The version that answered it."""


def name_lists(calls: Sequence[Quick]) -> None:
    """Let the rows of each call that names no unit be a list of their own."""
    for call in calls:
        call.units = [unit or call.request_id for unit in call.units or [None] * call.count]


def stuck_to(calls: Sequence[Quick]) -> list[str]:
    """What decides which version answers each call: the unit, or the key, or the request."""
    return [(c.units and c.units[0]) or (c.keys and c.keys[0]) or c.request_id for c in calls]


def rows_of(reader: Reader, calls: Sequence[Quick], ranges: Ranges | None = None) -> Rows | None:
    """The typed rows of some calls, one after the other; None when something in them needs a closer look.

    `ranges` are as for `Reader.checked`.
    """
    values: list[Any] = []
    width = len(reader.signature.columns)
    for call in calls:
        if type(call.values) is not list:  # many of them came as bytes
            return reader.checked(np.concatenate([_matrix(each, width) for each in calls]), {}, ranges)
        values += call.values
    if not reader.texts:
        return reader.checked(np.array(values, dtype=np.float64).reshape(-1, width), {}, ranges)
    numbers = np.empty((len(values) // width, len(reader.names)))
    texts: dict[str, list[str | None]] = {}
    place = 0
    for j, column in enumerate(reader.signature.columns):
        if column.type == "category":
            texts[column.name] = values[j::width]
        else:
            numbers[:, place] = values[j::width]
            place += 1
    return reader.checked(numbers, texts)


def _matrix(call: Quick, width: int) -> FloatArray:
    return np.array(call.values, dtype=np.float64).reshape(-1, width)


def meta_of(calls: Sequence[Quick], predicted_at: int) -> RowMeta:
    """What is known about the rows of some calls; `predicted_at` is in microseconds since 1970, UTC."""
    count = sum([call.count for call in calls])
    callers = {call.caller for call in calls}
    if count == len(calls):
        request_id = [call.request_id for call in calls]
        row = None
        caller: str | list[str] = callers.pop() if len(callers) == 1 else [call.caller for call in calls]
    else:
        request_id = [call.request_id for call in calls for _ in range(call.count)]
        row = np.concatenate([np.arange(call.count) for call in calls])
        caller = callers.pop() if len(callers) == 1 else [call.caller for call in calls for _ in range(call.count)]
    return RowMeta(
        request_id=request_id,
        row=row,
        key=_named([call.keys for call in calls], calls),
        unit=_named([call.units for call in calls], calls),
        caller=caller,
        predicted_at=np.full(count, predicted_at, dtype=np.int64),
    )


def _named(each: "list[list[str | None] | None]", calls: Sequence[Quick]) -> list[str | None] | None:
    if not any(each):
        return None
    names: list[str | None] = []
    for given, call in zip(each, calls, strict=True):
        names += given or [None] * call.count
    return names


def write_answers(calls: Sequence[Quick], outputs: FloatArray, outside: Sequence[int]) -> None:
    """Put the payloads on the calls whose rows these are, one after the other, as the lane of each says them."""
    # All at once: a number costs a tenth of what a call of its own would.
    numbers = _encode(outputs.tolist())[1:-1].split(b",")
    start = 0
    for call in calls:
        end = start + call.count
        assert call.lane is not None
        id, phrases = _encode(call.request_id), call.lane.phrases
        if call.known.place.kind == "predict":
            call.payload = phrases.predict(id, numbers[start:end], outside[start:end])
        elif call.wants_bytes:
            json = phrases.before_bytes(id, call.count, outside[start:end])
            call.payload, call.json_length = json + outputs[start:end].astype("<f8").tobytes(), len(json)
        else:
            call.payload = phrases.infer(id, numbers[start:end], outside[start:end])
        start = end


def write_class_answers(calls: Sequence[Quick], outputs: FloatArray, outside: Sequence[int]) -> None:
    """As `write_answers`, of outputs (n, classes): the calls were answered by one version."""
    lane = calls[0].lane
    assert lane is not None
    phrases = lane.phrases
    assert isinstance(phrases, ClassPhrases)
    numbers = _encode(outputs.reshape(-1).tolist())[1:-1].split(b",")
    places, width = likeliest(outputs).tolist(), phrases.width
    start = 0
    for call in calls:
        end = start + call.count
        id, own, beyond = _encode(call.request_id), places[start:end], outside[start:end]
        if call.known.place.kind == "predict":
            call.payload = phrases.predict_classes(id, numbers[start * width : end * width], own, beyond)
        elif call.wants_bytes:
            named = phrases.classes_as_bytes(own)
            json = phrases.before_class_bytes(id, len(named), call.count, beyond)
            call.payload, call.json_length = json + outputs[start:end].astype("<f8").tobytes() + named, len(json)
        else:
            call.payload = phrases.infer_classes(id, numbers[start * width : end * width], own, beyond)
        start = end
