"""How everything stands, in one picture: for the status command and the status page."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from holdfast.answers import MARK, REFERENCE
from holdfast.core.blocks import block_bounds
from holdfast.core.classes import task_of
from holdfast.core.clock import Clock
from holdfast.core.evidence import Verdict
from holdfast.core.protocols import PREDICTIONS, Task, Transaction
from holdfast.core.records import Incident, Mark, Route, Run, SystemFile, Version
from holdfast.core.spec import Monitor, SystemSpec
from holdfast.core.targets import mean_loss, target_of
from holdfast.errors import HoldfastError
from holdfast.flow.budget import MONTH, Share, spent
from holdfast.flow.elsewhere import answering
from holdfast.flow.incidents import OPEN
from holdfast.flow.ingestion import intake
from holdfast.flow.predictions import LivePredictions
from holdfast.flow.reference import promised_losses, read_holdout
from holdfast.flow.registry import current_route
from holdfast.flow.releases import open_release
from holdfast.lookups import ReleaseFound, with_evidence
from holdfast.presence import KEEPER, read_presence
from holdfast.serve.heartbeat import Heartbeat, read_heartbeat
from holdfast.state import State, system_file

RECENT_DAYS = 30
"""How many days with predictions are shown."""
FRESH_BEAT_S = 3.0
"""A process whose sign of life is older than this is shown as silent."""
ROUND_S = 60.0
"""The keeper gives one sign of life a round, and taking in new files takes its time."""
LATE = 2
"""A monitor that has not run for so many times its interval is shown as late."""


UNUSABLE = (HoldfastError, ImportError, AttributeError, TypeError, ValueError)
"""What is raised where a plug-in is gone, or takes other options than when the file was put in force."""


class ProcessView(msgspec.Struct, frozen=True, kw_only=True):
    """A worker or the keeper, by its last sign of life."""

    name: str
    is_alive: bool
    pid: int = 0
    age_s: float | None = None
    """How old the sign is, in seconds; None when there is none."""
    generation: int = 0
    recorded: int = 0
    """Rows of answers and labels that it wrote, of all systems, since it began."""
    lost: int = 0
    shed: int = 0
    refused: int = 0
    error: str = ""


class FeedView(msgspec.Struct, frozen=True, kw_only=True):
    """What a feed has brought. `is_stale` is None where the file states no freshness."""

    name: str
    newest: datetime | None
    rows: int | None
    """Rows taken in; of answers that come over HTTP those on record on the system's `days`. None for labels that come
    so: they are counted by day, with the answers that they belong to."""
    over_http: bool
    """Whether it is filled over HTTP, and has no files."""
    quarantined: int
    files: int
    is_stale: bool | None


class MonitorView(msgspec.Struct, frozen=True, kw_only=True):
    """A monitor, when it ran last and what it found worst."""

    name: str
    check: str
    every_s: float
    last_at: datetime | None
    is_late: bool
    grade: str = ""
    why: str = ""
    share: Share | None = None
    """What it spends of the budget of false alarms."""


class Day(msgspec.Struct, frozen=True, kw_only=True):
    """One day of answers. `loss` is None until its labels are mature, and where none came."""

    day: date
    rows: int
    labelled: int = 0
    loss: float | None = None


class SystemView(msgspec.Struct, frozen=True, kw_only=True):
    """One system."""

    system: str
    about: str = ""
    elsewhere: bool = False
    """True where the model is served elsewhere: `live` is the version that answers there, by what was told."""
    reference: str = ""
    """Of a model that is served elsewhere: why nothing can be compared with its reference yet; empty when it can."""
    unpaired: int = 0
    """Rows of requests and responses that were told, and never met by the other."""
    is_recorded: bool = True
    """False where its file says ``serve.record: none``."""
    live: str
    live_since: datetime | None = None
    canary: str
    canary_share: float = 0.0
    release: ReleaseFound | None = None
    working_on: str = ""
    """The training under way, or empty."""
    last_failure: str = ""
    """Why the newest training gave nothing; empty when it did not fail."""
    incidents: Sequence[Incident] = ()
    monitors: Sequence[MonitorView] = ()
    feeds: Sequence[FeedView] = ()
    false_alarms: float = 0.0
    """The budget, per month, of all monitors together."""
    loss: str = ""
    """Name of the loss by which releases are decided; `days` and `promised` are in it."""
    promised: float | None = None
    """What the loss is watched against: the upper end on the hold-out, or the worst fold where that is higher."""
    days: Sequence[Day] = ()
    """The newest days with answers, oldest first."""
    error: str = ""
    """What the keeper could not do for this system when it last tried."""
    error_at: datetime | None = None


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """Everything in one state."""

    at: datetime
    state: str
    is_up: bool
    url: str
    console: str
    grpc: str = ""
    """Host and port of gRPC; empty where that is not served."""
    generation: int
    processes: Sequence[ProcessView]
    systems: Sequence[SystemView]


class Views:
    """Makes pictures of a state. Days that were read are kept, so a page that is asked again is cheap. One thread."""

    def __init__(self, state: State, clock: Clock) -> None:
        self._state = state
        self._clock = clock
        self._live: dict[str, tuple[str, LivePredictions]] = {}
        self._promised: dict[tuple[str, str, str], float | None] = {}

    def status(self, system: str = "") -> Status:
        """How everything stands, or one system. Raises NotFound with the near miss."""
        now = self._clock.now()
        up = read_presence(self._state.run_directory)
        with self._state.catalog.read() as tx:
            files = [system_file(tx, system)] if system else tx.find(SystemFile)
            generation = self._state.generation(tx)
            systems = [self._system_or_error(tx, file, now) for file in files]
        names = (*up.workers, KEEPER) if up else ()
        return Status(
            at=now,
            state=str(self._state.directory),
            is_up=up is not None,
            url=up.url if up else "",
            console=up.console if up else "",
            grpc=up.grpc if up else "",
            generation=generation,
            processes=[_process(self._state.run_directory, name, now) for name in names],
            systems=systems,
        )

    def _system_or_error(self, tx: Transaction, file: SystemFile, now: datetime) -> SystemView:
        """One system, or what keeps it from being shown: the others are to be seen all the same."""
        try:
            return self._system(tx, file, now)
        except UNUSABLE as error:
            route, why = current_route(tx, file.system), _said(error)
            return SystemView(system=file.system, live=route.live, canary=route.canary, error=why, error_at=now)

    def _system(self, tx: Transaction, file: SystemFile, now: datetime) -> SystemView:
        spec = self._state.spec(file)
        route, release = current_route(tx, file.system), open_release(tx, file.system)
        error = tx.get(Mark, file.system, KEEPER) or Mark(system=file.system, id=KEEPER)
        runs = tx.find(Run, file.system, newest=1)
        if spec.predictions is not None:
            return self._told(tx, spec, file, now)
        return SystemView(
            system=file.system,
            about=spec.about,
            is_recorded=spec.serve.record != "none",
            live=route.live,
            live_since=_live_since(tx, route),
            canary=route.canary,
            canary_share=route.canary_share,
            release=None if release is None else with_evidence(self._state, tx, release),
            working_on=next(
                (f"{run.id}, since {run.started_at:%H:%M} UTC" for run in runs if run.state == "running"), ""
            ),
            last_failure=next((run.message for run in runs if run.state == "failed"), ""),
            incidents=tx.find(Incident, file.system, state=OPEN)[::-1],
            monitors=_monitors(tx, spec, now),
            false_alarms=spec.false_alarms,
            feeds=_feeds(tx, spec, now),
            loss=spec.release.decide.loss,
            promised=self._promise(tx, spec, file, route.live),
            days=self._days(spec, file, now),
            error=str(error.memory.get("error", "")),
            error_at=error.last_at if error.memory.get("error") else None,
        )

    def _told(self, tx: Transaction, spec: SystemSpec, file: SystemFile, now: datetime) -> SystemView:
        """A system whose model is served elsewhere."""
        error = tx.get(Mark, file.system, KEEPER) or Mark(system=file.system, id=KEEPER)
        answers = tx.get(Mark, file.system, MARK) or Mark(system=file.system, id=MARK)
        reference = tx.get(Mark, file.system, REFERENCE) or Mark(system=file.system, id=REFERENCE)
        changed = answers.memory.get("changed", 0)
        last = self._predictions(spec, file, changed).last_complete_day(now)
        live = answering(answers.memory.get("days", {}), last)
        first = answers.memory.get("begun", {}).get(live) or min(
            answers.memory.get("days", {}).get(live, {}), default=""
        )
        days = self._days(spec, file, now, changed)
        is_held_to = reference.memory.get("version") == live
        return SystemView(
            system=file.system,
            about=spec.about,
            elsewhere=True,
            reference=str(reference.memory.get("short", "")) if is_held_to else "",
            unpaired=sum(answers.memory.get("given_up", {}).values()),
            live=live,
            live_since=block_bounds(spec.data.timezone, date.fromisoformat(first))[0] if first else None,
            canary="",
            incidents=tx.find(Incident, file.system, state=OPEN)[::-1],
            monitors=_monitors(tx, spec, now),
            false_alarms=spec.false_alarms,
            feeds=_feeds(tx, spec, now, answers.memory.get("newest", ""), days),
            loss=_loss(spec),
            promised=reference.memory.get("promised", {}).get(_loss(spec)) if is_held_to else None,
            days=days,
            error=str(error.memory.get("error", "")),
            error_at=error.last_at if error.memory.get("error") else None,
        )

    def _promise(self, tx: Transaction, spec: SystemSpec, file: SystemFile, live: str) -> float | None:
        key = (file.system, file.spec_hash, live)
        if key not in self._promised:
            version = tx.get(Version, file.system, live) if live else None
            run = tx.get(Run, file.system, version.run) if version else None
            if run is None or not run.holdout_rows:
                return None
            holdout = read_holdout(self._state.blobs.get(run.holdout_rows))
            promised = promised_losses(spec, _task(spec), holdout, run.folds)
            self._promised[key] = promised.get(spec.release.decide.loss)
        return self._promised[key]

    def _days(self, spec: SystemSpec, file: SystemFile, now: datetime, changed: int = 0) -> list[Day]:
        """The newest days with answers. Events of long ago (history sent as if it were live) are found too."""
        recorded = self._state.lake.scan(PREDICTIONS.name, file.system, since=now - timedelta(days=RECENT_DAYS))
        if recorded.is_empty():
            recorded = self._state.lake.scan(PREDICTIONS.name, file.system)
        if not recorded.is_empty():
            recorded = recorded.filter(pl.col("stage") != "batch")
        if recorded.is_empty():
            return []
        day = pl.col("event_at").dt.convert_time_zone(spec.data.timezone).dt.date().alias("day")
        counts = recorded.select(day).group_by("day").len().sort("day").tail(RECENT_DAYS)
        live, task = self._predictions(spec, file, changed), _task(spec)
        mature = live.last_mature_day(now)
        return [
            _day(live.labelled_block(each).rows(), each, rows, task, spec)
            if each <= mature
            else Day(day=each, rows=rows)
            for each, rows in counts.iter_rows()
        ]

    def _predictions(self, spec: SystemSpec, file: SystemFile, changed: int = 0) -> LivePredictions:
        """What was answered, with the days that were read; read anew once answers came for days that are over."""
        known, stands = self._live.get(file.system), f"{file.spec_hash}/{changed}"
        if known is None or known[0] != stands:
            made = LivePredictions(spec, self._state.lake, _task(spec).output)
            known = self._live[file.system] = (stands, made)
        return known[1]


def _said(error: Exception) -> str:
    """What an error says; one that was not raised on purpose does not say what it is."""
    return str(error) if isinstance(error, HoldfastError) else f"{type(error).__name__}: {error}"


def _task(spec: SystemSpec) -> Task:
    task: Task = task_of(spec)
    return task


def _loss(spec: SystemSpec) -> str:
    """The loss in which days are told."""
    return spec.release.decide.loss if spec.predictions is None else _task(spec).losses[0]


def _live_since(tx: Transaction, route: Route) -> datetime | None:
    version = tx.get(Version, route.system, route.live) if route.live else None
    return None if version is None else max((m.at for m in version.history if m.to == "live"), default=None)


def _day(answered: pl.DataFrame, day: date, rows: int, task: Task, spec: SystemSpec) -> Day:
    labelled = answered.filter(pl.col("label").is_not_null())
    if labelled.is_empty():
        return Day(day=day, rows=rows)
    losses = task.loss(_loss(spec), target_of(task, labelled), labelled[task.output].to_numpy())
    loss = mean_loss(losses)
    return Day(day=day, rows=rows, labelled=labelled.height, loss=None if np.isnan(loss) else loss)


def _monitors(tx: Transaction, spec: SystemSpec, now: datetime) -> list[MonitorView]:
    views = []
    for monitor in spec.monitors:
        found = tx.get(Mark, spec.system, f"verdict/{monitor.name}")
        memory = found.memory if found else {}
        last_at = found.last_at if found else None
        views.append(
            MonitorView(
                name=monitor.name,
                check=monitor.check,
                every_s=monitor.every.total_seconds(),
                last_at=last_at,
                is_late=last_at is not None and now - last_at > LATE * monitor.every,
                grade=str(memory.get("grade", "")),
                why=str(memory.get("why", "")),
                share=_share(monitor, memory),
            )
        )
    return views


def _share(monitor: Monitor, memory: Mapping[str, Any]) -> Share:
    """What a monitor spent; of a check that cannot be made any more it says so, and hides nothing else."""
    try:
        return spent(monitor, _verdict(memory), memory.get("spent"))
    except UNUSABLE as error:
        why = f"check '{monitor.check}' cannot be made: {_said(error)}"
        return Share(monitor=monitor.name, looks=MONTH / monitor.every, why=why)


def _verdict(memory: Mapping[str, Any]) -> Verdict | None:
    """The verdict that a mark remembers; None for none, or for one that an older version wrote otherwise."""
    with suppress(msgspec.ValidationError):
        return msgspec.convert(memory, Verdict) if memory else None
    return None


def _feeds(
    tx: Transaction, spec: SystemSpec, now: datetime, answered: str = "", days: Sequence[Day] = ()
) -> list[FeedView]:
    """What the feeds have brought; `answered` is when the newest answer was given of which this was told, and `days`
    are those with answers."""
    views = []
    for name, feed in spec.data.feeds.items():
        taken = intake(tx, spec.system, name)
        newest = datetime.fromisoformat(answered) if answered and name == spec.data.rows else taken.newest
        is_stale = None
        if feed.fresh is not None:
            is_stale = newest is None or now - newest > feed.fresh
        views.append(
            FeedView(
                name=name,
                newest=newest,
                rows=sum(file.rows for file in taken.files) if feed.from_ else _posted(spec, name, days),
                over_http=not feed.from_,
                quarantined=sum(file.quarantined for file in taken.files),
                files=len({file.name for file in taken.files}),
                is_stale=is_stale,
            )
        )
    return views


def _posted(spec: SystemSpec, feed: str, days: Sequence[Day]) -> int | None:
    """How many rows of a feed came over HTTP on these days, as far as they are counted."""
    return sum(day.rows for day in days) if feed == spec.data.rows else None


def _process(run_dir: Path, name: str, now: datetime) -> ProcessView:
    beat: Heartbeat | None = read_heartbeat(run_dir, name)
    if beat is None:
        return ProcessView(name=name, is_alive=False)
    age_s = (now - datetime.fromisoformat(beat.at)).total_seconds()
    return ProcessView(
        name=name,
        is_alive=age_s <= (ROUND_S if name == KEEPER else FRESH_BEAT_S),
        pid=beat.pid,
        age_s=round(max(0.0, age_s), 1),  # a sign that was given after this picture was begun is not from the future
        generation=beat.generation,
        recorded=beat.recorded,
        lost=beat.lost,
        shed=beat.shed,
        refused=beat.refused,
        error=beat.error,
    )
