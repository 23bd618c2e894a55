"""What a system file must keep beyond its types: every setting can take effect and every name refers to something.

A rule takes one section and yields ``(path within the section, message)`` for each thing wrong.
"""

import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from difflib import get_close_matches
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from holdfast.core import kinds
from holdfast.core.classes import class_name
from holdfast.core.evidence import Limit
from holdfast.core.signature import Column
from holdfast.core.spec import (
    Data,
    Decide,
    Expect,
    Feed,
    Gate,
    Label,
    Model,
    Monitor,
    Predictions,
    ReleasePlan,
    Response,
    Serve,
    Stretch,
    SystemSpec,
    Validate,
)
from holdfast.core.speclinks import NAME, Broken, check_system
from holdfast.core.specwords import write_duration
from holdfast.errors import did_you_mean

_NOTHING = timedelta(0)


_PASSWORD = re.compile(
    r"^[^:/@]*:(?!//)[^@]+@"  # user:password@host, without what goes before it
    r"|//[^:/@]*:[^@]+@"
    r"|(?:[?&;]|%3b)(?:password|passwd|pwd|sslpassword)(?:=|%3d).",
    re.IGNORECASE,
)


def _holds_password(url: str) -> bool:
    """Whether a database URL has a password in it. That of SQLite is a path."""
    return not url.startswith("sqlite") and _PASSWORD.search(url) is not None


def check_feed(feed: Feed) -> Broken:
    """Every join setting has what it needs to take effect."""
    if feed.query and not feed.known_at:
        yield "query", "needs 'known_at', the column that says which rows are new"
    if feed.query and not feed.from_:
        yield "query", "needs 'from', the database that is asked, such as postgresql+psycopg://... or $NAME"
    if feed.query and _holds_password(feed.from_):
        yield "from", "holds a password, which would be shown and stored; put it into an environment variable: $NAME"
    if feed.aggregate:
        for setting in ("last", "by", "known_at"):
            if not getattr(feed, setting):
                yield "aggregate", f"an aggregate needs '{setting}' too; {_WHY[setting]}"
    if feed.last is not None and not feed.aggregate:
        yield "last", "has no effect without 'aggregate'; name what is aggregated, or remove it"
    if feed.within is not None and not feed.take:
        yield "within", "has no effect without 'take'; name what is taken, or remove it"
    if feed.within is not None and feed.take and not feed.known_at:
        yield "within", "has no effect without 'known_at', which says how old a value is"
    if feed.by and not (feed.take or feed.aggregate):
        yield "by", "has no effect without 'take' or 'aggregate'; name what is joined, or remove it"
    if feed.take and not feed.by and not feed.known_at:
        yield "take", "needs 'by' (the columns to join on) or 'known_at' (the time to join as of)"
    if feed.fresh is not None and not (feed.known_at or feed.event_at):
        yield "fresh", "has no effect without 'known_at' or 'event_at', which say how old a row is"
    yield from _positive(feed, "last", "within", "fresh")
    for column, functions in feed.aggregate.items():
        if not functions or len(set(functions)) < len(functions):
            yield f"aggregate.{column}", "name each function once: mean, min, max, sum or count"


_WHY = {
    "last": "it says how far back to look, for example last: 6h",
    "by": "it says whose rows are aggregated, for example by: origin",
    "known_at": "without it, rows from the future would be aggregated",
}


def check_label(label: Label) -> Broken:
    if label.mature_after < _NOTHING:
        yield "mature_after", "must not be negative"
    twice = sorted({name for name in label.classes if label.classes.count(name) > 1})
    if twice:
        yield "classes", f"the class '{twice[0]}' stands twice"
    for name in label.classes:
        if name != class_name(name) or not name.strip():
            yield "classes", f"'{name}' is not how a class is called: write '{class_name(name).strip() or 'a name'}'"


def check_expect(expect: Expect) -> Broken:
    for column, share in expect.complete.items():
        yield from _share(f"complete.{column}", share)
    yield from _share("bad_rows", expect.bad_rows)
    if expect.rows < 0:
        yield "rows", f"must be 0 or more, got {expect.rows}"


