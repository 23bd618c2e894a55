"""``holdfast train``: one training, its gates, and as far towards live as the file allows at once."""

import sys
import time
from pathlib import Path

from rich.console import Console

from holdfast.cli.arguments import HERE, STATE, AsJson, StateDirectory, SystemFile
from holdfast.cli.gates import gate_names
from holdfast.cli.opened import opened
from holdfast.cli.output import say, say_json, say_table
from holdfast.cli.person import person
from holdfast.core.clock import SystemClock
from holdfast.core.evidence import Grade, Verdict
from holdfast.core.meaning import percent
from holdfast.core.records import Job, Release, Run
from holdfast.core.specfile import read_spec
from holdfast.errors import Conflict, DataError, GateRefused, JobFailed
from holdfast.flow.planning import ReleaseForecast
from holdfast.flow.releases import open_release
from holdfast.lookups import find_one
from holdfast.opening import open_system, teller
from holdfast.planning import plan_release
from holdfast.state import State, put_in_force
from holdfast.system import System
from holdfast.world import LakeFeeds

LOOK_S = 0.1


def train(file: SystemFile = HERE, state: StateDirectory = STATE, as_json: AsJson = False) -> None:
    """Put a system file in force, take in its data, train, judge, sign, register and begin the release.

    Ends with 6 when a gate refused the candidate, with 7 when the training failed.
    """
    spec = read_spec(file)
    clock = SystemClock()
    with opened(state, make=True) as here:
        text = file.read_text(encoding="utf-8")
        system = open_new(here, file, text, clock)
        try:
            release, run = _trained(system, spec.system)
        finally:
            system.close()
        here.publish_routes()
        if as_json:
            say_json({"release": release, "run": run})
        else:
            _tell(release, run)
            if release.state == "live" and not release.against:
                _tell_next(here, spec.system, clock)
    if release.state == "rejected":
        raise GateRefused(_refusal(release, run, file))


def open_new(here: State, file: Path, text: str, clock: SystemClock) -> System:
    """The system of a file that is put in force first."""
    spec = read_spec(file)
    put_in_force(here, spec, path=file.resolve(), text=text, now=clock.now(), by=person())
    return open_system(here, spec.system, clock, tell=teller(spec.system, clock))


def _trained(system: System, name: str) -> tuple[Release, Run]:
    """Submit a training and follow it until its candidate is released, refused, or on its way.

    Where a keeper runs on the same state it may do the work: then this only looks on.
    """
    catalog = system.state.catalog
    with Console(file=sys.stderr).status("taking in data") as progress:
        assert isinstance(system.feeds, LakeFeeds)
        system.feeds.ingest(system.clock.now())
        with catalog.read() as tx:
            under_way = open_release(tx, name)
        if under_way is not None:
            raise Conflict(
                f"{under_way.id} of '{name}' is still in {under_way.state}; wait for it, or take it back: "
                f"holdfast rollback --system {name}"
            )
        job = system.submit_training("asked for at the command line", by=person())
        progress.update("training")
        while True:
            done = system.push_on()
            with catalog.read() as tx:
                job = find_one(tx, Job, job.id, name)
                release = _release_of(tx.find(Release, name), job)
            # How it ended is told once, by the error or the table that follows.
            ends = {f"{job.id} failed: {job.message}"} | (
                {f"{release.id} {release.state}: {release.why}"} if release else set()
            )
            for said in done:
                if said not in ends:
                    progress.console.print(said, highlight=False, markup=False)
            if job.state == "failed":
                raise JobFailed(job.message)
            if release is not None and release.state not in ("candidate", "gated"):
                with catalog.read() as tx:
                    return release, find_one(tx, Run, release.run, name)
            time.sleep(LOOK_S)


def _release_of(releases: list[Release], job: Job) -> Release | None:
    run = job.result.get("run", "")
    return next((release for release in releases if run and release.run == run), None)


def _refusal(release: Release, run: Run, file: Path) -> str:
    """Which gates refused a candidate; why each did stands in the table of gates."""
    failed = [v for v in release.evidence if v.grade in (Grade.FAIL, Grade.UNKNOWN)]
    if not failed:
        return f"{run.id} was not released: {release.why}"
    named = zip(gate_names(release.evidence), release.evidence, strict=True)
    names = ", ".join(name for name, verdict in named if verdict in failed)
    said = f"{run.id} was not released: it did not pass {names}"
    if any((verdict.check, verdict.monitor) == ("baseline", "linear") for verdict in failed):
        said += f"; it does not beat the linear model: try `trainer: linear` in {file}"
    by_chance = [v.monitor or v.check for v in failed if _may_be_chance(v)]
    if by_chance:
        said += (
            f"; by {', '.join(by_chance)} it is worse by no more than chance explains: `margin` of that gate in {file} "
            "says how much worse is still accepted"
        )
    return said


def _tell_next(here: State, system: str, clock: SystemClock) -> None:
    """What becomes of later releases, in one line; nothing where that cannot be planned yet."""
    try:
        with here.catalog.read() as tx:
            found = plan_release(here, tx, system, clock.now(), margin=None, within=None)
    except DataError:
        return
    say(later_releases(found))


def later_releases(found: ReleaseForecast) -> str:
    """Which part of candidates that are as good gets promoted in time, and which margin would let half of them."""
    half = found.margins.half
    wider = "no margin lets half of them pass" if half is None else f"half of them pass at a margin of {half:.2g}"
    return (
        f"of later candidates that are as good, {percent(found.as_good.promoted, 0)} are promoted within "
        f"{found.within_days:g} days at the margin of {found.margin:g}; {wider}; a cautious guess, by its linear "
        "baseline (`holdfast release plan`)"
    )


def _may_be_chance(verdict: Verdict) -> bool:
    """Whether a gate refused a candidate that is worse than another model, where it may as well be no worse."""
    low = verdict.reading.low
    return "_worse_than_" in verdict.reading.name and low is not None and low <= 0


def _tell(release: Release, run: Run) -> None:
    models = [("candidate", run.metrics), *((baseline.name, baseline.metrics) for baseline in run.baselines)]
    rows = [(m, *(f"{metrics[m]:.4f}" if m in metrics else "-" for _, metrics in models)) for m in run.metrics]
    say_table(("on the hold-out", *(name for name, _ in models)), rows)
    say()
    judged = zip(gate_names(release.evidence), release.evidence, strict=True)
    say_table(("gate", "verdict", "why"), [(name, v.grade.value, v.why) for name, v in judged])
    say()
    version = f"version {release.version} " if release.version else ""
    say(f"{run.id} took {run.took_s:.1f} s; {run.parity}")
    why = "" if release.state == "rejected" else f": {release.why}"  # the gates above have said it
    say(f"{release.id}: {version}{release.state}{why}")
