"""Checks on answers of one probability per class: columns of arrays, with a column per class beside them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest

from holdfast.checks.calibration import Calibration
from holdfast.checks.drift import Drift
from holdfast.checks.estimated_quality import EstimatedQuality
from holdfast.checks.labelled import labelled
from holdfast.checks.quality import Quality
from holdfast.checks.silence import Silence
from holdfast.checks.slices import Slices
from holdfast.core.evidence import Role, Window
from holdfast.errors import UnknownKind
from holdfast.flow.classes import answers, parted
from holdfast.stats import histogram
from holdfast.tasks.multiclass import Multiclass

CLASSES = ("a", "b", "c")
TASK = Multiclass(CLASSES)
PARTS = [f"probability.{name}" for name in CLASSES]
ROLES = {"x": Role.INPUT, "probability": Role.OUTPUT, "label": Role.LABEL, "key": Role.KEY} | dict.fromkeys(
    PARTS, Role.PART
)


def day(seed: int, *, rows: int = 200, moved: int = 0, sure: float = 1.0) -> pl.DataFrame:
    """Answers that come true; `moved` turns the labels, `sure` above 1 exaggerates."""
    random = np.random.default_rng(seed)
    p = random.dirichlet(np.full(3, 0.7), rows)
    y = (p.cumsum(axis=1) < random.random(rows)[:, None]).sum(axis=1).clip(0, 2)
    told = p**sure
    told /= told.sum(axis=1, keepdims=True)
    frame = pl.DataFrame(
        {
            "x": random.normal(size=rows),
            "key": [f"{seed}-{i}" for i in range(rows)],
            "label": ((y + moved) % 3).astype(np.float64),
        }
    )
    return parted(frame.with_columns(answers("probability", told)), "probability", CLASSES)


@pytest.fixture
def of(window: Callable[..., Window]) -> Callable[..., Window]:
    """`of(frames, **facts)`: a window of these days."""

    def build(frames: list[pl.DataFrame], first: int = 0, **facts: Any) -> Window:
        edges = {name: histogram.edges_of(day(99)[name].to_numpy()) for name in ("x", "label", *PARTS)}
        return window(frames, {"task": TASK, "edges": edges, "earlier": ()} | facts, first=first, roles=ROLES)

    return build


def test_quality_is_that_of_the_labelled_rows(of: Callable[..., Window]) -> None:
    frames = [day(1), day(2).with_columns(label=pl.when(pl.col("x") > 0).then("label"))]
    both = pl.concat(frames).filter(pl.col("label").is_not_null())
    expected = TASK.metrics(both["label"].to_numpy(), both["probability"].to_numpy())
    for metric in ("brier", "accuracy", "f1_macro", "roc_auc"):
        [reading] = Quality(metric=metric).measure(of(frames), None)
        assert reading.value == pytest.approx(expected[metric])
        assert reading.rows == both.height
        assert reading.low is not None
        assert reading.high is not None
        assert reading.low < expected[metric] < reading.high


def test_a_class_that_is_not_known_counts_as_wrong_and_is_told(of: Callable[..., Window]) -> None:
    strange = day(1).with_columns(label=pl.when(pl.col("x") > 1).then(-1.0).otherwise("label"))
    [reading] = Quality(metric="accuracy").measure(of([strange]), None)
    [before] = Quality(metric="accuracy").measure(of([day(1)]), None)
    assert reading.value < before.value
    assert f"{(strange['label'] < 0).sum()} labels are none of the classes and count as wrong" in reading.note


def test_rows_without_an_answer_are_no_evidence(of: Callable[..., Window]) -> None:
    silent = day(1).with_columns(pl.when(pl.col("x") > 0).then(name).alias(name) for name in ("probability", *PARTS))
    [(y, p)] = labelled(of([silent]))
    assert len(y) == len(p) == (silent["x"] > 0).sum()
    [nothing] = Quality(metric="brier").measure(of([silent.clear()]), None)
    assert nothing.value is None


def test_calibration_is_that_of_the_likeliest_class(of: Callable[..., Window]) -> None:
    frames = [day(seed, rows=600, sure=3.0) for seed in range(3)]
    error, bias = Calibration().measure(of(frames), None)
    rows = pl.concat(frames)
    expected = TASK.metrics(rows["label"].to_numpy(), rows["probability"].to_numpy())
    assert (error.value, bias.value) == pytest.approx((expected["calibration_error"], abs(expected["bias"])))
    assert "too high" in bias.note
    assert Calibration().measure(of([day(1, rows=2000)]), None)[0].value < 0.05 < error.value


def test_each_class_is_watched_for_drift_on_its_own(of: Callable[..., Window]) -> None:
    reference = of([day(seed) for seed in range(10)])
    calm = {reading.subject: reading.value for reading in Drift().measure(of([day(50)], first=20), reference)}
    assert set(calm) == {"x", *PARTS}
    moved = day(51).with_columns(pl.col(PARTS[0]).sqrt())
    found = {reading.subject: reading.value for reading in Drift().measure(of([moved], first=20), reference)}
    assert found[PARTS[0]] > 5 * calm[PARTS[0]]
    assert found[PARTS[1]] < 5 * calm[PARTS[1]]


def test_a_class_whose_answer_never_varies_is_found(of: Callable[..., Window]) -> None:
    dead = day(50).with_columns(pl.lit(0.2).alias(PARTS[2]))
    readings = Silence().measure(
        of([dead], first=20, now=None, monitors={}, mature_until=None), of([day(seed) for seed in range(10)], first=10)
    )
    bad = {reading.subject for reading in readings if Silence().grade(reading)[0].value == "fail"}
    assert PARTS[2] in bad
    assert PARTS[0] not in bad


@pytest.mark.slow
def test_a_segment_that_got_worse_is_found(of: Callable[..., Window]) -> None:
    reference = of([day(seed) for seed in range(20)])
    worse = [
        frame.with_columns(label=pl.when(pl.col("x") > 0.8).then((pl.col("label") + 1) % 3).otherwise("label"))
        for frame in (day(seed) for seed in range(30, 40))
    ]
    [first, *_] = Slices().measure(of(worse, first=30), reference)
    assert "x" in first.subject
    assert first.value > 0.1


@pytest.mark.parametrize("metric", ["brier", "f1_macro", "roc_auc"])
def test_quality_is_estimated_without_labels(of: Callable[..., Window], metric: str) -> None:
    reference = of([day(seed, sure=2.0) for seed in range(20)])
    frames = [day(seed, sure=2.0) for seed in range(60, 67)]
    now = of([frame.with_columns(label=pl.lit(None, pl.Float64)) for frame in frames], first=60)
    [reading] = EstimatedQuality(metric=metric, worse=False).measure(now, reference)
    rows = pl.concat(frames)
    truth = TASK.metrics(rows["label"].to_numpy(), rows["probability"].to_numpy())[metric]
    assert reading.low < truth < reading.high
    assert reading.value == pytest.approx(truth, abs=0.05)
    [worse] = EstimatedQuality(metric=metric, worse=True).measure(now, reference)
    assert worse.name == f"{metric}_worse"
    assert abs(worse.value) < 0.1


def test_what_cannot_be_estimated_says_why(of: Callable[..., Window]) -> None:
    reference = of([day(seed) for seed in range(5)])
    same = day(60).with_columns(answers("probability", np.tile([0.2, 0.3, 0.5], (200, 1))))
    [reading] = EstimatedQuality().measure(of([same], first=60), reference)
    assert reading.value is None
    assert "every answer in the window is the same" in reading.note
    one = [day(seed).with_columns(label=pl.lit(1.0)) for seed in range(5)]
    [reading] = EstimatedQuality().measure(of([day(60)], first=60), of(one))
    assert "every label of the reference is of one class" in reading.note
    with pytest.raises(UnknownKind, match="f1_macro"):
        EstimatedQuality(metric="f1").measure(of([day(60)], first=60), reference)
