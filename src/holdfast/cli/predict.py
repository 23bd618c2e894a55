"""``holdfast predict``: scores a file of rows, however large, and goes on where it was stopped."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from holdfast.cli.arguments import STATE, AsJson, StateDirectory, SystemName
from holdfast.cli.opened import opened
from holdfast.cli.output import say, say_json
from holdfast.core import kinds
from holdfast.core.clock import SystemClock, stopwatch_s
from holdfast.core.meaning import many
from holdfast.core.records import Version
from holdfast.core.spec import Serve
from holdfast.core.specelsewhere import must_have_model
from holdfast.engines.manifest import MemoryManifest
from holdfast.errors import NotFound, SourceError, StateError
from holdfast.flow.registry import current_route, get_version
from holdfast.lookups import only_system
from holdfast.scoring import partial
from holdfast.scoring.batch import FileScoring, OnProgress, OnRead, Scorer, batch_id, open_rows, sha256_of
from holdfast.scoring.partial import Plan, format_of
from holdfast.serve.recording import Recorder
from holdfast.state import State, system_file

INTERRUPTED = 130
"""Exit code after Ctrl+C, as shells have it."""

In = Annotated[Path, typer.Option("--in", metavar="FILE", help="Rows: .parquet, .csv, .ndjson or .jsonl.")]
Out = Annotated[Path, typer.Option("--out", metavar="FILE", help="Where the answers go: .parquet, .csv or .ndjson.")]
ByVersion = Annotated[str, typer.Option("--version", metavar="V", help="A version instead of the live one.")]
BadRows = Annotated[
    Path | None, typer.Option("--bad-rows", metavar="FILE", help="Set rows that do not fit aside there; JSON lines.")
]
EventAt = Annotated[
    str, typer.Option("--event-at", metavar="COLUMN", help="When a row's event is, if not the feed's own column.")
]
Recorded = Annotated[bool, typer.Option("--record/--no-record", help="Record the answers in the lake, as stage batch.")]
Restart = Annotated[bool, typer.Option("--restart", help="Begin anew, in place of what was begun or is there.")]
Threads = Annotated[
    int, typer.Option("--threads", min=0, help="How many chunks are scored at once; 0: as many as cores.")
]


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What a run of `predict` did; counts are of the whole file, whoever scored which part."""

    system: str
    version: str
    out: str
    rows: int
    scored: int
    outside: int
    failed: int
    bad: int
    went_on_at: int
    """Rows that an earlier call had done."""
    request_id: str
    """Under which the rows are recorded; empty when they are not."""
    took_s: float


def predict(
    rows: In,
    out: Out,
    version: ByVersion = "",
    bad_rows: BadRows = None,
    record: Recorded = False,
    event_at: EventAt = "",
    threads: Threads = 0,
    restart: Restart = False,
    system: SystemName = "",
    state: StateDirectory = STATE,
    as_json: AsJson = False,
) -> None:
    """Score a file. Stopped anywhere, the same command goes on; the result appears under its name when it is whole."""
    _must_differ(rows, out, bad_rows)
    _must_be_new(out, bad_rows, restart=restart)
    clock, began_s = SystemClock(), stopwatch_s()
    with _one_interrupt(), opened(state) as here, _Bar() as bar:
        scorer = scorer_of(here, system, version, event_at=event_at)
        if record and not scorer.event_at:
            raise StateError("a recorded row falls on the day of its event; name the column that says it: --event-at")
        file = open_rows(rows, scorer, needed=(scorer.event_at,) if record else ())
        plan = Plan(
            input=str(rows.resolve()),
            sha256=sha256_of(rows, bar.on_read(os.stat(rows).st_size)),
            size_bytes=os.stat(rows).st_size,
            system=scorer.system,
            version=scorer.version,
            artifact=scorer.artifact,
            output=format_of(out),
            recorded=record,
        )
        with partial.partial(out, plan, restart=restart) as into, _durable(here) as recorder:
            went_on_at = into.progress.rows
            scoring = FileScoring(
                file,
                scorer,
                into,
                clock,
                recorder=recorder if record else None,
                bad_rows=bad_rows,
                threads=threads or len(os.sched_getaffinity(0)),
            )
            try:
                done = scoring.run(bar.on_progress(file.size))
            except KeyboardInterrupt:
                bar.stop()
                typer.echo(
                    f"stopped after {many(into.progress.rows, 'row')}, kept in {into.folder}; "
                    "the same command goes on there",
                    err=True,
                )
                raise typer.Exit(INTERRUPTED) from None
    summary = Summary(
        system=scorer.system,
        version=scorer.version,
        out=str(out),
        rows=done.rows,
        scored=done.scored,
        outside=done.outside,
        failed=done.failed,
        bad=done.bad,
        went_on_at=went_on_at,
        request_id=batch_id(plan) if record else "",
        took_s=round(stopwatch_s() - began_s, 3),
    )
    say_json(summary) if as_json else _tell(summary, bad_rows)


