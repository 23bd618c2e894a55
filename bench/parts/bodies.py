"""Requests, ready to send: the same rows in the form that a server takes, and what an answer to them must say."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

Matrix = np.ndarray[tuple[int, int], np.dtype[np.float32]]
Numbers = Sequence[Sequence[float]]


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """How rows are put into a body, and how answers are read out of one."""

    body: Callable[[Numbers], bytes]
    outputs: Callable[[bytes, Mapping[str, str]], list[float]]
    """From body and headers (names in lower case) of an answer."""
    content_type: str = "application/json"


def requests(form: Form, path: str, extra: Mapping[str, str], rows: Numbers, per_request: int) -> list[bytes]:
    """Whole HTTP/1.1 requests over all rows, so many rows in each."""
    made = []
    for start in range(0, len(rows) - per_request + 1, per_request):
        body = form.body(rows[start : start + per_request])
        lines = {"Host": "127.0.0.1", "Content-Type": form.content_type, **extra, "Content-Length": str(len(body))}
        if form is BINARY:
            lines["Inference-Header-Content-Length"] = str(body.index(b"}]}") + 3)
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        made.append(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
    return made


def _compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _packed(rows: Numbers) -> bytes:
    flat = [value for row in rows for value in row]
    return _compact(
        {"inputs": [{"name": "input", "shape": [len(rows), len(rows[0])], "datatype": "FP32", "data": flat}]}
    )


def _binary(rows: Numbers) -> bytes:
    """The head ends with ``}]}``, which is looked for where its length is told."""
    data = np.asarray(rows, dtype="<f4").tobytes()
    tensor = {"name": "input", "shape": [len(rows), len(rows[0])], "datatype": "FP32"}
    asked = {"parameters": {"binary_data_output": True}}
    return _compact({**asked, "inputs": [{**tensor, "parameters": {"binary_data_size": len(data)}}]}) + data


def _tensor(body: bytes, headers: Mapping[str, str]) -> list[float]:
    outputs = json.loads(body)["outputs"]
    return [float(value) for value in np.ravel(outputs[0]["data"])]


def _binary_tensor(body: bytes, headers: Mapping[str, str]) -> list[float]:
    length = int(headers["inference-header-content-length"])
    [output] = json.loads(body[:length])["outputs"]
    kind = {"FP32": "<f4", "FP64": "<f8"}[output["datatype"]]
    return [float(value) for value in np.frombuffer(body[length:], dtype=kind)]


PACKED = Form(body=_packed, outputs=_tensor)
"""One tensor of shape [n, columns]: the Open Inference Protocol, version 2."""

BINARY = Form(body=_binary, outputs=_binary_tensor, content_type="application/octet-stream")
"""The same tensor as bytes after a JSON head: the protocol's binary extension."""

DATA = Form(body=lambda rows: _compact({"data": rows}), outputs=lambda body, _: _flat(json.loads(body)))
"""``{"data": [[...], ...]}``, for servers that leave the form to their user."""

INPUTS = Form(body=lambda rows: _compact({"inputs": rows}), outputs=lambda body, _: _flat(json.loads(body)))
"""The same under the name that MLflow's scoring protocol gives it."""


def named(columns: Sequence[str]) -> Form:
    """An object of column: value for one row, ``{"rows": [...]}`` for several; Holdfast's own plain form."""

    def body(rows: Numbers) -> bytes:
        objects = [dict(zip(columns, row, strict=True)) for row in rows]
        return _compact(objects[0] if len(objects) == 1 else {"rows": objects})

    return Form(body=body, outputs=lambda body, _: [row["probability"] for row in json.loads(body)["predictions"]])


def _flat(answer: Any) -> list[float]:
    """The numbers of an answer, whatever they are wrapped in."""
    if isinstance(answer, dict):
        [answer] = answer.values()
    return [float(value) for value in np.ravel(answer)]
