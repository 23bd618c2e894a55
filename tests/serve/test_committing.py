import errno
import logging
from collections import deque

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from holdfast.core.protocols import EMPTY
from holdfast.engines.memory import MemoryLake
from holdfast.errors import StateError
from holdfast.serve.committing import Committer
from holdfast.serve.handover import BackgroundThread
from holdfast.testing import PREDICTION_FIELDS, predictions

MOST_BYTES = 4000
"""Room for a handful of rows."""


class Clock:
    """Seconds that pass when told to."""

    def __init__(self):
        self.s = 100.0

    def __call__(self):
        return self.s


class Hand:
    """A thread whose jobs run when told to."""

    def __init__(self, clock):
        self.clock = clock
        self.jobs = deque()
        self.hangs = False
        self.rested = []
        self.meanwhile = lambda: None

    def submit(self, job):
        self.jobs.append(job)

    def run(self):
        while self.jobs:
            self.jobs.popleft()()

    def wait(self, timeout_s):
        if self.hangs:
            self.clock.s += timeout_s
            return False
        self.run()
        return True

    def rest(self, until, at_most_s):
        self.rested.append(at_most_s)
        self.meanwhile()
        self.clock.s += 0.0 if until.is_set() else at_most_s

    def stop(self):
        assert not self.jobs


class Disk:
    """A lake on a disk that may be full, broken or slow; `meanwhile` is what the loop does during a job."""

    def __init__(self, clock):
        self.clock = clock
        self.is_full = False
        self.is_broken = False
        self.slow_s = 0.0
        self.meanwhile = None
        self.written = []
        self.synced = set()
        self.pens = []
        self.tries = 0

    def open(self):
        self.try_it()
        self.pens.append(Pen(self))
        return self.pens[-1]

    def try_it(self):
        self.tries += 1
        self.clock.s += self.slow_s
        if self.is_full:
            raise StateError("no space; free space") from OSError(errno.ENOSPC, "no space")

    def the_loop_goes_on(self):
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()


class Pen:
    """Keeps the contract of a writer: a failed sync is a failure for all that was appended until it was noticed."""

    def __init__(self, disk):
        self.disk = disk
        self.unsynced = []
        self.doomed = False
        self.is_busy = False
        self.is_closed = False

    def append(self, columns, rows, *, constants=EMPTY, matrix=None):
        self.must_be_free()
        self.is_busy = True
        self.disk.the_loop_goes_on()
        self.is_busy = False
        self.disk.try_it()
        if "poison" in columns["id"]:
            raise StateError("not what the schema wants")
        self.disk.written += columns["id"]
        self.unsynced += columns["id"]

    def sync(self):
        count, doomed, self.doomed = len(self.unsynced), self.doomed, False
        self.disk.the_loop_goes_on()
        self.disk.clock.s += self.disk.slow_s
        if self.disk.is_broken or doomed:
            self.doomed = len(self.unsynced) > count
            del self.unsynced[:count]
            raise StateError("cannot sync") from OSError(errno.EIO, "i/o error")
        self.disk.synced |= set(self.unsynced[:count])
        del self.unsynced[:count]

    def close(self):
        self.must_be_free()
        self.is_closed = True

    def must_be_free(self):
        if self.is_busy or self.is_closed:
            raise MisusedError


class MisusedError(BaseException):
    """Two threads use one writer, or one uses it after it was closed."""


class Bench:
    """A committer with all that is around it under hand."""

    def __init__(self, record="process", on_failure="refuse", **options):
        self.clock = Clock()
        self.disk = Disk(self.clock)
        self.hand = Hand(self.clock)
        self.hand.meanwhile = self.disk.the_loop_goes_on
        self.soon = deque()
        self.outcomes = {}
        self.count = 0
        self.committer = Committer(
            self.disk.open,
            record=record,
            on_failure=on_failure,
            call_soon=self.soon.append,
            now_s=self.clock,
            background=self.hand,
            most_waiting_bytes=MOST_BYTES,
            **options,
        )

    def append(self, rows=1, *, poison=False):
        ids = [f"{self.count + i}" for i in range(rows)] if not poison else ["poison"] * rows
        name = f"{self.count}"
        self.count += rows
        self.outcomes[name] = []
        self.committer.append({"id": ids}, rows, done=self.outcomes[name].append)
        return name

    def turn(self):
        """One turn of the event loop."""
        for _ in range(len(self.soon)):
            self.soon.popleft()()

    def settle(self):
        """Let thread and loop come to rest."""
        while self.hand.jobs or self.soon:
            self.hand.run()
            self.turn()

    def inline(self):
        """Until writes are done inline."""
        self.append()
        self.settle()
        return self

    @property
    def counts(self):
        c = self.committer
        return {"written": c.written, "shed": c.shed, "lost": c.lost, "late": c.late, "waiting": c.waiting_rows}


