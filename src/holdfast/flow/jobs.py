"""Long work as state. In: a kind and a payload. Out: a job row, claimed under a lease and completed once."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from msgspec.structs import replace

from holdfast.core.protocols import Transaction
from holdfast.core.records import Job

LEASE = timedelta(minutes=2)
"""How long a claimed job stays its owner's without a sign of life."""
ATTEMPTS = 3
"""How often a job whose owner died is tried before it counts as failed."""


def submit(tx: Transaction, system: str, kind: str, payload: Mapping[str, Any], now: datetime) -> Job:
    """The open job of this kind, or a new one: asking twice while one is open does not do the work twice."""
    for job in tx.find(Job, system, state=("queued", "running")):
        if job.kind == kind:
            return job
    job = Job(system=system, id=tx.next_id(Job, system, "job-"), kind=kind, payload=dict(payload), at=now)
    tx.put(job)
    return job


def claim(tx: Transaction, system: str, owner: str, now: datetime) -> Job | None:
    """The oldest job that is queued, or whose owner let the lease run out; now leased to `owner`.

    A job that was claimed too often is failed here: whatever kills its process would kill the next one.
    """
    for job in tx.find(Job, system, state=("queued", "running")):
        if job.state == "running" and job.lease_until is not None and job.lease_until > now:
            continue
        if job.attempts >= ATTEMPTS:
            fail(tx, job, f"given up after {job.attempts} attempts that ended without a result", now)
            continue
        claimed = replace(job, state="running", owner=owner, lease_until=now + LEASE, attempts=job.attempts + 1)
        tx.put(claimed)
        return claimed
    return None


def renew(tx: Transaction, job: Job, now: datetime) -> Job | None:
    """Extend the lease; None when the job is no longer this owner's, so that its result must not be kept."""
    current = tx.get(Job, job.system, job.id)
    claim = (job.owner, job.attempts)
    if current is None or current.state != "running" or (current.owner, current.attempts) != claim:
        return None
    renewed = replace(current, lease_until=now + LEASE)
    tx.put(renewed)
    return renewed


def expire(tx: Transaction, job: Job, now: datetime) -> None:
    """End the lease of a job whose owner is known to be gone, so that it need not be waited for."""
    tx.put(replace(job, lease_until=now))


def give_back(tx: Transaction, job: Job) -> None:
    """Put a job back into the queue: its owner stops in good order, so the attempt does not count."""
    current = tx.get(Job, job.system, job.id)
    if current is not None and current.state == "running" and current.owner == job.owner:
        tx.put(replace(current, state="queued", owner="", lease_until=None, attempts=current.attempts - 1))


def complete(tx: Transaction, job: Job, result: Mapping[str, Any], now: datetime) -> None:
    """Close a job with what it gave."""
    tx.put(replace(job, state="done", result=dict(result), lease_until=None, ended_at=now))


def fail(tx: Transaction, job: Job, message: str, now: datetime) -> None:
    """Close a job with why it gave nothing."""
    tx.put(replace(job, state="failed", message=message, lease_until=None, ended_at=now))
