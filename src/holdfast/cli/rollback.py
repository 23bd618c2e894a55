"""``holdfast rollback``: back to the version that was live before, within a second."""

from typing import Annotated

import typer

from holdfast.changes import roll_back
from holdfast.cli.arguments import STATE, AsJson, StateDirectory, SystemName
from holdfast.cli.opened import opened
from holdfast.cli.output import say, say_json
from holdfast.cli.person import person
from holdfast.core.clock import SystemClock
from holdfast.errors import StateError
from holdfast.lookups import only_system

Why = Annotated[str, typer.Option("--why", help="The reason, for the record.")]


def rollback(
    state: StateDirectory = STATE, system: SystemName = "", why: Why = "asked for", as_json: AsJson = False
) -> None:
    """Take the open release back, or else the live version; done when every worker follows or was replaced."""
    with opened(state) as here:
        with here.catalog.read() as tx:
            name = only_system(tx, system)
        done = roll_back(here, name, SystemClock(), why=why, by=person())
    if as_json:
        say_json(done)
    else:
        live = f"version {done.live} is live" if done.live else "no version is live"
        followed = f"{len(done.workers) - len(done.missing)} of {len(done.workers)} workers follow"
        serving = followed if done.workers else "nothing is up; `holdfast up` will serve it"
        say(f"{done.system}: {live}, routes {done.generation}; {serving}; took {done.took_s:.2f} s")
    if done.missing:
        said = "; ".join(f"{worker}: {why}" for worker, why in done.missing.items())
        raise StateError(
            f"it is decided and on record, but not every worker follows, and those serve what they served: {said}"
        )
