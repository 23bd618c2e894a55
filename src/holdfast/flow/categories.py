"""Which categories came and which went. In: the days of a window and those of a reference. Out: a sentence."""

from collections import Counter
from collections.abc import Mapping, Sequence

import polars as pl

from holdfast.core.evidence import Block
from holdfast.core.signature import Signature
from holdfast.flow.case import Case

MOST_NAMED = 3
"""Categories of a column that are named, the most frequent first; and columns that are told of."""
MOST_LETTERS = 40
MISSED = 10.0
"""A category is said to be gone where so many rows of it were to be expected: by chance it is then hardly absent."""


def came_and_went(case: Case) -> str:
    """The new and the vanished categories of what an incident is about, with their shares of the values that are
    there; empty where there are none, or where its check compares with something else than the reference."""
    if case.check.against != "reference":
        return ""
    days = case.window()
    inside = set(days)
    rest = [block for block in case.reference.blocks if block not in inside]
    signature: Signature = case.reference.facts["signature"]
    categories = {column.name for column in signature.columns if column.type == "category"}
    said = [told(name, counted(rest, name), counted(days, name)) for name in case.about if name in categories]
    return "; ".join([each for each in said if each][:MOST_NAMED])


def counted(blocks: Sequence[Block], column: str) -> Counter[str]:
    """How often each category stands in these blocks; missing values do not count, nor a column of another type."""
    total: Counter[str] = Counter()
    for block in blocks:
        total.update(block.remember(("categories", column), lambda rows: _count(rows, column)))
    return total


def told(column: str, before: Mapping[str, int], now: Mapping[str, int]) -> str:
    """What came and what went, by how often each stood in the reference and stands in the window; empty for neither.

    >>> told("carrier", {"UA": 300, "AA": 700}, {"United": 30, "AA": 70})
    "carrier has 'United' (30.0%), which the reference had not; it lacks 'UA' (30.0% there)"
    """
    known, rows = sum(before.values()), sum(now.values())
    if not known or not rows:
        return ""
    new = {name: count / rows for name, count in now.items() if not before.get(name)}
    gone = {n: c / known for n, c in before.items() if not now.get(n) and c / known * rows >= MISSED}
    parts = [f"{column} has {_named(new)}, which the reference had not"] if new else []
    parts += [f"{'it' if new else column} lacks {_named(gone, ' there')}"] if gone else []
    return "; ".join(parts)


def _named(shares: Mapping[str, float], where: str = "") -> str:
    ordered = sorted(shares, key=lambda name: (-shares[name], name))
    named = [f"'{_short(name)}' ({shares[name]:.1%}{where})" for name in ordered[:MOST_NAMED]]
    rest = len(ordered) - MOST_NAMED
    return ", ".join(named) + (f" and {rest:,} more" if rest > 0 else "")


def _short(name: str) -> str:
    return name if len(name) <= MOST_LETTERS else f"{name[: MOST_LETTERS - 1]}…"


def _count(rows: pl.DataFrame, column: str) -> dict[str, int]:
    if column not in rows.columns or rows.schema[column].is_nested() or rows.schema[column].is_numeric():
        return {}
    present = rows[column].drop_nulls().cast(pl.String)
    values, counts = present.value_counts()
    return dict(zip(values.to_list(), counts.to_list(), strict=True))