def scorer_of(here: State, system: str, version: str, *, event_at: str = "") -> Scorer:
    """A version of a system, ready to score: the one named, or the live one. Raises NotFound, StateError where the
    model is served elsewhere."""
    with here.catalog.read() as tx:
        name = only_system(tx, system)
        spec = here.spec(system_file(tx, name))
        must_have_model(spec, "score the file there")
        wanted = version or current_route(tx, name).live
        if not wanted:
            raise NotFound("live version of", name, [found.id for found in tx.find(Version, name)])
        found = get_version(tx, name, wanted)
    feed = spec.data.feeds[spec.data.rows]
    return Scorer(
        system=name,
        version=found.id,
        artifact=found.artifact,
        model=here.model(found),
        key=spec.data.key,
        unit=spec.data.unit or "",
        event_at=event_at or feed.event_at or "",
        known_at=feed.known_at or "",
    )


@contextmanager
def _one_interrupt() -> Iterator[None]:
    """The first Ctrl+C inside the block is raised; more of them do nothing, also after it.

    The chunks under way are waited for and the last progress is written before the process ends, which is soon.
    """

    def stop(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is stop:
            signal.signal(signal.SIGINT, before)


@contextmanager
def _durable(here: State) -> Iterator[Recorder]:
    """Records to the lake of a state so that what counts as scored is recorded even after a power cut."""
    lake = kinds.load("engines", "lake+files")(here.directory / "lake", MemoryManifest())
    try:
        yield Recorder(lake.writer, lambda system: Serve(record="disk"))
    finally:
        lake.close()


def _must_differ(rows: Path, out: Path, bad_rows: Path | None) -> None:
    """Raises SourceError where there is no input, StateError for places that cannot work, before the long work whose
    result they are to hold."""
    if not rows.is_file():
        raise SourceError(f"there is no file {rows}; name one with --in")
    files = [file for file in (rows, out, bad_rows) if file is not None]
    if len({file.resolve() for file in files}) < len(files):
        raise StateError("--in, --out and --bad-rows must be different files")
    for file in files[1:]:
        if file.is_dir() or not file.resolve().parent.is_dir():
            why = "it is a folder" if file.is_dir() else f"there is no folder {file.resolve().parent}"
            raise StateError(f"{file} cannot be written: {why}")


def _must_be_new(out: Path, bad_rows: Path | None, *, restart: bool) -> None:
    """Raises StateError where a result would replace a file of before. What was begun was new then, or meant to be."""
    if restart or partial.folder_of(out).is_dir():
        return
    for file in (out, bad_rows):
        if file is not None and file.exists():
            raise StateError(f"{file} is already there; name another file, or replace it with --restart")


def _tell(summary: Summary, bad_rows: Path | None) -> None:
    say(f"{summary.scored:,} of {many(summary.rows, 'row')} scored by version {summary.version} of '{summary.system}'")
    if summary.went_on_at:
        say(f"{summary.went_on_at:,} of them by an earlier call")
    if summary.outside:
        say(f"{many(summary.outside, 'row')} with a value outside what training saw")
    if summary.failed:
        say(f"{many(summary.failed, 'row')} without a finite answer: there the output is missing")
    if summary.bad:
        say(f"{many(summary.bad, 'row')} set aside as unfit in {bad_rows}")
    if summary.request_id:
        say(f"recorded as {summary.request_id}:<row>")
    say(f"{summary.out} is whole ({summary.took_s:.1f} s)")


class _Bar:
    """A bar on standard error, where that is a terminal."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description:>8}"),
            BarColumn(bar_width=32),
            TextColumn("{task.percentage:>3.0f} %  {task.fields[what]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("reading", total=None, what="")

    def __enter__(self) -> "_Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Leave the terminal to others."""
        self._progress.stop()

    def on_read(self, size_bytes: int) -> OnRead:
        """Moves the bar while the input is looked at."""
        return lambda done: self._progress.update(self._task, total=size_bytes, completed=done)

    def on_progress(self, size: int) -> OnProgress:
        """Moves the bar while rows are scored."""
        self._progress.reset(self._task, description="scoring", total=size)
        return lambda done: self._progress.update(self._task, completed=done.place, what=f"{done.rows:,} rows")
