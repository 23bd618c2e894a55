"""What a person may change, whichever door they come through; each change is audited under their name."""

import msgspec

from holdfast.core.clock import Clock, stopwatch_s
from holdfast.core.records import Incident
from holdfast.core.specelsewhere import must_have_model
from holdfast.flow import releases
from holdfast.flow.incidents import acknowledge
from holdfast.lookups import find_one
from holdfast.presence import read_presence
from holdfast.serve.heartbeat import read_heartbeat
from holdfast.serve.supervisor import await_generation
from holdfast.state import State, system_file

PATIENCE_S = 15.0
"""How long workers are waited for: longer than a hung one takes to be killed, replaced and ready."""

LOOK_S = 0.5


class RolledBack(msgspec.Struct, frozen=True, kw_only=True):
    """What a rollback did."""

    system: str
    live: str
    """The version that is live now."""
    generation: int
    workers: tuple[str, ...]
    """Who was waited for; nobody where nothing is up."""
    missing: dict[str, str]
    """Workers that do not follow, and what they say about it."""
    took_s: float
    """From the call until the last worker followed."""


def roll_back(state: State, name: str, clock: Clock, *, why: str, by: str) -> RolledBack:
    """Take the open release of a system back, or else its live version; returns once the workers follow.

    A worker that hangs is replaced meanwhile, and its successor follows. Raises NotFound where there is
    nothing to roll back to, StateError where the model is served elsewhere.
    """
    started_s = stopwatch_s()
    with state.catalog.begin() as tx:
        must_have_model(
            state.spec(system_file(tx, name)), "there is nothing to roll back here; go back to another there"
        )
        live = releases.take_back(tx, name, why, clock.now(), by)
    generation = state.publish_routes()
    up = read_presence(state.run_directory)
    workers = up.workers if up else ()
    missing = _missing(state, name, generation, workers)
    return RolledBack(
        system=name,
        live=live,
        generation=generation,
        workers=workers,
        missing={worker: _says(state, worker) for worker in missing},
        took_s=stopwatch_s() - started_s,
    )


def acknowledge_incident(state: State, clock: Clock, id: str, system: str = "", *, by: str) -> Incident:
    """Record that a person has seen an incident. Raises NotFound with the near miss."""
    now = clock.now()
    with state.catalog.begin() as tx:
        incident = acknowledge(tx, find_one(tx, Incident, id, system).system, id, by, now)
        tx.audit(at=now, actor=by, action="incident acknowledged", system=incident.system, subject=id, detail={})
    return incident


def _missing(state: State, name: str, generation: int, workers: tuple[str, ...]) -> list[str]:
    """Workers that do not follow. One that says why it cannot is not waited for longer than it needs to say so."""
    deadline_s = stopwatch_s() + PATIENCE_S
    while True:
        missing = await_generation(state.run_directory, generation, workers, LOOK_S, name)
        if all(_refuses(state, worker, generation, name) for worker in missing) or stopwatch_s() > deadline_s:
            return missing


def _refuses(state: State, worker: str, generation: int, name: str) -> bool:
    """True when the worker has looked at these routes and could not load the version."""
    beat = read_heartbeat(state.run_directory, worker)
    return beat is not None and beat.generation >= generation and name in beat.held


def _says(state: State, worker: str) -> str:
    beat = read_heartbeat(state.run_directory, worker)
    return (beat.error if beat else "") or "no sign of life"