def check_column(column: Column) -> Broken:
    if column.low is not None and column.high is not None and column.low > column.high:
        yield "", f"the range ends ({column.high:g}) before it begins ({column.low:g})"
    twice = sorted({name for name in column.categories if column.categories.count(name) > 1})
    if twice:
        yield "", f"the category '{twice[0]}' stands twice"


def check_data(data: Data) -> Broken:
    """Names refer to feeds and columns that exist, every feed is used, and the time zone is known."""
    for name in data.feeds:
        if not NAME.fullmatch(name):
            yield f"feeds.{name}", "the name of a feed is 1 to 64 letters, digits, '-' and '_'"
    for path, feed in (("rows", data.rows), ("label.feed", data.label.feed)):
        if feed not in data.feeds:
            yield path, f"no feed '{feed}'{did_you_mean(feed, tuple(data.feeds))}"
    rows = data.feeds.get(data.rows)
    if rows is not None and not rows.event_at:
        yield f"feeds.{data.rows}", "the feed that is predicted needs 'event_at', the time that places a row in a day"
    known = {data.rows, data.label.feed} <= set(data.feeds)
    for name, part in data.feeds.items() if known else ():
        if name not in (data.rows, data.label.feed) and not (part.take or part.aggregate):
            yield f"feeds.{name}", "is never used; say what to 'take' or 'aggregate' from it, or remove it"
    if not data.columns:
        yield "columns", "a model needs at least one column"
    if data.label.column in data.columns:
        yield "label.column", f"'{data.label.column}' is among the columns; a model must not see what it predicts"
    yield from _unknown_complete(data)
    yield from _timezone(data.timezone)


def _unknown_complete(data: Data) -> Broken:
    rows = data.feeds.get(data.rows)
    times = (rows.event_at, rows.known_at, *rows.key) if rows is not None else ()
    known = [*data.columns, data.key, data.label.column, *filter(None, (data.unit, *times))]
    for column in data.expect.complete:
        if column not in known:
            yield f"expect.complete.{column}", f"no column '{column}'{did_you_mean(column, known)}"


def _timezone(name: str) -> Broken:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # OSError: the name is a directory, such as America
        yield (
            "timezone",
            f"no time zone '{name}'{did_you_mean(name, get_close_matches(name, sorted(available_timezones()), n=1))}",
        )


def check_validate(validate: Validate) -> Broken:
    if validate.folds < 1:
        yield "folds", f"must be 1 or more, got {validate.folds}"
    yield from _positive(validate, "holdout")


def check_model(model: Model) -> Broken:
    for length in (model.window.recent, model.window.half_life):
        if length is not None and length <= _NOTHING:
            yield "window", "must be longer than 0s"
    if model.seed < 0:
        yield "seed", f"must be 0 or more, got {model.seed}"


def check_stretch(stretch: Stretch) -> Broken:
    if (stretch.first is None) == (stretch.from_ is None and stretch.until is None):
        yield "", "says which answers were promised: either 'first: 60d', or 'from' and 'until' as days"
        return
    yield from _positive(stretch, "first")
    if stretch.first is not None and stretch.first % timedelta(days=1):
        yield "first", "is counted in whole days, for example 60d"
    if stretch.first is None and (stretch.from_ is None or stretch.until is None):
        yield "until" if stretch.until is None else "from", "'from' and 'until' go together"
    if stretch.from_ is not None and stretch.until is not None and stretch.until < stretch.from_:
        yield "until", f"the stretch ends ({stretch.until}) before it begins ({stretch.from_})"


def check_predictions(predictions: Predictions) -> Broken:
    if predictions.complete_after < _NOTHING:
        yield "complete_after", "must not be negative"


def check_limit(limit: Limit) -> Broken:
    if limit.no_worse_than not in (None, "live", "baseline"):
        known = ("live", "baseline")
        yield (
            "no_worse_than",
            f"no model '{limit.no_worse_than}' to compare with{did_you_mean(limit.no_worse_than, known)}",
        )
    if limit.margin and limit.no_worse_than is None:
        yield "margin", "has no effect without 'no_worse_than'"
    if limit.margin < 0:
        yield "margin", f"must be 0 or more, got {limit.margin:g}"
    if limit.at_least is not None and limit.at_most is not None and limit.at_least > limit.at_most:
        yield "at_most", f"nothing is at least {limit.at_least:g} and at most {limit.at_most:g}"


