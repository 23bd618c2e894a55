"""``holdfast releases``: every attempt to take a version live, with its evidence."""

from typing import Annotated

import typer

from holdfast.cli.arguments import STATE, AsJson, StateDirectory, SystemName
from holdfast.cli.gates import gate_names
from holdfast.cli.opened import opened
from holdfast.cli.output import say, say_json, say_table, when
from holdfast.core.records import Release
from holdfast.lookups import ReleaseFound, find_all, find_release, only_watched

Id = Annotated[str, typer.Argument(metavar="[ID]", help="One release; none lists them.")]


def releases(id: Id = "", state: StateDirectory = STATE, system: SystemName = "", as_json: AsJson = False) -> None:
    """List releases, newest first, or show one with its verdicts, its comparison and its history."""
    with opened(state) as here, here.catalog.read() as tx:
        if id:
            one = find_release(here, tx, id, system)
            say_json(one) if as_json else _show(one)
            return
        found = find_all(tx, Release, system)
        watched = "" if found else only_watched(here, tx, system)
    if as_json:
        say_json(found)
        return
    if not found:
        first = "the first begins when a training ends: `holdfast train FILE` or `holdfast up FILE`"
        say(f"no releases; {watched or first}")
        return
    rows = [(r.system, r.id, r.state, r.version or "-", r.against or "-", when(r.at), r.cause, r.why) for r in found]
    say_table(("system", "release", "state", "version", "against", "began", "cause", "why"), rows)


def _show(one: ReleaseFound) -> None:
    release = one.release
    version = f"version {release.version}" if release.version else "no version"
    against = f" against version {release.against}" if release.against else ""
    say(
        f"{release.system} {release.id}: {release.state}, {version} from {release.run}{against}; cause: {release.cause}"
    )
    if one.evidence:
        say(f"comparison: {one.evidence}")
    if release.evidence:
        say()
        judged = zip(gate_names(release.evidence), release.evidence, strict=True)
        say_table(("gate", "verdict", "why"), [(name, v.grade.value, v.why) for name, v in judged])
    say()
    say_table(("when", "to", "why", "by"), [(when(m.at), m.to, m.why, m.by) for m in release.history])
