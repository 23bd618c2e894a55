"""Snapshots: assembled rows as known at a time in; an immutable, content-addressed dataset with its lineage out."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from io import BytesIO

import msgspec
import polars as pl

from holdfast.core.blocks import mature_until
from holdfast.core.classes import in_order, task_of
from holdfast.core.evidence import Grade, Reading, Verdict
from holdfast.core.meaning import percent
from holdfast.core.protocols import Blobs, Lake
from holdfast.core.records import FileRef, Snapshot
from holdfast.core.signature import Column
from holdfast.core.spec import Data, SystemSpec
from holdfast.core.targets import taken
from holdfast.errors import ExpectationFailed
from holdfast.flow.ingestion import quarantine_reasons
from holdfast.flow.rows import quarantine

MOST_REASONS = 5
"""How many reasons of rows in quarantine are said."""
ASSEMBLED = "assembled rows"
"""What stands for the file of a row that was found bad after the feeds were joined."""


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where the rows of a snapshot came from."""

    files: tuple[FileRef, ...] = ()
    rows_read: int | None = None
    """Rows that the predicted feed has read so far; None takes the rows given and those set aside."""
    rows_quarantined: int = 0
    """How many of those ingestion set aside."""
    spec_hash: str = ""
    code: str = ""
    """Holdfast's version and, where there is one, the commit of the working tree."""


def take_snapshot(
    spec: SystemSpec, rows: pl.DataFrame, *, now: datetime, blobs: Blobs, lake: Lake | None, origin: Origin
) -> tuple[Snapshot, pl.DataFrame]:
    """Make an immutable dataset of assembled rows (see `joins.assemble`) as they were known at `now`.

    A row without a key, with a key that an earlier row has, or with an infinite number is left out and put into the
    lake's quarantine of the predicted feed with its reason. Raises ExpectationFailed, with each that does not hold and
    why rows are in quarantine, when a hard expectation is broken: then nothing is stored. Values outside ranges and
    categories are told, not refused. The same rows give the same bytes. The record is returned, not put: that belongs
    to the caller's transaction.
    """
    known = as_known(rows, now)
    reasons = _reasons(known, spec.data.columns.values())
    is_bad = reasons.is_not_null()
    good = known.filter(~is_bad)
    read = known.height + origin.rows_quarantined if origin.rows_read is None else origin.rows_read
    quarantined = origin.rows_quarantined + int(is_bad.sum())
    verdicts = tuple(_verdicts(spec, good, now, read=read, quarantined=quarantined))
    found_bad = dict(reasons.filter(is_bad).value_counts(sort=True).iter_rows())
    _stop_if_broken(spec, verdicts, lake, found_bad)
    if lake is not None and is_bad.any():
        _quarantine(spec, lake, known.filter(is_bad), reasons.filter(is_bad), now)
    data = write_parquet(good)
    sha256 = hashlib.sha256(data).hexdigest()
    times = good["known_at"]
    snapshot = Snapshot(
        system=spec.system,
        id=sha256[:16],
        sha256=sha256,
        blob=blobs.put(data),
        at=now,
        rows=good.height,
        rows_read=read,
        rows_dropped=read - quarantined - good.height,
        rows_quarantined=quarantined,
        labelled=good.height - good["label"].null_count(),
        since=times[0] if good.height else None,
        until=times[-1] if good.height else None,
        files=origin.files,
        spec_hash=origin.spec_hash,
        code=origin.code,
        verdicts=verdicts,
    )
    return snapshot, good


def as_known(rows: pl.DataFrame, now: datetime) -> pl.DataFrame:
    """Assembled rows as they were at `now`: those known by then, without the labels that came later.

    Of rows assembled later than `now` this gives what assembling at `now` would have given, save for a label that was
    revised in between, which is missing instead.
    """
    late = pl.col("label_known_at") > now
    return rows.filter(pl.col("known_at") <= now).with_columns(
        pl.when(~late).then(column).alias(column) for column in ("label", "label_known_at")
    )


