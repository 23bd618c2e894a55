"""Which task a label is about, for a draft. In: the label as assembled. Out: a task and how it is promised."""

import msgspec
import polars as pl

from holdfast.core.classes import class_name, in_order, is_whole
from holdfast.core.spec import Label
from holdfast.errors import DataError, did_you_mean
from holdfast.flow.draftfeeds import Found, Table

MOST_CLASSES = 20
"""A label of whole numbers with more values is an amount; one of more texts needs a person to say what it is."""
LEAST_OF_CLASS = 5
MOST_OVER_DAYS = 0.2
"""Where a larger share of the lists comes on several days, the column rather names users, or shops."""
RANKING = "ranking"


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A task, the metric that gates and monitors ask for, and the loss and margin that decide releases."""

    name: str
    metric: str
    loss: str
    margin: float
    is_probability: bool = False


def with_classes(label: Label, frame: pl.DataFrame, found: Found) -> Label:
    """The label with its classes, where it is about some: from 3 to 20 texts, or as few whole numbers of which each is
    there several times."""
    values = frame[label.column].drop_nulls()
    counts: dict[str, int] = {}
    for value, count in values.cast(pl.String, strict=False).value_counts().iter_rows():
        counts[class_name(value)] = counts.get(class_name(value), 0) + count
    are_texts = values.dtype == pl.String and not all(map(_is_number, counts))
    if are_texts and len(counts) < 3:
        named = ", ".join(f"'{name}'" for name in sorted(counts))
        raise DataError(
            f"label '{label.column}' is text ({named}): two classes are 0 and 1, or false and true; write the column "
            "in the data with 1 for the one whose probability is wanted and 0 for the other, then ask again"
        )
    if len(counts) < 3 or not (are_texts or all(map(is_whole, counts))):
        return label
    if len(counts) > MOST_CLASSES and are_texts:
        raise DataError(
            f"label '{label.column}' is text with {len(counts)} distinct values; at most {MOST_CLASSES} classes are "
            "drafted: make a column of fewer, or of true and false"
        )
    # Amounts have values that are there once or twice.
    if not are_texts and (len(counts) > MOST_CLASSES or min(counts.values()) < LEAST_OF_CLASS):
        return label
    what, instead = "texts", ""
    if not are_texts:
        what = f"whole numbers, each {LEAST_OF_CLASS} times there or more"
        instead = "; where they are amounts, remove data.label.classes, and use the task regression with its metrics"
    found.note(f"{label.column} has {len(counts)} values, {what}, so the task is multiclass{instead}", "model")
    return msgspec.structs.replace(label, classes=in_order(counts))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def pick_lists(rows: Table, key: str, lists: str, timezone: str, found: Found) -> str:
    """The column of the predicted feed that says which list a row is in. Raises DataError for one that cannot be it.

    The feed has its event time.
    """
    known = [name for name in rows.frame.columns if name != key]
    if lists not in known:
        raise DataError(f"feed '{rows.name}' has no column '{lists}' of lists{did_you_mean(lists, known)}")
    assert rows.event_at is not None
    name, day = pl.col(lists).cast(pl.String), pl.col(rows.event_at).dt.convert_time_zone(timezone).dt.date()
    listed = rows.frame.select(name.alias("list"), day.alias("day")).filter(pl.col("list") != "")
    each = listed.group_by("list").agg(pl.len().alias("rows"), pl.col("day").n_unique().alias("days"))
    sizes, longer = each["rows"], each.filter(pl.col("rows") > 1)
    if longer.is_empty():
        raise DataError(f"'{lists}' is another one in every row: a list needs rows that share it")
    found.note(
        f"rows are ordered within {lists}, and a split keeps each on one version: {len(sizes):,} lists of "
        f"{sizes.sum() / len(sizes):.1f} rows on average, {max(longer['rows']):,} the longest, "
        f"{len(sizes) - len(longer):,} of them with one row only",
        "data.unit",
    )
    if without := rows.frame.height - listed.height:
        found.note(f"{without:,} of {rows.frame.height:,} rows have no {lists}: each is a list of its own", "data.unit")
    again = longer.filter(pl.col("days") > 1).height
    if again > MOST_OVER_DAYS * longer.height:
        found.warn(
            f"{again:,} of {longer.height:,} values of {lists} come on more than one day: a list is one search, not "
            "one user; all rows of a value are one list in training, and each day is judged by itself; name a column "
            "whose values stand for one list each, or make one, for example of user and visit",
            "data.unit",
        )
    return lists


def check_relevance(label: Label, frame: pl.DataFrame) -> None:
    """Raises DataError for a label of texts, where rows are to be ordered."""
    values = frame[label.column].drop_nulls()
    if values.dtype != pl.String or all(map(_is_number, values.unique())):
        return
    seen = ", ".join(f"'{text}'" for text in sorted(values.unique())[:3])
    raise DataError(
        f"label '{label.column}' is text ({seen}): where rows are ordered within lists, relevance is a number, 0 for "
        "not relevant and more for what is; write numbers in the data, or draft without --lists"
    )


def pick_task(label: Label, values: pl.Series, lists: str | None, found: Found) -> Task:
    """The task of a label, joined to its rows as Float64. Raises DataError for one that nothing can be learned from."""
    if lists is not None:
        return _ranking(label.column, values.drop_nulls(), found)
    if label.classes:
        return Task(name="multiclass", metric="log_loss", loss="brier", margin=0.01, is_probability=True)
    seen = set(values.drop_nulls().unique().head(3).to_list())
    if seen <= {0.0, 1.0}:
        if len(seen) < 2:
            raise DataError(
                f"label '{label.column}' is {seen or 'never there'} in every row; nothing can be learned from it"
            )
        found.note(f"{label.column} is 0 or 1, so the task is classification", "model")
        return Task(name="classification", metric="log_loss", loss="brier", margin=0.005, is_probability=True)
    found.note(f"{label.column} has other values than 0 and 1, so the task is regression", "model")
    return Task(name="regression", metric="mae", loss="absolute_error", margin=_margin(values.drop_nulls()))


def _ranking(column: str, relevance: pl.Series, found: Found) -> Task:
    least = relevance.min()
    only = "" if least in (None, 0) else "; what was shown and not chosen needs a label of 0"
    if relevance.is_empty() or relevance.n_unique() < 2:
        raise DataError(f"label '{column}' does not vary; nothing can be ordered by it{only}")
    if (relevance < 0).any():
        raise DataError(f"label '{column}' is below 0 in some rows; relevance is 0 (not relevant) or more")
    if only:
        found.warn(
            f"no {column} is 0, so every row with a label counts as relevant; where only what was chosen has one, "
            f"nothing can be ordered, as rows without a label count for nothing{only}",
            "data.label",
        )
    # A loss, since what a version promises, and what a day may not exceed, is known of losses only.
    return Task(name=RANKING, metric="ndcg_10_loss", loss="ndcg_10_loss", margin=0.01)


def _margin(values: pl.Series) -> float:
    """How much worse than live is still accepted: 1 % of the mean absolute deviation, rounded to one digit."""
    apart = (values - values.median()).abs().mean()
    return float(f"{0.01 * apart:.0e}") if isinstance(apart, float) and apart > 0 else 0.005
