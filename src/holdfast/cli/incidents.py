"""``holdfast incidents``: what is wrong, what was done about it."""

from typing import Annotated

import typer

from holdfast.changes import acknowledge_incident
from holdfast.cli.arguments import STATE, AsJson, StateDirectory, SystemName
from holdfast.cli.opened import opened
from holdfast.cli.output import say, say_json, say_table, when
from holdfast.cli.person import person
from holdfast.core.clock import SystemClock
from holdfast.core.meaning import headline, judged_by, many, parts, reason, standing
from holdfast.core.records import Incident
from holdfast.errors import HoldfastError
from holdfast.lookups import find_incidents, find_one

Id = Annotated[str, typer.Argument(metavar="[ID]", help="One incident; none lists them.")]
All = Annotated[bool, typer.Option("--all", help="Closed ones too.")]
Ack = Annotated[bool, typer.Option("--ack", help="Record that you have seen it.")]


def incidents(
    id: Id = "",
    state: StateDirectory = STATE,
    system: SystemName = "",
    every: All = False,
    ack: Ack = False,
    as_json: AsJson = False,
) -> None:
    """List open incidents, or show one: its verdicts, when it began, what it costs, where, and what was done."""
    if ack and not id:
        raise HoldfastError("say which incident you have seen: holdfast incidents ID --ack")
    with opened(state) as here:
        if ack:
            acknowledge_incident(here, SystemClock(), id, system, by=person())
        with here.catalog.read() as tx:
            if id:
                one = find_one(tx, Incident, id, system)
                say_json(one) if as_json else _show(one)
                return
            found = find_incidents(tx, system, closed=every)
    if as_json:
        say_json(found)
        return
    if not found:
        say("no incidents" if every else "no open incidents; --all shows closed ones")
        return
    rows = [(i.system, i.id, i.state, i.cause, when(i.opened_at), i.seen, headline(i) or standing(i)) for i in found]
    say_table(("system", "incident", "state", "cause", "opened", "seen", "meaning"), rows)


def _show(one: Incident) -> None:
    say(f"{one.system} {one.id}: {one.cause}, {one.state}, seen {many(one.seen, 'time')}, {judged_by(one)}")
    say(f"opened {when(one.opened_at)}: {reason(one.first)}")
    if one.state == "closed":
        say(f"{when(one.closed_at)} {standing(one)}")
    else:
        say(f"last   {when(one.last_at)}: {reason(one.last)}")
    if one.also:
        say(f"with it: {', '.join(one.also)}")
    for name, lines in parts(one.explained) if one.explained else ():
        for line in lines:
            say(f"{name:13}{line}")
            name = ""
    say_table(("when", "what", "why", "by"), [(when(m.at), m.to, m.why, m.by) for m in one.actions])
