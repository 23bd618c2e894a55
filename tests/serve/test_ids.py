import os
from datetime import UTC, datetime

from holdfast.core.clock import ManualClock
from holdfast.serve.ids import ID_LIMIT, request_ids, usable_id

CLOCK = ManualClock(datetime(2013, 5, 1, tzinfo=UTC))


def test_ids_are_all_different_and_sort_by_the_time_they_were_made():
    new_id = request_ids(CLOCK, os.urandom)
    ids = [new_id() for _ in range(2000)]
    assert len(set(ids)) == 2000
    assert sorted(ids) == ids
    assert all(usable_id(id) for id in ids)


def test_two_processes_that_begin_at_once_make_different_ids():
    assert request_ids(CLOCK, os.urandom)() != request_ids(CLOCK, os.urandom)()


def test_the_next_id_cannot_be_told_from_the_ones_before():
    new_id = request_ids(CLOCK, os.urandom)
    ends = [new_id().rpartition("-")[2] for _ in range(2000)]
    assert len(set(ends)) == 2000
    assert all(len(end) == 16 for end in ends)
    # Each of the 64 bits is by chance: set in about half of them (five standard deviations of a binomial share).
    for bit in range(64):
        share = sum(int(end, 16) >> bit & 1 for end in ends) / 2000
        assert abs(share - 0.5) < 5 * (0.25 / 2000) ** 0.5


def test_an_id_is_short_and_printable():
    assert usable_id("a" * ID_LIMIT)
    assert not usable_id("a" * (ID_LIMIT + 1))
    assert not usable_id("a\nb")
