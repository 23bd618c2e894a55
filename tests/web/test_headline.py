"""What the console says of a system at a glance: nothing is well of which nobody knows."""

from datetime import UTC, datetime

import pytest

from holdfast.views import FeedView, MonitorView, Status, SystemView
from holdfast.web.page import status_page

NOW = datetime(2026, 5, 1, tzinfo=UTC)


def feed(is_stale: bool | None) -> FeedView:
    return FeedView(name="orders", newest=NOW, rows=9, over_http=False, quarantined=0, files=1, is_stale=is_stale)


def monitor(last_at: datetime | None = NOW, grade: str = "pass", is_late: bool = False) -> MonitorView:
    return MonitorView(name="drift", check="drift", every_s=86400.0, last_at=last_at, is_late=is_late, grade=grade)


@pytest.mark.parametrize(
    ("feeds", "monitors", "said"),
    [
        ([feed(False)], [monitor()], "all is well"),
        ([feed(None)], [], "all is well"),
        ([feed(True)], [monitor(None, "")], "no open incident; 1 feed stale, 1 of 1 monitor not run yet"),
        ([feed(True), feed(True)], [monitor()], "no open incident; 2 feeds stale"),
        ([feed(False)], [monitor(is_late=True)], "no open incident; 1 monitor late"),
        ([feed(False)], [monitor(grade="unknown")], "no open incident; 1 monitor could not tell"),
    ],
)
def test_the_headline_says_what_is_not_known(feeds: list[FeedView], monitors: list[MonitorView], said: str) -> None:
    view = SystemView(system="orders", live="1", canary="", feeds=feeds, monitors=monitors)
    page = status_page(
        Status(at=NOW, state="s", is_up=False, url="", console="", generation=1, processes=[], systems=[view]), []
    )
    assert f">{said}</span>" in page
    assert ("all is well" in page) == (said == "all is well")
