import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.inputs import read_columns
from holdfast.core.model import Model
from holdfast.core.routes import Routes
from holdfast.core.signature import Column, Signature
from holdfast.core.transform import Encoding, Transform
from holdfast.serve.caching import CachedModel
from holdfast.serve.lanes import Prepared, prepare

SIGNATURE = Signature(
    columns=(Column(name="a", type="number"), Column(name="b", type="category")),
    task="regression",
    output="value",
)
TRANSFORM = Transform(columns=(Encoding(name="a"), Encoding(name="b", categories=("x", "y"))))


class Counting:
    """Answers 10 a + b, and remembers how many rows it was asked."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def run(self, x):
        self.asked.append(len(x))
        return (10 * np.nan_to_num(x[:, 0], nan=-1) + np.nan_to_num(x[:, 1], nan=7)).astype(np.float64)


@pytest.fixture
def cached() -> CachedModel:
    return made(4)


def made(size: int) -> CachedModel:
    return CachedModel(Model(SIGNATURE, TRANSFORM, Counting(), facts=None), size)  # type: ignore[arg-type]


def rows(a, b=None):
    return read_columns(SIGNATURE, {"a": list(a), "b": list(b or ["x"] * len(a))})


def test_a_row_that_comes_again_is_not_run_again(cached):
    assert cached.predict(rows([1.0, 2.0])).tolist() == [10.0, 20.0]
    assert cached.predict(rows([2.0, 3.0])).tolist() == [20.0, 30.0]
    assert cached.model.runtime.asked == [2, 1]
    assert (cached.hits, cached.misses) == (1, 3)


def test_rows_that_differ_in_any_column_are_different(cached):
    assert cached.predict(rows([1.0, 1.0, 1.0], ["x", "y", None])).tolist() == [10.0, 11.0, 17.0]
    assert cached.hits == 0


def test_missing_values_are_found_again(cached):
    for _ in range(2):
        assert cached.predict(rows([None], [None])).tolist() == [-3.0]
    assert (cached.hits, cached.misses) == (1, 1)


def test_the_rows_used_last_are_kept(cached):
    cached.predict(rows([1.0, 2.0, 3.0, 4.0]))
    cached.predict(rows([1.0]))
    cached.predict(rows([5.0]))
    cached.predict(rows([1.0]))
    assert cached.hits == 2
    cached.predict(rows([2.0]))
    assert cached.misses == 6


@given(st.lists(st.lists(st.integers(0, 6).map(float), min_size=1, max_size=9), max_size=12), st.integers(1, 5))
def test_answers_are_those_of_the_model_and_the_cache_stays_bounded(batches, size):
    cached = made(size)
    for batch in batches:
        assert cached.predict(rows(batch)).tolist() == [10 * a for a in batch]
        assert len(cached._outputs) <= size
    assert cached.hits + cached.misses == sum(map(len, batches))


class Shares(Counting):
    """Answers three classes; one number instead where a is 13."""

    def run(self, x):
        first = super().run(x)
        return first if (x[:, 0] == 13).any() else np.stack([first, first + 1, first + 2], axis=1)


@pytest.fixture
def several() -> CachedModel:
    signature = msgspec.structs.replace(SIGNATURE, classes=("a", "b", "c"))
    return CachedModel(Model(signature, TRANSFORM, Shares(), facts=None), 2)  # type: ignore[arg-type]


def test_answers_of_several_classes_are_kept_whole(several):
    assert several.predict(rows([1.0, 2.0])).tolist() == [[10.0, 11.0, 12.0], [20.0, 21.0, 22.0]]
    assert several.predict(rows([3.0, 2.0])).tolist() == [[30.0, 31.0, 32.0], [20.0, 21.0, 22.0]]
    assert several.model.runtime.asked == [2, 1]
    assert (several.hits, several.misses, several.entries) == (1, 3, 2)


def test_what_a_caller_does_with_an_answer_leaves_the_kept_one_alone(several):
    several.predict(rows([1.0]))[:] = np.nan
    assert several.predict(rows([1.0])).tolist() == [[10.0, 11.0, 12.0]]
    assert several.hits == 1


def test_one_number_for_several_classes_is_no_answer_and_not_kept(several):
    for count in (1, 3):  # of three rows numpy would take three numbers for those of the classes
        with pytest.raises(ValueError, match=f"outputs of shape .{count},. for {count} rows"):
            several.predict(rows([13.0] * count))
    assert several.entries == 0


def test_a_system_asks_for_its_cache_in_its_file(world, row):
    world.serve(cache=10)
    lane = world.plane.lanes("flights").live
    assert lane is not None
    assert isinstance(lane.model, CachedModel)
    assert lane.model.size == 10
    world.serve(cache=10)
    assert world.plane.lanes("flights").live.model is lane.model
    world.serve(cache=0)
    assert world.plane.lanes("flights").live.model is lane.model.model
    assert world.loads == ["v1"]


def looked_up(prepared):
    """The counts of a system: by version, and its entries."""
    cached = prepared.caches()["flights"]
    return {version: (each.hits, each.misses) for version, each in cached.versions.items()}, cached.entries


def follow(world, in_force, live, canary=None, cache=10):
    routed = world.system(live, canary, share=0.1 if canary else 0.0, cache=cache)
    return prepare(Routes(generation=1, systems={"flights": routed}), in_force, lambda _: made(1).model)


def test_counts_outlive_promotion_the_end_of_the_cache_and_of_the_system(world):
    prepared = follow(world, Prepared(), "v1", "v2")
    lanes = prepared.systems["flights"]
    lanes.live.model.predict(rows([1.0, 1.0, 2.0]))
    lanes.live.model.predict(rows([1.0]))
    lanes.canary.model.predict(rows([5.0]))
    assert looked_up(prepared) == ({"1": (1, 3), "2": (0, 1)}, 3)
    prepared = follow(world, prepared, "v2")
    prepared.systems["flights"].live.model.predict(rows([5.0]))
    assert looked_up(prepared) == ({"1": (1, 3), "2": (1, 1)}, 1), "the promoted version keeps its answers"
    prepared = follow(world, prepared, "v2", cache=0)
    assert looked_up(prepared) == ({"1": (1, 3), "2": (1, 1)}, 0)
    gone = prepare(Routes(generation=2), prepared, world.load)
    assert looked_up(gone) == ({"1": (1, 3), "2": (1, 1)}, 0)
    prepared = follow(world, gone, "v2")
    prepared.systems["flights"].live.model.predict(rows([5.0]))
    assert looked_up(prepared) == ({"1": (1, 3), "2": (1, 2)}, 1)


def test_two_versions_of_one_artifact_share_answers_and_count_each_row_once(world):
    one = world.version("v1")
    routed = msgspec.structs.replace(
        world.system("v1", cache=10), canary=msgspec.structs.replace(one, version="2"), canary_share=0.1
    )
    prepared = prepare(Routes(generation=1, systems={"flights": routed}), Prepared(), lambda _: made(1).model)
    lanes = prepared.systems["flights"]
    lanes.live.model.predict(rows([1.0, 2.0]))
    lanes.canary.model.predict(rows([1.0, 3.0]))
    assert looked_up(prepared) == ({"1": (0, 2), "2": (1, 1)}, 3)


def test_a_system_without_a_cache_has_no_counts_of_one(world):
    assert follow(world, Prepared(), "v1", cache=0).caches() == {}
