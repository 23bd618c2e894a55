"""One system, put together: builds its parts from its file and runs its loop as `tick`."""

import logging
from collections.abc import Iterator, Mapping
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from msgspec.structs import replace

from holdfast.answers import Answers
from holdfast.controls import Tell, TickControls
from holdfast.core.classes import task_of
from holdfast.core.clock import Clock
from holdfast.core.evidence import Block, Window
from holdfast.core.protocols import Task, Transaction
from holdfast.core.records import Job, Mark, Release, Run
from holdfast.core.signature import Signature
from holdfast.core.spec import SystemSpec
from holdfast.core.specdump import dump_spec
from holdfast.core.specelsewhere import must_have_model
from holdfast.flow import experiments, followups, gates, jobs, registry, releases, responses
from holdfast.flow.buckets import Progress
from holdfast.flow.predictions import LivePredictions
from holdfast.flow.reference import read_holdout
from holdfast.serve.recording import Recorder
from holdfast.state import State, put_in_force
from holdfast.watching import Watching
from holdfast.workshop import Prepare, Workshop, measured_latency_ms
from holdfast.world import EPOCH, Feeds, microseconds, to_us

log = logging.getLogger("holdfast")

LABELS_LOOKED_FOR = 31
"""Of so many mature days labels are looked for before a training that needs new ones is asked for."""


