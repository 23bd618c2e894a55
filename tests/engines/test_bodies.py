import json
import math
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core.records import RECORDS, Job, Mark, Run
from holdfast.engines.bodies import decode, encode
from holdfast.testing import a_job, one_of_each


@pytest.mark.parametrize("record", one_of_each(), ids=lambda record: record.table)
def test_a_record_survives_its_body(record):
    assert repr(decode(type(record), encode(record))) == repr(record)


def test_there_is_a_sample_of_every_kind():
    assert {type(record) for record in one_of_each()} == set(RECORDS)


times = st.datetimes(timezones=st.just(UTC)).map(lambda time: time.replace(fold=0))
leaves = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text() | times
keys = st.text() | st.sampled_from(["$float", "$time", "$dict"])
nested = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3))


@settings(max_examples=40)
@given(st.dictionaries(keys, nested, max_size=4))
def test_open_ended_fields_keep_every_value_that_json_has_and_times_and_all_floats(payload):
    job = a_job(payload=payload)
    assert repr(decode(Job, encode(job))) == repr(job)


def test_a_body_is_plain_json_where_json_suffices():
    body = json.loads(encode(Mark(system="s", id="m", last_at=datetime(2013, 4, 1, tzinfo=UTC), memory={"n": 1})))
    assert body == {"system": "s", "id": "m", "state": "", "last_at": "2013-04-01T00:00:00Z", "memory": {"n": 1}}


def test_fields_unknown_to_this_version_are_passed_over_and_new_ones_take_their_defaults():
    job = decode(Job, '{"system":"s","id":"1","kind":"train","at":"2013-04-01T00:00:00Z","later":[{"$float":"inf"}]}')
    assert job == Job(system="s", id="1", kind="train", at=datetime(2013, 4, 1, tzinfo=UTC))


def test_metrics_that_are_not_numbers_come_back_as_floats():
    at = datetime(2013, 4, 1, tzinfo=UTC)
    run = Run(system="s", id="1", snapshot="x", trainer="t", seed=1, started_at=at, metrics={"auc": math.nan})
    back = decode(Run, encode(run))
    assert math.isnan(back.metrics["auc"])
