"""What a system file with `predictions` must keep: nothing in it needs a model that Holdfast has made."""

from collections.abc import Iterator

from holdfast.core import kinds
from holdfast.core.classes import in_order
from holdfast.core.signature import Signature
from holdfast.core.spec import MODELLED, NO_MODEL, NO_RELEASE, Expect, SystemSpec
from holdfast.errors import StateError

WHERE = "the model is served elsewhere ('predictions')"
ROUNDING = 0.01
"""How far the probabilities of all classes may be from 1 together."""
TOLERANCE = 1e-6
"""How far a probability may be outside of 0 to 1: a server that counts in float32 rounds so. It is taken as the end."""
NEEDS_MODEL = ("retrain", "rollback")
"""Actions that change which version answers."""
ASSEMBLED = ("key", "unit", "event_at", "known_at", "label", "label_known_at")
"""Columns that every joined row has beside those of its feed."""
NEEDS_SERVING = ("latency",)
"""Checks of what only who serves can see."""
ASKS_MODEL = ("attribution",)
"""Checks that ask the model itself."""


def must_have_model(spec: SystemSpec, why: str) -> None:
    """Raise StateError, with the reason, where the model is served elsewhere."""
    if spec.predictions is not None:
        raise StateError(f"the model of '{spec.system}' is served elsewhere and only watched here: {why}")


def check_elsewhere(spec: SystemSpec) -> Iterator[tuple[str, str]]:
    """What cannot take effect is refused, and what identifies an answer is there."""
    predictions = spec.predictions
    if predictions is None:
        return
    given = {"model": spec.model != NO_MODEL, "gates": bool(spec.gates), "release": spec.release != NO_RELEASE}
    for section in MODELLED:
        if given[section]:
            yield section, f"cannot take effect: {WHERE}; remove '{section}', or 'predictions'"
    for at, response in enumerate(spec.responses):
        if response.do in NEEDS_MODEL:
            yield f"responses[{at}].do", f"'{response.do}' cannot take effect: {WHERE}; notify somebody instead"
    for at, monitor in enumerate(spec.monitors):
        if monitor.check in NEEDS_SERVING:
            yield f"monitors[{at}].check", f"'{monitor.check}' cannot be measured: {WHERE}"
        if monitor.check in ASKS_MODEL:
            yield f"monitors[{at}].check", f"'{monitor.check}' cannot be measured: {WHERE}, so there is none to ask"
    yield from _data(spec)
    yield from _serve(spec)
    rows = spec.data.feeds.get(spec.data.rows)
    if rows is not None and not rows.key:
        why = "needs 'key', the column that identifies an answer, so that one counts once"
        yield f"data.feeds.{spec.data.rows}", why
    scores = _scores(spec)
    named = [*(("predictions.score", name) for name in scores), ("predictions.version", predictions.version)]
    keys = rows.key if rows is not None else ()
    named += [(f"data.feeds.{spec.data.rows}.key", name) for name in keys if name != spec.data.key]
    for where, column in named:
        if column in ASSEMBLED:
            yield where, f"'{column}' is a name that Holdfast uses itself; rename the column in the log"
    for where, column in (*(("score", name) for name in scores), ("version", predictions.version)):
        if column and column in spec.data.columns:
            yield f"predictions.{where}", f"'{column}' is among the columns; a model does not see what it answers"
    for column in scores:
        if column in (predictions.version, spec.data.label.column):
            yield "predictions.score", f"'{column}' holds something else already"


def _scores(spec: SystemSpec) -> tuple[str, ...]:
    """The columns of the log that hold an answer; none where neither the file nor a task that there is names them."""
    assert spec.predictions is not None
    score = spec.predictions.score
    if not score and spec.task in kinds.registered("tasks"):
        score = str(kinds.load("tasks", spec.task).output)
    return answer_columns(score, spec) if score else ()


def _data(spec: SystemSpec) -> Iterator[tuple[str, str]]:
    if spec.data.unit is not None:
        yield "data.unit", f"has no effect: {WHERE}, where traffic is split too"
    if spec.data.expect != Expect():
        yield "data.expect", f"has no effect: it is asked of what is trained on, and {WHERE}"


def _serve(spec: SystemSpec) -> Iterator[tuple[str, str]]:
    serve = spec.serve
    if serve.record == "none":
        yield "serve.record", "with 'none' nothing is recorded, so nothing can be watched"
    if serve.unrecorded == "shed":
        yield "serve.unrecorded", f"has no effect: {WHERE}; what cannot be recorded is refused"
    if serve.cache:
        yield "serve.cache", f"has no effect: {WHERE}, and nothing is answered here"


def stated_signature(spec: SystemSpec, output: str) -> Signature:
    """What the answers are said to be made from, by the file: what is handed in must fit it."""
    classes = in_order(spec.data.label.classes)
    return Signature(columns=tuple(spec.data.columns.values()), task=spec.task, output=output, classes=classes)


def answer_columns(score: str, spec: SystemSpec) -> tuple[str, ...]:
    """The columns of the log that hold an answer: the score, or ``<score>.<class>`` for each class in order."""
    return tuple(f"{score}.{name}" for name in in_order(spec.data.label.classes)) or (score,)
