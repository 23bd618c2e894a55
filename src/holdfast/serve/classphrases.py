"""How the usual answers of a version of several classes read: as `Phrases`, with the most likely class beside them."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from holdfast.serve.phrases import Phrases

FloatArray = np.ndarray[Any, np.dtype[np.float64]]
IntArray = np.ndarray[Any, np.dtype[np.int64]]

CLASS = "class"
"""What the most likely class is called in an answer."""
NONE = -1
"""The place of the most likely class where the model gave no probabilities."""

_encode = msgspec.json.Encoder().encode


def likeliest(outputs: FloatArray) -> IntArray:
    """Place of the most likely class of each row (n,), the first of equal ones, by answers (n, classes).

    `NONE` where one of its numbers is not finite.
    """
    finite = np.isfinite(outputs.sum(axis=1))
    if finite.all():
        first: IntArray = outputs.argmax(axis=1)
        return first
    return np.where(finite, np.where(finite[:, None], outputs, 0.0).argmax(axis=1), NONE)


class ClassPhrases(Phrases):
    """Writes answers of one number per class, from numbers that are text already and places of the likeliest classes.

    Numbers stand row by row, in the order of the classes; `places` are as `likeliest` gives them.
    """

    def __init__(self, *, system: str, version: str, stage: str, output: str, classes: Sequence[str]) -> None:
        super().__init__(system=system, version=version, stage=stage, output=output)
        self.width = len(classes)
        # The last one stands at NONE.
        self._said = [*map(_encode, classes), b"null"]
        self._listed = [*map(_encode, classes), b'""']
        texts = [name.encode() for name in (*classes, "")]
        self._packed = [len(text).to_bytes(4, "little") + text for text in texts]
        each = b",".join(b"%b:%%b" % _in_template(_encode(name)) for name in classes)
        self._of_row = b'{%b:%%b,%b:{%b},"prediction_id":%%b:%%d"%b%%d}' % (
            _encode(CLASS),
            _in_template(_encode(output)),
            each,
            _in_template(self._rest),
        )
        self._of_numbers = b',%d],"datatype":"FP64",' % self.width
        self._named = b'},{"name":%b,"shape":[' % _encode(CLASS)

    def infer_classes(
        self, id: bytes, numbers: Sequence[bytes], places: Sequence[int], outside: Sequence[int]
    ) -> bytes:
        """An answer of the Open Inference Protocol. `id` is the request's, as JSON."""
        listed = self._listed
        return b'%b%b%b%d%b%d%b"data":[%b]%b%d],"datatype":"BYTES","data":[%b]}]}' % (
            self.before_id,
            id,
            self._stage,
            sum(outside),
            self._tensor,
            len(places),
            self._of_numbers,
            b",".join(numbers),
            self._named,
            len(places),
            b",".join([listed[place] for place in places]),
        )

    def classes_as_bytes(self, places: Sequence[int]) -> bytes:
        """The most likely classes as the protocol has texts as bytes; empty where there is none."""
        packed = self._packed
        return b"".join([packed[place] for place in places])

    def before_class_bytes(self, id: bytes, size: int, count: int, outside: Sequence[int]) -> bytes:
        """The JSON of an answer of `count` rows, whose numbers follow it as bytes of float64, and behind those the
        classes as so many bytes (`size`)."""
        return (
            b'%b%b%b%d%b%d%b"parameters":{"binary_data_size":%d}%b%d],"datatype":"BYTES","parameters":'
            b'{"binary_data_size":%d}}]}'
            % (
                self.before_id,
                id,
                self._stage,
                sum(outside),
                self._tensor,
                count,
                self._of_numbers,
                8 * self.width * count,
                self._named,
                count,
                size,
            )
        )

    def predict_classes(
        self, id: bytes, numbers: Sequence[bytes], places: Sequence[int], outside: Sequence[int]
    ) -> bytes:
        """A plain answer: one object per row. `id` is the request's, as JSON."""
        row, said, width, start = self._of_row, self._said, self.width, id[:-1]
        rows = [
            row % (said[place], *numbers[i * width : (i + 1) * width], start, i, beyond)
            for i, (place, beyond) in enumerate(zip(places, outside, strict=True))
        ]
        return b'{"request_id":%b,"predictions":[%b]}' % (id, b",".join(rows))


def _in_template(text: bytes) -> bytes:
    return text.replace(b"%", b"%%")