def check_gate(gate: Gate) -> Broken:
    yield from check_limit(gate.limit)
    if gate.limit.no_worse_than is not None and "metric" not in gate.options:
        yield "no_worse_than", f"compares a metric, and '{gate.check}' has none; state at_most or at_least"


def check_monitor(monitor: Monitor) -> Broken:
    yield from check_limit(monitor.limit)
    yield from _positive(monitor, "every", "window")
    if monitor.limit.no_worse_than is not None:
        yield (
            "no_worse_than",
            "compares a candidate at a gate; a monitor has nothing to compare: state a number, or none",
        )


def check_decide(decide: Decide) -> Broken:
    if not decide.margin > 0:
        yield "margin", f"must be more than 0, got {decide.margin:g}; without one no release can ever be decided"
    if not 0.5 < decide.confidence < 1:
        yield "confidence", f"must be between 0.5 and 1, got {decide.confidence:g}"
    yield from _positive(decide, "within")
    if decide.goal is not None and decide.prefer is None:
        yield "prefer", "say which mean label is better: lower or higher"
    if decide.goal is None and decide.prefer is not None:
        yield "prefer", "has no effect without 'goal: label'"


def check_release(plan: ReleasePlan) -> Broken:
    """Steps go one way, from shadow over growing canaries to live, and fit into the time to decide."""
    stages = [step.stage for step in plan.steps]
    if not stages or stages[-1] != "live":
        yield "steps", "the last step must be 'live'"
    order = ("shadow", "canary", "live")
    ranks = [(order.index(step.stage), step.share) for step in plan.steps]
    for at, (before, after) in enumerate(pairwise(ranks), start=1):
        if after <= before:
            yield f"steps[{at}]", "steps go from shadow to canary to live, each canary with a larger share"
    if plan.decide.goal is not None and stages and "canary" not in stages:
        yield "steps", "a goal is decided by those whom a canary answers: add one, for example 'canary 50% 7d'"
    least = sum((step.least for step in plan.steps), _NOTHING)
    if least > plan.decide.within:
        longest = write_duration(plan.decide.within)
        yield (
            "decide.within",
            f"the steps last {write_duration(least)} at least, so nothing is decided within {longest}",
        )


def check_response(response: Response) -> Broken:
    if (response.on is None) == (response.every is None):
        yield "", "needs exactly one of 'on' (what sets it off) and 'every' (a schedule)"
    known = (*kinds.registered("checks"), "any")
    if response.on == "release":
        yield "on", "a release that proves worse is taken back by itself, as 'release.decide' says"
        return
    if response.on is not None and response.on not in known:
        yield "on", f"no check of kind '{response.on}'{did_you_mean(response.on, known)}"
    if response.every is not None and response.cooldown:
        yield "cooldown", "has no effect with 'every'"
    yield from _positive(response, "every")


def check_serve(serve: Serve) -> Broken:
    for name in ("max_rows", "queue"):
        if getattr(serve, name) < 1:
            yield name, f"must be 1 or more, got {getattr(serve, name)}"
    if serve.cache < 0:
        yield "cache", f"must be 0 (none) or more, got {serve.cache}"
    if serve.record == "none" and serve.unrecorded == "shed":
        yield "unrecorded", "has no effect with 'record: none', which records nothing"


def _positive(section: Any, *names: str) -> Broken:
    for name in names:
        value = getattr(section, name)
        if value is not None and value <= _NOTHING:
            yield name, "must be longer than 0s"


def _share(path: str, value: float) -> Broken:
    if not 0 <= value <= 1:
        yield path, f"is a share and must be between 0 and 1, got {value:g}"


RULES: Mapping[type, Callable[[Any], Broken]] = {
    Feed: check_feed,
    Label: check_label,
    Expect: check_expect,
    Column: check_column,
    Data: check_data,
    Validate: check_validate,
    Model: check_model,
    Gate: check_gate,
    Monitor: check_monitor,
    Decide: check_decide,
    ReleasePlan: check_release,
    Response: check_response,
    Serve: check_serve,
    Stretch: check_stretch,
    Predictions: check_predictions,
    SystemSpec: check_system,
}
