"""Systems of every shape behind one connection whose packets a test decides: no sockets, no time, ticks on demand."""

import asyncio
import json
import logging
import re
from collections import deque
from datetime import UTC, datetime

import msgspec
import numpy as np
import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from holdfast.core.clock import ManualClock
from holdfast.core.routes import RoutedSystem, RoutedVersion, Routes, TokenHash
from holdfast.core.signature import Column, Signature
from holdfast.core.spec import Serve
from holdfast.engines.memory import MemoryLake
from holdfast.security.identity import hash_of
from holdfast.serve.dataplane import DataPlane
from holdfast.serve.recording import Recorder
from holdfast.wire.fastlane import fast_lane
from holdfast.wire.heads import Heads
from holdfast.wire.http import DataPlaneApp

NOW = datetime(2013, 5, 1, 12, tzinfo=UTC)


def _signature(*columns: Column) -> Signature:
    return Signature(columns=columns, task="regression", output="minutes")


def _category(name, **more):
    return Column(name=name, type="category", **more)


MIXED = _signature(
    Column(name="hour", type="integer", low=0, high=23, outside="refuse", nullable=False),
    Column(name="distance", type="number", low=80, high=5000),
    Column(name="wind", type="number", low=0, high=100, outside="missing"),
    _category("carrier", categories=("AA", "UA", "ÖA")),
    _category("gate", categories=("A1", "B2"), outside="missing"),
    _category("kind", categories=("x", "y"), outside="refuse", nullable=False),
    Column(name="is_holiday", type="boolean"),
    Column(name="is_night", type="boolean", nullable=False),
)
NUMBERS = _signature(
    Column(name="a", type="number", low=-10, high=10),
    Column(name="b", type="number", low=-10, high=10, outside="missing"),
    Column(name="c", type="number", low=-1e300, high=1e300, outside="refuse", nullable=False),
)
COUNTS = _signature(
    Column(name="n", type="integer"), Column(name="x", type="number"), Column(name="m", type="integer", nullable=False)
)
ONE = _signature(Column(name="x", type="number"))
KEYED = _signature(_category("id"), Column(name="x", type="number"), Column(name="y", type="number"))
NUMBER_KEYED = _signature(Column(name="id", type="number"), Column(name="x", type="number"))
ROWS = _signature(Column(name="rows", type="number"), Column(name="x", type="number"))
CLASSES = ("10% off", 'a "b"', "Öl", "z")
SEVERAL = msgspec.structs.replace(NUMBERS, classes=CLASSES)
SEVERAL_MIXED = msgspec.structs.replace(MIXED, classes=CLASSES)
SIGNATURES = {
    "mixed": MIXED,
    "numbers": NUMBERS,
    "counts": COUNTS,
    "one": ONE,
    "keyed": KEYED,
    "numberkeyed": NUMBER_KEYED,
    "rowed": ROWS,
    "split": NUMBERS,
    "half": MIXED,
    "tight": NUMBERS,
    "empty": NUMBERS,
    "unkeyed": NUMBERS,
    "classes": SEVERAL,
    "mixedclasses": SEVERAL_MIXED,
    "splitclasses": SEVERAL,
    "fewerclasses": SEVERAL,
}
SECRETS = {"good": "hf_good", "other": "hf_other"}
TOKENS = tuple(TokenHash(sha256=hash_of(secret), role="client", name=name) for name, secret in SECRETS.items())


class Sums:
    """Answers the sum of all numbers plus the lengths of all texts; 13 anywhere fails, 14 anywhere gives no number.

    Of several classes: shares that depend on that sum, of which one is no number where 14 is anywhere.
    """

    def __init__(self, signature: Signature, plus: float) -> None:
        self.signature = signature
        self.plus = plus

    def predict(self, rows):
        numbers = np.nan_to_num(rows.numbers, nan=0.5)
        if (numbers == 13).any():
            raise ArithmeticError("thirteen")
        total = numbers.sum(axis=1) + self.plus
        for values in rows.texts.values():
            total += [0.25 if value is None else len(value) for value in values]
        is_none = (numbers == 14).any(axis=1)
        if not self.signature.classes:
            return np.where(is_none, np.nan, total)
        parts = np.abs(np.sin(total[:, None] + np.arange(len(self.signature.classes)))) + 0.1
        shares = parts / parts.sum(axis=1, keepdims=True)
        shares[is_none, 1] = np.nan
        return shares


