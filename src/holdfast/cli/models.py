"""``holdfast models``: registered versions, back to the files they came from."""

from typing import Annotated

import typer

from holdfast.cli.arguments import STATE, AsJson, StateDirectory, SystemName
from holdfast.cli.opened import opened
from holdfast.cli.output import figures, headline, say, say_json, say_table, when
from holdfast.core.meaning import many
from holdfast.core.records import Version
from holdfast.errors import ArtifactError, StateError
from holdfast.lookups import ModelFound, find_all, find_model, only_watched
from holdfast.state import State

Id = Annotated[str, typer.Argument(metavar="[VERSION]", help="One version; none lists them.")]


def models(id: Id = "", state: StateDirectory = STATE, system: SystemName = "", as_json: AsJson = False) -> None:
    """List versions, newest first, or show one: stages, metrics, lineage, parity, and whether its signature holds."""
    with opened(state) as here:
        with here.catalog.read() as tx:
            if not id:
                versions = find_all(tx, Version, system)
                _list(versions, as_json, "" if versions else only_watched(here, tx, system))
                return
            found = find_model(tx, id, system)
        signature = _signature(here, found.version)
        if as_json:
            say_json({"version": found.version, "run": found.run, "snapshot": found.snapshot, "signature": signature})
        else:
            _show(found, signature)


def _list(found: list[Version], as_json: bool, watched: str) -> None:
    if as_json:
        say_json(found)
        return
    if not found:
        say(f"no versions; {watched or '`holdfast train FILE` makes one'}")
        return
    rows = [(v.system, v.id, v.state, v.run, when(v.at), headline(v.metrics)) for v in found]
    say_table(("system", "version", "stage", "run", "registered", "on the hold-out"), rows)


def _signature(here: State, version: Version) -> str:
    """Whether the artifact is, byte for byte, what was signed."""
    try:
        here.load_model(here.unpacked(version))
    except (ArtifactError, StateError) as error:
        return f"does not hold: {error}"
    return "holds"


def _show(found: ModelFound, signature: str) -> None:
    version, run, snapshot = found.version, found.run, found.snapshot
    say(f"{version.system} version {version.id}: {version.state}")
    say(f"artifact {version.artifact}")
    say(f"signed by {version.signed_by}; the signature {signature}")
    if run:
        say(f"{run.id}: trainer {run.trainer}, seed {run.seed}, runtime {run.runtime}, code {run.commit}")
        say(f"parity: {run.parity}")
        say(f"candidate  {figures(run.metrics)}")
        for baseline in run.baselines:
            say(f"{baseline.name:<9}  {figures(baseline.metrics)}")
    say()
    say_table(("when", "to", "why", "by"), [(when(m.at), m.to, m.why, m.by) for m in version.history])
    if snapshot:
        say()
        between = f"known {when(snapshot.since)} to {when(snapshot.until)}"
        say(f"snapshot {snapshot.id}: {many(snapshot.rows, 'row')} {between}, from")
        files = [(f.feed, f.name, f"{f.rows:,}", f.sha256[:16]) for f in snapshot.files]
        say_table(("feed", "file", "rows", "sha256"), files)
