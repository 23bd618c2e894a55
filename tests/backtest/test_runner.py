"""Several runs, each in its own process: their outcomes, the faulted world, what goes wrong."""

import os
import signal
from datetime import timedelta

import pytest

from holdfast.backtest import runner
from holdfast.backtest.faults import Fault
from holdfast.backtest.report import to_json
from holdfast.backtest.runner import FAULTED, THREADS, run_backtest
from holdfast.errors import DataError, HoldfastError, NotFound
from holdfast.testing import refused

pytestmark = pytest.mark.slow
DAY = timedelta(days=1)


@pytest.fixture
def run(parcels, tmp_path):
    """`run(**how)`: a backtest of the small system from its files."""

    def made(task="classification", feeds=None, gate="", **how):
        parcels.write(tmp_path, feeds or parcels.feeds(), task)
        how = {"policies": ("never",), "start": parcels.start, "end": parcels.start + 4 * DAY, "processes": 1} | how
        return run_backtest(parcels.spec(task, gate), tmp_path, **how)

    return made


def a_stale_feed(parcels, **changes) -> Fault:
    fields = {"name": "stale", "fault": "stale", "feed": "weather", "start": parcels.start + DAY}
    return Fault(**(fields | {"end": parcels.start + 6 * DAY} | changes))


def test_a_run_in_a_process_of_its_own_is_the_same_as_here(run, parcels, seen, monkeypatch):
    monkeypatch.delenv(THREADS, raising=False)
    report = run(on_event=seen, policies=("never", "never"))
    here = parcels.play(end=report.end)
    assert parcels.without_times(report.policies["never"]) == parcels.without_times(here)
    assert report.faulted is None
    assert report.faults == ()
    assert 0 < report.predictions_per_s < 1e6
    assert report.took_s >= report.policies["never"].took_s >= report.policies["never"].training_s > 0
    events = [event for (event,) in seen.kept]
    assert {event.run for event in events} == {"never"}
    assert events[0].share == 0.0
    assert events[-1].share == 1.0
    assert THREADS not in os.environ


def test_faults_get_a_run_of_their_own_and_leave_the_others_alone(run, parcels):
    fault = a_stale_feed(parcels)
    report = run(faults=(fault,), end=parcels.start + 8 * DAY, processes=2)
    assert report.faulted is not None
    alone = parcels.play(end=parcels.start + 8 * DAY)
    assert parcels.without_times(report.policies["never"]) == parcels.without_times(alone)
    (found,) = report.faults
    assert found.detected_at is not None
    assert found.detected_at - fault.start <= 4 * DAY
    assert found.check in ("freshness", "silence")
    assert FAULTED.encode() in to_json(report, "classification")


def test_a_regression_is_backtested_too(run):
    report = run("regression")
    outcome = report.policies["never"]
    assert outcome.metrics["r2"] > 0.5
    assert outcome.metrics["mae"] == pytest.approx(0.8, abs=0.2)  # noise of standard deviation 1: 0.798


@pytest.mark.parametrize(
    ("how", "error", "said"),
    [
        ({"policies": ("nevr",)}, NotFound, "did you mean 'never'"),
        ({"policies": ()}, HoldfastError, "needs a policy"),
        ({"start": -23}, DataError, "no history to train on before its hold-out of 7 days"),
        ({"start": 20, "end": 10}, DataError, "before it begins"),
        ({"faults": {"feed": "wether"}}, NotFound, "did you mean 'weather'"),
        ({"faults": {"fault": "constant", "columns": ("tmp",)}}, NotFound, "did you mean 'temp'"),
        ({"faults": {"start": 30, "end": 40}}, DataError, "never sees"),
    ],
)
def test_bad_arguments_get_one_message_before_anything_runs(run, parcels, seen, how, error, said):
    def at(fields):
        return {k: parcels.start + v * DAY if k in ("start", "end") else v for k, v in fields.items()}

    if "faults" in how:
        how = {"faults": (a_stale_feed(parcels, **at(how["faults"])),)}
    with refused(error, said):
        run(on_event=seen, **at(how))
    assert not seen.kept


def test_feeds_without_rows_are_refused(run, parcels):
    with refused(HoldfastError, "parcels"):
        run(feeds={name: rows.clear() for name, rows in parcels.feeds().items()})


def test_a_run_that_cannot_go_on_says_so_and_stops_the_others(run):
    with refused(HoldfastError, "run '", "no live version", "roc_auc"):
        run(
            policies=("never", "monthly"),
            gate="{check: quality, metric: roc_auc, at_least: 0.999}",
            processes=2,
        )


def test_a_run_whose_process_is_killed_ends_in_an_error_and_not_in_waiting(run, parcels):
    killed = []

    def kill(event):
        if not killed:
            killed.extend(pid for pid in _children() if b"spawn_main" in _command(pid))
            os.kill(killed[0], signal.SIGKILL)

    with refused(HoldfastError, "died without a word", "--processes 1"):
        run(on_event=kill, end=parcels.end)
    assert killed


def _children() -> list[int]:
    with open(f"/proc/self/task/{os.getpid()}/children") as listed:
        return [int(pid) for pid in listed.read().split()]


def _command(pid: int) -> bytes:
    with open(f"/proc/{pid}/cmdline", "rb") as line:
        return line.read()


def test_an_error_in_one_run_does_not_leave_another_waiting_for_a_reader(monkeypatch):
    """The queue holds 64 kB: what a run says must be read until it has ended, whatever became of its neighbour."""
    from concurrent.futures import ThreadPoolExecutor
    from queue import SimpleQueue
    from threading import Event

    events, stop = SimpleQueue(), Event()

    def fail():
        raise DataError("broken")

    def talk():
        for k in range(10_000):
            events.put(k)
            if stop.is_set():
                return k
        return 10_000

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(fail), pool.submit(talk)]
        kept = list(runner._events_until_done(runner._Link(events, stop), futures))
    assert stop.is_set()
    assert len(kept) == min(futures[1].result() + 1, 10_000)