def counts(written=0, shed=0, lost=0, late=0, waiting=0):
    return {"written": written, "shed": shed, "lost": lost, "late": late, "waiting": waiting}


def is_refused(outcome):
    return len(outcome) == 1 and isinstance(outcome[0], StateError)


class AnyHistory(RuleBasedStateMachine):
    """Whatever disk, thread and loop do, an answer that went out is recorded, none goes twice, and all are counted."""

    @initialize(record=st.sampled_from(["process", "disk", "memory"]), on_failure=st.sampled_from(["refuse", "shed"]))
    def start(self, record, on_failure):
        self.record, self.on_failure = record, on_failure
        self.bench = Bench(record, on_failure)
        self.rows = {}

    def _append(self, rows=1):
        name = self.bench.append(rows)
        self.rows[name] = [f"{int(name) + i}" for i in range(rows)]

    @rule(rows=st.integers(1, 6))
    def append(self, rows):
        self._append(rows)

    @rule()
    def append_what_the_writer_refuses(self):
        self.rows[self.bench.append(poison=True)] = None

    @rule(meanwhile=st.lists(st.sampled_from(["append", "look", "wait", "turn", "rotate"]), max_size=4))
    def thread_runs(self, meanwhile):
        acts = {
            "append": self._append,
            "look": self.bench.committer.look,
            "wait": lambda: self.wait(0.6),
            "turn": self.bench.turn,
            "rotate": lambda: self.bench.committer.rotate(0.0),
        }
        self.bench.disk.meanwhile = lambda: [acts[name]() for name in meanwhile]
        self.bench.hand.run()
        self.bench.disk.meanwhile = None

    @rule()
    def loop_turns(self):
        self.bench.turn()

    @rule(seconds=st.sampled_from([0.01, 0.2, 1.1]))
    def wait(self, seconds):
        self.bench.clock.s += seconds

    @rule(is_full=st.booleans())
    def fill_or_free(self, is_full):
        self.bench.disk.is_full = is_full

    @rule(is_broken=st.booleans())
    def break_or_repair(self, is_broken):
        self.bench.disk.is_broken = is_broken

    @rule(slow_s=st.sampled_from([0.0, 0.001, 0.3, 1.5]))
    def become_slow_or_quick(self, slow_s):
        self.bench.disk.slow_s = slow_s

    @rule()
    def look(self):
        self.bench.committer.look()
        if self.record != "memory":
            assert self.bench.committer.lag_s <= 1.0

    @rule(older_than_s=st.sampled_from([0.0, 0.5]))
    def rotate(self, older_than_s):
        self.bench.committer.rotate(older_than_s)

    @invariant()
    def acknowledged_is_recorded(self):
        disk = self.bench.disk
        recorded = disk.synced if self.record == "disk" else set(disk.written)
        for name, outcome in self.bench.outcomes.items():
            assert len(outcome) <= 1
            if outcome == [None] and self.on_failure == "refuse" and self.record != "memory":
                assert self.rows[name] is not None
                assert set(self.rows[name]) <= recorded
            if outcome and outcome[0] is not None:
                assert self.on_failure == "refuse"

    @invariant()
    def all_is_counted_and_bounded(self):
        committer = self.bench.committer
        assert committer.sent == self.bench.count
        assert committer.sent == committer.written + committer.shed + committer.lost + committer.waiting_rows
        assert committer.waiting_bytes <= MOST_BYTES
        assert (committer.lag_s > 0) <= (committer.waiting_rows > 0)
        unanswered = [name for name, outcome in self.bench.outcomes.items() if not outcome]
        if self.record != "memory":
            assert bool(unanswered) == bool(committer.waiting_rows)
        assert min(committer.written, committer.shed, committer.lost, committer.waiting_rows) >= 0

    def teardown(self):
        bench, committer = self.bench, self.bench.committer
        disk = bench.disk
        disk.is_full = disk.is_broken = False
        disk.slow_s = 0.0
        bench.settle()
        committer.close()
        bench.settle()
        self.acknowledged_is_recorded()
        assert all(outcome for outcome in bench.outcomes.values())
        assert bench.counts["waiting"] == committer.waiting_bytes == 0
        assert all(pen.is_closed for pen in disk.pens)
        if self.record == "process":
            assert len(disk.written) == len(set(disk.written)) == committer.written + committer.late
        bench.clock.s += 5
        after = bench.append()
        bench.settle()
        assert bench.outcomes[after] == [None]
        assert after in disk.written


