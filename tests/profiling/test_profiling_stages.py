"""Every moment belongs to one stage, and the stages of a request come to the whole."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.profiling.stages import STAGES, Plain, Stopwatches, Taken, stages_of, whole_us

seconds = st.floats(0.0, 1.0)


class Hand:
    """A watch that is moved by hand."""

    def __init__(self) -> None:
        self.at_s = 0.0

    def __call__(self) -> float:
        return self.at_s

    def move(self, by_s: float) -> None:
        self.at_s += by_s


def plain(cpu_s: float, requests: int = 1) -> Plain:
    return Plain(requests=requests, cpu_s=cpu_s, wall_s=cpu_s)


def taken(cpu_s: float, requests: int = 1, switches: dict[str, int] | None = None, **stages_s: float) -> Taken:
    return Taken(
        requests=requests, cpu_s=cpu_s, stages_s=dict.fromkeys(STAGES, 0.0) | stages_s, switches=switches or {}
    )


def us(stages, name: str) -> float:
    return next(stage.us for stage in stages if stage.stage == name)


def test_a_stage_inside_another_interrupts_it() -> None:
    hand = Hand()
    watches = Stopwatches(hand)
    inner = watches.timed("run", lambda: hand.move(5.0))

    def outer() -> str:
        hand.move(1.0)
        inner()
        hand.move(2.0)
        return "done"

    watches.begin()
    hand.move(0.5)
    assert watches.timed("check", outer)() == "done"
    found = watches.taken(1, 8.5)
    assert found.stages_s == dict.fromkeys(STAGES, 0.0) | {"check": 3.0, "run": 5.0, "rest": 0.5}


def test_a_stage_that_fails_is_left_all_the_same() -> None:
    hand = Hand()
    watches = Stopwatches(hand)

    def fails() -> None:
        hand.move(1.0)
        raise ArithmeticError

    watches.begin()
    with pytest.raises(ArithmeticError):
        watches.timed("run", fails)()
    hand.move(2.0)
    found = watches.taken(1, 3.0)
    assert (found.stages_s["run"], found.stages_s["rest"]) == (1.0, 2.0)


def test_what_was_measured_before_does_not_count() -> None:
    hand = Hand()
    watches = Stopwatches(hand)
    watches.timed("run", lambda: hand.move(9.0))()
    watches.begin()
    hand.move(1.0)
    assert sum(watches.taken(1, 1.0).stages_s.values()) == 1.0


def test_the_cost_of_looking_is_taken_off_where_it_was_looked() -> None:
    # 100 us without, 112 us with the watches on; three quarters of the switches were those of `run`.
    found = stages_of(
        [plain(100e-6)], [taken(112e-6, switches={"run": 9, "record": 3}, run=59e-6, record=33e-6, rest=20e-6)]
    )
    assert us(found, "run") == pytest.approx(50.0)
    assert us(found, "record") == pytest.approx(30.0)
    assert us(found, "rest") == pytest.approx(20.0)


def test_what_is_in_no_stage_is_the_rest() -> None:
    found = stages_of([plain(100e-6)], [taken(100e-6, run=40e-6)])
    assert us(found, "rest") == pytest.approx(60.0)


def test_stages_that_come_to_more_than_the_whole_are_scaled_down() -> None:
    found = stages_of([plain(100e-6)], [taken(100e-6, run=150e-6, record=50e-6)])
    assert (us(found, "run"), us(found, "record"), us(found, "rest")) == pytest.approx((75.0, 25.0, 0.0))


def test_one_repeat_that_was_disturbed_changes_nothing() -> None:
    calm = [plain(100e-6)] * 4
    assert whole_us([*calm, plain(1.0)]) == pytest.approx(100.0)
    quiet = [taken(100e-6, run=40e-6)] * 4
    assert us(stages_of([*calm, plain(1.0)], [*quiet, taken(1.0, run=1.0)]), "run") == pytest.approx(40.0)


def test_figures_are_per_request() -> None:
    found = stages_of([plain(160e-6, requests=16)], [taken(160e-6, requests=16, run=80e-6)])
    assert us(found, "run") == pytest.approx(5.0)
    assert [stage.share for stage in found if stage.stage == "run"] == pytest.approx([0.5])


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(seconds, st.integers(1, 64)), min_size=1, max_size=5),
    st.lists(
        st.tuples(
            seconds, st.integers(1, 64), st.fixed_dictionaries(dict.fromkeys(STAGES, seconds)),
            st.dictionaries(st.sampled_from(list(STAGES)), st.integers(0, 99)),
        ),
        min_size=1, max_size=5,
    ),
)  # fmt: skip
def test_stages_are_never_negative_and_come_to_the_whole(plains, takens) -> None:
    plain_ones = [plain(cpu_s, requests) for cpu_s, requests in plains]
    timed = [taken(cpu_s, requests, switches, **stages) for cpu_s, requests, stages, switches in takens]
    found = stages_of(plain_ones, timed)
    assert [stage.stage for stage in found] == list(STAGES)
    assert all(stage.us >= 0 and 0 <= stage.share <= 1 + 1e-9 for stage in found)
    assert sum(stage.us for stage in found) == pytest.approx(whole_us(plain_ones), abs=1e-6)
