"""Two servers side by side: which of them failed is said, and a variant is not left out for what its base did."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import psutil
import pytest

from parts.bodies import Form
from parts.flights import NotAvailable
from parts.servers import Server, Up
from parts.turns import Turns, Workload

pytestmark = pytest.mark.slow

ASKED = Workload(name="one row", connections=1)
FORM = Form(body=lambda rows: b"{}", outputs=lambda body, headers: [float(body)])


class Handler(BaseHTTPRequestHandler):
    """Answers what is no number."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"what")

    def log_message(self, *args: Any) -> None:
        """Be quiet."""


@contextmanager
def started() -> Iterator[Up]:
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}"
            yield Up(url=url, root=psutil.Process(), began_s=time.perf_counter())
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def broken() -> Iterator[Up]:
    raise NotAvailable("no port is free")
    yield


def server(name: str, start: Any = started) -> Server:
    return Server(name=name, start=start, places={"plain": ("/", FORM)})


@pytest.fixture
def turns(tmp_path: Path) -> Turns:
    rows = pl.DataFrame({"x": [1.0]})
    trained: Any = SimpleNamespace(
        facts={"runtime": "r", "parity": "p"}, rows=rows, directory=tmp_path, answers={"live": np.array([1.0])}
    )
    return Turns(trained, seconds=1)


def test_base_that_does_not_start_is_named_and_the_variant_is_asked_again(turns: Turns) -> None:
    turns.take_beside(server("plain", broken), server("shadow"), [], "1")
    assert turns.absent == {"shadow": "base: no port is free"}
    turns.take_beside(server("plain"), server("shadow"), [], "2")
    assert len(turns.starts["shadow"]) == 2


def test_base_that_answers_wrong_is_named_for_each_workload(turns: Turns) -> None:
    for repeat in ("1", "2"):
        turns.take_beside(server("plain"), server("shadow"), [ASKED], repeat)
    assert list(turns.absent) == ["shadow: one row"]
    assert turns.absent["shadow: one row"].startswith("base: answers what is not understood")
    assert len(turns.starts["shadow"]) == 2


def test_variant_that_fails_is_blamed_itself_and_left_out(turns: Turns) -> None:
    turns.take_beside(server("plain"), server("shadow", broken), [], "1")
    turns.take_beside(server("plain"), server("shadow"), [], "2")
    assert turns.absent == {"shadow": "no port is free"}
    assert turns.starts == {}


def test_variant_that_answers_wrong_is_blamed_itself(turns: Turns) -> None:
    turns.take_beside(server("bare HTTP", broken), server("shadow"), [], "1")
    turns.take(server("shadow"), [ASKED], "2")
    assert turns.absent["shadow: one row"].startswith("answers what is not understood")
