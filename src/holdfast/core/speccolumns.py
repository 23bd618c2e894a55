"""Columns as the file writes them: ``number``, ``{number: [0, 105.5]}``, ``{category: [AA, B6], outside: refuse}``."""

from typing import Any, cast, get_args

from holdfast.core.signature import Column, ColumnType, Outside
from holdfast.core.specwords import short
from holdfast.core.specyaml import Item
from holdfast.errors import did_you_mean

TYPES = get_args(ColumnType)
OUTSIDES = get_args(Outside)
_ANY = "any"
_EXAMPLE = "write a type, or a type with what it holds, for example {number: [0, 105.5]}"


def read_column(name: str, item: Item) -> Column:
    """The column an item describes. Raises ValueError that says what is expected."""
    if not isinstance(item.value, dict):
        if item.text is None:
            raise ValueError(f"a column needs a type: {_EXAMPLE}")
        return Column(name=name, type=_type(item.text))
    entries: dict[str, Item] = item.value
    found = [key for key in entries if key in TYPES]
    unknown = [key for key in entries if key not in (*TYPES, "outside", "nullable")]
    if unknown:
        raise ValueError(f"unknown key '{unknown[0]}'{did_you_mean(unknown[0], (*TYPES, 'outside', 'nullable'))}")
    if len(found) != 1:
        raise ValueError(f"a column has exactly one type: {_EXAMPLE}")
    kind = _type(found[0])
    holds = entries[kind]
    if kind == "time" and holds.text != _ANY:
        raise ValueError("a time has no range, as those to come lie outside of any; write 'time'")
    low, high = (None, None) if kind in ("category", "boolean", "time") else _range(holds)
    return Column(
        name=name,
        type=kind,
        low=low,
        high=high,
        categories=_categories(holds) if kind == "category" else (),
        outside=_outside(entries.get("outside"), kind, holds),
        nullable=_nullable(entries.get("nullable")),
    )


def write_column(column: Column) -> Any:
    """What the file says of a column: a word, or a mapping for one line."""
    holds: Any = _ANY
    if column.categories:
        holds = list(column.categories)
    elif column.low is not None or column.high is not None:
        holds = [None if end is None else _number(end) for end in (column.low, column.high)]
    written: dict[str, Any] = {column.type: holds}
    if column.outside != "flag":
        written["outside"] = column.outside
    if not column.nullable:
        written["nullable"] = False
    return column.type if written == {column.type: _ANY} else written


def _type(word: str) -> ColumnType:
    if word not in TYPES:
        raise ValueError(f"no column type '{word}'{did_you_mean(word, TYPES)}")
    return cast("ColumnType", word)


def _range(holds: Item) -> tuple[float | None, float | None]:
    if holds.text == _ANY:
        return None, None
    ends = holds.plain()
    if not isinstance(ends, list) or len(ends) != 2 or not all(_is_end(end) for end in ends):
        raise ValueError("a range is two numbers, [lowest, highest], with null for an open end")
    low, high = (None if end is None else float(end) for end in ends)
    return low, high


def _is_end(end: Any) -> bool:
    return end is None or (isinstance(end, int | float) and not isinstance(end, bool) and abs(end) < 1e300)


def _categories(holds: Item) -> tuple[str, ...]:
    if holds.text == _ANY:
        return ()
    if not isinstance(holds.value, list) or not holds.value:
        raise ValueError("categories are a list of words, for example {category: [AA, B6]}")
    words = tuple(part.text for part in holds.value)
    if None in words:
        raise ValueError("each category is one word; a missing value is not a category (put 'null' in quotes if it is)")
    return cast("tuple[str, ...]", words)


def _outside(item: Item | None, kind: ColumnType, holds: Item) -> Outside:
    if item is None:
        return "flag"
    if item.text not in OUTSIDES:
        raise ValueError(f"'outside' is refuse, flag or missing{did_you_mean(item.text or '', OUTSIDES)}")
    if kind == "boolean":
        raise ValueError("'outside' has no effect on a boolean: anything but true and false is refused")
    if kind == "time":
        raise ValueError("'outside' has no effect on a time: it has no range to lie outside of")
    # The very object that is the default: msgspec compares by identity when it leaves defaults out.
    return cast("Outside", OUTSIDES[OUTSIDES.index(item.text)])


def _nullable(item: Item | None) -> bool:
    if item is None:
        return True
    if not isinstance(item.value, bool):
        raise ValueError("'nullable' is true or false")
    return item.value


def _number(value: float) -> int | float:
    return int(value) if short(value).lstrip("-").isdigit() else value
