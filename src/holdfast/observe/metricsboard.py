"""What a worker shows when it is asked for metrics: itself as it is now, and the other workers beside it."""

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path

from holdfast.observe.metrics import Metrics
from holdfast.observe.metricsfiles import publish, published, withdraw
from holdfast.observe.metricspage import metrics_page
from holdfast.observe.statistics import Statistics, statistics
from holdfast.observe.tallies import Snapshot

log = logging.getLogger(__name__)


class MetricsBoard:
    """Of one worker, owned by its event loop. Forgets what a worker of the same name left in `run_dir`."""

    def __init__(self, metrics: Metrics, run_dir: Path) -> None:
        self._metrics = metrics
        self._run_dir = run_dir
        self._is_unwritten = False
        withdraw(run_dir, metrics.worker)

    def publish(self) -> Snapshot:
        """Write the file that other workers read, at every heartbeat; returns what is in it. Never raises."""
        own = self._metrics.snapshot()
        why = publish(self._run_dir, own)
        # Said when it begins and when it ends: a full disk stays full for many heartbeats.
        if why and not self._is_unwritten:
            name = self._metrics.worker
            log.warning("%s cannot write its metrics: %s; other workers do not show them now", name, why)
        elif not why and self._is_unwritten:
            log.warning("%s writes its metrics again", self._metrics.worker)
        self._is_unwritten = bool(why)
        return own

    async def page(self) -> bytes:
        """The page of all workers, made in a thread."""
        # Published before it is shown: no later answer of another worker may show less.
        own = self.publish()
        return await asyncio.to_thread(metrics_page, own, self._run_dir)

    def snapshots(self) -> list[Snapshot]:
        """This worker's counts, and those of the others as they last wrote them."""
        own = self._metrics.snapshot()
        return [own, *published(self._run_dir, without=self._metrics.worker)]

    def statistics(self, routed: Iterable[tuple[str, str]], system: str = "", version: str = "") -> Statistics:
        """Triton's statistics of all workers; `routed` are the (system, version) pairs that answer."""
        return statistics(self.snapshots(), routed, system, version)
