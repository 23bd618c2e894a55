"""What the workers that run now have counted: the live side of a profile."""

from datetime import UTC, datetime

from holdfast.observe.metricsfiles import published
from holdfast.observe.tallies import Cached, Snapshot, Tally, spent
from holdfast.presence import read_presence
from holdfast.profiling.measured import Live
from holdfast.state import State


def live_of(state: State, system: str) -> Live | None:
    """The counts of all workers about one system; None where nothing is up on the state, or nothing was written yet."""
    if read_presence(state.run_directory) is None:
        return None
    counted = sum(published(state.run_directory), Snapshot())
    return counts_of(counted, system) if counted.workers else None


def counts_of(counted: Snapshot, system: str) -> Live:
    """What a snapshot of at least one worker says about one system."""
    versions = [each for each in counted.answered if each.system == system]
    cache = counted.caches.get(system, Cached())
    runs = sum((each.run for each in versions), Tally()).count
    rows = sum(each.rows for each in versions)
    return Live(
        workers=len(counted.workers),
        since=datetime.fromtimestamp(min(worker.started_s for worker in counted.workers), UTC),
        requests=sum(each.request.count for each in versions),
        rows=rows,
        parts=spent(counted, system),
        runs=runs,
        rows_per_run=rows / runs if runs else 0.0,
        requests_per_run=sum(each.queue.count for each in versions) / runs if runs else 0.0,
        largest_run=max((size for each in versions for size in each.batches), default=0),
        refused=dict(counted.refused.get(system, {})),
        failed=sum(sum(each.failed.values()) for each in versions),
        written=counted.recording.written,
        shed=counted.recording.shed,
        lost=counted.recording.lost,
        lag_s=counted.recording.lag_s,
        general=counted.general.get(system, 0),
        cache_hits=cache.hits,
        cache_misses=cache.misses,
    )
