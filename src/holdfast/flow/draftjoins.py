"""How each found feed joins the rows that are predicted: looked up, its latest state taken, or aggregated."""

from collections.abc import Mapping
from datetime import timedelta

import polars as pl

from holdfast.core.spec import Feed
from holdfast.flow.draftfeeds import Found, Table, is_unique

HOUR = timedelta(hours=1)
LASTS = (6 * HOUR, 24 * HOUR, 7 * 24 * HOUR, 30 * 24 * HOUR)
"""How far back an aggregate may look: the first in which a group has FEW events on average."""
FEW = 5
GAPS = 6
"""A value that `take` joins may be as old as this many typical gaps between two rows of its group."""
STALE = 2
"""A feed is stale when its newest row is older than this many times the longest gap that was seen."""


def join_feeds(
    tables: Mapping[str, Table], rows: str, label: str, key: str, found: Found
) -> dict[str, tuple[Feed, str]]:
    """Every feed of the system file, and the table it reads.

    - No time, and unique by shared columns: a lookup; all other columns are taken.
    - A time, and no row has an identity of its own (no column is unique), but shared columns and the time are unique
      together: a state; its latest known row is taken.
    - Any other feed with a time holds events: the mean and count of its numbers over the last hours. Where it shares
      several columns with the rows, there is one entry per column, ``<feed>_by_<column>``.
    """
    feeds: dict[str, tuple[Feed, str]] = {}
    for name in dict.fromkeys([rows, label, *tables]):
        table = tables[name]
        fresh = _fresh(table)
        if name in (rows, label):
            feed = Feed(from_=table.path, event_at=table.event_at, known_at=table.known_at, key=(key,), fresh=fresh)
            feeds[name] = (feed, name)
            continue
        joined = _joined(table, tables[rows], key, fresh, found)
        feeds |= {entry: (feed, name) for entry, feed in joined.items()}
    return feeds


def _joined(table: Table, rows: Table, key: str, fresh: timedelta | None, found: Found) -> dict[str, Feed]:
    shared = [
        name
        for name in table.features
        if name in rows.features and not table.frame[name].dtype.is_float() and not table.frame[name].dtype.is_nested()
    ]
    if not shared:
        found.note(f"{table.name} is left out: it shares no column with {rows.name}")
        return {}
    if table.known_at is None:
        return _lookup(table, shared, found)
    texts = [name for name in shared if name != key and table.frame[name].dtype == pl.String]
    by = texts or [name for name in shared if name != key] or shared
    has_identity = any(is_unique(table.frame[name]) for name in table.features if name not in by)
    if not has_identity and not table.frame.select(*by, table.known_at).is_duplicated().any():
        return _state(table, by, fresh, found)
    return _events(table, by, rows, fresh, found)


def _lookup(table: Table, shared: list[str], found: Found) -> dict[str, Feed]:
    single = [name for name in shared if is_unique(table.frame[name])]
    by = [max(single, key=lambda name: table.frame[name].n_unique())] if single else shared
    if not single and table.frame.select(by).is_duplicated().any():
        found.note(f"{table.name} is left out: it has no time, and several rows for the same {', '.join(by)}")
        return {}
    take = tuple(name for name in table.features if name not in by)
    if not take:
        found.note(f"{table.name} is left out: it has nothing beside {', '.join(by)}")
        return {}
    found.note(f"{table.name} is a lookup by {', '.join(by)}: it has no time", f"data.feeds.{table.name}")
    return {table.name: Feed(from_=table.path, key=tuple(by), by=tuple(by), take=take)}


def _state(table: Table, by: list[str], fresh: timedelta | None, found: Found) -> dict[str, Feed]:
    assert table.known_at is not None
    take = tuple(name for name in (*table.features, *table.earlier_times(found)) if name not in by)
    if not take:
        found.note(f"{table.name} is left out: it has nothing beside {', '.join(by)} and its times")
        return {}
    gaps = table.frame.sort(table.known_at).select(pl.col(table.known_at).diff().over(by)).to_series()
    gap = gaps.median()
    within = _up(GAPS * gap) if isinstance(gap, timedelta) and gap else None
    found.note(
        f"{table.name}: the latest row of each {', '.join(by)} that was known is taken"
        + (f", unless it is older than {GAPS} typical gaps" if within else ""),
        f"data.feeds.{table.name}",
    )
    feed = Feed(
        from_=table.path,
        event_at=table.event_at,
        known_at=table.known_at,
        key=(*by, table.known_at),
        by=tuple(by),
        take=take,
        within=within,
        fresh=fresh,
    )
    return {table.name: feed}


def _events(table: Table, by: list[str], rows: Table, fresh: timedelta | None, found: Found) -> dict[str, Feed]:
    assert table.known_at is not None
    frame = table.frame
    numbers = [
        name
        for name in table.features
        if name not in rows.features and (frame[name].dtype.is_numeric() or frame[name].dtype == pl.Boolean)
        if not is_unique(frame[name])
    ]
    if not numbers:
        found.note(f"{table.name} is left out: its events have no numbers of their own to aggregate")
        return {}
    identity = [name for name in table.features if is_unique(frame[name])]
    feeds = {}
    for column in by:
        name = f"{table.name}_by_{column}" if len(by) > 1 else table.name
        last = _last(frame[table.known_at], frame[column])
        found.note(f"{name}: means and count over the {_hours(last)} before, by {column}", f"data.feeds.{name}")
        feeds[name] = Feed(
            from_=table.path,
            event_at=table.event_at,
            known_at=table.known_at,
            key=tuple(identity[:1]),
            by=(column,),
            aggregate={number: ("mean", "count") if number == numbers[0] else ("mean",) for number in numbers},
            last=last,
            fresh=fresh,
        )
    return feeds


def _last(known: pl.Series, group: pl.Series) -> timedelta:
    """The shortest look back in which a group has a few events on average."""
    times = known.dt.epoch("us").to_numpy()
    span = timedelta(microseconds=int(times.max() - times.min()))
    if not span:
        return LASTS[0]
    per_group = len(known) / max(1, group.n_unique())
    return next((last for last in LASTS if per_group * (last / span) >= FEW), LASTS[-1])


def _fresh(table: Table) -> timedelta | None:
    if table.known_at is None:
        return None
    longest = table.frame[table.known_at].sort().diff().max()
    return _up(STALE * longest) if isinstance(longest, timedelta) and longest else None


def _up(length: timedelta) -> timedelta:
    """A duration rounded up to what a person would write: minutes, hours or days."""
    unit = timedelta(minutes=1) if length < 2 * HOUR else HOUR if length < 48 * HOUR else 24 * HOUR
    return -(-length // unit) * unit


def _hours(length: timedelta) -> str:
    hours = length // HOUR
    return f"{hours} hours" if hours < 48 else f"{hours // 24} days"
