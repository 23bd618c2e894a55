"""What changed then: deploys, data, files and what befell the host, from what is on record."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from holdfast.core.meaning import parts
from holdfast.core.protocols import Transaction
from holdfast.core.records import Happening, Mark, Move, Release, Snapshot, Version
from holdfast.core.spec import Feed, SystemSpec
from holdfast.flow import explanations
from holdfast.flow.happenings import HELD, WORKER_REPLACED, happenings, near
from holdfast.testing import START

DAY = timedelta(days=1)
MakeSpec = Callable[..., SystemSpec]


def test_what_changed_comes_from_all_that_is_on_record(tx: Transaction, a_spec: MakeSpec) -> None:
    spec = a_spec()
    spec = replace(spec, data=replace(spec.data, feeds={"orders": Feed(from_="orders.csv")}))
    live, canary = Move(at=START, to="live", why="better", by="ann"), Move(at=START - DAY, to="canary", why="")
    tx.put(Version(
        system="orders", id="2", run="run-1", artifact="a", bundle="b", signature_hash="s", at=START, signed_by="k",
        history=(live,),
    ))  # fmt: skip
    tx.put(Release(system="orders", id="rel-1", run="run-1", version="2", at=START, history=(canary,)))
    tx.put(Snapshot(
        system="orders", id="s1", sha256="s", blob="b", at=START + DAY, rows=5, rows_read=5, rows_dropped=0,
        rows_quarantined=0, labelled=5, since=None, until=None, files=(), spec_hash="", code="",
    ))  # fmt: skip
    files = [{"name": "new.csv", "sha256": "c", "rows": 1000, "quarantined": 3}]
    tx.put(Mark(system="orders", id="ingest/orders", last_at=START + 2 * DAY, memory={"files": files}))
    tx.audit(
        at=START + 3 * DAY, actor="ann", action="system file put in force", system="orders", subject="f", detail={}
    )
    found = happenings(tx, spec, START - 2 * DAY, START + 5 * DAY)
    assert [each.what for each in found] == [
        "version 2 went into canary (rel-1)",
        "version 2 live, by ann: better",
        "snapshot s1 taken, 5 rows",
        "feed orders took in new.csv, 1,000 rows, 3 of them set aside",
        "system file put in force by ann",
    ]
    assert happenings(tx, spec, START + 4 * DAY, START + 5 * DAY) == ()


@given(
    hours=st.lists(st.integers(-500, 500), max_size=20),
    low=st.integers(-100, 100),
    length=st.integers(0, 100),
    most=st.integers(0, 6),
)
def test_near_keeps_the_nearest_in_their_order(hours: list[int], low: int, length: int, most: int) -> None:
    events = tuple(Happening(at=START + timedelta(hours=h), what=str(i)) for i, h in enumerate(hours))
    first = START + timedelta(hours=low)
    kept = near(events, first, first + timedelta(hours=length), before=DAY, most=most)
    inside = [each for each in events if first - DAY <= each.at <= first + timedelta(hours=length)]
    assert len(kept) == min(most, len(inside))
    assert set(kept) <= set(inside)
    assert [each.at for each in kept] == sorted(each.at for each in kept)
    farthest = max((abs(each.at - first) for each in kept), default=timedelta(0))
    assert all(abs(each.at - first) >= farthest for each in inside if each not in kept)


def befell(tx: Transaction, action: str, system: str, why: str, day: int) -> None:
    tx.audit(at=START + day * DAY, actor="holdfast", action=action, system=system, subject="s", detail={"why": why})


def test_what_befell_the_host_changed_every_system_and_held_routes_their_own(tx: Transaction, a_spec: MakeSpec) -> None:
    befell(tx, WORKER_REPLACED, "*", "worker-1 ended with code -9 and was replaced", 1)
    befell(tx, HELD, "orders", "older routes were held: no such file", 2)
    befell(tx, HELD, "parcels", "older routes were held: not ours", 2)
    befell(tx, "token made", "*", "not an event of the host", 3)
    tx.put(Mark(system="orders", id="keeper", last_at=START + 4 * DAY, memory={"error": "no such feed"}))
    found = happenings(tx, a_spec(), START, START + 9 * DAY)
    assert [each.what for each in found] == [
        "worker-1 ended with code -9 and was replaced",
        "older routes were held: no such file",
        "the keeper could not do its work: no such feed",
    ]


def test_an_incident_names_the_worker_that_was_replaced_before_it_began(watched: Any, tx: Transaction) -> None:
    befell(tx, WORKER_REPLACED, "*", "worker-1 ended with code -9 and was replaced", 35)
    args = (watched.task, watched.reference, watched.live, watched.answer, watched.now)
    told = explanations.take_up(tx, watched.spec, watched.of("drift", "x"), *args)
    assert told.explained is not None
    [(_, lines)] = [part for part in parts(told.explained) if part[0] == "changed then"]
    assert lines == [f"{START + 35 * DAY:%Y-%m-%d %H:%M} worker-1 ended with code -9 and was replaced"]