def _system(name: str, **serve) -> RoutedSystem:
    def version(number: str) -> RoutedVersion:
        return RoutedVersion(version=number, artifact=f"{name}/{number}", directory="/nowhere")

    is_split = name in ("split", "half", "splitclasses", "fewerclasses")
    return RoutedSystem(
        task="regression",
        output="minutes",
        classes=SIGNATURES[name].classes,
        live=None if name == "empty" else version("1"),
        canary=version("2") if is_split else None,
        canary_share=0.5 if is_split else 0.0,
        key="" if name == "unkeyed" else "id",
        unit="" if name == "unkeyed" else "tail",
        release="r1",
        serve=Serve(**({"max_rows": 3} if name == "tight" else {}), **serve),
    )


class Transport(asyncio.Transport):
    """Keeps what is written; reading and closing behave as a socket's do."""

    def __init__(self, loop, protocol) -> None:
        super().__init__()
        self._loop, self._protocol = loop, protocol
        self.sent = bytearray()
        self.is_reading = True
        self.is_closed = False
        self.is_done = False
        self.is_lost = False

    def get_extra_info(self, name, default=None):
        return default

    def write(self, data):
        assert not self.is_done, "written behind the end"
        if not self.is_closed:
            self.sent += data

    def is_closing(self):
        return self.is_closed

    def close(self):
        if not self.is_closed:
            self.is_closed = True
            self._loop.call_soon(self.lose)

    abort = close

    def write_eof(self):
        self.is_done = True

    def lose(self, error=None):
        self.is_closed = True
        if not self.is_lost:
            self.is_lost = True
            self._protocol.connection_lost(error)

    def pause_reading(self):
        self.is_reading = False

    def resume_reading(self):
        if not self.is_closed:
            self.is_reading = True

    def get_write_buffer_size(self):
        return 0


class Served:
    """A data plane with its event loop, asked over one protocol class: the fast lane, or uvicorn's own."""

    def __init__(self, is_fast: bool = True, tokens=(), lake=None, loop=None, **serve) -> None:
        self.loop = asyncio.new_event_loop() if loop is None else loop
        self.lake = MemoryLake() if lake is None else lake
        clock = ManualClock(NOW)
        self.plane = DataPlane(self._load, Recorder(self.lake.writer), clock)
        self.tokens = tokens
        self.serve = serve
        self.follow(tokens)
        self.count = 0
        self.next_id = ""
        """What requests without an id are called; empty: each by a number of its own."""
        self.app = DataPlaneApp(self.plane, clock, self._new_id)
        self.heads = Heads(self.plane, self.app, self._new_id)
        self.config = uvicorn.Config(
            self.app,
            http=fast_lane(self.heads) if is_fast else HttpToolsProtocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            access_log=False,
            log_config=None,
            server_header=False,
        )
        self.config.load()
        self.state = ServerState()
        self.state.default_headers = [(b"date", b"today")]

    def follow(self, tokens=()) -> None:
        self.generation = getattr(self, "generation", 0) + 1
        systems = {name: _system(name, **self.serve) for name in SIGNATURES}
        self.plane.follow(Routes(generation=self.generation, systems=systems, tokens=tokens))

    def _load(self, version: RoutedVersion) -> Sums:
        name = version.artifact.split("/")[0]
        signature = SIGNATURES[name]
        if name == "fewerclasses" and version.version == "2":  # a canary of a class less
            signature = msgspec.structs.replace(signature, classes=CLASSES[:-1])
        return Sums(signature, 1000.0 * int(version.version))

    def _new_id(self) -> str:
        self.count += 1
        return self.next_id or f"gen-{self.count}"

    def connect(self) -> "Line":
        return Line(self)

    def ask(self, raw: bytes) -> bytes:
        """All that comes back on a connection of its own for what is sent at once."""
        return self.connect().send(raw).sent

    def settle(self) -> None:
        """Run the loop until nothing is ready any more."""
        for _ in range(100_000):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()
            if not self.loop._ready:
                return
        raise AssertionError("the loop does not come to rest")

    def is_at_rest(self) -> bool:
        """True when no call is left anywhere."""
        return not any(self.app.batcher._in_flight.values()) and not self.app.batcher._waiting

    def close(self) -> None:
        self.settle()
        self.loop.close()


