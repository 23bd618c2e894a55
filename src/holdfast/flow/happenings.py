"""What was changed and when. In: the catalog. Out: deploys, trainings, snapshots, files taken in, other incidents, and
what befell the host."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from holdfast.core.meaning import many
from holdfast.core.protocols import Transaction
from holdfast.core.records import Happening, Incident, Mark, Release, Run, Snapshot, Version
from holdfast.core.spec import SystemSpec
from holdfast.flow.ingestion import intake

DEPLOYS = frozenset({"live", "retired", "rolled_back"})
STEPS = frozenset({"shadow", "canary"})
AUDITED = frozenset({"system file put in force"})
"""What only the audit log knows."""
BROUGHT_UP, KEEPER_REPLACED, WORKER_REPLACED = "brought up", "keeper replaced", "worker replaced"
UNRECORDED, HELD, FOLLOWED = "answers not recorded", "routes held", "routes followed again"
DISK_FULL, DISK_FREE, CLOCK_JUMPED = "disk full", "disk has room again", "clock jumped"
BEFELL = frozenset(
    {
        *(BROUGHT_UP, KEEPER_REPLACED, WORKER_REPLACED, UNRECORDED, HELD, FOLLOWED, DISK_FULL, DISK_FREE, CLOCK_JUMPED),
        "artifact unpacked anew",
    }
)
"""What befalls processes and machine. It stands in the audit log with a sentence as its detail ``why``; of the system
that it befell, or of all."""
EVERY_SYSTEM = "*"
KEEPER = "keeper"
"""The mark that says what the keeper could not do."""
NEWEST = 500
"""How many of the newest entries of the audit log are looked at."""


def happenings(tx: Transaction, spec: SystemSpec, since: datetime, until: datetime) -> tuple[Happening, ...]:
    """Everything on record that changed a system in [since, until], oldest first."""
    parts = (_releases, _data, _files, _incidents, _audited, _kept)
    found = [each for part in parts for each in part(tx, spec) if since <= each.at <= until]
    return tuple(sorted(found, key=lambda each: (each.at, each.what)))


def _releases(tx: Transaction, spec: SystemSpec) -> Iterator[Happening]:
    for version in tx.find(Version, spec.system):
        for move in version.history:
            if move.to in DEPLOYS:
                stage = move.to.replace("_", " ")
                yield Happening(at=move.at, what=f"version {version.id} {stage}, by {move.by}: {move.why}")
    for release in tx.find(Release, spec.system):
        for move in release.history:
            if move.to in STEPS:
                yield Happening(at=move.at, what=f"version {release.version} went into {move.to} ({release.id})")


def _data(tx: Transaction, spec: SystemSpec) -> Iterator[Happening]:
    before: frozenset[str] = frozenset()
    for snapshot in sorted(tx.find(Snapshot, spec.system), key=lambda each: each.at):
        files = {file.sha256: f"{file.feed}: {file.name}" for file in snapshot.files}
        new = [name for sha256, name in files.items() if sha256 not in before]
        before |= files.keys()
        said = f", with {_few(new)} for the first time" if new else ""
        yield Happening(at=snapshot.at, what=f"snapshot {snapshot.id} taken, {many(snapshot.rows, 'row')}{said}")
    for run in tx.find(Run, spec.system):
        if run.ended_at is not None and run.state != "running":
            yield Happening(at=run.ended_at, what=f"training {run.id} on snapshot {run.snapshot} {run.state}")


def _files(tx: Transaction, spec: SystemSpec) -> Iterator[Happening]:
    """What feeds took in. Old records do not say when; then it is known of a feed's newest file alone."""
    for feed in spec.data.feeds:
        mark = tx.get(Mark, spec.system, f"ingest/{feed}")
        files = intake(tx, spec.system, feed).files if mark is not None else ()
        for file in files:
            at = file.at or (mark.last_at if mark is not None and file is files[-1] else None)
            if at is not None:
                set_aside = f", {file.quarantined:,} of them set aside" if file.quarantined else ""
                yield Happening(at=at, what=f"feed {feed} took in {file.name}, {many(file.rows, 'row')}{set_aside}")


def _incidents(tx: Transaction, spec: SystemSpec) -> Iterator[Happening]:
    for incident in tx.find(Incident, spec.system):
        yield Happening(at=incident.opened_at, what=f"{incident.id} opened: {incident.cause}")
        if incident.closed_at is not None:
            yield Happening(at=incident.closed_at, what=f"{incident.id} closed: {incident.cause}")


def _audited(tx: Transaction, spec: SystemSpec) -> Iterator[Happening]:
    for system in (spec.system, EVERY_SYSTEM):
        for entry in tx.audit_log(system, newest=NEWEST):
            if entry.action in BEFELL:
                about = f"{entry.action} {entry.subject}".strip()
                yield Happening(at=entry.at, what=str(entry.detail.get("why") or about))
            elif entry.action in AUDITED:
                yield Happening(at=entry.at, what=f"{entry.action} by {entry.actor}")


def _kept(tx: Transaction, spec: SystemSpec) -> Iterator[Happening]:
    """The newest turn in what the keeper could do, which is all that is kept of it."""
    for system in (spec.system, EVERY_SYSTEM):
        mark = tx.get(Mark, system, KEEPER)
        if mark is not None and mark.last_at is not None:
            error = str(mark.memory.get("error", ""))
            what = f"the keeper could not do its work: {error}" if error else "the keeper could do its work again"
            yield Happening(at=mark.last_at, what=what)


def _few(names: list[str], most: int = 3) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def near(
    events: tuple[Happening, ...], low: datetime, high: datetime, *, before: timedelta, most: int
) -> tuple[Happening, ...]:
    """Those from `before` ahead of `low` up to `high`, at most so many, the nearest to `low`; oldest first."""
    inside = [each for each in events if low - before <= each.at <= high]
    nearest = sorted(inside, key=lambda each: abs(each.at - low))[:most]
    return tuple(sorted(nearest, key=lambda each: (each.at, each.what)))
