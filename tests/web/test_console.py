"""Page and API over a small trained state, without a network."""

import asyncio
from collections.abc import Iterator
from datetime import date
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest

from holdfast.core.clock import SystemClock
from holdfast.core.evidence import Grade, Reading, Verdict
from holdfast.core.records import Incident
from holdfast.state import State, open_state
from holdfast.tokens import make_token
from holdfast.views import Day
from holdfast.web.app import make_app
from holdfast.web.chart import loss_chart

pytestmark = pytest.mark.slow


class Console:
    """The console over a state, with an admin's and a client's token."""

    def __init__(self, state: State) -> None:
        self.state, self.clock = state, SystemClock()
        self.app = make_app(state, self.clock)
        now = self.clock.now()
        with state.catalog.begin() as tx:
            self.admin = make_token(tx, "ops", "admin", now=now, by="test")
            self.client = make_token(tx, "shop", "client", now=now, by="test")

    def ask(self, method: str, path: str, token: str | None = None, **more) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.admin if token is None else token}"} | more.pop("headers", {})
        return asyncio.run(self._ask(method, path, headers, more))

    async def _ask(self, method: str, path: str, headers: dict[str, str], more) -> httpx.Response:
        transport = httpx.ASGITransport(app=self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://console") as http:
            return await http.request(method, path, headers=headers, **more)


@pytest.fixture
def console(deployed: Path) -> Iterator[Console]:
    state = open_state(deployed / "state")
    yield Console(state)
    state.close()


def add_incident(console: Console, why: str = "load moved") -> None:
    now = console.clock.now()
    bad = Verdict(grade=Grade.FAIL, check="drift", reading=Reading(name="psi", value=0.4), why=why)
    one = Incident(
        system="orders",
        id="inc-1",
        cause="drift:orders",
        check="drift",
        opened_at=now,
        last_at=now,
        first=bad,
        last=bad,
    )
    with console.state.catalog.begin() as tx:
        tx.put(one)


class Tags(HTMLParser):
    """Every tag with what it loads, and tags that were opened and never closed."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.inline: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [value or "" for name, value in attrs if name in ("src", "href")]
        self.inline += [name for name, _ in attrs if name == "style" or name.startswith("on")]
        if tag == "script":
            self.inline.append(tag)
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_shows_every_system_and_loads_nothing_from_elsewhere(console: Console) -> None:
    page = console.ask("GET", "/")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    tags = Tags()
    tags.feed(page.text.removeprefix("<!doctype html>"))
    assert (tags.loads, tags.inline, tags.open) == (["/style.css"], [], [])
    for word in ("orders", "monitor not run yet", "rel-2", "freshness", "quarantine"):
        assert word in page.text
    style = console.ask("GET", "/style.css")
    assert style.headers["content-type"].startswith("text/css")
    assert "url(" not in style.text


def test_what_comes_from_data_is_shown_as_text(console: Console) -> None:
    add_incident(console, why="<script>alert(1)</script>")
    page = console.ask("GET", "/").text
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "1 open incident" in page


def test_every_answer_carries_the_security_headers(console: Console) -> None:
    for path, token in (("/", None), ("/api/status", None), ("/nothing", None), ("/", "hf_wrong")):
        headers = console.ask("GET", path, token).headers
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("path", ["/", "/style.css", "/api/status", "/api/audit", "/nothing"])
def test_nothing_is_shown_without_a_token(console: Console, path: str) -> None:
    for token in ("", "hf_wrong", console.admin[:-1]):
        assert console.ask("GET", path, token).status_code == 401


def test_the_link_becomes_a_cookie_for_looking_only(console: Console) -> None:
    entered = console.ask("GET", f"/?token={console.admin}", "")
    assert (entered.status_code, entered.headers["location"]) == (303, "/")
    cookie = entered.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    with_cookie = {"headers": {"cookie": cookie.split(";")[0]}}
    assert console.ask("GET", "/", "", **with_cookie).status_code == 200
    assert console.ask("POST", "/api/rollback", "", json={"why": "a forged form"}, **with_cookie).status_code == 401
    assert console.ask("GET", "/?token=hf_wrong", "").status_code == 401
    assert console.ask("GET", "/", "", headers={"cookie": "\x01;=;holdfast"}).status_code == 401


def test_a_client_may_look_but_not_change(console: Console) -> None:
    assert console.ask("GET", "/api/status", console.client).status_code == 200
    refused = console.ask("POST", "/api/rollback", console.client, json={})
    assert refused.status_code == 403
    assert refused.json()["error"] == "token 'shop' has the role client; only an admin may change things"


def test_a_rollback_and_an_acknowledgement_are_audited_under_the_tokens_name(console: Console) -> None:
    add_incident(console)
    assert console.ask("POST", "/api/incidents/inc-1/acknowledge").json()["state"] == "acknowledged"
    assert console.ask("POST", "/api/rollback", json={"why": "it is worse"}).json()["live"] == "1"
    newest = console.ask("GET", "/api/audit?newest=2").json()
    assert [(entry["actor"], entry["action"]) for entry in newest] == [
        ("ops", "version rolled back"),
        ("ops", "incident acknowledged"),
    ]


def test_records_are_listed_and_found(console: Console) -> None:
    assert [v["id"] for v in console.ask("GET", "/api/models").json()] == ["2", "1"]
    assert console.ask("GET", "/api/models/1").json()["snapshot"]["files"]
    assert [r["id"] for r in console.ask("GET", "/api/releases?system=orders").json()] == ["rel-2", "rel-1"]
    assert console.ask("GET", "/api/releases/rel-1").json()["release"]["state"] == "retired"
    assert console.ask("GET", "/api/runs/run-1").json()["state"] == "succeeded"
    assert console.ask("GET", "/api/runs").json()[0]["id"] == "run-2"
    assert console.ask("GET", "/api/incidents?closed=true").json() == []


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        ("GET", "/api/models/11", None, 404, "did you mean '1'?"),
        ("GET", "/api/status?system=order", None, 404, "did you mean 'orders'?"),
        ("GET", "/api/nothing", None, 404, "nothing is at /api/nothing"),
        ("POST", "/api/incidents/inc-9/acknowledge", None, 404, "no incident 'inc-9'"),
        ("POST", "/api/rollback", {"wy": "typo"}, 400, "wy"),
        ("POST", "/api/rollback", {"sytem": "orders"}, 400, "unknown field `sytem`; did you mean 'system'?"),
        ("POST", "/api/rollback", {"why": 1}, 400, "str"),
        ("DELETE", "/api/rollback", None, 405, "Method"),
    ],
)
def test_what_is_wrong_is_said(console: Console, method, path, body, status, said) -> None:
    answer = console.ask(method, path, json=body)
    assert answer.status_code == status
    assert said in answer.json()["error"]


def test_a_body_that_is_nested_too_deeply_is_refused(console: Console) -> None:
    deep = b'{"why":' + b"[" * 100_000
    answer = console.ask("POST", "/api/rollback", content=deep, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()) == (400, {"error": "the body is nested too deeply"})


def test_a_chart_leaves_gaps_and_marks_what_is_over_the_promise() -> None:
    losses = [0.2, 0.3, None, 0.1, 0.2]
    days = [Day(day=date(2026, 1, 1 + i), rows=10, labelled=9, loss=loss) for i, loss in enumerate(losses)]
    chart = loss_chart(days, promised=0.25, loss="brier")
    assert chart.count("<polyline") == 2
    assert chart.count('class="dot over"') == 1
    assert chart.count('class="promised"') == 1
    assert "No day has mature labels yet" in loss_chart([Day(day=date(2026, 1, 1), rows=3)], None, "brier")
