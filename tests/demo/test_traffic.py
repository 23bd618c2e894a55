"""The demonstration's traffic against a small server of its own; what `up` prints is read as `up` prints it."""

import io
import json
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import polars as pl
import pytest

from holdfast.cli import up as cli_up
from holdfast.demo import traffic
from holdfast.demo.traffic import BATCH, _announced, replay_traffic
from holdfast.errors import HoldfastError
from holdfast.processes.up import Started
from holdfast.testing import refused

START = datetime(2024, 1, 1, tzinfo=UTC)
FILE = """\
system: parcels
data:
  feeds:
    parcels: {from: parcels.parquet, event_at: at, known_at: listed_at, key: id}
    ends: {from: ends.parquet, event_at: ended_at, known_at: ended_at, key: id}
  rows: parcels
  key: id
  label: {feed: ends, column: late, known_at: ended_at}
  columns: {load: number, depot: category}
model: {task: classification, trainer: linear}
gates:
  - {check: quality, metric: roc_auc, at_least: 0.6}
release:
  steps: [live]
  decide: {loss: brier, margin: 0.05}
"""


class Up:
    """A process that has printed what `holdfast up` prints."""

    def __init__(self, text: str, returncode: int | None = None) -> None:
        self.stdout = io.BytesIO(text.encode())
        self.returncode = returncode

    def poll(self) -> int | None:
        return self.returncode


@pytest.fixture
def printed(capsys, monkeypatch):
    """`printed(**changes)`: what the real command prints once everything was started, with no webhook set."""
    monkeypatch.delenv("HOLDFAST_WEBHOOK", raising=False)

    def text(**changes):
        fields = {
            "url": "http://127.0.0.1:8080",
            "console": "http://127.0.0.1:8081",
            "token": "hf_secret-of_mine",
            "systems": {"parcels": "1"},
            "is_local": True,
        }
        cli_up._tell(Started(**(fields | changes)))
        return capsys.readouterr().out

    return text


@pytest.mark.parametrize("systems", [{"parcels": "1"}, {"parcels": ""}, {"parcels": "1", "other": "2"}])
def test_url_and_token_are_read_from_what_up_prints(printed, systems):
    said = []
    assert _announced(Up(printed(systems=systems)), said.append) == ("http://127.0.0.1:8080", "hf_secret-of_mine")
    assert len(said) == len(systems) + 4
    assert "stop with Ctrl+C" in said[-1]


def test_the_token_is_not_told_on(printed):
    said = []
    _announced(Up(printed()), said.append)
    assert "hf_secret-of_mine" not in "\n".join(said)
    assert "admin token" in "\n".join(said)


@pytest.mark.parametrize("text", ["", "error: port 8080 is taken\n"])
def test_an_up_that_does_not_say_where_it_serves_is_an_error(text):
    with refused(HoldfastError, "did not say where it serves"):
        _announced(Up(text), lambda text: None)


def test_a_second_start_without_token_is_an_error(printed):
    with refused(HoldfastError, "did not say"):
        _announced(Up(printed(token="")), lambda text: None)


class Server(HTTPServer):
    """Answers like a worker that becomes ready at the third look."""

    def __init__(self, status: int = 200) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.looks, self.bodies, self.tokens = status, 0, [], set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.looks += 1
        self._say(200 if self.path == "/v2/models/parcels/ready" and self.server.looks > 2 else 503, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.bodies.append(body)
        self.server.tokens.add(self.headers["authorization"])
        answers = [{"prediction_id": f"{key}:0", "value": 0.5} for key in body["keys"]]
        self._say(self.server.status, {"predictions": answers} if self.server.status == 200 else {"error": "no"})

    def _say(self, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def serving():
    """`serving(status=200)`: a server in a thread."""
    servers = []

    def start(status=200):
        server = Server(status)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        servers.append((server, thread))
        return server

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def send(tmp_path, printed):
    """`send(server)`: replays twenty parcels of which the last twelve are recent; returns what came of it."""
    n = 20
    at = [START + timedelta(hours=i) for i in range(n)]
    ids = [f"p{i}" for i in range(n)]
    listed = [each - timedelta(hours=2) for each in at]
    loads = [None, *[float(i) for i in range(1, n)]]
    rows = {"id": ids, "at": at, "listed_at": listed, "load": loads, "depot": ["north"] * n}
    pl.DataFrame(rows).write_parquet(tmp_path / "parcels.parquet")
    ends = {"id": ids, "ended_at": [each + timedelta(hours=1) for each in at], "late": [0] * n}
    pl.DataFrame(ends).write_parquet(tmp_path / "ends.parquet")
    (tmp_path / "holdfast.yaml").write_text(FILE)

    def replayed(server, since=START + timedelta(hours=6), returncode=None):
        up = Up(printed(url=server.url), returncode)
        return replay_traffic(up, tmp_path, "holdfast.yaml", ".holdfast", since=since, say=lambda text: None)

    return replayed


@pytest.mark.slow
def test_every_row_listed_since_is_sent_once_with_its_times(serving, send):
    server = serving()
    found = send(server)
    keys = [key for body in server.bodies for key in body["keys"]]
    assert keys == [f"p{i}" for i in range(20 - found.predictions, 20)]
    assert found.predictions == 11  # listed at 07:00 and later
    assert found.requests == len(server.bodies) == -(-11 // BATCH)
    assert found.prediction_id == f"{keys[0]}:0"
    assert server.tokens == {"Bearer hf_secret-of_mine"}
    body = server.bodies[0]
    assert set(body["rows"][0]) == {"load", "depot"}
    assert datetime.fromisoformat(body["event_at"][0]) == START + timedelta(hours=9)
    assert datetime.fromisoformat(body["features_known_at"][0]) == START + timedelta(hours=7)


@pytest.mark.slow
def test_it_waits_until_a_version_is_ready(serving, send):
    server = serving()
    assert send(server).ready_s > 0
    assert server.looks == 3


@pytest.mark.slow
def test_an_answer_that_is_no_200_ends_it_with_what_was_said(serving, send):
    with refused(HoldfastError, "answered 422", "no"):
        send(serving(422))


@pytest.mark.slow
def test_nothing_to_send_is_said(serving, send):
    with refused(HoldfastError, "no row of 'parcels'", "2030-01-01"):
        send(serving(), since=datetime(2030, 1, 1, tzinfo=UTC))


def test_an_up_that_ended_is_not_waited_for(serving, send):
    with refused(HoldfastError, "ended with code 9"):
        send(serving(), returncode=9)


def test_a_version_that_never_comes_is_not_waited_for_for_ever(serving, send, monkeypatch):
    monkeypatch.setattr(traffic, "READY_WITHIN_S", 0.01)
    server = serving()
    server.looks = -10_000
    with refused(HoldfastError, "no version of 'parcels' answered"):
        send(server)
