"""What commands print: JSON for scripts, tables for people."""

import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec
import typer
from rich.console import Console, Group
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

WIDE = 160
"""Columns of a table that is not printed to a terminal, where its words have room in that."""
LONGEST = 100_000
"""Columns that no word needs."""
STYLES = {
    "pass": "green",
    "fail": "red",
    "warn": "yellow",
    "unknown": "yellow",
    "live": "green",
    "canary": "yellow",
    "shadow": "yellow",
    "open": "red",
    "acknowledged": "yellow",
    "rejected": "red",
    "rolled_back": "red",
    "failed": "red",
    "succeeded": "green",
}
HEADLINE = ("roc_auc", "log_loss", "brier", "mae", "rmse", "r2")
"""Metrics that a list has room for; all of them are shown with a single record."""
BARS = "▁▂▃▄▅▆▇█"


def say(text: str = "") -> None:
    """A line for people on standard output, as it is."""
    typer.echo(text)


def say_json(value: Any) -> None:
    """A value as one line of JSON; records and times are written as the API writes them."""
    typer.echo(msgspec.json.encode(value).decode())


def say_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> None:
    """A table; the words of `STYLES` are coloured where colour is shown."""
    table = Table(
        *columns, title=title or None, title_justify="left", box=None, padding=(0, 2, 0, 0), header_style="dim"
    )
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    if sys.stdout.isatty():
        Console(highlight=False).print(table)
        return
    # Whoever reads it later cannot make the window wider: sentences go on in the next line, no word is ever cut.
    wide = Console(width=LONGEST)
    for column in table.columns:
        column.min_width = Measurement.get(wide, wide.options, Group(column.header, *column.cells)).minimum
    needed = sum((column.min_width or 0) + 2 for column in table.columns)
    Console(width=max(WIDE, needed), highlight=False).print(table)


def _cell(value: object) -> str:
    text = escape("" if value is None else str(value))
    return f"[{STYLES[text]}]{text}[/]" if text in STYLES else text


def when(at: datetime | None) -> str:
    """A time to the minute, UTC; a dash for none."""
    return "-" if at is None else f"{at:%Y-%m-%d %H:%M}"


def figures(metrics: dict[str, float]) -> str:
    """Metrics in one line."""
    return "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())


def headline(metrics: dict[str, float]) -> str:
    """The metrics of `HEADLINE` in one line, or the first three where there are none of those."""
    chosen = {name: metrics[name] for name in HEADLINE if name in metrics}
    return figures(chosen or dict(list(metrics.items())[:3]))


def plot(values: Sequence[float], width: int = 60) -> str:
    """Values as one line of bars, thinned to `width`; empty without values.

    >>> plot([0.0, 1.0, 2.0, 3.0])
    '▁▃▆█'
    """
    finite = [value for value in values if value == value]
    if not finite:
        return ""
    step = max(1.0, len(finite) / width)
    thinned = [finite[int(i * step)] for i in range(min(width, len(finite)))]
    low, high = min(thinned), max(thinned)
    return "".join(BARS[round((value - low) / ((high - low) or 1.0) * (len(BARS) - 1))] for value in thinned)
