"""``holdfast profile``: where a request's time goes, and what to change."""

from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import fill
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from holdfast.cli.arguments import STATE, AsJson, StateDirectory
from holdfast.cli.opened import opened
from holdfast.cli.output import say, say_json, say_table, when
from holdfast.core.clock import SystemClock
from holdfast.core.meaning import many
from holdfast.core.records import Version
from holdfast.core.spec import SystemSpec
from holdfast.core.specelsewhere import must_have_model
from holdfast.errors import NotFound
from holdfast.flow.registry import current_route, get_version
from holdfast.lookups import only_system
from holdfast.profiling.advice import usual_at_once
from holdfast.profiling.measured import AT_ONCE, BATCH_ROWS, FORMS, USUAL_AT_ONCE, Case, Form, Live, Profile
from holdfast.profiling.measuring import OnProgress
from holdfast.profiling.profile import profiled
from holdfast.profiling.stages import STAGES
from holdfast.state import State, system_file

WIDTH = 79
BUSY = 1.3
"""Elapsed over processor time: above it other work had the processor meanwhile."""

System = Annotated[str, typer.Argument(metavar="[SYSTEM]", help="Which system, where the state holds several.")]
ByVersion = Annotated[str, typer.Option("--version", metavar="V", help="A version instead of the live one.")]


def profile(
    system: System = "", version: ByVersion = "", state: StateDirectory = STATE, as_json: AsJson = False
) -> None:
    """Say where a request's time goes: measured here with real rows, and by the workers that run. Takes seconds."""
    clock = SystemClock()
    with opened(state) as here:
        spec, found, is_live = chosen(here, system, version)
        with _bar() as on_progress:
            made = profiled(here, spec, found, clock, is_live=is_live, on_progress=on_progress)
    say_json(made) if as_json else _tell(made)


def chosen(here: State, system: str, version: str) -> tuple[SystemSpec, Version, bool]:
    """The system, its version, and whether that is the live one.

    Raises NotFound, and StateError where the model is served elsewhere.
    """
    with here.catalog.read() as tx:
        name = only_system(tx, system)
        spec = here.spec(system_file(tx, name))
        must_have_model(spec, "no request is answered here, so there is none to measure")
        live = current_route(tx, name).live
        if not (version or live):
            raise NotFound("live version of", name, [found.id for found in tx.find(Version, name)])
        return spec, get_version(tx, name, version or live), (version or live) == live


