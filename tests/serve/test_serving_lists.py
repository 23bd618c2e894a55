"""Lists of rows on their way: all rows of a list are answered by one version, and recorded as of that list."""

from collections.abc import Mapping
from typing import Any

import pytest
from msgspec.structs import replace

from holdfast.serve.requests import PredictAnswer, PredictRequest
from holdfast.testing.serving import World


@pytest.fixture
def served(world: World) -> World:
    """A world that orders rows within lists, half of them by a canary."""
    routed = replace(world.system("v1", canary="v2", share=0.5), task="ranking", output="score", is_listwise=True)
    assert world.follow(flights=routed).held == {}
    return world


def ask(world: World, row: Mapping[str, Any], request_id: str, units: list[str | None] | None) -> PredictAnswer:
    rows = [{**row, "id": f"{request_id}-{place}"} for place in range(6)]
    return world.plane.predict("flights", PredictRequest(request_id=request_id, rows=rows, units=units))


def test_the_rows_of_a_request_without_a_unit_are_one_list(served: World, row: dict[str, Any]) -> None:
    answers = [ask(served, row, f"q{n}", None) for n in range(20)]
    assert all(len(set(answer.versions)) == 1 for answer in answers)
    assert {answer.versions[0] for answer in answers} == {"1", "2"}
    recorded = served.recorded()
    assert recorded["unit"].to_list() == recorded["request_id"].to_list()


def test_rows_of_several_lists_go_each_to_the_version_of_its_list(served: World, row: dict[str, Any]) -> None:
    units = [f"list-{n}" for n in range(3) for _ in range(2)]
    found: dict[str, set[str]] = {}
    for n in range(3):
        answer = ask(served, row, f"q{n}", [*units])
        for unit, version in zip(units, answer.versions, strict=True):
            found.setdefault(unit, set()).add(version)
    assert all(len(versions) == 1 for versions in found.values())
    assert set(served.recorded()["unit"]) == set(units)


def test_a_row_without_a_unit_beside_others_is_of_its_request(served: World, row: dict[str, Any]) -> None:
    ask(served, row, "q1", ["a", None, "a", None, "b", "b"])
    assert served.recorded().sort("row")["unit"].to_list() == ["a", "q1", "a", "q1", "b", "b"]