@pytest.mark.parametrize(
    "histories", [pytest.param(300, marks=pytest.mark.slow), pytest.param(4000, marks=pytest.mark.long)]
)
def test_whatever_happens_acknowledged_is_recorded_and_everything_is_counted(histories):
    thorough = settings(max_examples=histories, stateful_step_count=40, deadline=None)
    run_state_machine_as_test(AnyHistory, settings=thorough)


def test_the_first_write_is_the_threads_and_the_next_ones_are_inline():
    bench = Bench()
    first = bench.append()
    assert (bench.outcomes[first], bench.disk.written) == ([], [])
    bench.settle()
    assert bench.outcomes[first] == [None]
    second = bench.append()
    assert bench.outcomes[second] == [None]
    assert bench.disk.written == ["0", "1"]
    assert not bench.hand.jobs


def test_on_a_disk_that_hangs_from_the_start_rows_are_refused_rather_than_waited_for():
    bench = Bench()
    first = bench.append()
    bench.clock.s += 1.1
    bench.committer.look()
    assert is_refused(bench.outcomes[first])
    second = bench.append()
    assert is_refused(bench.outcomes[second])
    assert "has not taken rows for 1.1 s" in str(bench.outcomes[second][0])
    bench.settle()
    assert bench.disk.written == []  # nobody waits for them any more
    assert bench.outcomes[bench.append()] == []


def test_a_row_that_was_refused_and_written_after_all_is_counted_as_late():
    bench = Bench()
    bench.append()
    bench.disk.meanwhile = lambda: (setattr(bench.clock, "s", 200.0), bench.committer.look())
    bench.settle()
    assert is_refused(bench.outcomes["0"])
    assert bench.disk.written == ["0"]
    assert bench.counts == counts(lost=1, late=1)


def test_a_slow_write_hands_over_until_writes_were_quick_for_a_while():
    bench = Bench().inline()
    bench.disk.slow_s = 0.3
    slow = bench.append()
    assert bench.outcomes[slow] == [None]
    bench.disk.slow_s = 0.0
    for _ in range(3):
        handed = bench.append()
        assert bench.outcomes[handed] == []
        bench.settle()
        assert bench.outcomes[handed] == [None]
        bench.clock.s += 0.4
    bench.append()
    bench.settle()
    assert bench.outcomes[bench.append()] == [None]


@pytest.mark.parametrize("record", ["process", "disk"])
def test_rows_that_wait_are_written_inline_when_the_thread_is_no_longer_needed(record):
    bench = Bench(record)
    bench.append()
    waiting = [bench.append() for _ in range(3)]
    bench.hand.run()
    bench.turn()
    assert bench.disk.written == ["0", "1", "2", "3"]
    inline = bench.append()
    assert bench.disk.written[-1] == inline
    bench.settle()
    assert all(bench.outcomes[name] == [None] for name in (*waiting, inline))


