"""Where an answer came from. In: a prediction's id. Out: everything behind it, and the answer computed again."""

import math
from collections.abc import Callable, Mapping
from datetime import date, datetime
from difflib import get_close_matches
from typing import Any

import msgspec
import numpy as np
import polars as pl

from holdfast.core.answerer import ELSEWHERE
from holdfast.core.blocks import day_of
from holdfast.core.model import Model
from holdfast.core.protocols import LABELS, PREDICTIONS, Lake, Transaction
from holdfast.core.records import FileRef, Incident, Run, Snapshot, Version
from holdfast.core.signature import Column
from holdfast.core.times import as_text
from holdfast.errors import NotFound, StateError
from holdfast.flow.influence import influence_of

TOLERANCE = 1e-5
"""Largest difference between an answer and its replay that counts as the same: the tolerance of the parity proof."""


class Influence(msgspec.Struct, frozen=True, kw_only=True):
    """How the answer would change if one input were missing: answer without it minus answer with it."""

    column: str
    value: float | str | None
    """As it was sent; a time as ISO 8601 text. None where it was missing, or was taken as missing."""
    change: float | None
    """None where it cannot be told: an input that may not be missing cannot be left out."""
    is_outside: bool = False
    """Whether the value lies outside what training saw."""


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """What stands behind one recorded answer."""

    prediction_id: str
    system: str
    output: float
    """NaN for a row that was recorded as failed."""
    predicted_at: datetime
    event_at: datetime
    features_known_at: datetime
    key: str | None
    label: float | None
    label_known_at: datetime | None
    version: str
    stage: str
    release: str
    run: str
    trainer: str
    trained_until: datetime | None
    snapshot: str
    files: tuple[FileRef, ...]
    outside: int
    """How many inputs lay outside what training saw."""
    answered: str = ""
    """Where an answer is one probability per class: the most likely one, which `output` is the probability of."""
    probabilities: Mapping[str, float] = {}
    """Of each class, in that case."""
    label_class: str | None = None
    """The class of the label, in that case."""
    influences: tuple[Influence, ...]
    """Every input, the most influential first; those whose influence cannot be told last."""
    incidents: tuple[str, ...]
    """Incidents that were open when it was answered, and those that were found later and had begun by its day."""


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """One answer computed again from its record."""

    prediction_id: str
    recorded: float
    replayed: float
    difference: float
    agrees: bool
    version: str


def find_prediction(lake: Lake, system: str, prediction_id: str) -> pl.DataFrame:
    """The recorded row of a prediction. `prediction_id` may be a request's id: then its first row. Raises NotFound."""
    recorded = lake.scan(PREDICTIONS.name, system)
    wanted = (prediction_id, f"{prediction_id}:0")
    found = recorded.filter(pl.col("prediction_id").is_in(wanted)) if not recorded.is_empty() else recorded
    if found.is_empty():
        recent = recorded["prediction_id"].tail(200).to_list() if not recorded.is_empty() else []
        # Ids are random: those that are not near say nothing to anybody.
        raise NotFound("prediction", prediction_id, get_close_matches(prediction_id, recent, n=1))
    return found.head(1)


def why(
    tx: Transaction,
    lake: Lake,
    system: str,
    prediction_id: str,
    load: Callable[[Version], Model],
    *,
    timezone: str = "UTC",
) -> Explanation:
    """Explain one recorded answer: version, release, run, snapshot, source files, inputs that moved it, its label.

    `timezone` is that of the system's days, on which incidents begin.
    """
    row = find_prediction(lake, system, prediction_id)
    facts = row.row(0, named=True)
    if facts["stage"] == ELSEWHERE:
        return _told(tx, lake, system, row, timezone)
    version = tx.get(Version, system, facts["version"])
    if version is None:
        raise NotFound("version", facts["version"], [v.id for v in tx.find(Version, system)])
    run = tx.get(Run, system, version.run)
    snapshot = tx.get(Snapshot, system, run.snapshot) if run else None
    model = load(version)
    label, label_known_at = _label(lake, system, facts["key"])
    classes, recorded = model.signature.classes, _recorded(facts, model)
    likeliest = max(range(len(recorded)), key=recorded.__getitem__)
    return Explanation(
        prediction_id=facts["prediction_id"],
        system=system,
        output=recorded[likeliest],
        answered=classes[likeliest] if classes else "",
        probabilities=dict(zip(classes, recorded, strict=True)) if classes else {},
        label_class=_label_class(lake, system, facts["key"]) if classes else None,
        predicted_at=facts["predicted_at"],
        event_at=facts["event_at"],
        features_known_at=facts["features_known_at"],
        key=facts["key"],
        label=label,
        label_known_at=label_known_at,
        version=version.id,
        stage=facts["stage"],
        release=facts["release"],
        run=version.run,
        trainer=run.trainer if run else "",
        trained_until=run.trained_until if run else None,
        snapshot=snapshot.id if snapshot else "",
        files=snapshot.files if snapshot else (),
        outside=facts["outside"],
        influences=influences(model, _inputs(row)),
        incidents=_about(tx, system, facts, timezone),
    )