class System:
    """One system over a state, a clock and a world. `tick` does what is due; it may be killed at any point.

    With `waits` a tick waits for the training it starts, so that a replayed clock stands still meanwhile; without, a
    later tick picks the outcome up. `prepare` may change a training before it runs; `tell` sends a message to people,
    and `told` is what stands on record of that.
    `explains` whether an incident says since when, by which column and at what cost, which takes much of a tick.
    """

    def __init__(
        self,
        spec: SystemSpec,
        state: State,
        clock: Clock,
        feeds: Feeds,
        *,
        waits: bool = False,
        prepare: Prepare | None = None,
        tell: Tell = log.warning,
        told: str = "people were told",
        explains: bool = True,
    ) -> None:
        self.spec = spec
        self.state = state
        self.clock = clock
        self.feeds = feeds
        self._recorder = Recorder(state.lake.writer)
        self.task: Task = task_of(spec)
        self.live = LivePredictions(spec, state.lake, self.task.output)
        self.workshop = Workshop(spec, state, clock, feeds, waits=waits, prepare=prepare)
        self._answers = None if spec.predictions is None else Answers(spec, self.task, state, self.live, self._recorder)
        """Where the model is served elsewhere: what it is told to have answered."""
        self._controls = partial(TickControls, spec, tell=tell, told=told)
        self._watching = Watching(
            spec,
            state,
            clock=clock,
            feeds=feeds,
            task=self.task,
            live=self.live,
            answers=self._answers,
            controls=self._controls,
            explains=explains,
        )

    # The loop

    def put_in_force(self, path: Path | None = None, text: str = "", by: str = "holdfast") -> None:
        """Store the system file, so that commands and workers know the system by its name."""
        put_in_force(
            self.state,
            self.spec,
            path=path or Path(f"{self.spec.system}.yaml"),
            text=text or dump_spec(self.spec),
            now=self.clock.now(),
            by=by,
        )

    def tick(self) -> list[str]:
        """Do what is due now, each piece in one transaction; returns what was done, for people to read."""
        self._take_labels()
        done = []
        if self._answers is None:
            done = self._begin() + self.push_on()
        elif self._answers.take(self.feeds.world(self.clock.now()), self.clock.now()):
            self._watching.forget()
        done += self._watching.watch()
        done += self._respond_by_clock()
        if self._answers is None:
            done += self._follow_up()
        return done

    def push_on(self) -> list[str]:
        """The part of a tick that turns a training that was asked for into a release; returns what was done."""
        return self._work() + self._advance_release()

    def close(self) -> None:
        """Stop the work under way here; it is taken up again by whoever ticks next."""
        self.workshop.close()

    def submit_training(self, cause: str, *, by: str = "holdfast") -> Job:
        """Ask for a training; the open one if there is one. Raises StateError where the model is served elsewhere."""
        must_have_model(self.spec, "nothing here can train it")
        now = self.clock.now()
        with self.state.catalog.begin() as tx:
            job = jobs.submit(tx, self.spec.system, "train", {"cause": cause}, now)
            self._audit(tx, "training asked for", job.id, {"cause": cause}, by)
        return job

    def roll_back(self, why: str, *, by: str) -> str:
        """Take the open release back, or else the live version; returns the version that is live now."""
        must_have_model(self.spec, "go back to another version there")
        with self.state.catalog.begin() as tx:
            return self._controls(tx, self.clock.now()).rollback(why, by=by)

    def score(self, version_id: str, rows: pl.DataFrame) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
        """Outputs (n,) of a version on rows that carry the inputs."""
        with self.state.catalog.read() as tx:
            version = registry.get_version(tx, self.spec.system, version_id)
        return self.state.model(version).predict_frame(rows)

    # Labels

    def _take_labels(self) -> None:
        """Record the labels that the label feed has brought since the last tick.

        A feed may bring labels late, with a time long past; when more labels than expected are known up to the last
        look, those that are not in the lake are found by comparing.
        """
        now = self.clock.now()
        world = self.feeds.world(now)
        with self.state.catalog.read() as tx:
            mark = tx.get(Mark, self.spec.system, "labels") or Mark(system=self.spec.system, id="labels")
        last = mark.last_at or EPOCH
        fresh = world.labels_between(last, now)
        if world.labels_known(last) != mark.memory.get("taken", 0):
            known = self.live.labels(EPOCH, now)
            fresh = pl.concat([world.labels_between(EPOCH, last).join(known, on="key", how="anti"), fresh])
        if fresh.height:
            self._record_labels(fresh, now)
        if fresh.height or mark.last_at is None:
            taken = world.labels_known(now)
            with self.state.catalog.begin() as tx:
                tx.put(replace(mark, last_at=now, memory={"taken": taken}))

    def _named(self, places: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> list[str | None] | None:
        """The classes of labels; None where labels are no classes."""
        known = self.task.classes
        return [known[int(place)] if place >= 0 else None for place in places.tolist()] if known else None

    def _record_labels(self, labelled: pl.DataFrame, now: datetime) -> None:
        values = labelled["label"].to_numpy()
        self._recorder.record_labels(
            self.spec.system,
            output=self.task.output,
            keys=labelled["key"].to_list(),
            values=values,
            classes=self._named(values),
            known_at=microseconds(labelled["label_known_at"]),
            ingested_at=np.full(labelled.height, to_us(now), dtype=np.int64),
            source=self.spec.data.label.feed,
        )
        self._recorder.close()

    # Training

    def _begin(self) -> list[str]:
        """A system that never had a version begins with a training."""
        now = self.clock.now()
        with self.state.catalog.read() as tx:
            has_begun = bool(tx.find(Job, self.spec.system, newest=1))
        if has_begun:
            return []
        with self.state.catalog.begin() as tx:
            job = jobs.submit(tx, self.spec.system, "train", {"cause": "first training"}, now)
        return [f"first training submitted as {job.id}"]

    def _work(self) -> list[str]:
        """Claim a job, or look after the one under way; its outcome becomes a run and the start of a release."""
        return self.workshop.work(self._candidate)

    def _candidate(self, tx: Transaction, run: Run, cause: str) -> str:
        """Begin the release of a finished run, unless another release is under way."""
        under_way = releases.open_release(tx, self.spec.system)
        if under_way is not None:
            return f"{run.id} is kept, but not released: {under_way.id} is still in {under_way.state}"
        release = releases.attempt(tx, run, cause=cause, now=self.clock.now())
        return f"{run.id} became candidate {release.id}"

    # Release

    def _advance_release(self) -> list[str]:
        with self.state.catalog.read() as tx:
            release = releases.open_release(tx, self.spec.system)
        if release is None:
            return []
        before = release.state
        after = self._judge_candidate(release) if before in ("candidate", "gated") else self._compare(release)
        return [f"{after.id} {after.state}: {after.why}"] if after.state != before else []

    def _judge_candidate(self, release: Release) -> Release:
        """Gates; what passes is signed, registered and takes its first step."""
        now = self.clock.now()
        with self.state.catalog.read() as tx:
            run = tx.get(Run, self.spec.system, release.run)
            terms = gates.terms(tx, self.spec, release)
        assert run is not None
        holdout = read_holdout(self.state.blobs.get(run.holdout_rows))
        if release.against:
            holdout = holdout.with_columns(pl.Series("live", self.score(release.against, holdout)))
        model = self.workshop.candidate_model(run)
        if any(gate.check == "latency" for gate in self.spec.gates):
            holdout = holdout.with_columns(pl.Series("latency_ms", measured_latency_ms(model, holdout)))
        facts = {"task": self.task, "signature": model.signature, "now": now, "terms": terms}
        window = gates.holdout_window(self.spec, self.task, holdout, facts)
        verdicts = gates.judge(self.spec, self.task, window, self._served(window))
        if release.against:
            verdicts = (gates.comparable(model.signature, self._signature(release.against)), *verdicts)
        verdicts = tuple(replace(v, at=now) for v in verdicts)
        refused = gates.refusal(verdicts)
        bundle, signer = ("", "") if refused else self.workshop.sign(run)
        with self.state.catalog.begin() as tx:
            if not _stands(tx, release):
                return release
            if refused:
                return releases.reject(tx, release, verdicts, refused, now)
            version = registry.register(
                tx,
                run,
                bundle=bundle,
                signature_hash=model.signature.hash(),
                signed_by=signer,
                now=now,
            )
            return releases.enter(tx, release, version.id, verdicts, self.spec.release, now)

    def _signature(self, version_id: str) -> Signature:
        with self.state.catalog.read() as tx:
            version = registry.get_version(tx, self.spec.system, version_id)
        return self.state.model(version).signature

    def _served(self, window: Window) -> pl.DataFrame:
        """What was answered on the days of a window."""
        assert window.start is not None
        assert window.end is not None
        return self.live.answered(window.start, window.end)

    def _compare(self, release: Release) -> Release:
        """Fold the days that became mature since the last look, then decide."""
        now = self.clock.now()
        day = self._first_day_to_fold(release)
        newest = self.live.last_mature_day(now)
        folded = release
        while day <= newest:
            block = self.live.labelled_block(day)
            try:
                folded = releases.fold(folded, block, self.task, self.spec.release, self.score, self.task.output)
            except releases.CannotAnswer as why:
                with self.state.catalog.begin() as tx:
                    return releases.roll_back(tx, release, str(why), now) if _stands(tx, release) else release
            day += timedelta(days=1)
        folded = self._with_split(folded, newest)
        with self.state.catalog.begin() as tx:
            return releases.step(tx, folded, self.spec.release, now) if _stands(tx, release) else release

    def _with_split(self, release: Release, newest: date) -> Release:
        """Where a goal decides: how units came to the versions since the step under way began, whole days only."""
        if self.spec.release.decide.goal is None or release.step_since is None:
            return release
        day = self.live.day_of(release.step_since) + timedelta(days=1)

        def blocks() -> list[Block]:
            return [self.live.labelled_block(day + timedelta(days=n)) for n in range((newest - day).days + 1)]

        return experiments.with_split(release, self.spec.release, newest, blocks)

    def _first_day_to_fold(self, release: Release) -> Any:
        """The first whole day after the release began: nothing that chose the candidate may judge it."""
        through = release.comparison.through
        if through is not None:
            return self.live.day_of(through)
        return self.live.day_of(release.at - timedelta(microseconds=1)) + timedelta(days=1)

    # Watching

    def count_answers(self, *, every: bool = False, again: bool = False) -> Iterator[Progress]:
        """Count by hour, on the edges of the live version, the answers that were rolled and not counted yet.

        One piece a step; stopping between two loses nothing. Without `every`, only as far back as the monitors look.
        """
        return self._watching.count_answers(every=every, again=again)

    def promised(self, version_id: str) -> Mapping[str, float]:
        """What each loss of a version was promised to stay under."""
        return self._watching.promised(version_id)

    def groups(self) -> Mapping[str, str]:
        """Which feed each column belongs to, and each feed to itself."""
        return self._watching.groups()

    def _respond_by_clock(self) -> list[str]:
        now = self.clock.now()
        with self.state.catalog.read() as tx:
            since = self._watching.live_since(tx)
        if since is None or not any(response.every for response in self.spec.responses):
            return []
        with self.state.catalog.begin() as tx:
            controls = self._controls(tx, now)
            done = responses.on_schedule(tx, self.spec, controls, now, since)
        controls.send()
        return done

    def _follow_up(self) -> list[str]:
        """Train again for an incident that no version has answered yet."""
        now = self.clock.now()
        with self.state.catalog.read() as tx:
            if followups.owed(tx, self.spec, now, self._is_labelled) is None:
                return []
        with self.state.catalog.begin() as tx:
            return followups.ask(tx, self.spec, self._controls(tx, now), now, self._is_labelled)

    def _is_labelled(self, since: datetime) -> bool:
        """Whether a label is known of a mature day from the day of `since` on, among the newest that are looked at."""
        newest = self.live.last_mature_day(self.clock.now())
        days = min((newest - self.live.day_of(since)).days + 1, LABELS_LOOKED_FOR)
        blocks = (self.live.labelled_block(newest - timedelta(days=n)) for n in range(days))
        return any(block.rows()["label"].count() > 0 for block in blocks)

    def _audit(
        self, tx: Transaction, action: str, subject: str, detail: Mapping[str, Any], by: str = "holdfast"
    ) -> None:
        tx.audit(at=self.clock.now(), actor=by, action=action, system=self.spec.system, subject=subject, detail=detail)


def _stands(tx: Transaction, release: Release) -> bool:
    """False when somebody else, a person or another keeper, moved the release on since it was read."""
    now = tx.get(Release, release.system, release.id)
    read = (release.state, release.step, release.comparison.through)
    return now is not None and (now.state, now.step, now.comparison.through) == read
