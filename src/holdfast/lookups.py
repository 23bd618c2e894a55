"""What is on record, found by people: by id, with the near miss, and joined with what stands behind it."""

from typing import TypeVar

import msgspec

from holdfast.core.protocols import Transaction
from holdfast.core.records import Incident, Record, Release, Run, Snapshot, SystemFile, Version
from holdfast.errors import HoldfastError, NotFound
from holdfast.flow.incidents import OPEN
from holdfast.flow.releases import evidence_text
from holdfast.state import State, system_file

R = TypeVar("R", bound=Record)


class NoSystem(NotFound):
    """Nothing was put in force in this state yet."""

    def __init__(self) -> None:
        super().__init__("system", "")

    def __str__(self) -> str:
        return "this state holds no system; `holdfast up FILE` or `holdfast train FILE` puts one in"


class ReleaseFound(msgspec.Struct, frozen=True, kw_only=True):
    """A release and its comparison in words."""

    release: Release
    evidence: str
    """Empty where nothing was compared."""


class ModelFound(msgspec.Struct, frozen=True, kw_only=True):
    """A version with the run and the snapshot that it came from."""

    version: Version
    run: Run | None
    snapshot: Snapshot | None


def find_one(tx: Transaction, kind: type[R], id: str, system: str = "") -> R:
    """The record of that id. Raises NotFound with the near miss, HoldfastError where several systems have one."""
    if system:
        system_file(tx, system)
    all_of_kind = tx.find(kind, system or None)
    found = [record for record in all_of_kind if record.id == id]
    if not found:
        raise NotFound(kind.__name__.lower(), id, [record.id for record in all_of_kind])
    if len(found) > 1:
        names = ", ".join(record.system for record in found)
        raise HoldfastError(f"{kind.__name__.lower()} '{id}' is in several systems ({names}); say which with --system")
    return found[0]


def find_all(tx: Transaction, kind: type[R], system: str = "") -> list[R]:
    """All records of a kind, newest first; of one system where a name is given. Raises NotFound for its near miss."""
    if system:
        system_file(tx, system)
    return tx.find(kind, system or None)[::-1]


def only_watched(state: State, tx: Transaction, system: str = "") -> str:
    """What to say instead of how to train, where every system (or the one named) is served elsewhere; else empty."""
    names = system_names(tx, system)
    if not names or any(state.spec(system_file(tx, name)).predictions is None for name in names):
        return ""
    of = f"the model of {names[0]} is" if len(names) == 1 else f"the models of {', '.join(names)} are"
    return f"{of} served elsewhere and only watched here; `holdfast status` says what was answered there"


def find_incidents(tx: Transaction, system: str = "", *, closed: bool = False) -> list[Incident]:
    """Open incidents, newest first; with `closed` all of them."""
    return [incident for incident in find_all(tx, Incident, system) if closed or incident.state in OPEN]


def find_release(state: State, tx: Transaction, id: str, system: str = "") -> ReleaseFound:
    """A release and its evidence. Raises NotFound."""
    return with_evidence(state, tx, find_one(tx, Release, id, system))


def with_evidence(state: State, tx: Transaction, release: Release) -> ReleaseFound:
    """A release and its comparison in words."""
    if not release.comparison.blocks:
        return ReleaseFound(release=release, evidence="")
    spec = state.spec(system_file(tx, release.system))
    return ReleaseFound(release=release, evidence=evidence_text(release, spec.release))


def find_model(tx: Transaction, id: str, system: str = "") -> ModelFound:
    """A version and its lineage. Raises NotFound."""
    version = find_one(tx, Version, id, system)
    run = tx.get(Run, version.system, version.run)
    snapshot = tx.get(Snapshot, version.system, run.snapshot) if run else None
    return ModelFound(version=version, run=run, snapshot=snapshot)


def system_names(tx: Transaction, system: str = "") -> list[str]:
    """Names of all systems in the order in which they were put in force, or the one that is named."""
    return [system_file(tx, system).system] if system else [file.system for file in tx.find(SystemFile)]


def only_system(tx: Transaction, name: str = "") -> str:
    """`name` if there is such a system; the only one there is where no name is given.

    Raises NotFound with the near miss, NoSystem where there is none at all, HoldfastError where a name is needed.
    """
    if name:
        return system_file(tx, name).system
    known = [file.system for file in tx.find(SystemFile)]
    if not known:
        raise NoSystem
    if len(known) > 1:
        raise HoldfastError(f"this state holds {len(known)} systems; say which: --system {' | '.join(known)}")
    return known[0]
