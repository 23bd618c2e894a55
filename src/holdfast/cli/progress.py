"""Progress of long work, on standard error, so that standard output stays for results."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from holdfast.backtest.runner import Event
from holdfast.errors import StateError


class BacktestProgress:
    """One bar per run. Without a terminal, what happens in the runs is not shown, only that they go on."""

    def __init__(self, runs: Sequence[str]) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description:>9}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[day]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[what]}", style="dim", table_column=None),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {
            run: self._progress.add_task(run, total=1.0, day="waiting", what="") for run in runs
        }

    def __enter__(self) -> "BacktestProgress":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def on_event(self, event: Event) -> None:
        """Move a run's bar."""
        task = self._tasks[event.run]
        self._progress.update(task, completed=event.share, day=event.at.strftime("%Y-%m-%d"))
        if event.what:
            self._progress.update(task, what=event.what[:60])


def must_be_writable(file: Path | None) -> None:
    """Raises StateError for a file that could not be written, before the long work whose result it is to hold."""
    if file is not None and (file.is_dir() or not file.resolve().parent.is_dir()):
        why = "it is a folder" if file.is_dir() else f"there is no folder {file.resolve().parent}"
        raise StateError(f"{file} cannot be written: {why}; give --json another name")
