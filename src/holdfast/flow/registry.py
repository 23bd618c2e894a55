"""What exists, what is live, and why. In: runs and moves. Out: versions with history, and the numbered route."""

from datetime import datetime
from typing import Any

from msgspec.structs import replace

from holdfast.core.protocols import Transaction
from holdfast.core.records import Move, Route, Run, Version
from holdfast.errors import NotFound


def register(tx: Transaction, run: Run, *, bundle: str, signature_hash: str, signed_by: str, now: datetime) -> Version:
    """Make a version of what a run produced. Its artifact must already be signed and stored."""
    version = Version(
        system=run.system,
        id=tx.next_id(Version, run.system),
        run=run.id,
        artifact=run.artifact,
        bundle=bundle,
        signature_hash=signature_hash,
        at=now,
        signed_by=signed_by,
        metrics=run.metrics,
        history=(Move(at=now, to="candidate", why=f"registered from {run.id}"),),
    )
    tx.put(version)
    return version


def move(tx: Transaction, system: str, version_id: str, to: str, why: str, now: datetime, by: str = "holdfast") -> None:
    """Record that a version entered a stage."""
    version = get_version(tx, system, version_id)
    tx.put(replace(version, state=to, history=(*version.history, Move(at=now, to=to, why=why, by=by))))


def get_version(tx: Transaction, system: str, version_id: str) -> Version:
    """A version by id. Raises NotFound naming those that exist."""
    version = tx.get(Version, system, version_id)
    if version is None:
        raise NotFound("version", version_id, [v.id for v in tx.find(Version, system)])
    return version


def current_route(tx: Transaction, system: str) -> Route:
    """What is served now; generation 0 when nothing was ever released."""
    return tx.get(Route, system, "route") or Route(system=system, id="route", generation=0)


def reroute(tx: Transaction, system: str, now: datetime, **changes: Any) -> Route:
    """Change what is served: one registry row, one generation further."""
    route = current_route(tx, system)
    route = replace(route, generation=route.generation + 1, at=now, **changes)
    tx.put(route)
    return route


def previous_live(tx: Transaction, system: str) -> str:
    """The version that was live before the one that is, or an empty string. One that was rolled back is none."""
    live = current_route(tx, system).live
    lives = [
        (step.at, place, version.id)
        for place, version in enumerate(tx.find(Version, system))
        for step in version.history
        if step.to == "live" and version.id != live and version.state != "rolled_back"
    ]
    return max(lives)[-1] if lives else ""
