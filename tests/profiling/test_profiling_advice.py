"""Advice is given where its figures say so, names them, and is silent where nothing stands out."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.observe.tallies import Spent
from holdfast.profiling.advice import advice_of, usual_at_once
from holdfast.profiling.measured import (
    Advice,
    Case,
    Form,
    InputFacts,
    Live,
    ModelFacts,
    Profile,
    RecordingFacts,
    Repeats,
)
from holdfast.profiling.stages import STAGES, Stage


def case(form: Form = "object", at_once: int = 16, rows: int = 1, us: float = 20.0, **of_stages: float) -> Case:
    """A case of `us` per request; stages that are not given share what is left evenly, none of them standing out."""
    others = [name for name in STAGES if name not in of_stages]
    each = (us - sum(of_stages.values())) / len(others)
    stages = [Stage(stage=n, us=of_stages.get(n, each), share=of_stages.get(n, each) / us) for n in STAGES]
    return Case(
        form=form, at_once=at_once, rows=rows, cpu_us=us, low_us=us, high_us=us, wall_us=us,
        stages=() if form == "general" else tuple(stages),
    )  # fmt: skip


def live(**changes: Any) -> Live:
    calm = Live(
        workers=1, since=datetime(2026, 11, 20, tzinfo=UTC), requests=10_000, rows=10_000, runs=625, rows_per_run=16.0,
        requests_per_run=16.0, largest_run=64, refused={}, failed=0, written=10_000, shed=0, lost=0, lag_s=0.0,
        general=0, cache_hits=0, cache_misses=0, parts=parts(),
    )  # fmt: skip
    return msgspec.structs.replace(calm, **changes)


def parts(queue_us: float = 20.0, p99_us: float = 200.0, request_us: float = 100.0) -> tuple[Spent, ...]:
    return tuple(
        Spent(phase=phase, count=10_000, mean_us=mean_us, p50_us=mean_us, p99_us=p99)
        for phase, mean_us, p99 in (("queue", queue_us, p99_us), ("request", request_us, 2 * p99_us))
    )


CALM = Profile(
    system="s",
    version="1",
    is_live=True,
    cores=4,
    cache=0,
    inputs=InputFacts(origin="recorded", rows=5_000, single=0.2),
    model=ModelFacts(
        runtime="trees", trainer="lightgbm", parity="trees: equal", columns=13, texts=0, trees=200, most_leaves=31
    ),
    cases=(
        *(case(at_once=n, record=2.0) for n in (1, 16, 64)),
        case("packed"),
        case("named", us=22.0),
        case("general", us=80.0),
        case(at_once=1, rows=32, us=100.0),
    ),
    recording=RecordingFacts(record="process", row_bytes=300.0, whole_us=1.0, without_texts_us=1.0, write_us=0.2),
    repeats=Repeats(rows=5_000, size=10_000, share=0.01, lookup_us=0.5),
    live=live(),
)
"""Nothing in it stands out."""


def with_cases(*changed: Case, **changes: Any) -> Profile:
    by_key = {(c.form, c.at_once, c.rows): c for c in (*CALM.cases, *changed)}
    return msgspec.structs.replace(CALM, cases=tuple(by_key.values()), **changes)


def only(profile: Profile) -> Advice:
    (found,) = advice_of(profile)
    return found


def model(**changes: Any) -> ModelFacts:
    return msgspec.structs.replace(CALM.model, **changes)


def recording(**changes: Any) -> RecordingFacts:
    return msgspec.structs.replace(CALM.recording, **changes)


def test_where_nothing_stands_out_there_is_no_advice() -> None:
    assert advice_of(CALM) == ()
    assert advice_of(msgspec.structs.replace(CALM, live=None, repeats=None)) == ()


def test_a_model_that_takes_more_than_half_is_to_shrink() -> None:
    found = only(with_cases(case(run=14.0, record=1.0)))
    assert found.about == "model"
    assert "200 trees of up to 31 leaves" in found.change
    assert "quality is not known" in found.change
    assert found.why.startswith("running it takes 70% of a request, 14.0 of 20.0 us, on 'trees', for which")


def test_a_model_that_a_faster_runtime_refuses_says_why() -> None:
    slow = model(runtime="onnx", faster="trees", why_not="it holds 12 trees, fewer than 20", trees=12)
    found = only(with_cases(case(run=14.0, record=1.0), model=slow))
    assert "the faster 'trees' does not take it: it holds 12 trees, fewer than 20" in found.why


def test_a_model_that_a_faster_runtime_would_take_is_to_be_trained_again() -> None:
    found = only(with_cases(case(run=14.0, record=1.0), model=model(runtime="onnx", faster="trees")))
    assert found.change == "train it again: the training will try a faster runtime"


def test_a_native_model_says_why_it_is_native() -> None:
    native = model(runtime="lightgbm", parity="native lightgbm: onnx was not used: 3e-2 apart", trees=None)
    found = only(with_cases(case(run=14.0, record=1.0), model=native))
    assert "3e-2 apart" in found.why
    assert found.change.startswith("try a smaller model")


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        (recording(whole_us=5.0, without_texts_us=1.5), "text columns, 3.5 of 5.0 us a row"),
        (recording(whole_us=5.0, without_texts_us=5.0, write_us=4.0), "write(2), 4.0 of 5.0 us a row"),
        (recording(whole_us=5.0, without_texts_us=5.0, write_us=0.5), "ids, times and checksums of 300 bytes"),
        (recording(record="memory", whole_us=5.0, without_texts_us=5.0, write_us=4.0), "ids, times and checksums"),
    ],
)
def test_recording_that_costs_much_says_what_of_it(facts: RecordingFacts, word: str) -> None:
    slow = (case(at_once=64, record=5.0), case(record=5.0))
    found = only(with_cases(*slow, recording=facts))
    assert found.about == "recording"
    assert "25% of a request, 5.0 of 20.0 us" in found.why
    assert word in found.why


def test_recording_that_is_paid_once_per_tick_wants_more_rows_in_one() -> None:
    found = only(with_cases(case(record=5.0), case(at_once=64, record=1.0)))
    assert "4.0 of them are paid once per tick" in found.why


def test_a_sync_longer_than_all_the_work_stands_out() -> None:
    found = only(with_cases(recording=recording(record="disk", sync_us=700.0)))
    assert found.about == "durability"
    assert "0.70 ms, all the work for 16 requests 0.32 ms" in found.why
    assert advice_of(with_cases(recording=recording(record="disk", sync_us=300.0))) == ()


def test_named_tensors_that_cost_more_are_told_what_costs_less() -> None:
    found = only(with_cases(case("named", us=30.0), case("packed", us=15.0)))
    assert "one tensor with all columns" in found.change
    assert found.why == "that costs 15.0 us a request, 13 named tensors 30.0"
    categories = msgspec.structs.replace(CALM, cases=(*CALM.cases[:3], case("named", us=30.0)))
    assert "rows as objects" in only(categories).change


def test_rows_one_by_one_are_to_come_together_where_that_was_seen() -> None:
    cheap = case(at_once=1, rows=32, us=32 * 4.0)
    alone = InputFacts(origin="recorded", rows=5_000, single=0.9)
    found = only(with_cases(cheap, inputs=alone))
    assert "90% of the newest requests had one row" in found.why
    assert "4.0 us instead of 20.0: 5.0 times less" in found.why
    assert advice_of(with_cases(cheap)) == ()
    assert advice_of(with_cases(cheap, inputs=InputFacts(origin="hold-out", rows=5_000))) == ()


def test_rows_that_come_again_want_a_cache() -> None:
    often = Repeats(rows=5_000, size=10_000, share=0.6, lookup_us=0.5)
    found = only(with_cases(case(run=8.0, record=1.0), repeats=often))
    assert found.change.startswith("serve.cache: 10000")
    assert "60% of the newest 5,000 rows" in found.why
    assert "save 4.3" in found.why


def test_a_cache_that_costs_more_than_it_saves_is_to_go() -> None:
    assert only(msgspec.structs.replace(CALM, cache=10_000)).change == "serve.cache: 0"


def test_rows_that_do_not_come_again_want_none() -> None:
    assert advice_of(with_cases(case(run=8.0, record=1.0))) == ()


@pytest.mark.parametrize(("workers", "change"), [(1, "holdfast up --workers 4"), (4, "another machine")])
def test_requests_that_wait_for_their_run_want_more_workers(workers: int, change: str) -> None:
    waiting = live(workers=workers, parts=parts(queue_us=800.0, p99_us=5_000.0, request_us=1_000.0))
    found = only(msgspec.structs.replace(CALM, live=waiting))
    assert found.change.startswith(change)
    assert "waits 800 of 1,000 us" in found.why


def test_requests_that_were_turned_away_want_more_workers() -> None:
    assert "12 requests were answered 429" in only(msgspec.structs.replace(CALM, live=live(refused={429: 12}))).why


def test_few_live_requests_say_nothing() -> None:
    few = live(requests=10, parts=parts(queue_us=800.0, p99_us=5_000.0, request_us=1_000.0), general=9)
    assert advice_of(msgspec.structs.replace(CALM, live=few)) == ()


def test_rows_that_were_not_recorded_are_a_matter_of_the_disk() -> None:
    assert "7 rows could not be recorded (3 of them refused)" in only(
        msgspec.structs.replace(CALM, live=live(shed=4, lost=3))
    ).why  # fmt: skip
    assert "rows wait 0.8 s" in only(msgspec.structs.replace(CALM, live=live(lag_s=0.8))).why


def test_many_unusual_requests_are_told_what_is_usual() -> None:
    found = only(msgspec.structs.replace(CALM, live=live(general=2_500)))
    assert "25% of 10,000 requests" in found.why
    assert "80.0 us instead of 20.0" in found.why


def test_a_system_that_cannot_be_asked_in_a_usual_form_says_so() -> None:
    bare = tuple(msgspec.structs.replace(each, stages=()) if each.form == "object" else each for each in CALM.cases)
    found = only(msgspec.structs.replace(CALM, cases=bare, live=live(general=10_000)))
    assert found.about == "usual form"
    assert "plain rows of this system are no usual requests" in found.why


@pytest.mark.parametrize(("seen", "at_once"), [(0.0, 16), (1.0, 1), (3.0, 1), (5.0, 16), (31.0, 16), (40.0, 64)])
def test_advice_goes_by_what_the_workers_see(seen: float, at_once: int) -> None:
    assert usual_at_once(msgspec.structs.replace(CALM, live=live(requests_per_run=seen))) == at_once


shares = st.floats(0.0, 1.0)
times_us = st.floats(0.1, 1e5)


@settings(max_examples=50, deadline=None)
@given(run=shares, record=shares, us=times_us, single=shares, again=shares, lookup_us=times_us, whole_us=times_us)
def test_advice_is_text_with_a_reason_whatever_was_measured(
    run: float, record: float, us: float, single: float, again: float, lookup_us: float, whole_us: float
) -> None:
    found = advice_of(
        with_cases(
            case(us=us, run=run * us / 2, record=record * us / 2),
            inputs=InputFacts(origin="recorded", rows=1, single=single),
            repeats=Repeats(rows=1, size=1, share=again, lookup_us=lookup_us),
            recording=recording(whole_us=whole_us, without_texts_us=whole_us / 2),
        )
    )
    assert all(advice.change and advice.why and "nan" not in advice.why for advice in found)
    assert len({advice.about for advice in found}) == len(found)
