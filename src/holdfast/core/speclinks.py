"""What must hold between the sections of a system file, and between it and the plug-ins that it names."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from holdfast.core import kinds
from holdfast.core.spec import Gate, Monitor, SystemSpec
from holdfast.core.specelsewhere import check_elsewhere
from holdfast.errors import HoldfastError, did_you_mean

Broken = Iterator[tuple[str, str]]
"""What a rule yields for each thing wrong: the path within its section, and a sentence."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
"""Names that stand in paths, tables and URLs."""


RESERVED = frozenset(
    {
        *("key", "unit", "event_at", "known_at", "predicted_at", "features_known_at", "label", "label_known_at"),
        *("version", "stage", "release", "latency_ms", "outside", "request_id", "prediction_id"),
        *("candidate", "live", "linear", "trivial", "list"),
    }
)
"""Names that windows use for columns of their own."""


UNORDERED = ("calibration", "estimated_quality")
"""Checks that ask how right each answer is by itself."""


def check_system(spec: SystemSpec) -> Broken:
    """Names are usable and unique, something gates, and every promise can be measured."""
    if not NAME.fullmatch(spec.system):
        yield "system", f"the name of a system is 1 to 64 letters, digits, '-' and '_', got '{spec.system}'"
    if not spec.gates and spec.predictions is None:
        yield "gates", "no gates: a candidate that nothing checks is never released; state at least one"
    if not 0 < spec.false_alarms < float("inf"):
        yield "false_alarms", f"must be more than 0, got {spec.false_alarms:g}"
    yield from _twice("gates", [gate.name for gate in spec.gates])
    yield from _twice("monitors", [monitor.name for monitor in spec.monitors])
    yield from _reserved(spec)
    yield from _promises(spec)
    yield from _responses(spec)
    yield from _task_words(spec)
    yield from _classes(spec)
    yield from _lists(spec)
    yield from _unwatched(spec)
    yield from _sources(spec)
    yield from check_elsewhere(spec)


def _sources(spec: SystemSpec) -> Broken:
    """Rows come from files; only answers and labels of a model that is served elsewhere may come over HTTP alone."""
    posted = () if spec.predictions is None else (spec.data.rows, spec.data.label.feed)
    for name, feed in spec.data.feeds.items():
        if not feed.from_ and name not in posted:
            yield f"data.feeds.{name}", "'from' is required and not there"


def _unwatched(spec: SystemSpec) -> Broken:
    """Without a record of predictions there is nothing to watch and nothing to decide on."""
    if spec.serve.record != "none":
        return
    for at, monitor in enumerate(spec.monitors):
        if getattr(_loaded("checks", monitor.check), "needs", ()):
            yield f"monitors[{at}]", "watches recorded predictions, and with 'serve.record: none' there are none"
    for at, step in enumerate(spec.release.steps):
        if step.stage != "live":
            why = "is decided on recorded predictions: with 'serve.record: none' only [live] can be"
            yield f"release.steps[{at}]", why


def _reserved(spec: SystemSpec) -> Broken:
    output = getattr(_loaded("tasks", spec.task), "output", "")
    taken = RESERVED | {output} | {f"{output}.{name}" for name in spec.data.label.classes}
    for name in spec.data.columns:
        if name in taken:
            yield f"data.columns.{name}", f"'{name}' is a name that Holdfast uses itself; rename the column in its feed"


def _promises(spec: SystemSpec) -> Broken:
    for at, gate in enumerate(spec.gates):
        judged = getattr(_loaded("checks", gate.check), "evidence", "stated")
        if judged == "stream" and not gate.limit.is_stated:
            yield f"gates[{at}]", f"'{gate.check}' promises nothing yet: state at_least, at_most or no_worse_than"


def _responses(spec: SystemSpec) -> Broken:
    watched = {monitor.check for monitor in spec.monitors}
    for at, response in enumerate(spec.responses):
        if response.on in kinds.registered("checks") and response.on not in watched:
            yield f"responses[{at}].on", f"has no effect: no monitor runs the check '{response.on}'"


