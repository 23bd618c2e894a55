"""``holdfast init``: infer a system file from data."""

from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated
from zoneinfo import available_timezones

import msgspec
import typer

from holdfast.cli.arguments import HERE, AsJson
from holdfast.core.blocks import block_bounds
from holdfast.core.clock import SystemClock
from holdfast.core.specdump import dump_spec
from holdfast.core.specfile import parse_spec, spec_hash
from holdfast.errors import NotFound, StateError
from holdfast.flow.drafting import draft


def init(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Folder of CSV, Parquet or JSON-lines files.")],
    label: Annotated[str | None, typer.Option(help="The label, as feed.column.")] = None,
    lists: Annotated[
        str | None, typer.Option(help="Column that says which list a row is in: rows are then ordered within lists.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="Name of the system; by default that of the folder.")] = None,
    timezone: Annotated[str | None, typer.Option(help="Time zone that defines a day.")] = None,
    until: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Look only at what was known by this day.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the system file is written.")] = HERE,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Infer the system file from data: feeds and their joins, types, ranges, categories, label and what must hold.

    Each decision is told, and stands as a comment in the file. Read them: from then on the file is what holds.
    """
    if out.exists() and not force:
        raise StateError(f"{out} is already there; give --out another name, or --force to replace it")
    folder = out.resolve().parent
    if not folder.is_dir():
        raise StateError(f"{out} cannot be written: there is no folder {folder}; make it, or change --out")
    if timezone is not None and timezone not in (known := available_timezones()):
        # Hundreds are known: those that are not near say nothing to anybody.
        raise NotFound("time zone", timezone, get_close_matches(timezone, sorted(known), n=1))
    start = _start(until, timezone)
    now = SystemClock().now()
    drafted = draft(data, label=label, lists=lists, system=system, timezone=timezone, root=folder, until=start, now=now)
    text = dump_spec(drafted.spec, drafted.comments)
    parse_spec(text, file=str(out))  # what would not be accepted is said now, not by the next command
    out.write_text(text, encoding="utf-8")
    if as_json:
        found = {
            "file": str(out),
            "hash": spec_hash(drafted.spec),
            "notes": drafted.notes,
            "warnings": drafted.warnings,
        }
        typer.echo(msgspec.json.encode(found).decode())
        return
    for note in drafted.notes:
        typer.echo(f"  - {note}")
    for warning in drafted.warnings:
        typer.echo(f"WARNING: {warning}", err=True)
    typer.echo(f"{out}: system '{drafted.spec.system}' with {len(drafted.spec.data.columns)} features; read it, then")
    typer.echo(f"  holdfast train {out}")


def _start(day: datetime | None, timezone: str | None) -> datetime | None:
    """The first moment of a day."""
    return None if day is None else block_bounds(timezone or "UTC", day.date())[0]
