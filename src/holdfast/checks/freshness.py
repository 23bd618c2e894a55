"""Freshness: how old is the newest row of each feed?"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import ClassVar, Literal

import msgspec

from holdfast.checks.stated import said, within
from holdfast.core.evidence import Grade, Reading, Role, Window

AHEAD_S = -300.0
"""A newest row more than five minutes ahead of the clock means that a clock jumped."""


class Freshness(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Age of every feed that promises to be fresh, against what it promises (`fresh` in the system file)."""

    needs: ClassVar[frozenset[Role]] = frozenset()
    facts: ClassVar[frozenset[str]] = frozenset({"feeds", "fresh", "now"})
    evidence: ClassVar[Literal["stated", "window", "stream"]] = "stated"
    against: ClassVar[Literal["reference", "recent", "nothing"]] = "nothing"

    def measure(self, window: Window, baseline: Window | None = None) -> Sequence[Reading]:
        """`age` in seconds per feed, `high` being what is allowed; no value for a feed that never delivered."""
        newest: Mapping[str, datetime | None] = window.facts["feeds"]
        allowed: Mapping[str, timedelta] = window.facts["fresh"]
        now: datetime = window.facts["now"]
        return [_age(feed, newest.get(feed), limit, now) for feed, limit in allowed.items()]

    def grade(self, reading: Reading) -> tuple[Grade, str]:
        """Fails when a feed is older than it may be; warns when its newest row lies in the future."""
        grade, why = within(reading)
        if grade is Grade.FAIL and reading.value is not None and reading.value < AHEAD_S:
            return Grade.WARN, f"{reading.subject}: {reading.note}"
        return grade, why


def _age(feed: str, newest: datetime | None, allowed: timedelta, now: datetime) -> Reading:
    if newest is None:
        return Reading(name="age", value=None, unit="s", subject=feed, note=f"{feed} has not delivered anything yet")
    age_s = (now - newest).total_seconds()
    note = f"newest row of {feed} was known at {newest:%Y-%m-%d %H:%M}, {said(max(0.0, age_s))} ago"
    if age_s < AHEAD_S:
        note = f"newest row of {feed} lies {said(-age_s)} in the future: a clock is wrong"
    limit_s = allowed.total_seconds()
    return Reading(name="age", value=age_s, unit="s", low=AHEAD_S, high=limit_s, subject=feed, note=note)