@pytest.mark.parametrize("slow_s", [0.0, 0.3])
@pytest.mark.parametrize("is_full", [False, True])
def test_no_row_that_waits_is_forgotten_when_the_disk_fails_just_then(slow_s, is_full):
    bench = Bench()
    bench.append()
    waiting = [bench.append() for _ in range(3)]
    bench.hand.run()
    bench.disk.slow_s, bench.disk.is_full = slow_s, is_full
    bench.settle()
    for name in waiting:
        assert is_refused(bench.outcomes[name]) if is_full else bench.outcomes[name] == [None]
    assert bench.counts == counts(written=1 if is_full else 4, lost=3 if is_full else 0)


def test_a_sync_that_hangs_refuses_what_waits_and_new_rows_and_nothing_is_written_inline_meanwhile():
    bench = Bench("disk").inline()
    waiting = [bench.append(), bench.append()]
    bench.clock.s += 1.1
    unasked = bench.append()  # no one looked: the row itself is what notices
    assert all(is_refused(bench.outcomes[name]) for name in (*waiting, unasked))
    written = list(bench.disk.written)
    assert is_refused(bench.outcomes[bench.append()])
    assert bench.disk.written == written
    bench.settle()
    assert bench.counts == counts(written=1, lost=4, late=1)  # the sync that hung was for the first of them
    bench.clock.s += 0.2
    again = bench.append()
    bench.settle()
    assert bench.outcomes[again] == [None]


def test_a_full_queue_refuses_new_rows_and_keeps_the_old_ones():
    bench = Bench()
    names = [bench.append(5) for _ in range(10)]
    refused = [name for name in names if bench.outcomes[name]]
    assert 0 < len(refused) < 10
    assert all(is_refused(bench.outcomes[name]) for name in refused)
    bench.settle()
    assert all(bench.outcomes[name] == [None] for name in names if name not in refused)


def test_at_disk_one_sync_serves_all_rows_that_were_appended_before_it_began():
    bench = Bench("disk").inline()
    first = [bench.append() for _ in range(3)]
    late = []
    bench.disk.meanwhile = lambda: late.append(bench.append())
    bench.hand.run()
    assert bench.outcomes[first[0]] == []
    bench.turn()
    assert bench.outcomes[first[0]] == [None]
    # The sync of the first one began before the second was appended; the sync of the others ran for all of them.
    assert bench.outcomes[first[1]] == bench.outcomes[late[0]] == []
    bench.hand.run()
    bench.turn()
    assert [bench.outcomes[name] for name in (*first, *late)] == [[None]] * 4
    assert bench.disk.synced == {"0", "1", "2", "3", "4"}


def test_at_disk_a_sync_waits_for_clients_that_were_just_answered_so_that_one_serves_them_all():
    bench = Bench("disk").inline()
    bench.disk.slow_s = 0.002
    waiting = [bench.append() for _ in range(6)]
    bench.settle()
    assert all(bench.outcomes[name] == [None] for name in waiting)
    # Now 5 of them had their row in one sync. The first to come back waits for the others, until all are there.
    bench.hand.rested.clear()
    bench.disk.slow_s = 0.0
    again = [bench.append()]
    before_s = bench.clock.s
    bench.disk.meanwhile = lambda: again.extend(bench.append() for _ in range(4))
    bench.hand.run()
    bench.turn()
    assert bench.hand.rested == [pytest.approx(0.001)]
    assert bench.clock.s == before_s, "it waited on when all were there"
    bench.hand.run()
    bench.turn()
    assert all(bench.outcomes[name] == [None] for name in again)
    assert len(bench.disk.synced) == 12


def test_at_disk_nobody_is_waited_for_while_the_thread_writes():
    bench = Bench("disk").inline()
    bench.disk.slow_s = 0.3
    for _ in range(6):
        bench.append()
    bench.settle()
    bench.hand.rested.clear()
    name = bench.append()
    bench.settle()
    assert (bench.outcomes[name], bench.hand.rested) == ([None], [])


def test_at_disk_a_client_alone_is_not_made_to_wait():
    bench = Bench("disk").inline()
    bench.disk.slow_s = 0.002
    for _ in range(5):
        bench.append()
        bench.settle()
    assert bench.hand.rested == []


