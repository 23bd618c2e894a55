"""How the usual answers of one version read: what is the same in all of them is written once."""

from collections.abc import Sequence

import msgspec

_encode = msgspec.json.Encoder().encode


class Phrases:
    """Writes answers from numbers that are text already. They say what the general way says, in the same words.

    `before_id` is what stands before the request's id in every answer of the protocol.
    """

    def __init__(self, *, system: str, version: str, stage: str, output: str) -> None:
        name, by, at = _encode(output), _encode(version), _encode(stage)
        self.before_id = b'{"model_name":%b,"model_version":%b,"id":' % (_encode(system), by)
        self._stage = b',"parameters":{"stage":%b,"outside":' % at
        self._tensor = b'},"outputs":[{"name":%b,"shape":[' % name
        self._row = b"{%b:" % name
        self._rest = b',"version":%b,"stage":%b,"outside":' % (by, at)

    def infer(self, id: bytes, numbers: Sequence[bytes], outside: Sequence[int]) -> bytes:
        """An answer of the Open Inference Protocol. `id` is the request's, as JSON."""
        return b'%b%b%b%d%b%d],"datatype":"FP64","data":[%b]}]}' % (
            self.before_id,
            id,
            self._stage,
            sum(outside),
            self._tensor,
            len(numbers),
            b",".join(numbers),
        )

    def before_bytes(self, id: bytes, count: int, outside: Sequence[int]) -> bytes:
        """The JSON of an answer whose `count` numbers follow it as bytes of float64."""
        return b'%b%b%b%d%b%d],"datatype":"FP64","parameters":{"binary_data_size":%d}}]}' % (
            self.before_id,
            id,
            self._stage,
            sum(outside),
            self._tensor,
            count,
            8 * count,
        )

    def predict(self, id: bytes, numbers: Sequence[bytes], outside: Sequence[int]) -> bytes:
        """A plain answer: one object per row. `id` is the request's, as JSON."""
        rows = [
            b'%b%b,"prediction_id":%b:%d"%b%d}' % (self._row, number, id[:-1], i, self._rest, beyond)
            for i, (number, beyond) in enumerate(zip(numbers, outside, strict=True))
        ]
        return b'{"request_id":%b,"predictions":[%b]}' % (id, b",".join(rows))