def _told(tx: Transaction, lake: Lake, system: str, row: pl.DataFrame, timezone: str) -> Explanation:
    """What is on record of an answer that was given elsewhere: without its model no input's influence is known."""
    facts = row.row(0, named=True)
    given = {name: facts[name] for name in row.columns if name.startswith("out.") and facts[name] is not None}
    parts = {name.split(".", 2)[2]: value for name, value in given.items() if name.count(".") > 1}
    answered = max(parts, key=parts.__getitem__) if parts else ""
    label, label_known_at = _label(lake, system, facts["key"])
    inputs = _inputs(row).row(0, named=True)
    return Explanation(
        prediction_id=facts["prediction_id"],
        system=system,
        output=parts[answered] if parts else next(iter(given.values()), math.nan),
        answered=answered,
        probabilities=parts,
        label_class=_label_class(lake, system, facts["key"]) if parts else None,
        predicted_at=facts["predicted_at"],
        event_at=facts["event_at"],
        features_known_at=facts["features_known_at"],
        key=facts["key"],
        label=label,
        label_known_at=label_known_at,
        version=facts["version"],
        stage=ELSEWHERE,
        release="",
        run="",
        trainer="",
        trained_until=None,
        snapshot="",
        files=(),
        outside=facts["outside"],
        influences=tuple(Influence(column=name, value=value, change=None) for name, value in inputs.items()),
        incidents=_about(tx, system, facts, timezone),
    )


def replay(tx: Transaction, lake: Lake, system: str, prediction_id: str, load: Callable[[Version], Model]) -> Replay:
    """Compute a recorded answer again with the version that gave it. Agreement is to the parity proof's tolerance:
    float kernels differ in the last bits between batch sizes."""
    row = find_prediction(lake, system, prediction_id)
    facts = row.row(0, named=True)
    if facts["stage"] == ELSEWHERE:
        raise StateError(
            f"{facts['prediction_id']} was answered elsewhere, by version '{facts['version']}', whose model Holdfast "
            "does not have: it cannot be computed again here. `holdfast why` shows what was told of it"
        )
    version = tx.get(Version, system, facts["version"])
    if version is None:
        raise NotFound("version", facts["version"], [v.id for v in tx.find(Version, system)])
    model = load(version)
    # An answer that was no number was recorded as failed, without one; computed again it must be none again.
    before, again = _recorded(facts, model), np.atleast_1d(model.predict_frame(_inputs(row))[0]).tolist()
    # Of one probability per class the one that is farthest off.
    recorded, replayed = max(zip(before, again, strict=True), key=lambda pair: abs(pair[0] - pair[1]))
    both_failed = math.isnan(recorded) and not math.isfinite(replayed)
    difference = 0.0 if both_failed else abs(recorded - replayed)
    return Replay(
        prediction_id=facts["prediction_id"],
        recorded=recorded,
        replayed=replayed,
        difference=difference,
        agrees=difference <= TOLERANCE,
        version=version.id,
    )


def _recorded(facts: dict[str, Any], model: Model) -> list[float]:
    """The numbers of a recorded answer: one, or one per class."""
    return [_number(facts[f"out.{name}"]) for name in model.signature.outputs]


def influences(model: Model, row: pl.DataFrame) -> tuple[Influence, ...]:
    """Each input's influence on one answer: leave it out (missing) and score again (occlusion; Robnik-Šikonja and
    Kononenko 2008). Inputs that interact share their influence; the sum need not be the answer. The influence of an
    input that may not be missing, and of one without which there is no finite answer, is None."""
    changes = influence_of(model)(row)
    found = [_influence(column, row, float(changes[column.name][0])) for column in model.signature.columns]
    return tuple(sorted(found, key=lambda each: math.inf if each.change is None else -abs(each.change)))


def _influence(column: Column, row: pl.DataFrame, change: float) -> Influence:
    if column.name not in row.columns:  # it was missing, so without it nothing changes
        return Influence(column=column.name, value=None, change=0.0 if column.nullable else None)
    value = row[column.name][0]
    return Influence(
        column=column.name,
        value=_plain(value, is_time=column.type == "time"),
        change=change if math.isfinite(change) else None,
        is_outside=_is_outside(column, value),
    )


def _is_outside(column: Column, value: Any) -> bool:
    """Whether a recorded value lies outside what training saw; one that is missing does not, and no time does."""
    if value is None or column.type == "time":
        return False
    if column.type == "category":
        return bool(column.categories) and value not in column.categories
    return (column.low is not None and value < column.low) or (column.high is not None and value > column.high)


def _inputs(row: pl.DataFrame) -> pl.DataFrame:
    return row.select(pl.col(name).alias(name.removeprefix("in.")) for name in row.columns if name.startswith("in."))


def _label(lake: Lake, system: str, key: str | None) -> tuple[float | None, datetime | None]:
    labels = lake.scan(LABELS.name, system) if key is not None else pl.DataFrame()
    mine = labels.filter(pl.col("key") == key).sort("revision") if not labels.is_empty() else labels
    return (mine["value"][-1], mine["label_known_at"][-1]) if not mine.is_empty() else (None, None)


def _label_class(lake: Lake, system: str, key: str | None) -> str | None:
    labels = lake.scan(LABELS.name, system) if key is not None else pl.DataFrame()
    if labels.is_empty() or "class" not in labels.columns:
        return None
    mine = labels.filter(pl.col("key") == key).sort("revision")["class"].to_list()
    return mine[-1] if mine else None


def _about(tx: Transaction, system: str, facts: dict[str, Any], timezone: str) -> tuple[str, ...]:
    """Incidents of a recorded answer: what begins on a day is found when that day is over, so that no incident was
    open yet when the first bad answers were given."""
    at, day = facts["predicted_at"], day_of(timezone, facts["event_at"])
    return tuple(
        incident.id
        for incident in tx.find(Incident, system)
        if (incident.opened_at <= at or _had_begun(incident, day))
        and (not incident.closed_at or at < incident.closed_at)
    )


def _had_begun(incident: Incident, day: date) -> bool:
    began = incident.explained.began if incident.explained else None
    return began is not None and began <= day


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _plain(value: Any, *, is_time: bool) -> float | str | None:
    if is_time and isinstance(value, float):
        return as_text(value)
    return value if isinstance(value, str) or value is None else float(value)