@pytest.mark.parametrize("when", ["before", "while"])
def test_a_failed_sync_refuses_its_rows_and_those_that_were_written_before_it_ended(when):
    bench = Bench("disk").inline()
    bench.disk.is_broken = True
    names = [bench.append()]
    if when == "before":
        names.append(bench.append())
    else:
        bench.disk.meanwhile = lambda: names.append(bench.append())
    bench.hand.run()
    bench.disk.is_broken = False
    bench.turn()
    assert all(is_refused(bench.outcomes[name]) for name in names)
    assert "i/o error; send the request again with the same id" in str(bench.outcomes[names[0]][0])
    for _ in range(2):  # the writer may have one more failure to tell
        bench.clock.s += 0.2
        names.append(bench.append())
        bench.settle()
    assert bench.outcomes[names[-1]] == [None]
    assert set(bench.disk.synced) >= {"0", names[-1]}


def test_at_disk_rows_that_wait_for_a_sync_are_bounded_too():
    bench = Bench("disk").inline()
    names = [bench.append() for _ in range(20)]
    refused = [name for name in names if bench.outcomes[name]]
    assert 0 < len(refused) < 20
    assert all(is_refused(bench.outcomes[name]) for name in refused)
    assert len(bench.disk.written) == 1 + 20 - len(refused)


@pytest.mark.parametrize("record", ["process", "disk", "memory"])
def test_while_the_disk_is_full_rows_are_refused_and_it_is_tried_ten_times_a_second_at_most(record, caplog):
    bench = Bench(record).inline()
    tries = bench.disk.tries
    bench.disk.is_full = True
    names = []
    with caplog.at_level(logging.WARNING):
        for _ in range(100):
            names.append(bench.append())
            bench.settle()
            bench.clock.s += 0.01
        assert all(is_refused(bench.outcomes[name]) for name in names)
        assert bench.disk.tries - tries <= 11
        bench.disk.is_full = False
        bench.clock.s += 0.2
        again = bench.append()
        bench.settle()
    assert bench.outcomes[again] == [None]
    assert bench.counts == counts(written=2, lost=100)
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "no space; free space. Until that works again, predictions are refused",
        "recorded again after 1.2 s; 100 rows missed",
    ]


def test_under_shed_answers_go_out_and_what_is_missing_is_counted(caplog):
    bench = Bench(on_failure="shed").inline()
    bench.disk.is_full = True
    names = [bench.append(2) for _ in range(3)]
    assert [bench.outcomes[name] for name in names] == [[None]] * 3
    assert bench.counts == counts(written=1, shed=6)
    assert "predictions are answered without being recorded" in caplog.text


def test_rows_that_the_writer_refuses_for_what_they_are_do_not_stop_others():
    bench = Bench().inline()
    assert is_refused(bench.outcomes[bench.append(poison=True)])
    assert bench.outcomes[bench.append()] == [None]


def test_a_writer_that_raises_what_nobody_foresaw_refuses_the_rows_and_is_said(caplog):
    bench = Bench().inline()
    name = "strange"
    bench.outcomes[name] = []
    bench.committer.append({"no id": []}, 1, done=bench.outcomes[name].append)
    assert is_refused(bench.outcomes[name])
    assert "KeyError" in caplog.text


def test_an_answer_that_cannot_be_given_holds_up_no_other(caplog):
    bench = Bench("disk").inline()

    def gone(_):
        raise ConnectionError("the client is gone")

    bench.committer.append({"id": ["x"]}, 1, done=gone)
    others = [bench.append(), bench.append()]
    bench.settle()
    assert all(bench.outcomes[name] == [None] for name in others)
    assert "an answer could not be given" in caplog.text


def test_rotation_is_the_threads_and_the_next_segment_begins_there_too():
    bench = Bench().inline()
    bench.clock.s += 50
    bench.committer.rotate(60)
    assert not bench.hand.jobs
    bench.clock.s += 20
    bench.committer.rotate(60)
    assert not bench.disk.pens[0].is_closed
    meanwhile = bench.append()
    assert bench.outcomes[meanwhile] == []
    bench.settle()
    assert [pen.is_closed for pen in bench.disk.pens] == [True, False]
    bench.committer.rotate(0)
    assert not bench.committer.is_idle
    bench.settle()
    assert bench.committer.is_idle
    meanwhile = bench.append()
    bench.settle()
    assert bench.outcomes[meanwhile] == [None]
    assert bench.outcomes[bench.append()] == [None]


