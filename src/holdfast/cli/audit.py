"""``holdfast audit``: every change, in a log whose entries are chained."""

from typing import Annotated

import typer

from holdfast.cli.arguments import STATE, AsJson, StateDirectory, SystemName
from holdfast.cli.opened import opened
from holdfast.cli.output import say, say_json, say_table
from holdfast.security import audit as chain
from holdfast.state import system_file

app = typer.Typer(add_completion=False, rich_markup_mode=None, help="Every change, and whether the log is whole.")

Newest = Annotated[int, typer.Option("--newest", min=1, help="How many entries.")]
Head = Annotated[str, typer.Option("--head", help="A head that you kept elsewhere: it must still be in the log.")]


@app.command()
def log(state: StateDirectory = STATE, system: SystemName = "", newest: Newest = 50, as_json: AsJson = False) -> None:
    """List who changed what, newest first."""
    with opened(state) as here, here.catalog.read() as tx:
        if system:
            system_file(tx, system)
        entries = tx.audit_log(system or None, newest=newest)[::-1]
    if as_json:
        say_json(entries)
        return
    if not entries:
        say("no entries yet; every change from now on is one")
        return
    rows = [
        (e.seq, f"{e.at:%Y-%m-%d %H:%M:%S}", e.actor, e.action, e.system, e.subject, e.detail.get("why", ""))
        for e in entries
    ]
    say_table(("entry", "when", "who", "what", "system", "subject", "why"), rows)


@app.command()
def verify(state: StateDirectory = STATE, head: Head = "", as_json: AsJson = False) -> None:
    """Check the whole log and print its head; ends with 5 when an entry was changed, moved or removed.

    Keep the head somewhere else and give it back with --head: then a cut-off end shows too.
    """
    with opened(state) as here, here.catalog.read() as tx:
        entries = tx.audit_log()
    chain.verify(entries, remembered=head or None)
    if as_json:
        say_json({"entries": len(entries), "head": chain.head(entries)})
    else:
        say(f"{len(entries)} entries, all as they were written; head {chain.head(entries)}")
