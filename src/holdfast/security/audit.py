"""The audit log as a hash chain: a change to any entry, its removal or its move shows at the next verify.

Each entry's hash covers its own fields and the hash before it. What a chain alone cannot show is that its
newest entries were cut off: keep `head` of the log somewhere else and give it to `verify`.
"""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from holdfast.core.records import AuditEntry
from holdfast.errors import Tampered

ORIGIN = "0" * 64
"""What stands before the first entry."""


def canonical(detail: Mapping[str, Any]) -> dict[str, Any]:
    """`detail` as it reads back from JSON (times as text, tuples as lists), so that its hash never depends on storage.

    >>> canonical({"b": (1, 2), "a": None})
    {'a': None, 'b': [1, 2]}
    """
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(detail, order="sorted"))
    return plain


def chain(
    before: str,
    *,
    seq: int,
    at: datetime,
    actor: str,
    action: str,
    system: str,
    subject: str,
    detail: Mapping[str, Any],
) -> str:
    """The hash of an entry: sha256, in hexadecimal, over the hash before it and its fields as sorted JSON."""
    fields = msgspec.json.encode([before, seq, at, actor, action, system, subject, detail], order="sorted")
    return hashlib.sha256(fields).hexdigest()


def entry(
    last: AuditEntry | None,
    *,
    at: datetime,
    actor: str,
    action: str,
    system: str,
    subject: str,
    detail: Mapping[str, Any],
) -> AuditEntry:
    """The entry that follows `last`, chained to it; the first one when `last` is None."""
    before, seq = (last.hash, last.seq + 1) if last else (ORIGIN, 1)
    detail = canonical(detail)
    digest = chain(before, seq=seq, at=at, actor=actor, action=action, system=system, subject=subject, detail=detail)
    return AuditEntry(
        seq=seq,
        at=at,
        actor=actor,
        action=action,
        system=system,
        subject=subject,
        detail=detail,
        before=before,
        hash=digest,
    )


def head(entries: Iterable[AuditEntry]) -> str:
    """The hash of the newest entry, to be kept outside the catalog; `ORIGIN` of an empty log."""
    newest = ORIGIN
    for each in entries:
        newest = each.hash
    return newest


def verify(entries: Iterable[AuditEntry], *, remembered: str | None = None) -> None:
    """Check a whole log, oldest first, of all systems. Raises Tampered naming the first entry that does not fit.

    `remembered` is a `head` that was kept elsewhere: it must still be in the log, so that a cut-off end shows.
    """
    before, expected = ORIGIN, 1
    seen = remembered is None or remembered == ORIGIN
    for each in entries:
        if each.seq != expected:
            raise Tampered(
                f"audit entry {expected} is missing or moved: entry {each.seq} stands in its place; "
                "restore the catalog from a backup and compare from there"
            )
        if each.before != before or _hash_of(each) != each.hash:
            raise Tampered(
                f"audit entry {each.seq} ({each.action} {each.subject} by {each.actor}) is not what was written: "
                "its hash does not fit; restore the catalog from a backup and compare from there"
            )
        before, expected = each.hash, expected + 1
        seen = seen or each.hash == remembered
    if not seen:
        raise Tampered(
            f"the audit log ends at entry {expected - 1} and does not hold the remembered head {remembered}: "
            "its newest entries were cut off or rewritten; restore the catalog from a backup"
        )


def _hash_of(each: AuditEntry) -> str:
    return chain(
        each.before,
        seq=each.seq,
        at=each.at,
        actor=each.actor,
        action=each.action,
        system=each.system,
        subject=each.subject,
        detail=each.detail,
    )