@contextmanager
def _bar() -> Iterator[OnProgress]:
    """A bar on standard error, where that is a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("measuring"), BarColumn(bar_width=32), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("measuring", total=1.0)
        yield lambda share: bar.update(task, completed=share)


def _tell(made: Profile) -> None:
    _what(made)
    for form in ("object", "packed", "named"):
        case = made.case(form, 1)
        if case is not None and case.stages:
            say()
            _stages(made, form)
    say()
    _forms(made)
    say()
    _live(made.live)
    say()
    _advice(made)


def _what(made: Profile) -> None:
    model, inputs = made.model, made.inputs
    stage = ", live" if made.is_live else ""
    say(f"{made.system} version {made.version}{stage}: {model.trainer}, runtime {model.runtime}")
    if inputs.origin == "recorded":
        say(f"rows: {inputs.rows:,} recorded ones, the newest of {when(inputs.newest)}")
    else:
        say(f"rows: {inputs.rows:,} of the hold-out, because too few were recorded")
    say()
    say("Measured here, in this process: processor time, without sockets and network")
    case = made.case("object", USUAL_AT_ONCE)
    if case is not None and made.recording.sync_us is None and case.wall_us > BUSY * case.cpu_us:
        _wrapped("the machine was busy with other work, so figures may be too high")
    if made.recording.sync_us is not None:
        _wrapped(
            f"beside it, requests wait for the disk: one sync takes {made.recording.sync_us / 1000:.2f} ms, and serves "
            "all that are there when it begins"
        )


def _stages(made: Profile, form: Form) -> None:
    """A table of one form: a column per number of requests in a tick, and one for large requests, per row."""
    cases = [made.case(form, at_once) for at_once in AT_ONCE]
    columns = [case for case in (*cases, made.case(form, 1, BATCH_ROWS)) if case is not None]
    heads = [f"{case.at_once:>4} a tick" if case.rows == 1 else f"  row of {case.rows}" for case in columns]
    rows: list[tuple[str, ...]] = [(name, *(_cell(case, stage) for case in columns)) for stage, name in STAGES.items()]
    rows.append(("whole", *(f"{case.row_us:6.1f}" for case in columns)))
    rows.append(("a second, one core", *(f"{case.requests_per_s * case.rows:11,.0f}" for case in columns)))
    say(f"{FORMS[form]}, us per request")
    say_table(("", *heads), rows)


def _cell(case: Case, stage: str) -> str:
    found = case.stage(stage)
    return f"{found.us / case.rows:6.1f} {found.share:4.0%}"


def _forms(made: Profile) -> None:
    usual = made.case("object", USUAL_AT_ONCE)
    cases = [case for form in FORMS if (case := made.case(form, USUAL_AT_ONCE)) is not None]
    rows = [
        (FORMS[case.form], f"{case.cpu_us:6.1f}", f"{case.high_us:.1f}, {case.low_us:.1f}",
         f"{case.cpu_us / usual.cpu_us:.1f}" if usual else "")
        for case in cases
    ]  # fmt: skip
    say(f"Each form, {USUAL_AT_ONCE} requests a tick, us per request")
    say_table(("", "    us", "slowest and fastest", "times plain"), rows)


def _live(live: Live | None) -> None:
    if live is None:
        say("Measured live: nothing, because nothing is up on this state")
        return
    workers = many(live.workers, "worker")
    say(f"Measured live, by {workers} since {when(live.since)}: elapsed time")
    if not live.requests:
        say("no request has come yet")
        return
    words = {"queue": "queue: waiting for the run", "run": "run, per batch", "request": "request, parsed to answered"}
    rows = [
        (words.get(part.phase, part.phase), f"{part.count:,}", f"{part.mean_us:,.0f}", f"{part.p50_us:,.0f}",
         f"{part.p99_us:,.0f}")
        for part in live.parts
    ]  # fmt: skip
    say_table(("", "count", "mean us", "p50 us", "p99 us"), rows)
    together = f"{live.rows_per_run:.1f} a run, at most {live.largest_run:,}"
    say(f"{many(live.rows, 'row')} in {many(live.runs, 'run')}: {together}")
    refused = ", ".join(f"{count:,} with {status}" for status, count in sorted(live.refused.items())) or "none"
    say(f"refused: {refused}; failed: {live.failed:,}")
    say(f"in an unusual form: {live.general:,} ({live.general / live.requests:.0%})")
    counts = f"{live.written:,}, shed {live.shed:,}, lost {live.lost:,}"
    say(f"rows recorded, of all systems: {counts}; lag {live.lag_s * 1000:.0f} ms")
    looked_up = live.cache_hits + live.cache_misses
    if looked_up:
        say(f"cache: {live.cache_hits / looked_up:.0%} of {looked_up:,} rows")


def _advice(made: Profile) -> None:
    if not made.advice:
        say("Nothing stands out: there is no advice.")
        return
    say(f"What to change, by the figures for {usual_at_once(made)} a tick:")
    for advice in made.advice:
        _wrapped(f"{advice.about}: {advice.change}", first="- ", then="  ")
        _wrapped(f"because {advice.why}", first="  ", then="  ")


def _wrapped(text: str, *, first: str = "", then: str = "") -> None:
    say(fill(text, WIDTH, initial_indent=first, subsequent_indent=then, break_long_words=False))