def write_parquet(rows: pl.DataFrame) -> bytes:
    """Rows as Parquet; the same rows give the same bytes."""
    file = BytesIO()
    rows.rechunk().write_parquet(file, compression="zstd", compression_level=3, statistics=False, row_group_size=2**17)
    return file.getvalue()


def read_parquet(data: bytes) -> pl.DataFrame:
    """The rows that `write_parquet` wrote."""
    return pl.read_parquet(BytesIO(data))


def read_snapshot(snapshot: Snapshot, blobs: Blobs) -> pl.DataFrame:
    """The rows of a snapshot. Raises NotFound or Tampered when its bytes are gone or not what they were."""
    return read_parquet(blobs.get(snapshot.blob))


def _reasons(rows: pl.DataFrame, columns: Iterable[Column]) -> pl.Series:
    """Why each row cannot be used; null where it can. Rows are sorted by known_at, so a first key is the earlier."""
    numbers = [column.name for column in columns if column.type != "category"]
    infinite = [
        pl.when(pl.col(name).is_infinite()).then(pl.lit(f"{name} is infinite"))
        for name in numbers
        if rows[name].is_infinite().any()
    ]
    repeated = pl.col("key").is_not_null() & ~pl.col("key").is_first_distinct()
    reason = pl.coalesce(
        pl.when(pl.col("key").is_null()).then(pl.lit("the key is missing")),
        pl.when(repeated).then(pl.lit("an earlier row has the same key")),
        *infinite,
    )
    return rows.select(reason.alias("reason")).to_series()


def _verdicts(spec: SystemSpec, rows: pl.DataFrame, now: datetime, *, read: int, quarantined: int) -> Iterator[Verdict]:
    """Every expectation, graded: hard ones pass or fail; what lies outside ranges and categories only warns."""
    expect, data = spec.data.expect, spec.data
    yield _verdict(
        Reading(name="rows", value=rows.height, unit="rows", rows=rows.height),
        rows.height >= expect.rows,
        f"{rows.height} rows; expected at least {expect.rows}",
    )
    share = quarantined / read if read else 0.0
    yield _verdict(
        Reading(name="bad_rows", value=share, rows=read),
        share <= expect.bad_rows,
        f"{quarantined} of {read} rows ({share:.1%}) are in quarantine; expected at most {expect.bad_rows:.1%}",
    )
    names = {data.key: "key", data.label.column: "label", data.unit: "unit"}
    if expect.unique is not None and names.get(expect.unique, expect.unique) in rows.columns:
        values = rows[names.get(expect.unique, expect.unique)].drop_nulls()
        twice = len(values) - values.n_unique()
        yield _verdict(
            Reading(name="unique", value=twice, unit="rows", rows=rows.height, subject=expect.unique),
            twice == 0,
            f"{expect.unique}: {twice} rows repeat a value of an earlier one; expected none",
        )
    mature = rows.filter(pl.col("event_at") < mature_until(data, now))
    for column, least in expect.complete.items():
        name = names.get(column, column)
        if name not in rows.columns:
            continue
        values = mature["label"] if name == "label" else rows[name]
        present = 1 - values.null_count() / len(values) if len(values) else 1.0
        yield _verdict(
            Reading(name="complete", value=present, rows=len(values), subject=column),
            present >= least,
            f"{column}: {percent(present)} of {len(values)} values are there; expected at least {least:.1%}",
        )
    if data.label.classes:
        yield _of_no_class(rows["label"].drop_nulls(), data)
    yield from _not_taken(spec, rows["label"])
    for described in data.columns.values():
        if outside := _outside(rows[described.name], described):
            reading = Reading(name="outside", value=outside, rows=rows.height, subject=described.name)
            why = f"{described.name}: {outside:.2%} of values lie outside what the system file states"
            yield Verdict(grade=Grade.WARN, check="expect", reading=reading, why=why)