class Line:
    """One connection of a client, with a transport that is none."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self.protocol = served.config.http_protocol_class(
            config=served.config, server_state=served.state, app_state={}, _loop=served.loop
        )
        self.transport = Transport(served.loop, self.protocol)
        self._unread: deque[bytes] = deque()
        self._do(self.protocol.connection_made, self.transport)

    @property
    def sent(self) -> bytes:
        """What came back so far."""
        return bytes(self.transport.sent)

    def send(self, *packets: bytes, at_once: bool = False) -> "Line":
        """Deliver packets as a socket does: none while reading is paused. `at_once`: no tick between them."""
        self._unread += [packet for packet in packets if packet]
        if not at_once:
            self._served.settle()
        while self._unread and self.transport.is_reading and not self.transport.is_closed:
            self._do(self.protocol.data_received, self._unread.popleft(), settle=not at_once)
        self._served.settle()
        if self._unread and self.transport.is_reading and not self.transport.is_closed:
            self.send(at_once=at_once)
        return self

    def _do(self, work, *arguments, settle=True):
        errors: list[BaseException] = []

        def run() -> None:
            try:
                work(*arguments)
            except BaseException as error:
                errors.append(error)

        self._served.loop.call_soon(run)
        self._served.loop.call_soon(self._served.loop.stop)
        self._served.loop.run_forever()
        if settle:
            self._served.settle()
        if errors:
            raise errors[0]

    def end(self) -> bool:
        """Say that no more comes; returns whether the connection stays open for answers."""
        kept: list[bool] = []
        self._do(lambda: kept.append(bool(self.protocol.eof_received())), settle=False)
        if not kept[0]:
            self._do(self.transport.close)
        self._served.settle()
        return kept[0]

    def call(self, work) -> None:
        self._do(work)


def request(path: str, body: object = b"", method: str = "POST", version: str = "1.1", **headers) -> bytes:
    """The bytes of a request. A body that is no bytes becomes JSON; a header None is left out."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {"host": "holdfast", "content-length": str(len(content))} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    lines = [f"{name}: {value}\r\n" for name, value in named.items() if value is not None]
    return f"{method} {path} HTTP/{version}\r\n{''.join(lines)}\r\n".encode("latin-1") + content


class Response:
    """A response as the client reads it."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)

    def said(self):
        """What must be the same on any way: ids that were made up by their shape, no date."""
        headers = {name: value for name, value in self.headers.items() if name != "date"}
        body: object = self.body
        generated = re.sub(rb"gen-\d+", b"gen", self.body)
        if generated != self.body:
            headers.pop("content-length", None)
        if headers.get("content-type") == "application/json":
            body = json.loads(generated or b"null")
        return self.status, headers, body

    def __repr__(self) -> str:
        return f"<{self.status} {self.body[:200]!r}>"


def responses(raw: bytes, heads: int = 0) -> list[Response]:
    """The responses in a stream; the first `heads` are answers to HEAD."""
    found: list[Response] = []
    while raw:
        head, separator, raw = raw.partition(b"\r\n\r\n")
        assert separator, f"a head is cut off: {head[:200]!r}"
        status_line, *lines = head.split(b"\r\n")
        match = re.fullmatch(rb"HTTP/1\.1 (\d{3}) [A-Za-z \-']+", status_line)
        assert match, status_line
        pairs = [line.decode("latin-1").split(": ", 1) for line in lines]
        headers = {name.lower(): value for name, value in pairs}
        assert len(headers) == len(pairs), f"a header twice: {pairs}"
        if match[1] == b"100":
            continue
        length = 0 if heads > len(found) else int(headers["content-length"])
        assert len(raw) >= length, "a body is cut off"
        found.append(Response(int(match[1]), headers, raw[:length]))
        raw = raw[length:]
    return found


def recorded(served: Served) -> list[str]:
    """All rows in the lake but for what time says, sorted; ids that were made up by their shape."""
    rows: list[dict] = []
    for name in SIGNATURES:
        frame = served.lake.scan("predictions", name)
        if frame is not None:
            rows += [{"system": name} | row for row in frame.to_dicts()]
    for row in rows:
        del row["queue_us"], row["run_us"]
        for column in ("request_id", "prediction_id"):
            row[column] = re.sub(r"gen-\d+", "gen", row[column])
    return sorted(repr(sorted(row.items())) for row in rows)


class Kit:
    """What the tests of the fast lane are written with."""

    Served, Line, Transport, Response = Served, Line, Transport, Response
    request, responses, recorded = staticmethod(request), staticmethod(responses), staticmethod(recorded)
    signatures, tokens = SIGNATURES, TOKENS


@pytest.fixture(scope="session")
def kit() -> Kit:
    return Kit()


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """Models and requests that fail on purpose need no log."""
    for name in ("holdfast", "uvicorn.error"):
        monkeypatch.setattr(logging.getLogger(name), "disabled", True)
        for child in ("holdfast.serve.dataplane", "holdfast.wire.http"):
            monkeypatch.setattr(logging.getLogger(child), "disabled", True)