def _task_words(spec: SystemSpec) -> Broken:
    """Losses and metrics are those of the task."""
    task = _loaded("tasks", spec.task)
    if task is None:
        return  # the task itself is wrong, which is said where it is named
    yield from _metrics(task(), "monitors", spec.monitors)
    yield from _unpromised(task(), spec.monitors)
    if spec.predictions is not None:
        return
    losses = tuple(getattr(task, "losses", ()))
    loss = spec.release.decide.loss
    if loss not in losses:
        yield "release.decide.loss", f"{spec.model.task} has no loss '{loss}'{did_you_mean(loss, losses)}"
    yield from _metrics(task(), "gates", spec.gates)


def _classes(spec: SystemSpec) -> Broken:
    """Classes are listed where the task is about some, and nowhere else; what does not know them is refused."""
    classes, least = spec.data.label.classes, getattr(_loaded("tasks", spec.task), "least_classes", 0)
    if not least:
        if classes:
            yield "data.label.classes", f"has no effect: the task '{spec.task}' is not about classes; remove it"
        return
    if len(classes) < least:
        listed = f"{len(classes)} are listed" if classes else "none is listed"
        why = f"'{spec.task}' needs the classes of the label, {least} or more, and {listed}"
        yield "data.label.classes", f"{why}; for two, make a column of true and false and use 'classification'"
    if spec.release.decide.goal is not None:
        yield "release.decide.goal", f"is about the mean label, and a label of the task '{spec.task}' is a class"


def _lists(spec: SystemSpec) -> Broken:
    """A task that orders rows within lists knows which list a row is in, and is asked nothing that needs one truth."""
    if not getattr(_loaded("tasks", spec.task), "is_listwise", False):
        return
    if spec.predictions is not None:
        why = "answers of a model that is served elsewhere come row by row, without the list that a row is in"
        yield "predictions.task", f"{why}; serve it here, or log what became of the first place as 'classification'"
    elif spec.data.unit is None:
        yield "data.unit", f"is required with '{spec.task}': the column that says which list a row is in"
    checks = [(f"gates[{at}].check", gate.check) for at, gate in enumerate(spec.gates)]
    checks += [(f"monitors[{at}].check", monitor.check) for at, monitor in enumerate(spec.monitors)]
    for where, check in checks:
        if check in UNORDERED:
            yield where, f"'{check}' is about single answers; '{spec.task}' orders them"


def _metrics(task: Any, section: str, entries: Iterable[Gate | Monitor]) -> Broken:
    for at, entry in enumerate(entries):
        metric = entry.options.get("metric")
        if metric is None or "task" not in getattr(_loaded("checks", entry.check), "facts", ()):
            continue
        try:
            task.higher_is_better(metric)
        except HoldfastError as error:
            yield f"{section}[{at}].metric", str(error)


def _unpromised(task: Any, monitors: Iterable[Monitor]) -> Broken:
    """A metric that a version promises nothing of needs a limit: without one a monitor could never say anything."""
    promised = (*getattr(task, "losses", ()), *getattr(task, "errors", ()))
    for at, monitor in enumerate(monitors):
        check, metric = _loaded("checks", monitor.check), monitor.options.get("metric")
        if monitor.limit.is_stated or metric is None or metric in promised:
            continue
        if getattr(check, "evidence", "stated") != "stream" or "task" not in getattr(check, "facts", ()):
            continue
        is_higher = _higher_is_better(task, metric)
        if is_higher is None:
            continue  # the task has no such metric, which is said where metrics are looked at
        limit = "at_least" if is_higher else "at_most"
        taken = ", ".join(name for name in promised if _higher_is_better(task, name) is not None)
        yield (
            f"monitors[{at}].metric",
            f"a version promises nothing of '{metric}', so without a limit this could never say whether it is good: "
            f"state {limit}{taken and f', or watch what is promised: {taken}'}",
        )


def _higher_is_better(task: Any, metric: str) -> bool | None:
    """Of a metric of the task; None of what is none."""
    try:
        return bool(task.higher_is_better(metric))
    except HoldfastError:
        return None


def _loaded(group: str, name: str) -> Any:
    """The class of a kind, or None where it cannot be loaded, which is said where it is named."""
    try:
        return kinds.load(group, name)
    except Exception:  # noqa: BLE001 - a plug-in's module is foreign code
        return None


def _twice(section: str, names: Iterable[str]) -> Broken:
    first: dict[str, int] = {}
    for at, name in enumerate(names):
        if name in first:
            yield f"{section}[{at}].name", f"'{name}' is the name of {section}[{first[name]}] already"
        first.setdefault(name, at)
