import hashlib
import json
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.records import AuditEntry
from holdfast.errors import Tampered
from holdfast.security.audit import ORIGIN, canonical, entry, head, verify

AT = datetime(2013, 4, 1, tzinfo=UTC)


def a_log(length: int) -> list[AuditEntry]:
    log: list[AuditEntry] = []
    for i in range(length):
        log.append(
            entry(
                log[-1] if log else None,
                at=AT + timedelta(seconds=i),
                actor="me",
                action="release",
                system="flights",
                subject=f"version {i}",
                detail={"share": i / 7, "at": AT},
            )
        )
    return log


def test_a_hash_is_sha256_over_the_hash_before_and_the_fields_as_sorted_json():
    only = a_log(1)[0]
    fields = [ORIGIN, 1, "2013-04-01T00:00:00Z", "me", "release", "flights", "version 0"]
    text = json.dumps([*fields, {"at": "2013-04-01T00:00:00Z", "share": 0.0}], separators=(",", ":"), sort_keys=True)
    assert only.hash == hashlib.sha256(text.encode()).hexdigest()


def test_a_whole_log_verifies_and_so_does_an_empty_one():
    verify(a_log(5))
    verify([])
    assert head([]) == ORIGIN
    verify([], remembered=ORIGIN)


def test_a_log_verifies_after_it_was_stored_as_json():
    log = a_log(3)
    verify([msgspec.json.decode(msgspec.json.encode(each), type=AuditEntry) for each in log])


CHANGES = {
    "at": AT - timedelta(days=1),
    "actor": "you",
    "action": "rollback",
    "system": "disks",
    "subject": "version 9",
    "detail": {},
    "before": "1" * 64,
    "hash": "1" * 64,
}


@pytest.mark.parametrize("field", CHANGES)
@given(length=st.integers(1, 6), data=st.data())
def test_a_changed_field_is_found_at_its_entry(field, length, data):
    log = a_log(length)
    at = data.draw(st.integers(0, length - 1))
    log[at] = msgspec.structs.replace(log[at], **{field: CHANGES[field]})
    with pytest.raises(Tampered, match=f"audit entry {at + 1} "):
        verify(log)


@given(length=st.integers(2, 6), data=st.data())
def test_a_removed_entry_is_found_where_it_stood(length, data):
    log = a_log(length)
    at = data.draw(st.integers(0, length - 2))
    del log[at]
    with pytest.raises(Tampered, match=f"audit entry {at + 1} is missing or moved"):
        verify(log)


@given(length=st.integers(2, 6), data=st.data())
def test_swapped_entries_are_found_at_the_first(length, data):
    log = a_log(length)
    at = data.draw(st.integers(0, length - 2))
    log[at], log[at + 1] = log[at + 1], log[at]
    with pytest.raises(Tampered, match=f"audit entry {at + 1} is missing or moved"):
        verify(log)


def test_a_rewritten_entry_breaks_the_next_one():
    log = a_log(4)
    log[1] = entry(log[0], at=AT, actor="you", action="release", system="flights", subject="x", detail={})
    with pytest.raises(Tampered, match="audit entry 3 "):
        verify(log)


def test_a_cut_off_end_shows_against_a_remembered_head_only():
    log = a_log(4)
    remembered = head(log)
    verify(log[:3])
    with pytest.raises(Tampered, match=r"ends at entry 3.*cut off"):
        verify(log[:3], remembered=remembered)
    verify(
        [*log, entry(log[-1], at=AT, actor="me", action="b", system="s", subject="x", detail={})], remembered=remembered
    )


def test_detail_is_kept_as_json_has_it():
    assert canonical({"b": (1, AT), "a": {"z": None, "y": 1.5}}) == {
        "a": {"y": 1.5, "z": None},
        "b": [1, "2013-04-01T00:00:00Z"],
    }
