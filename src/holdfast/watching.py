"""What a system watches: its monitors, what they find, and what the version that answers was promised to be like."""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec
import polars as pl

from holdfast.answers import Answers
from holdfast.controls import TickControls
from holdfast.core.blocks import block_bounds, mature_until
from holdfast.core.clock import Clock
from holdfast.core.meaning import summary
from holdfast.core.protocols import Task, Transaction
from holdfast.core.records import Incident, Mark, Run, Snapshot, Version
from holdfast.core.spec import Monitor, SystemSpec
from holdfast.flow import datasets, explanations, incidents, registry, responses
from holdfast.flow.buckets import Progress
from holdfast.flow.budget import level_spent
from holdfast.flow.influence import influence_of
from holdfast.flow.monitors import Monitoring, Reference
from holdfast.flow.predictions import LivePredictions
from holdfast.flow.readings import record_readings
from holdfast.flow.reference import make_reference, promised_losses, read_holdout
from holdfast.state import State
from holdfast.world import Feeds


class Watching:
    """Watches the answers of one system, given here or elsewhere. Owned by the thread that ticks.

    `answers` is what was told of answers given elsewhere, None where they are given here; `controls` makes what the
    responses of one transaction may touch; `explains` whether an incident says since when, by which column and at
    what cost.
    """

    def __init__(
        self,
        spec: SystemSpec,
        state: State,
        *,
        clock: Clock,
        feeds: Feeds,
        task: Task,
        live: LivePredictions,
        answers: Answers | None,
        controls: Callable[[Transaction, datetime], TickControls],
        explains: bool,
    ) -> None:
        self._spec = spec
        self._state = state
        self._clock = clock
        self._feeds = feeds
        self._task = task
        self._live = live
        self._answers = answers
        self._controls = controls
        self._explains = explains
        self._monitoring = Monitoring(spec, task, live)
        self._references: dict[str, Reference] = {}

    def watch(self) -> list[str]:
        """Close incidents that nothing watches any more, then evaluate the monitors that are due; returns what was
        done."""
        return self._close_orphaned() + self._monitor()

    def forget(self) -> None:
        """Compute anew what was made of days that are over: answers came that belong to them."""
        self._monitoring.forget()

    def _close_orphaned(self) -> list[str]:
        """Close incidents that only monitors found which are no longer in the file."""
        name, monitors = self._spec.system, {monitor.name: monitor.check for monitor in self._spec.monitors}
        with self._state.catalog.read() as tx:
            if not incidents.orphaned(tx, name, monitors):
                return []
        with self._state.catalog.begin() as tx:
            return incidents.close_orphaned(tx, name, monitors, self._clock.now())

    def _monitor(self) -> list[str]:
        """Evaluate the monitors that are due; what they find becomes incidents, and those get responses."""
        now = self._clock.now()
        with self._state.catalog.read() as tx:
            since, live = self.live_since(tx), self._version(tx, now)
            due = self._monitoring.due(tx, now, since) if since and live else []
            if self._answers is not None and since and live:
                due = self._answers.due(tx, self._monitoring, due, live, now, since)
        if not due:
            return []
        reference = self.reference(live)
        return [said for monitor in due for said in self._evaluate(monitor, reference, now)]

    def _evaluate(self, monitor: Monitor, reference: Reference, now: datetime) -> list[str]:
        """Evaluate one monitor in one transaction, unless somebody else just did or another version went live."""
        name = self._spec.system
        with self._state.catalog.begin() as tx:
            since = self.live_since(tx)
            if since is None or self._version(tx, now) != reference.version:
                return []
            if monitor not in self._monitoring.due(tx, now, since, reference):
                return []
            if self._answers is not None:
                self._answers.tell_reference(tx, reference)
            controls = self._controls(tx, now)
            verdicts = self._monitoring.run(tx, monitor, reference, self._facts(tx, now), now)
            told = summary(verdicts)
            memory = {} if told is None else {**msgspec.to_builtins(told), "spent": level_spent(verdicts)}
            tx.put(Mark(system=name, id=f"verdict/{monitor.name}", last_at=now, memory=memory))
            before = {i.id for i in tx.find(Incident, name)}
            touched = incidents.observe(tx, name, monitor.check, verdicts, self.groups(), now)
            if self._explains:
                touched = [self._explained(tx, incident, reference, now) for incident in touched]
            done = [f"{i.id} opened: {i.cause}: {i.last.why}" for i in touched if i.id not in before]
            done += responses.respond(tx, self._spec, touched, controls, now)
        record_readings(self._state.lake, name, verdicts, version=reference.version, at=now)
        controls.send()
        return done

    def _explained(self, tx: Transaction, incident: Incident, reference: Reference, now: datetime) -> Incident:
        """An open incident with what it means, found out when it opens and again as days and labels come in."""
        answer = None
        if self._answers is None:
            answer = self._state.model(registry.get_version(tx, self._spec.system, reference.version)).predict_frame
        return explanations.take_up(tx, self._spec, incident, self._task, reference, self._live, answer, now)

    def count_answers(self, *, every: bool = False, again: bool = False) -> Iterator[Progress]:
        """Count by hour, on the edges of the live version, the answers that were rolled and not counted yet.

        One piece a step; stopping between two loses nothing. Without `every`, only as far back as the monitors look.
        """
        now, days = self._clock.now(), self._monitoring.counted_days()
        with self._state.catalog.read() as tx:
            live = self._version(tx, now)
        if live and (days or every):
            edges = self.reference(live).facts["edges"]
            newest = self._live.last_complete_day(now)
            since, _ = block_bounds(self._spec.data.timezone, newest - timedelta(days=days))
            if edges:
                yield from self._live.buckets.counting(edges, None if every else since, again=again)

    def reference(self, version_id: str) -> Reference:
        """What a version was promised to be like; made from its snapshot once."""
        if self._answers is not None:
            with self._state.catalog.read() as tx:
                return self._answers.reference(tx, version_id, self._clock.now())
        if version_id not in self._references:
            with self._state.catalog.read() as tx:
                version = registry.get_version(tx, self._spec.system, version_id)
                run = tx.get(Run, self._spec.system, version.run)
                snapshot = tx.get(Snapshot, self._spec.system, run.snapshot) if run else None
            assert run is not None
            assert snapshot is not None
            assert run.holdout is not None
            rows = datasets.read_snapshot(snapshot, self._state.blobs)
            rows = rows.filter(pl.col("event_at") < run.holdout[1])
            holdout = read_holdout(self._state.blobs.get(run.holdout_rows))
            validated = read_holdout(self._state.blobs.get(run.validated_rows)) if run.validated_rows else None
            model = self._state.model(version)
            made = make_reference(
                self._spec,
                self._task,
                version_id,
                model.signature,
                rows,
                holdout,
                run.folds,
                validated=validated,
                facts={"influence": influence_of(model)},
            )
            self._references = {version_id: made}
        return self._references[version_id]

    def promised(self, version_id: str) -> Mapping[str, float]:
        """What each loss of a version was promised to stay under: the upper end of its interval on the hold-out, or the
        worst of its folds where that is higher."""
        if self._answers is not None:
            return self.reference(version_id).promised
        with self._state.catalog.read() as tx:
            run = tx.get(Run, self._spec.system, registry.get_version(tx, self._spec.system, version_id).run)
        assert run is not None
        return promised_losses(self._spec, self._task, read_holdout(self._state.blobs.get(run.holdout_rows)), run.folds)

    def groups(self) -> Mapping[str, str]:
        """Which feed each column belongs to, and each feed to itself."""
        feeds = self._spec.data.feeds
        groups = {name: name for name in feeds}
        for column in self._spec.data.columns:
            owner = max((f for f in feeds if column.startswith(f"{f}_")), key=len, default=self._spec.data.rows)
            groups[column] = owner
        return groups

    def live_since(self, tx: Transaction) -> datetime | None:
        """When the first version went live, or the first answer was given."""
        if self._answers is not None:
            return self._answers.since(tx)
        lives = [step.at for v in tx.find(Version, self._spec.system) for step in v.history if step.to == "live"]
        return min(lives, default=None)

    def _facts(self, tx: Transaction, now: datetime) -> Mapping[str, Any]:
        feeds = self._spec.data.feeds
        newest = self._feeds.world(now).newest(now)
        if self._answers is not None:
            newest[self._spec.data.rows] = self._answers.newest(tx)
        return {
            "now": now,
            "feeds": newest,
            "fresh": {name: feed.fresh for name, feed in feeds.items() if feed.fresh is not None},
            "monitors": self._monitoring.last_runs(tx),
            "mature_until": mature_until(self._spec.data, now),
            "mature_after": self._spec.data.label.mature_after,
        }

    def _version(self, tx: Transaction, now: datetime) -> str:
        """The version that answers, here or elsewhere; empty where there is none."""
        if self._answers is not None:
            return self._answers.version(tx, now)
        return registry.current_route(tx, self._spec.system).live
