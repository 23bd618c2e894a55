"""Trains one candidate. In: a snapshot and the system file. Out: an artifact, proved; its metrics beside the
baselines' on rows that nothing was fitted on; everything a run records.

Time order throughout: a model is only ever scored on rows that lie after all it was fitted on, and is only fitted on
labels that were known before the first row it is scored on.
"""

import platform
from collections.abc import Callable
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import polars.selectors as cs

from holdfast.core import kinds, transform
from holdfast.core.classes import task_of
from holdfast.core.clock import cpu_s, stopwatch_s
from holdfast.core.inputs import read_frame
from holdfast.core.model import Facts
from holdfast.core.protocols import Fitted, Task, Trainer
from holdfast.core.records import Baseline
from holdfast.core.signature import Column, Rows, Signature
from holdfast.core.spans import ALL, Choice, Span
from holdfast.core.spec import SystemSpec
from holdfast.core.targets import LIST, labels_of, target_of
from holdfast.core.transform import Transform
from holdfast.errors import HoldfastError, did_you_mean
from holdfast.flow import windows
from holdfast.flow.classes import answers as as_answers
from holdfast.flow.parity import Proof, export_proved
from holdfast.flow.splits import Split, folds_of, narrowed, split_rows, weights_of
from holdfast.security.artifacts import artifact_hash, describe, open_model
from holdfast.security.verifying import read_files

FloatArray = np.ndarray[Any, np.dtype[np.floating[Any]]]
Progress = Callable[[str, float], None]
"""Told the stage that begins and the share of the work that is done, in [0, 1]."""

INNER_SHARE = 0.15
"""Share of the rows to be fitted, the newest, that decides when to stop; then all of them are fitted."""
PACKAGES = ("holdfast", "numpy", "polars", "lightgbm", "scikit-learn", "onnx", "onnxruntime")
ARTIFACT, RESULT, HOLDOUT = "artifact", "result.json", "holdout.parquet"
VALIDATED = "validated.parquet"
"""What the validation folds answered: rows later than all that was fitted for them, so honest answers."""


class TrainingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is trained on what. `out` is a directory that this training owns."""

    spec: SystemSpec
    snapshot: Path
    """Parquet with `key`, `event_at`, `label`, `label_known_at` and the columns of the spec; others are left alone."""
    seed: int
    now: datetime
    out: Path
    present: Span = ALL
    """The window of the live version: what ``model.window: auto`` keeps unless another one is better for sure."""


class TrainingResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came out, as ``result.json`` keeps it. Beside it lie ``artifact/``, ``holdout.parquet``, the held-out rows
    with the answers to them, and ``validated.parquet``: ``key``, ``event_at``, ``label``, and as ``candidate`` what the
    model of the row's validation fold answered."""

    trainer: str
    params: dict[str, Any]
    """As used: with the number of rounds that was chosen."""
    seed: int
    metrics: dict[str, float]
    """On the hold-out; one that is undefined there is left out."""
    folds: tuple[dict[str, float], ...]
    curves: dict[str, list[float]]
    """Loss per round on the inner training and validation rows."""
    baselines: tuple[Baseline, ...]
    """``trivial`` and ``linear``, on the same hold-out rows."""
    took_s: float
    cpu_s: float
    environment: dict[str, str]
    artifact: str
    """Hash of the artifact; see `security.artifacts`."""
    signature_hash: str
    runtime: str
    parity: str
    rows: int
    """Rows that the deployed model was fitted on."""
    trained_from: datetime
    trained_until: datetime
    """Event times between which those rows lie, the end exclusive: the reference for drift."""
    holdout: tuple[datetime, datetime]
    holdout_rows: int
    window: Choice | None = None
    """What was fitted, and why; None in results of before windows were chosen."""