def _not_taken(spec: SystemSpec, labels: pl.Series) -> Iterator[Verdict]:
    """How many labels the task cannot take, and one of them: they count as missing; too many stop the snapshot."""
    task, given = task_of(spec), labels.drop_nulls()
    refused = given.filter(taken(task, given).is_null())
    if refused.is_empty():
        return
    share, most = len(refused) / len(given), spec.data.expect.bad_rows
    why = (
        f"{len(refused)} of {len(given)} labels ({percent(share)}) count as missing, such as {refused[0]:g}: the task "
        f"{spec.task} takes {task.refuses_label(refused[0])}; expected at most {most:.1%}"
    )
    reading = Reading(name="labels_not_taken", value=share, rows=len(given))
    yield Verdict(grade=Grade.FAIL if share > most else Grade.WARN, check="expect", reading=reading, why=why)


def _of_no_class(labels: pl.Series, data: Data) -> Verdict:
    """How many labels are none of the file's classes: nothing is fitted on them, and no answer to them is right."""
    count = int((labels < 0).sum())
    said = f"{data.label.column}: {count} of {len(labels)} labels are none of {', '.join(in_order(data.label.classes))}"
    reading = Reading(name="unknown_classes", value=count, unit="rows", rows=len(labels), subject=data.label.column)
    return Verdict(grade=Grade.WARN if count else Grade.PASS, check="expect", reading=reading, why=said)


def _verdict(reading: Reading, holds: bool, why: str) -> Verdict:
    return Verdict(grade=Grade.PASS if holds else Grade.FAIL, check="expect", reading=reading, why=why)


def _outside(values: pl.Series, column: Column) -> float:
    """Share of the values present that lie outside a column's range or categories; 0 where it states neither."""
    present = values.drop_nulls()
    if column.categories:
        inside = present.is_in(list(column.categories))
    elif column.low is not None or column.high is not None:
        low = float("-inf") if column.low is None else column.low
        high = float("inf") if column.high is None else column.high
        inside = (present >= low) & (present <= high)
    else:
        return 0.0
    return 1 - int(inside.sum()) / len(present) if len(present) else 0.0


def _stop_if_broken(
    spec: SystemSpec, verdicts: Sequence[Verdict], lake: Lake | None, found_bad: Mapping[str, int]
) -> None:
    broken = [verdict for verdict in verdicts if verdict.grade is Grade.FAIL]
    if not broken:
        return
    lines = [f"  {verdict.grade.value}: {verdict.why}" for verdict in broken]
    counts = dict(found_bad)
    for reason, count in (quarantine_reasons(lake, spec.system, spec.data.rows) if lake is not None else {}).items():
        counts[reason] = max(count, counts.get(reason, 0))  # what an earlier snapshot found is in the lake already
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MOST_REASONS]
    lines += [f"  quarantine of {spec.data.rows}: {count:,} rows: {reason}" for reason, count in most]
    raise ExpectationFailed(
        f"system '{spec.system}': {len(broken)} of {len(verdicts)} expectations of the data do not hold: there is no "
        "snapshot; look at the quarantine and the feeds, or correct data.expect in the system file\n" + "\n".join(lines)
    )


def _quarantine(spec: SystemSpec, lake: Lake, rows: pl.DataFrame, reasons: pl.Series, now: datetime) -> None:
    """Record bad rows once, however many snapshots leave them out."""
    raw = [msgspec.json.encode(row, enc_hook=str).decode() for row in rows.drop("label", "label_known_at").to_dicts()]
    bad = pl.DataFrame(
        {
            "row_id": [hashlib.sha256(text.encode()).hexdigest()[:32] for text in raw],
            "file": [ASSEMBLED] * rows.height,
            "row": range(rows.height),
            "reason": reasons,
            "raw": raw,
        }
    )
    quarantine(lake, spec.data.rows, spec.system, bad, now=now)