def test_rows_under_memory_are_answered_at_once_even_while_the_segment_is_opened():
    bench = Bench("memory")
    assert bench.outcomes[bench.append()] == [None]
    assert bench.counts == counts(waiting=1)
    bench.settle()
    assert bench.outcomes[bench.append()] == [None]
    assert bench.counts == counts(written=2)


def test_with_no_recording_rows_are_counted_as_sent_only():
    bench = Bench("none")
    assert bench.outcomes[bench.append(3)] == [None]
    assert (bench.committer.sent, bench.counts, bench.disk.pens) == (3, counts(), [])
    bench.committer.rotate(0)
    bench.committer.close()


@pytest.mark.parametrize("record", ["process", "disk", "memory"])
def test_without_a_loop_everything_is_done_when_append_returns(record):
    clock = Clock()
    disk = Disk(clock)
    committer = Committer(disk.open, record=record, on_failure="refuse", call_soon=None, now_s=clock)
    outcomes = []
    committer.append({"id": ["a"]}, 1, done=outcomes.append)
    assert (outcomes, disk.written) == ([None], ["a"])
    assert disk.synced == ({"a"} if record == "disk" else set())
    disk.is_full = True
    committer.append({"id": ["b"]}, 1, done=outcomes.append)
    assert is_refused(outcomes[1:])
    disk.is_full = False
    committer.append({"id": ["c"]}, 1, done=outcomes.append)
    assert outcomes[2] is None
    clock.s += 61
    committer.rotate(60)
    committer.append({"id": ["d"]}, 1, done=outcomes.append)
    committer.close()
    assert [pen.is_closed for pen in disk.pens] == [True, True]
    assert (committer.sent, committer.written, committer.lost) == (4, 3, 1)


def test_closing_writes_what_waits_although_the_loop_is_over():
    bench = Bench("disk")

    def over(_):
        raise RuntimeError("Event loop is closed")

    bench.committer._call_soon = over
    names = [bench.append(), bench.append()]
    bench.committer.close()
    assert [bench.outcomes[name] for name in names] == [[None], [None]]
    assert bench.disk.synced == {"0", "1"}
    assert bench.disk.pens[0].is_closed


def test_closing_on_a_disk_that_hangs_ends_and_says_so(caplog):
    bench = Bench().inline()
    bench.committer.rotate(0)
    waiting = bench.append()
    bench.hand.hangs = True
    bench.hand.stop = lambda: None
    bench.committer.close(drain_s=3.0)
    assert is_refused(bench.outcomes[waiting])
    assert bench.counts == counts(written=1, lost=1)
    assert "took nothing for 3.0 s" in caplog.text


def test_what_is_changed_after_append_is_not_changed_in_the_lake():
    bench = Bench()
    lake = MemoryLake()
    bench.committer._open_writer = lambda: lake.writer("predictions", "flights", PREDICTION_FIELDS[:5])
    columns = predictions(["a"])
    bench.committer.append(columns, 1, done=lambda _: None)
    columns["seats"][0] = 99
    columns["carrier"][0] = "ZZ"
    bench.settle()
    row = lake.scan("predictions", "flights").to_dicts()[0]
    assert (row["seats"], row["carrier"]) == (0, "AA")


def test_a_matrix_counts_for_what_waits():
    bench = Bench()
    bench.append()
    outcome = []
    bench.committer.append({"id": ["x"]}, 1, matrix=np.zeros((1, 1000)), done=outcome.append)
    assert is_refused(outcome)


def test_the_thread_runs_jobs_in_order_and_may_be_begun_again():
    thread = BackgroundThread("test")
    ran = []
    for life in range(2):
        for n in range(3):
            thread.submit(lambda n=n, life=life: ran.append((life, n)))
        assert thread.wait(10)
        thread.stop()
    assert thread.wait(0)
    assert ran == [(life, n) for life in range(2) for n in range(3)]
