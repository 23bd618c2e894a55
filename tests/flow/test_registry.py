"""The registry: versions count up, routes too, and the one before is the last good one."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from holdfast.core.protocols import Transaction
from holdfast.core.records import Run, Version
from holdfast.errors import NotFound
from holdfast.flow import registry
from holdfast.testing import START, refused

MakeRun = Callable[..., Run]


def registered(tx: Transaction, run: Run) -> Version:
    return registry.register(tx, run, bundle="b", signature_hash="s", signed_by="me", now=START)


@pytest.fixture
def go_live(tx: Transaction, a_run: MakeRun) -> Callable[[int], str]:
    """Registers a version, makes it live on a day, and retires the one before."""

    def make(day: int) -> str:
        version, now = registered(tx, a_run()).id, START + timedelta(days=day)
        before = registry.current_route(tx, "orders").live
        if before:
            registry.move(tx, "orders", before, "retired", "replaced", now)
        registry.move(tx, "orders", version, "live", "good", now)
        registry.reroute(tx, "orders", now, live=version)
        return version

    return make


def test_versions_count_up_and_say_where_they_came_from(tx: Transaction, a_run: MakeRun) -> None:
    first, second = registered(tx, a_run("run-1")), registered(tx, a_run("run-2"))
    assert (first.id, second.id) == ("1", "2")
    assert (second.run, second.artifact, second.state) == ("run-2", "artifact of run-2", "candidate")
    assert [(move.to, move.why) for move in second.history] == [("candidate", "registered from run-2")]


def test_a_move_adds_to_the_history(tx: Transaction, a_run: MakeRun) -> None:
    registered(tx, a_run())
    registry.move(tx, "orders", "1", "shadow", "gates passed", START, by="me")
    version = registry.get_version(tx, "orders", "1")
    assert (version.state, [(move.to, move.by) for move in version.history][1:]) == ("shadow", [("shadow", "me")])


def test_a_version_that_is_not_there_is_named_with_those_that_are(tx: Transaction, a_run: MakeRun) -> None:
    registered(tx, a_run())
    with refused(NotFound, "no version '7'", "known: 1"):
        registry.get_version(tx, "orders", "7")


def test_the_route_is_one_generation_further_with_each_change(tx: Transaction) -> None:
    assert registry.current_route(tx, "orders").generation == 0
    for generation in (1, 2, 3):
        route = registry.reroute(tx, "orders", START, live=str(generation))
        assert route.generation == generation
    assert registry.current_route(tx, "orders").live == "3"
    assert registry.current_route(tx, "other").generation == 0


def test_what_a_change_does_not_name_stays(tx: Transaction) -> None:
    registry.reroute(tx, "orders", START, live="1", canary="2", canary_share=0.1)
    route = registry.reroute(tx, "orders", START, canary="")
    assert (route.live, route.canary, route.canary_share) == ("1", "", 0.1)


def test_the_one_before_is_the_last_other_version_that_was_live(tx: Transaction, go_live: Callable[[int], str]) -> None:
    assert registry.previous_live(tx, "orders") == ""
    go_live(1)
    assert registry.previous_live(tx, "orders") == ""
    go_live(2)
    assert registry.previous_live(tx, "orders") == "1"
    go_live(3)
    assert registry.previous_live(tx, "orders") == "2"


def test_the_one_before_is_right_beyond_nine_versions_that_went_live_at_once(
    tx: Transaction, go_live: Callable[[int], str]
) -> None:
    for _ in range(11):
        go_live(1)
    assert registry.previous_live(tx, "orders") == "10"


def test_a_version_that_was_rolled_back_is_never_gone_back_to(tx: Transaction, go_live: Callable[[int], str]) -> None:
    for day in (1, 2, 3):
        go_live(day)
    now = START + timedelta(days=4)
    registry.move(tx, "orders", "3", "rolled_back", "bad", now)
    registry.move(tx, "orders", "2", "live", "back", now)
    registry.reroute(tx, "orders", now, live="2")
    assert registry.previous_live(tx, "orders") == "1"
