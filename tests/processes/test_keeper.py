"""The keeper's rounds on a small trained state, in this process."""

import signal
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import msgspec
import pytest

from holdfast.core import routes
from holdfast.core.clock import SystemClock
from holdfast.core.records import Job, Mark, Run, SystemFile, Token
from holdfast.core.specfile import read_spec
from holdfast.errors import Tampered
from holdfast.opening import open_system, teller
from holdfast.processes.keeper import Keeper, main
from holdfast.serve.heartbeat import read_heartbeat
from holdfast.state import State, open_state, put_in_force
from holdfast.tokens import make_token

pytestmark = pytest.mark.slow


@pytest.fixture
def state(deployed: Path) -> Iterator[State]:
    opened = open_state(deployed / "state")
    file = deployed / "holdfast.yaml"
    text = file.read_text(encoding="utf-8")
    put_in_force(opened, read_spec(file), path=file, text=text, now=SystemClock().now(), by="test")
    yield opened
    opened.close()


@pytest.fixture
def keeper(state: State) -> Iterator[Keeper]:
    made = Keeper(state, SystemClock())
    yield made
    made.close()


def error_of(state: State, system: str) -> str:
    with state.catalog.read() as tx:
        mark = tx.get(Mark, system, "keeper")
    return str(mark.memory["error"]) if mark else ""


def test_a_system_that_cannot_be_ticked_does_not_stop_the_others(state: State, keeper: Keeper) -> None:
    with state.catalog.begin() as tx:
        [good] = tx.find(SystemFile)
        tx.put(msgspec.structs.replace(good, system="broken", text="system: broken", spec_hash="none"))
    keeper.round()
    assert "'data' is required" in error_of(state, "broken")
    assert error_of(state, "orders") == ""
    assert "the routes of 'broken'" in error_of(state, "*")
    assert routes.decode(state.routes_path.read_bytes()).systems.keys() == {"orders"}
    assert "broken:" in read_heartbeat(state.run_directory, "keeper").error


def test_an_error_is_remembered_until_it_is_gone(state: State, keeper: Keeper, deployed: Path) -> None:
    (deployed / "ends.parquet").rename(deployed / "aside")
    keeper.round()
    assert "ends.parquet" in error_of(state, "orders")
    (deployed / "aside").rename(deployed / "ends.parquet")
    keeper.close()
    Keeper(state, SystemClock()).round()
    assert error_of(state, "orders") == ""


def test_what_a_round_finds_changed_is_published(state: State, keeper: Keeper) -> None:
    keeper.round()
    before = routes.decode(state.routes_path.read_bytes())
    with state.catalog.begin() as tx:
        make_token(tx, "shop", "client", now=SystemClock().now(), by="test")
    keeper.round()
    after = routes.decode(state.routes_path.read_bytes())
    assert (len(before.tokens), len(after.tokens)) == (0, 1)
    assert after.generation == before.generation + 1


def test_publishing_at_the_same_time_ends_with_the_newest(state: State) -> None:
    def make(name: str) -> None:
        with state.catalog.begin() as tx:
            make_token(tx, name, "client", now=SystemClock().now(), by="test")
        state.publish_routes()

    threads = [threading.Thread(target=make, args=(f"token {i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with state.catalog.read() as tx:
        assert len(tx.find(Token, "*")) == 8
    assert len(routes.decode(state.routes_path.read_bytes()).tokens) == 8


def test_a_training_that_is_stopped_is_given_back_at_once(state: State) -> None:
    system = open_system(state, "orders", SystemClock())
    job = system.submit_training("a test")
    assert system.push_on() == [f"{job.id} started: training on {system_snapshot(state)}"]
    system.close()
    with state.catalog.read() as tx:
        left, run = tx.get(Job, "orders", job.id), tx.find(Run, "orders")[-1]
    assert left is not None
    assert (left.state, left.owner, left.attempts) == ("queued", "", 0)
    assert (run.state, run.message) == ("failed", "stopped with the process that ran it; it is tried again")


def system_snapshot(state: State) -> str:
    with state.catalog.read() as tx:
        return tx.find(Run, "orders")[-1].snapshot


def test_notices_go_to_the_webhook_and_its_secret_not_to_the_log(monkeypatch, caplog) -> None:
    got: list[bytes] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(500 if len(got) > 1 else 200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setenv("HOLDFAST_WEBHOOK", f"http://127.0.0.1:{server.server_port}/hook/s3cret")
    tell = teller("orders", SystemClock())
    tell("drift: load moved")
    tell("again")
    server.shutdown()
    server.server_close()
    tell("to nobody")
    assert msgspec.json.decode(got[0])["text"] == "orders: drift: load moved"
    assert "answered 500" in caplog.text
    assert "cannot be reached" in caplog.text
    assert "orders: to nobody" in caplog.text
    assert "s3cret" not in caplog.text


def test_an_artifact_that_cannot_be_mended_stops_neither_routes_nor_the_lake(
    state: State, keeper: Keeper, monkeypatch
) -> None:
    rolled: list[int] = []
    monkeypatch.setattr(state.lake, "roll", lambda: rolled.append(1))

    def fail() -> None:
        raise Tampered("the blob was changed")

    monkeypatch.setattr(keeper, "_mend_artifacts", fail)
    keeper.round()
    assert rolled == [1]
    assert error_of(state, "*") == "the blob was changed"
    assert state.routes_path.exists()


def test_being_told_to_stop_ends_a_round_in_its_middle_and_closes_what_is_open(deployed: Path, monkeypatch) -> None:
    done: list[str] = []
    close = Keeper.close

    class Silent:
        def __init__(self, _: State, __: object, listening: socket.socket, *tls: Path | None) -> None:
            self.listening = listening

        def start(self) -> None:
            """Serves nobody."""

        def stop(self) -> None:
            self.listening.close()
            done.append("console")

    def in_the_middle(_: Keeper) -> None:
        signal.raise_signal(signal.SIGTERM)
        done.append("the round went on")

    monkeypatch.setattr("holdfast.processes.keeper._Console", Silent)
    monkeypatch.setattr("holdfast.processes.keeper.log_to_stderr", lambda: None)
    monkeypatch.setattr(Keeper, "round", in_the_middle)
    monkeypatch.setattr(Keeper, "close", lambda self: (done.append("keeper"), close(self))[1])
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    listening = socket.create_server(("127.0.0.1", 0))
    try:
        main(["--state", str(deployed / "state"), "--fd", str(listening.detach())])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert done == ["keeper", "console"]