def train(request: TrainingRequest, progress: Progress | None = None) -> TrainingResult:
    """Train, prove and score one candidate. Reads the snapshot, writes into `request.out`, touches nothing else.

    The model that is scored on the hold-out is the one that is deployed. Same snapshot, spec, seed and now: same
    artifact. Raises DataError when there are too few labelled rows, InvalidInput when a row does not fit the spec,
    HoldfastError for parameters that the trainer does not have, ParityFailed when no export agrees.
    """
    started, cpu_before = stopwatch_s(), cpu_s()
    tell = progress or (lambda _stage, _share: None)
    tell("read", 0.0)
    split = split_rows(request.spec, request.snapshot, request.now)
    span, chosen = _window(request, split, tell)
    split = narrowed(request.spec, split, span)
    maker = _Maker(request, split.fit)
    tell("folds", 0.1)
    scored = [maker.score_fold(fit, span, test) for fit, test in folds_of(request.spec, split, span)]
    tell("fit", 0.4)
    fit = maker.prepare(split.fit, span)
    tuned, _ = maker.tune(split.fit, span)
    fitted = maker.fit_all(maker.like(tuned), fit)
    tell("baselines", 0.7)
    held = maker.prepare(split.holdout, ALL, fit.transform)
    answers, baselines = maker.baselines(fit, held)
    tell("prove", 0.85)
    artifact = _artifact_directory(request.out)
    proof = export_proved(fitted, np.concatenate([fit.x, held.x]), artifact)
    facts = _facts(request, maker.task, fitted, proof, split)
    for name, data in describe(maker.signature, fit.transform, facts).items():
        (artifact / name).write_bytes(data)
    tell("write", 0.95)
    # What is deployed is what is scored: the exported model answers, not the one it was made from.
    answers["candidate"] = open_model(artifact).runtime.run(held.x).astype(np.float64)
    columns = [as_answers(name, answer) for name, answer in answers.items()]
    split.holdout.with_columns(columns).write_parquet(request.out / HOLDOUT)
    validated = [rows for _, rows in scored] or [_scored(split.holdout.clear(), np.zeros(maker.signature.shape(0)))]
    pl.concat(validated).write_parquet(request.out / VALIDATED)
    result = TrainingResult(
        trainer=facts.trainer,
        params=dict(fitted.params),
        seed=request.seed,
        metrics=maker.metrics(held.y, answers["candidate"]),
        folds=tuple(metrics for metrics, _ in scored),
        curves=dict(tuned.curves),
        baselines=baselines,
        took_s=stopwatch_s() - started,
        cpu_s=cpu_s() - cpu_before,
        environment={"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        artifact=artifact_hash(read_files(artifact)),
        signature_hash=maker.signature.hash(),
        runtime=proof.runtime,
        parity=proof.text,
        rows=facts.rows,
        trained_from=split.fit_from,
        trained_until=split.start,
        holdout=(split.start, split.end),
        holdout_rows=len(held.y),
        window=chosen,
    )
    (request.out / RESULT).write_bytes(msgspec.json.encode(result))
    return result


def read_result(out: Path) -> TrainingResult:
    """The result that `train` wrote into a directory."""
    return msgspec.json.decode((out / RESULT).read_bytes(), type=TrainingResult)


def _window(request: TrainingRequest, split: Split, tell: Progress) -> tuple[Span, Choice]:
    """What is fitted: as the file states, or chosen on the rows before the hold-out. Each fit is told."""
    stated = request.spec.model.window
    maker = _Maker(request, split.history)
    if stated.half_life is not None and not windows.can_weigh(maker.trainer):
        raise HoldfastError(
            f"model.window: trainer {request.spec.model.trainer} cannot weight rows, so there is no half-life; "
            "give a duration such as 90d, all, or auto"
        )
    if not stated.auto:
        return stated, windows.stated(stated)
    return windows.choose(
        request.spec,
        maker.task,
        split.history,
        split.start,
        maker.settle,
        maker.answer,
        present=request.present,
        weighted=windows.can_weigh(maker.trainer),
        tell=lambda share: tell("window", 0.1 * share),
    )


class _Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A matrix, its targets, how much each row counts, and the transform that made it."""

    x: Any
    y: Any
    weights: Any
    """None where all rows count alike."""
    transform: Transform


class _Maker:
    """Fits and scores the models of one training: they share task, trainer, signature and seed."""

    def __init__(self, request: TrainingRequest, fit: pl.DataFrame) -> None:
        model = request.spec.model
        self.seed = request.seed
        self.timezone = request.spec.data.timezone
        self.task: Task = task_of(request.spec)
        self.trainer: Trainer = _make_trainer(model.trainer, model.params)
        self.signature = signature_of(request.spec, self.task, fit)

    def prepare(self, frame: pl.DataFrame, span: Span, fitted: Transform | None = None) -> _Prepared:
        """The frame as a matrix, by a transform fitted on it or by the one given, weighted as a window says."""
        rows, y = read_frame(self.signature, frame), target_of(self.task, frame)
        made = fitted or transform.fit(self.signature, rows, labels_of(y), timezone=self.timezone)
        return _Prepared(x=made.matrix(rows), y=y, weights=weights_of(frame, span), transform=made)

    def settle(self, frame: pl.DataFrame, span: Span) -> Trainer:
        """The trainer with the parameters that these rows settle on."""
        return self.like(self.tune(frame, span)[0])

    def answer(self, trainer: Trainer, frame: pl.DataFrame, span: Span, test: pl.DataFrame) -> FloatArray:
        """What a model fitted on the frame answers to other rows."""
        rows = self.prepare(frame, span)
        return self.fit_all(trainer, rows).predict(self.prepare(test, ALL, rows.transform).x)

    def tune(self, frame: pl.DataFrame, span: Span) -> tuple[Fitted, Transform]:
        """A model fitted on the older rows that the newest told when to stop, and its transform."""
        newest = max(1, int(len(frame) * INNER_SHARE))
        older = self.prepare(frame.head(len(frame) - newest), span)
        newer = self.prepare(frame.tail(newest), ALL, older.transform)
        return self.fit_all(self.trainer, older, (newer.x, newer.y)), older.transform

    def score_fold(self, fit: pl.DataFrame, span: Span, test: pl.DataFrame) -> tuple[dict[str, float], pl.DataFrame]:
        """Metrics on rows that come after those that are fitted, and the rows with what was answered; the fold stops by
        its own inner rows."""
        fitted, made = self.tune(fit, span)
        later = self.prepare(test, ALL, made)
        answers = fitted.predict(later.x)
        return self.metrics(later.y, answers), _scored(test, answers)

    def like(self, tuned: Fitted) -> Trainer:
        """The trainer with the parameters that a fit settled on."""
        trainer: Trainer = type(self.trainer)(**tuned.params)
        return trainer

    def fit_all(self, trainer: Trainer, rows: _Prepared, valid: tuple[FloatArray, FloatArray] | None = None) -> Fitted:
        """One fit on all rows that are given."""
        sizes = rows.transform.sizes
        # Given only where rows differ, so that a trainer that knows no weights does for all other windows.
        weighted = {} if rows.weights is None else {"weights": rows.weights}
        return trainer.fit(rows.x, rows.y, valid=valid, task=self.task, categories=sizes, seed=self.seed, **weighted)

    def baselines(self, fit: _Prepared, held: _Prepared) -> tuple[dict[str, FloatArray], tuple[Baseline, ...]]:
        """What the best constant and the plain linear model answer on the hold-out, as columns and as metrics."""
        best = np.asarray(self.task.trivial(fit.y), dtype=np.float64)
        constant = np.full((len(held.y), *best.shape), best)
        before = stopwatch_s()
        linear = self.fit_all(kinds.load("trainers", "linear")(), fit).predict(held.x)
        took = stopwatch_s() - before
        return {"linear": linear, "trivial": constant}, (
            Baseline(name="trivial", metrics=self.metrics(held.y, constant)),
            Baseline(name="linear", metrics=self.metrics(held.y, linear), took_s=took),
        )

    def metrics(self, y: FloatArray, output: FloatArray) -> dict[str, float]:
        """The task's metrics that are defined on these rows."""
        return {name: value for name, value in self.task.metrics(y, output).items() if np.isfinite(value)}


def _scored(rows: pl.DataFrame, answers: FloatArray) -> pl.DataFrame:
    return rows.select(
        "key", "event_at", "label", cs.by_name(LIST, require_all=False), as_answers("candidate", answers)
    )


def _make_trainer(name: str, params: Any) -> Trainer:
    """The trainer with its parameters from the file. Raises HoldfastError naming one that it does not have."""
    kind = kinds.load("trainers", name)
    try:
        trainer: Trainer = msgspec.convert(dict(params), kind)
    except msgspec.ValidationError as error:
        known = tuple(kind.__struct_fields__)
        unknown = next((param for param in params if param not in known), None)
        near = did_you_mean(str(unknown), known) if unknown else ""
        raise HoldfastError(f"model.params of trainer {name}: {error}{near}") from error
    return trainer


def signature_of(spec: SystemSpec, task: Task, fit: pl.DataFrame) -> Signature:
    """The signature of a version: the file's columns, with the ranges and categories that it leaves open as seen."""
    columns = tuple(spec.data.columns.values())
    pinned = Signature(columns=columns, task=task.name, output=task.output, classes=task.classes)
    rows = read_frame(pinned, fit)
    made = msgspec.structs.replace(pinned, columns=tuple(_seen(column, rows) for column in pinned.columns))
    # As it will be read from its file, where a bound given as 0 is 0.0: else its hash would differ.
    return msgspec.json.decode(msgspec.json.encode(made), type=Signature)


def _seen(column: Column, rows: Rows) -> Column:
    values = rows.columns[column.name]
    if column.type == "category":
        if column.categories:
            return column
        return msgspec.structs.replace(column, categories=tuple(sorted({v for v in values if v is not None})))
    # The times of what will be asked about lie beyond any that training saw: they have no range.
    if column.type in ("boolean", "time") or np.isnan(values).all():
        return column
    low = float(np.nanmin(values)) if column.low is None else column.low
    high = float(np.nanmax(values)) if column.high is None else column.high
    return msgspec.structs.replace(column, low=low, high=high)


def _artifact_directory(out: Path) -> Path:
    """An empty directory for the artifact; what an attempt before this one left there is removed."""
    directory = out / ARTIFACT
    directory.mkdir(parents=True, exist_ok=True)
    for path in directory.iterdir():
        path.unlink()
    return directory


def _facts(request: TrainingRequest, task: Task, fitted: Fitted, proof: Proof, split: Split) -> Facts:
    return Facts(
        system=request.spec.system,
        task=task.name,
        trainer=request.spec.model.trainer,
        params=dict(fitted.params),
        seed=request.seed,
        runtime=proof.runtime,
        parity=proof.text,
        rows=len(split.fit),
        trained_from=split.fit_from.isoformat(),
        trained_until=split.start.isoformat(),
    )
