"""``holdfast buckets``: count recorded answers by hour, for drift."""

from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from holdfast.cli.arguments import STATE, AsJson, StateDirectory, SystemName
from holdfast.cli.opened import opened
from holdfast.cli.output import say, say_json
from holdfast.core.clock import SystemClock
from holdfast.core.meaning import many
from holdfast.lookups import only_system
from holdfast.opening import open_system
from holdfast.system import System


def buckets(
    system: SystemName = "",
    state: StateDirectory = STATE,
    again: Annotated[bool, typer.Option("--again", help="Count what was counted before once more.")] = False,
    as_json: AsJson = False,
) -> None:
    """Count all recorded answers that were rolled, by hour, on the columns' cells of the live version.

    The keeper does so by itself, as far back as the monitors look. With --again every count is made anew, for when
    you do not trust those that are there; it may be stopped at any time.
    """
    with opened(state) as here:
        with here.catalog.read() as tx:
            name = only_system(tx, system)
        here.lake.roll()
        counting = open_system(here, name, SystemClock())
        try:
            parts, rows = _counted(counting, again)
        finally:
            counting.close()
    if as_json:
        say_json({"parts": parts, "rows": rows})
    elif parts:
        say(f"{many(rows, 'row')} in {many(parts, 'file')} of the lake counted")
    else:
        say("nothing to count: everything that was rolled is counted, or no version is live")


def _counted(system: System, again: bool) -> tuple[int, int]:
    """How many parts and rows were counted; tells how far it is on standard error."""
    console = Console(stderr=True)
    columns = (TextColumn("counting"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn())
    parts = rows = 0
    with Progress(*columns, console=console, disable=not console.is_terminal) as shown:
        task = shown.add_task("counting", total=None)
        for step in system.count_answers(every=True, again=again):
            parts, rows = step.done, rows + step.rows
            shown.update(task, completed=step.done, total=step.of)
    return parts, rows
