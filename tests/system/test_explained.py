"""Incidents of a whole small system say what they mean: which column, since when, what it costs, what changed then."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from msgspec.structs import replace

from holdfast.core.clock import ManualClock
from holdfast.core.evidence import Limit
from holdfast.core.meaning import headline, reason
from holdfast.core.records import Incident
from holdfast.core.spec import Monitor, Response
from holdfast.state import memory_state
from holdfast.testing import START

from .lives import BEGIN, DAY, LIVE, ROWS, Life, a_spec, a_world, assembled

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("trains_here")]

BROKEN = 30
"""The day, from START, on which x comes in thousands."""
DRIFT = Monitor(check="drift", name="drift", limit=Limit(at_most=3.0))
QUALITY = Monitor(check="quality", name="quality", options={"metric": "brier"})


def orders(days: int, *, broken_from: int, where_y_is_above: float) -> pl.DataFrame:
    """Assembled rows whose label depends on x; from a day on x is a thousandth of what it was, the truth is not."""
    rng = np.random.default_rng(7)
    n = days * ROWS
    x, y = rng.normal(size=n) + 3, rng.normal(size=n)
    late = rng.random(n) < 1 / (1 + np.exp(-3 * (x - 3)))
    is_broken = (np.arange(n) // ROWS >= broken_from) & (y > where_y_is_above)
    return assembled(np.where(is_broken, x / 1000, x), y, late)


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Callable[..., Life]]:
    """`live(*monitors, **what is broken)`: a system whose first version is live."""
    made: list[Life] = []

    def make(*monitors: Monitor, broken_from: int = BROKEN, where_y_is_above: float = -np.inf) -> Life:
        rows = orders(60, broken_from=broken_from, where_y_is_above=where_y_is_above)
        release = replace(a_spec().release, steps=(LIVE,))
        spec = a_spec(monitors=monitors, release=release, responses=(Response(on="any", do="notify"),))
        made.append(Life(memory_state(tmp_path), spec, a_world(rows), ManualClock(START + BEGIN * DAY)))
        made[-1].tick()
        return made[-1]

    yield make
    for life in made:
        life.system.close()


def incidents_after(life: Life, days: int) -> list[Incident]:
    """The incidents on record after so many days."""
    life.days(days)
    return life.all(Incident)


def test_a_unit_change_is_explained_by_its_column_its_day_and_its_cost(live: Callable[..., Life]) -> None:
    life = live(DRIFT)
    [opened] = incidents_after(life, BROKEN - BEGIN + 1)
    moved = f"drift {opened.subject}: {reason(opened.first)}."
    assert life.said == [f"{moved} {_capital(headline(opened))}"]
    [incident] = incidents_after(life, 1)
    explained = incident.explained
    assert explained is not None
    first = (START + BROKEN * DAY).date()
    assert explained.column == "x"
    assert explained.began_low <= first <= explained.began_high
    assert explained.began == first
    assert explained.cost is not None
    assert explained.cost > 0.05
    assert (explained.loss, explained.basis) == ("brier", "estimate")
    assert [each.column for each in explained.ranking] == ["x", "y"]
    assert explained.ranking[1].cost < 0.01
    assert "which rows got worse" in explained.note


def test_it_is_explained_again_as_labels_come_and_then_says_where(live: Callable[..., Life]) -> None:
    life = live(replace(DRIFT, limit=Limit(at_most=1.0)), where_y_is_above=0.0)
    [opened] = incidents_after(life, BROKEN - BEGIN + 2)
    [incident] = incidents_after(life, 13)
    assert opened.explained is not None
    assert not opened.explained.is_final
    explained = incident.explained
    assert explained is not None
    assert explained.is_final
    assert explained.at > opened.explained.at
    assert explained.began == (START + BROKEN * DAY).date()
    assert explained.slices[0].subject.startswith(("x < ", "y >= "))
    assert explained.slices[0].value > 0.1


def test_a_rise_of_the_loss_is_measured_and_laid_to_the_column_that_broke(live: Callable[..., Life]) -> None:
    life = live(QUALITY)
    found = incidents_after(life, BROKEN - BEGIN + 8)
    assert [each.cause for each in found] == ["quality"]
    explained = found[0].explained
    assert explained is not None
    assert (explained.basis, explained.column) == ("labels", "x")
    assert explained.began_low <= (START + BROKEN * DAY).date() <= explained.began_high
    assert explained.cost > 0.05


def test_what_a_short_history_cannot_say_is_said(live: Callable[..., Life]) -> None:
    life = live(Monitor(check="quality", name="quality", options={"metric": "brier"}, limit=Limit(at_most=0.0001)))
    [incident] = incidents_after(life, 3)[:1]
    explained = incident.explained
    assert explained is not None
    assert explained.began is None
    assert "when it began by the daily brier" in explained.note
    assert not explained.is_final


def test_a_release_near_the_time_is_among_what_changed(live: Callable[..., Life]) -> None:
    life = live(DRIFT, broken_from=BEGIN + 1)
    [incident] = incidents_after(life, 4)
    explained = incident.explained
    assert explained is not None
    assert any(each.what.startswith("version 1 live") for each in explained.changes)
    assert all(each.at <= incident.opened_at for each in explained.changes)
    assert "near it: version 1 live" in headline(incident)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
