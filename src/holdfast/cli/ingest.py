"""``holdfast ingest``: take in what the feeds have."""

from typing import Annotated

import typer

from holdfast.cli.arguments import HERE, STATE, AsJson, StateDirectory, SystemFile
from holdfast.cli.opened import opened
from holdfast.cli.output import say, say_json, say_table, when
from holdfast.cli.person import person
from holdfast.core.clock import SystemClock
from holdfast.core.meaning import many
from holdfast.core.specfile import read_spec
from holdfast.flow.datasets import MOST_REASONS
from holdfast.flow.ingestion import forget, quarantine_reasons
from holdfast.state import put_in_force
from holdfast.world import LakeFeeds


def ingest(
    file: SystemFile = HERE,
    state: StateDirectory = STATE,
    again: Annotated[bool, typer.Option("--again", help="Read files that were taken in before once more.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put a system file in force and take in what its feeds have that was not taken in before.

    With --again every file is read once more, for when recorded rows were lost; a row that is there stays one row.
    Says why rows are in quarantine, those of earlier files too.
    """
    spec = read_spec(file)
    now = SystemClock().now()
    with opened(state, make=True) as here:
        text = file.read_text(encoding="utf-8")
        put_in_force(here, spec, path=file.resolve(), text=text, now=now, by=person())
        feeds = LakeFeeds(spec, file.resolve().parent, here.lake, here.catalog)
        if again:
            forget(here.catalog, spec)
        taken = feeds.ingest(now).feeds
        found = {name: quarantine_reasons(here.lake, spec.system, name) for name in taken}
        reasons = {name: counts for name, counts in found.items() if counts}
    if as_json:
        say_json({"feeds": taken, "quarantine": reasons})
        return
    rows = [
        (
            name,
            feed.files,
            f"{feed.rows_read:,}",
            f"{feed.rows_kept:,}",
            f"{feed.rows_quarantined:,}",
            when(feed.newest),
        )
        for name, feed in taken.items()
    ]
    say_table(("feed", "new files", "rows read", "kept", "quarantined", "newest"), rows)
    for name, counts in reasons.items():
        for reason, count in list(counts.items())[:MOST_REASONS]:
            say(f"quarantine of {name}, so far: {many(count, 'row')}: {reason}")
