"""Rows as clients send them: whole HTTP requests, in each form."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from holdfast.core.signature import Column, Signature
from holdfast.core.times import as_text
from holdfast.profiling.inputs import Inputs
from holdfast.profiling.measured import Form
from holdfast.serve.reading import Reading

MOST_ROWS = 4096
"""Different rows that are sent in rotation: a processor would learn a few by heart."""

_DATATYPES = {"number": "FP64", "integer": "INT64", "boolean": "BOOL", "category": "BYTES", "time": "BYTES"}


class Requests:
    """Makes the requests of one system. `key` and `unit` are its columns that may stand beside the inputs."""

    def __init__(self, system: str, signature: Signature, inputs: Inputs, *, key: str, unit: str, token: str) -> None:
        self._system = system
        self._columns = signature.columns
        self._token = token
        self._reading = Reading(signature, key, unit)
        self._count = min(MOST_ROWS, inputs.rows.count)
        self._values = {column.name: _values(column, inputs, self._count) for column in signature.columns}
        self._beside: dict[str, list[str | None]] = {}
        for name, values in ((key, inputs.keys), (unit, inputs.units)):
            newest = values[-self._count :]
            if name and name not in self._values and any(value is not None for value in newest):
                self._beside.setdefault(name, newest)

    @property
    def forms(self) -> tuple[Form, ...]:
        """The forms that the signature can be asked in."""
        is_packable = len(self._columns) > 1 and all(column.type == "number" for column in self._columns)
        return ("object", "packed", "named", "general") if is_packable else ("object", "named", "general")

    def is_usual(self, form: Form) -> bool:
        """Whether the fast lane takes such requests: asked of what reads them."""
        body = self._body(form, [0])
        read = self._reading.rows(body) if form == "object" else self._reading.tensors(body)
        return read is not None

    def of(self, form: Form, rows: int) -> list[bytes]:
        """Requests of so many rows each, until every row was sent; at least one."""
        count = max(1, self._count // rows)
        return [self._request(form, [(i * rows + j) % self._count for j in range(rows)]) for i in range(count)]

    def _request(self, form: Form, places: Sequence[int]) -> bytes:
        path = f"/predict/{self._system}" if form == "object" else f"/v2/models/{self._system}/infer"
        body = self._body(form, places)
        head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost:8080\r\nAuthorization: Bearer {self._token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def _body(self, form: Form, places: Sequence[int]) -> bytes:
        return msgspec.json.encode(self._plain(places) if form == "object" else self._tensors(form, places))

    def _plain(self, places: Sequence[int]) -> Any:
        columns = [*self._values.items(), *self._beside.items()]
        rows = [{name: values[i] for name, values in columns} for i in places]
        return rows[0] if len(rows) == 1 else {"rows": rows}

    def _tensors(self, form: Form, places: Sequence[int]) -> Mapping[str, Any]:
        if form == "packed":
            return {"inputs": [self._packed(places)]}
        if form == "general" and "packed" in self.forms:
            return {"inputs": [self._packed(places)], "parameters": {"binary_data_output": False}}
        named = [
            {
                "name": column.name,
                "shape": [len(places)],
                "datatype": _DATATYPES[column.type],
                "data": [self._values[column.name][i] for i in places],
            }
            for column in self._columns
        ]
        return {"inputs": named} if form == "named" else {"inputs": named, "parameters": {"binary_data_output": False}}

    def _packed(self, places: Sequence[int]) -> Mapping[str, Any]:
        data = [self._values[column.name][i] for i in places for column in self._columns]
        return {"name": "input", "shape": [len(places), len(self._columns)], "datatype": "FP64", "data": data}


def _values(column: Column, inputs: Inputs, count: int) -> list[Any]:
    """The newest values of a column as JSON has them."""
    if column.type == "category":
        return inputs.rows.texts[column.name][-count:]
    numbers = inputs.rows.columns[column.name][-count:]
    return [None if np.isnan(number) else _number(column, number) for number in numbers.tolist()]


def _number(column: Column, number: float) -> Any:
    if column.type == "boolean":
        return bool(number)
    if column.type == "time":
        return as_text(number)
    is_whole = number.is_integer() and abs(number) < 2**53
    return int(number) if is_whole else number
