"""What is written about every answer and every label, before the caller hears of it.

The storage schemas live here. They are not derived from what travels over the wire, so either may change alone.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec
import numpy as np

from holdfast.core.clock import stopwatch_s
from holdfast.core.protocols import LABELS, PREDICTIONS, Field, Writer
from holdfast.core.signature import Rows, Signature
from holdfast.errors import StateError

log = logging.getLogger(__name__)

FloatArray = np.ndarray[Any, np.dtype[np.float64]]
IntArray = np.ndarray[Any, np.dtype[np.int64]]
WriterFor = Callable[[str, str, Sequence[Field]], Writer]
"""Opens a segment: table, system and schema to a writer (`Lake.writer`)."""

_PREDICTION = (
    Field("request_id", "text"),
    Field("prediction_id", "text"),
    Field("row", "int"),
    Field("key", "text"),
    Field("unit", "text"),
    Field("event_at", "time"),
    Field("features_known_at", "time"),
    Field("predicted_at", "time"),
    Field("version", "text"),
    Field("stage", "text"),
    Field("release", "text"),
    Field("status", "text"),
    Field("outside", "int"),
    Field("latency_us", "float"),
)

_LABEL = (
    Field("label_id", "text"),
    Field("key", "text"),
    Field("output", "text"),
    Field("value", "float"),
    Field("label_known_at", "time"),
    Field("ingested_at", "time"),
    Field("source", "text"),
    Field("revision", "int"),
)


def prediction_fields(signature: Signature) -> tuple[Field, ...]:
    """Columns of the predictions table for versions of one signature: inputs as ``in.<column>``, ``out.<output>``."""
    inputs = [Field(f"in.{c.name}", "text" if c.type == "category" else "float") for c in signature.columns]
    return (*_PREDICTION, *inputs, Field(f"out.{signature.output}", "float"))


def label_fields() -> tuple[Field, ...]:
    """Columns of the labels table."""
    return _LABEL


class RowMeta(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about each of n rows beside its inputs. Times are microseconds since 1970 UTC (n,)."""

    request_id: Sequence[str]
    row: IntArray
    """Place of the row in its request, from 0."""
    key: Sequence[str | None]
    unit: Sequence[str | None]
    event_at: IntArray
    features_known_at: IntArray
    predicted_at: IntArray

    def take(self, index: IntArray) -> "RowMeta":
        """The rows at these positions."""
        chosen = index.tolist()
        return RowMeta(
            request_id=[self.request_id[i] for i in chosen],
            row=self.row[index],
            key=[self.key[i] for i in chosen],
            unit=[self.unit[i] for i in chosen],
            event_at=self.event_at[index],
            features_known_at=self.features_known_at[index],
            predicted_at=self.predicted_at[index],
        )


class Answerer(msgspec.Struct, frozen=True, kw_only=True):
    """Which version answered, in which stage of which release."""

    system: str
    version: str
    stage: Literal["live", "canary"]
    release: str
    signature: Signature
    signature_hash: str


class _Segment:
    def __init__(self, writer: Writer, opened_s: float) -> None:
        self.writer = writer
        self.opened_s = opened_s


class Recorder:
    """Appends predictions and labels, one open segment per table, system and signature. Owned by one thread."""

    def __init__(self, writer_for: WriterFor) -> None:
        self._writer_for = writer_for
        self._open: dict[tuple[str, str, str], _Segment] = {}
        self.recorded = 0
        """Rows written by this recorder."""
        self.lost = 0
        """Rows that could not be written; none of them was acknowledged."""

    def record_predictions(
        self,
        by: Answerer,
        rows: Rows,
        outputs: FloatArray,
        meta: RowMeta,
        *,
        latency_us: FloatArray,
    ) -> None:
        """Write answered rows, durable when it returns. A row whose output is not finite is recorded as failed.

        Raises StateError when it cannot be written; the caller must not answer then.
        """
        n = rows.count
        finite = np.isfinite(outputs)
        columns: dict[str, Any] = {
            "request_id": meta.request_id,
            "prediction_id": [f"{id}:{row}" for id, row in zip(meta.request_id, meta.row.tolist(), strict=True)],
            "row": meta.row,
            "key": meta.key,
            "unit": meta.unit,
            "event_at": meta.event_at,
            "features_known_at": meta.features_known_at,
            "predicted_at": meta.predicted_at,
            "version": [by.version] * n,
            "stage": [by.stage] * n,
            "release": [by.release] * n,
            "status": ["ok"] * n if finite.all() else ["ok" if ok else "failed" for ok in finite.tolist()],
            "outside": rows.outside,
            "latency_us": latency_us,
        }
        for name, values in rows.columns.items():
            columns[f"in.{name}"] = values
        columns[f"out.{by.signature.output}"] = outputs
        self._append(
            PREDICTIONS.name, by.system, by.signature_hash, lambda: prediction_fields(by.signature), columns, n
        )

    def record_labels(
        self,
        system: str,
        *,
        output: str,
        keys: Sequence[str],
        values: FloatArray,
        known_at: IntArray,
        ingested_at: IntArray,
        source: str = "",
        revisions: IntArray | None = None,
    ) -> list[str]:
        """Write labels; returns their ids. The same key, output, time, revision and value give the same id.

        So a delivery that is repeated counts once, and a correction never replaces what was known before.
        """
        n = len(keys)
        revision = np.zeros(n, dtype=np.int64) if revisions is None else revisions
        parts = zip(keys, known_at.tolist(), revision.tolist(), values.tolist(), strict=True)
        ids = [f"{key}:{output}:{at}:{number}:{value!r}" for key, at, number, value in parts]
        columns = {
            "label_id": ids,
            "key": keys,
            "output": [output] * n,
            "value": values,
            "label_known_at": known_at,
            "ingested_at": ingested_at,
            "source": [source] * n,
            "revision": revision,
        }
        self._append(LABELS.name, system, "", label_fields, columns, n)
        return ids

    def _append(
        self,
        table: str,
        system: str,
        signature_hash: str,
        schema: Callable[[], Sequence[Field]],
        columns: Mapping[str, Any],
        rows: int,
    ) -> None:
        key = (table, system, signature_hash)
        segment = self._open.get(key)
        try:
            if segment is None:
                segment = self._open[key] = _Segment(self._writer_for(table, system, schema()), stopwatch_s())
            segment.writer.append(columns, rows)
        except (StateError, OSError) as error:
            self.lost += rows
            # What a failed write left behind is unknown: the next row goes to a segment of its own.
            self._seal(key)
            raise StateError(
                f"{rows} rows of '{system}' could not be recorded in table '{table}', so they were not acknowledged: "
                f"{error}; free the disk or repair it, then send the request again with the same id"
            ) from error
        self.recorded += rows

    def rotate(self, older_than_s: float) -> None:
        """Seal the segments that were opened longer ago than this, so that they can be rolled."""
        due = stopwatch_s() - older_than_s
        for key in [key for key, segment in self._open.items() if segment.opened_s <= due]:
            self._seal(key)

    def close(self) -> None:
        """Seal everything. The recorder may be used again; it opens new segments."""
        for key in list(self._open):
            self._seal(key)

    def _seal(self, key: tuple[str, str, str]) -> None:
        segment = self._open.pop(key, None)
        if segment is None:
            return
        try:
            segment.writer.close()
        except (StateError, OSError) as error:
            # Nothing is lost: every row in it was written before it was acknowledged, and unsealed segments are read.
            log.warning("a segment of table '%s' of '%s' could not be sealed: %s", key[0], key[1], error)
