"""The system file: what it takes, what it refuses and on which line, and that writing and reading agree."""

import contextlib
import sys
from collections.abc import Iterator
from datetime import timedelta
from types import ModuleType
from typing import Any, ClassVar, Literal

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.core import kinds
from holdfast.core.evidence import Limit
from holdfast.core.signature import Column
from holdfast.core.spans import ALL, AUTO, Span
from holdfast.core.spec import (
    Data,
    Decide,
    Expect,
    Feed,
    Gate,
    Label,
    Model,
    Monitor,
    ReleasePlan,
    Response,
    Serve,
    Step,
    SystemSpec,
    Validate,
)
from holdfast.core.specdump import document, dump_spec
from holdfast.core.specfile import origins, parse_spec, read_spec, spec_hash
from holdfast.core.speclinks import RESERVED
from holdfast.core.specwords import (
    fill_names,
    read_duration,
    read_rate,
    read_span,
    read_step,
    write_duration,
    write_rate,
    write_span,
    write_step,
)
from holdfast.errors import SpecError, UnknownKind

METRICS = ("roc_auc", "log_loss")


class FakeQuality(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    facts: ClassVar[frozenset[str]] = frozenset({"task"})
    evidence: ClassVar[str] = "stream"
    metric: str


class FakeDrift(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    method: Literal["psi", "ks"] = "psi"
    columns: tuple[str, ...] = ()
    late: timedelta = timedelta(hours=2)


class FakeTask(msgspec.Struct, frozen=True):
    losses: ClassVar[tuple[str, ...]] = ("log_loss", "brier")

    def higher_is_better(self, metric: str) -> bool:
        if metric not in METRICS:
            raise UnknownKind("metrics", metric, METRICS)
        return metric == "roc_auc"


class FakeTrainer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    rounds: int = 100
    rate: float = 0.1

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ValueError("rounds must be 1 or more")


class FakeNotify(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    url: str | None = None


class FakeRetrain(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


FAKES = {
    "checks": {"quality": FakeQuality, "drift": FakeDrift, "broken": None},
    "tasks": {"classification": FakeTask},
    "trainers": {"lightgbm": FakeTrainer},
    "actions": {"notify": FakeNotify, "retrain": FakeRetrain},
}


@pytest.fixture(scope="module", autouse=True)
def fakes() -> Iterator[None]:
    """Every group of kinds replaced by the fakes above, so that no plug-in is imported."""
    module: Any = ModuleType("fake_kinds")
    for classes in FAKES.values():
        for kind in filter(None, classes.values()):
            setattr(module, kind.__name__, kind)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "fake_kinds", module)
        patch.setattr(
            kinds,
            "registered",
            lambda group: {
                name: f"fake_kinds:{kind.__name__}" if kind else "no_such_module:Broken"
                for name, kind in FAKES[group].items()
            },
        )
        yield


GOOD = """\
system: flights
about: Will this flight be late?
data:
  feeds:
    flights: {from: flights/*.parquet, event_at: scheduled_at, known_at: listed_at, key: id}
    weather: {from: weather.csv, event_at: hour, known_at: published_at, by: origin, take: temp, within: 6h}
    delays: {from: d.csv, known_at: known, by: [origin, carrier], aggregate: {delay: [mean, max]}, last: 36h}
    landed: {from: landed.csv, known_at: landed_at}
  rows: flights
  key: id
  unit: tailnum
  timezone: America/New_York
  label: {feed: landed, column: late, known_at: landed_at}
  columns:
    carrier: {category: [AA, B6, NO, 9E, 12]}
    weather_temp: {number: [-3.5, 105.5]}
    dep_hour: {integer: [0, 23], outside: refuse, nullable: false}
    holiday: boolean
    distance: number
  expect: {unique: id, complete: {carrier: 0.98}}
model:
  task: classification
  params: {rounds: 30}
  validate: {folds: 4}
gates:
  - {check: quality, metric: roc_auc, at_least: 0.65}
  - {check: quality, metric: log_loss, no_worse_than: live, margin: 0.01}
release:
  steps: [shadow 2d, canary 10% 3d, live]
  decide: {loss: brier, margin: 0.01, within: 28d}
monitors:
  - {check: drift, every: 1d, window: 7d, late: 90m, columns: carrier}
  - {check: drift, method: ks, name: ks}
false_alarms: 1 per month
responses:
  - {on: drift, do: retrain, cooldown: 7d}
  - {every: 2w, do: notify, url: "https://example.org"}
"""


def changed(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new, 1)


def problems(text: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        parse_spec(text, file="f.yaml")
    return str(caught.value).splitlines()


def test_reads_a_whole_file() -> None:
    spec = parse_spec(GOOD)
    assert spec.data.feeds["flights"].key == ("id",)
    assert spec.data.feeds["delays"].last == timedelta(hours=36)
    assert spec.data.columns["dep_hour"] == Column(
        name="dep_hour", type="integer", low=0.0, high=23.0, outside="refuse", nullable=False
    )
    assert spec.data.columns["carrier"].categories == ("AA", "B6", "NO", "9E", "12")
    assert spec.model.params == {"rounds": 30}
    assert spec.gates[1].limit == Limit(no_worse_than="live", margin=0.01)
    assert spec.release.steps[1] == Step(stage="canary", share=0.1, least=timedelta(days=3))
    assert spec.monitors[0].options == {"late": timedelta(minutes=90), "columns": ("carrier",)}
    assert spec.responses[0].on == "drift"
    assert spec.responses[1].options == {"url": "https://example.org"}
    assert spec.false_alarms == 1.0


def test_options_build_the_class_they_were_read_for() -> None:
    built = msgspec.convert(parse_spec(GOOD).monitors[0].options, FakeDrift)
    assert built == FakeDrift(columns=("carrier",), late=timedelta(minutes=90))


def test_missing_names_say_what_is_checked() -> None:
    spec = parse_spec(GOOD)
    assert [gate.name for gate in spec.gates] == ["quality.roc_auc", "quality.log_loss.live"]
    assert [monitor.name for monitor in spec.monitors] == ["drift", "ks"]


def test_made_names_avoid_given_ones() -> None:
    named = fill_names([Monitor(check="drift"), Monitor(check="drift", name="drift.2"), Monitor(check="drift")])
    assert [monitor.name for monitor in named] == ["drift", "drift.2", "drift.3"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "check: quality, metric: roc",
            "check: qualty, metric: roc",
            "f.yaml:26 gates[0].check: no check of kind 'qualty'; did you mean 'quality'?",
        ),
        (
            "check: drift, every",
            "check: broken, every",
            "f.yaml:32 monitors[0].check: 'broken' cannot be loaded: ModuleNotFoundError: "
            "No module named 'no_such_module'",
        ),
        ("about:", "abuot:", "f.yaml:2 abuot: unknown key; did you mean 'about'?"),
        ("system: flights", "sytem: flights", "f.yaml:1 sytem: unknown key; did you mean 'system'?"),
        ("  key: id\n", "", "f.yaml:3 data: 'key' is required and not there"),
        ("metric: roc_auc", "metrc: roc_auc", "f.yaml:26 gates[0].metrc: unknown key; did you mean 'metric'?"),
        ("at_least: 0.65", "atleast: 0.65", "f.yaml:26 gates[0].atleast: unknown key; did you mean 'at_least'?"),
        ("at_least: 0.65", "at_least: much", "f.yaml:26 gates[0].at_least: expected a number, got 'much'"),
        ("rounds: 30", "rounds: 3.5", "f.yaml:23 model.params.rounds: expected a whole number, got '3.5'"),
        ("rounds: 30", "rounds: 0", "f.yaml:23 model.params: rounds must be 1 or more"),
        ("rounds: 30", "round: 30", "f.yaml:23 model.params.round: unknown key; did you mean 'rounds'?"),
        ("params:", "trainer: lightgmb\n  params:", None),
        ("task: classification", "task: clasification", None),
        ("within: 6h", "within: 6 hours", None),
        ("last: 36h", "last: -36h", None),
        ("method: ks", "method: kss", "f.yaml:33 monitors[1].method: 'kss' is not taken; did you mean 'ks'?"),
        ("[mean, max]", "[mean, mx]", None),
        ("about:", "serve: {cache: -1}\nabout:", "f.yaml:2 serve.cache: must be 0 (none) or more, got -1"),
        ("about:", "serve: {unrecorded: drop}\nabout:", None),
        (
            "about:",
            "serve: {record: none, unrecorded: shed}\nabout:",
            "f.yaml:2 serve.unrecorded: has no effect with 'record: none', which records nothing",
        ),
        (
            "about:",
            "serve: {record: none}\nabout:",
            "f.yaml:30 release.steps[0]: is decided on recorded predictions: "
            "with 'serve.record: none' only [live] can be",
        ),
        ("folds: 4", "folds: [4]", "f.yaml:24 model.validate.folds: expected a whole number, got a list"),
        ("folds: 4", "folds:", "f.yaml:24 model.validate.folds: expected a whole number, got nothing"),
        ("integer: [0, 23]", "integer: [23, 0]", None),
        ("integer: [0, 23]", "intger: [0, 23]", None),
        ("integer: [0, 23]", "integer: [0]", None),
        ("outside: refuse", "outside: refuze", None),
        ("nullable: false", "nullable: no", None),
        ("holiday: boolean", "holiday: bolean", None),
        ("holiday: boolean", "holiday: {boolean: any, outside: flag}", None),
        ("holiday: boolean", "holiday:", None),
        (
            "holiday: boolean",
            "holiday: {time: [0, 1]}",
            "f.yaml:18 data.columns.holiday: a time has no range, as those to come lie outside of any; write 'time'",
        ),
        (
            "holiday: boolean",
            "holiday: {time: any, outside: flag}",
            "f.yaml:18 data.columns.holiday: 'outside' has no effect on a time: it has no range to lie outside of",
        ),
        ("[AA, B6, NO, 9E, 12]", "[AA, AA]", None),
        ("[AA, B6, NO, 9E, 12]", "[AA, null]", None),
        ("[AA, B6, NO, 9E, 12]", "[]", None),
        ("within: 6h}", "within: 6h, aggregate: {temp: mean}}", None),
        ("take: temp, within: 6h", "take: temp, last: 6h", None),
        ("take: temp, within: 6h", "within: 6h", None),
        (", aggregate: {delay: [mean, max]}, last: 36h", "", None),
        (", last: 36h", "", None),
        ("known_at: known, by", "by", None),
        ("by: [origin, carrier], ", "", None),
        ("  rows: flights", "  rows: flihgts", "f.yaml:9 data.rows: no feed 'flihgts'; did you mean 'flights'?"),
        ("feed: landed", "feed: lnded", None),
        ("event_at: scheduled_at, ", "", None),
        ("column: late", "column: carrier", None),
        ("America/New_York", "America/NewYork", None),
        ("America/New_York", "America", None),
        ("complete: {carrier: 0.98}", "complete: {carier: 0.98}", None),
        ("complete: {carrier: 0.98}", "complete: {carrier: 98}", None),
        (", live]", "]", "f.yaml:29 release.steps: the last step must be 'live'"),
        ("canary 10% 3d", "canary 100%", None),
        ("canary 10% 3d", "canary 0%", None),
        ("canary 10% 3d", "canary", None),
        ("canary 10% 3d", "canry 10%", None),
        ("shadow 2d, canary 10% 3d", "canary 10%, shadow 2d", None),
        ("canary 10% 3d", "canary 10%, canary 5%", None),
        ("shadow 2d", "shadow 40d", None),
        ("loss: brier", "loss: briar", None),
        (
            "metric: roc_auc",
            "metric: roc_acu",
            "f.yaml:26 gates[0].metric: no metric of kind 'roc_acu'; did you mean 'roc_auc'?",
        ),
        (", at_least: 0.65", "", None),
        ("loss: brier, margin: 0.01", "loss: brier, margin: 0", None),
        ("within: 28d", "within: 28d, confidence: 0.5", None),
        ("folds: 4", "folds: 0", None),
        ("folds: 4", "holdout: 0d", None),
        ("no_worse_than: live", "no_worse_than: life", None),
        ("no_worse_than: live, ", "", None),
        ("window: 7d", "no_worse_than: live", None),
        ("window: 7d", "window: 0s", None),
        (
            "check: drift, every",
            "check: drift, name: ks, every",
            "f.yaml:33 monitors[1].name: 'ks' is the name of monitors[0] already",
        ),
        ("{on: drift, do: retrain, cooldown: 7d}", "{do: retrain}", None),
        ("{on: drift, ", "{on: drift, every: 1d, ", None),
        ("{on: drift, ", "{on: drfit, ", None),
        ("{on: drift, ", "{on: quality, ", None),
        ("every: 2w, do", "every: 2w, cooldown: 1d, do", None),
        ("do: retrain, ", "do: retrian, ", None),
        ("1 per month", "0 per month", None),
        ("1 per month", "1 per mnth", None),
        ("1 per month", "1", None),
        ("system: flights", "system: fl/ights", None),
        ("system: flights", "system: flights\nsystem: two", "f.yaml:2 system: given twice, first on line 1; keep one"),
        (
            "carrier: {category",
            "dep_hour: number\n    carrier: {category",
            "f.yaml:18 data.columns.dep_hour: given twice, first on line 15; keep one",
        ),
        ("about: Will", "about: !!python/object:os.system Will", None),
        ("about: Will", "about: &a Will", None),
    ],
)
def test_a_mistake_is_named_with_its_line(old: str, new: str, said: str | None) -> None:
    text = changed(old, new)
    if "&a" in new:
        text = text.replace("unit: tailnum", "unit: *a")
    found = problems(text)
    line = (GOOD[: GOOD.index(old)] + new[: len(new) - len(new.lstrip())]).count("\n") + 1
    if said is not None:
        assert said in found
    else:
        lines = [int(one.split(" ")[0].split(":")[1]) for one in found]
        assert any(abs(at - line) <= 1 or "*a" in text for at in lines), found
        assert all(at > 0 for at in lines)


def test_all_problems_come_at_once_in_order_of_lines() -> None:
    text = changed("folds: 4", "folds: 0").replace("rows: flights", "rows: nights").replace("1 per month", "often")
    found = problems(text)
    assert [one.split(" ")[1] for one in found] == ["data.rows:", "model.validate.folds:", "false_alarms:"]


def test_no_gates_is_a_refusal() -> None:
    start, end = GOOD.index("gates:"), GOOD.index("release:")
    assert any("no gates" in one for one in problems(GOOD[:start] + "gates: []\n" + GOOD[end:]))


def test_a_kind_that_is_not_a_record_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["fake_kinds"], "FakeRetrain", object)
    assert any("not a msgspec.Struct" in one for one in problems(GOOD))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "f.yaml:1 the file is empty"),
        ("# only a comment\n", "f.yaml:1 the file is empty"),
        ("- a\n- b\n", "f.yaml:1 the file holds a list"),
        ("flights\n", "f.yaml:1 the file holds 'flights'"),
        ("system: flights\ndata: {feeds: [\n", "f.yaml:3 this is not YAML"),
        ("a: 1\n---\nb: 2\n", "this is not YAML"),
        ("a: \x00", "f.yaml:1 this is not YAML"),
        ("\ta: 1", "f.yaml:1 this is not YAML"),
        pytest.param("[" * 1500, "f.yaml:1", marks=pytest.mark.slow),
        ("system: f\n? [a]\n: b\n", "f.yaml:2 a key must be a word"),
    ],
)
def test_what_is_not_a_system_file_gets_one_clear_message(text: str, said: str) -> None:
    assert said in "\n".join(problems(text))


def test_a_missing_file_says_what_to_do(tmp_path: Any) -> None:
    with pytest.raises(SpecError, match="no such file; name another, or write one with `holdfast init DATA`"):
        read_spec(tmp_path / "none.yaml")


def test_a_directory_and_bytes_are_refused(tmp_path: Any) -> None:
    (tmp_path / "b.yaml").write_bytes(b"system: \xff\xfe")
    with pytest.raises(SpecError, match="not UTF-8 text"):
        read_spec(tmp_path / "b.yaml")
    with pytest.raises(SpecError, match="directory"):
        read_spec(tmp_path)


def test_reads_a_file(tmp_path: Any) -> None:
    (tmp_path / "f.yaml").write_text(GOOD, encoding="utf-8")
    assert read_spec(tmp_path / "f.yaml") == parse_spec(GOOD)


def test_the_hash_ignores_order_and_layout_but_no_value() -> None:
    reordered = GOOD.replace("  rows: flights\n  key: id\n", "  key: 'id'\n  rows: flights\n") + "\n# a comment\n"
    assert spec_hash(parse_spec(GOOD)) == spec_hash(parse_spec(reordered))
    assert spec_hash(parse_spec(GOOD)) != spec_hash(parse_spec(changed("folds: 4", "folds: 5")))
    assert len(spec_hash(parse_spec(GOOD))) == 16


def test_origins_give_the_line_of_each_value() -> None:
    lines = origins(GOOD)
    assert lines["monitors[1].method"] == 33
    assert lines["data.columns.dep_hour"] == 17
    assert "model.seed" not in lines


def test_a_document_with_defaults_holds_every_setting() -> None:
    whole = document(parse_spec(GOOD), defaults=True)
    assert whole["model"]["params"] == {"rounds": 30, "rate": 0.1}
    assert whole["monitors"][1]["late"] == "2h"
    assert whole["serve"] == {
        "record": "process",
        "unrecorded": "refuse",
        "cache": 0,
        "max_rows": 10_000,
        "queue": 4096,
    }


def test_dump_reads_as_a_person_would_write_it() -> None:
    text = dump_spec(parse_spec(GOOD))
    assert "    dep_hour: {integer: [0, 23], outside: refuse, nullable: false}\n" in text
    assert "  - {check: quality, metric: log_loss, no_worse_than: live, margin: 0.01}\n" in text
    assert "  steps: [shadow 2d, canary 10% 3d, live]\n" in text
    assert "  - {on: drift, do: retrain, cooldown: 7d}\n" in text
    assert "false_alarms: 1 per month\n" in text


def test_long_lists_are_broken_between_words() -> None:
    column = Column(name="carrier", type="category", categories=tuple(f"airport {n}" for n in range(200)))
    spec = parse_spec(GOOD)
    data = msgspec.structs.replace(spec.data, columns={**spec.data.columns, "carrier": column})
    spec = msgspec.structs.replace(spec, data=data)
    text = dump_spec(spec)
    assert max(map(len, text.splitlines())) <= 120
    assert parse_spec(text) == spec


def test_comments_stand_above_their_lines() -> None:
    text = dump_spec(parse_spec(GOOD), {"": "Made by init.", "data.columns.carrier": "5 seen", "gates[0]": "floor"})
    lines = text.splitlines()
    assert lines[0] == "# Made by init."
    assert lines[[line.strip() for line in lines].index("# 5 seen") + 1].startswith("    carrier:")
    assert "  # floor" in lines
    assert parse_spec(text) == parse_spec(GOOD)


def test_a_comment_without_a_line_is_refused() -> None:
    with pytest.raises(ValueError, match=r"model\.nothing"):
        dump_spec(parse_spec(GOOD), {"model.nothing": "lost"})


durations = st.timedeltas(timedelta(microseconds=1), timedelta(days=10_000))
positive = st.floats(1e-9, 1e9)
shares = st.floats(0, 1)
words = st.text(min_size=1, max_size=12)
safe = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,8}", fullmatch=True)
finite = st.floats(-1e12, 1e12)


spans = st.one_of(
    st.sampled_from([ALL, AUTO]),
    st.builds(lambda length: Span(recent=length), durations),
    st.builds(lambda length: Span(half_life=length), durations),
)


@given(spans)
def test_windows_are_read_as_written(span: Span) -> None:
    assert read_span(write_span(span)) == span


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("atuo", "did you mean 'auto'"),
        ("halflife 30d", "did you mean 'half-life'"),
        ("30 dozen", "expected a duration such as 90s"),
        ("half-life", "expected all, auto, a duration such as 90d, or half-life 90d"),
        ("0d", "must be longer than 0s"),
        ("half-life 0d", "must be longer than 0s"),
    ],
)
def test_a_window_that_is_none_is_named(word: str, said: str) -> None:
    text = changed("  validate: {folds: 4}", f"  validate: {{folds: 4}}\n  window: {word}")
    assert any("model.window" in line and said in line for line in problems(text))


@given(durations)
def test_durations_are_read_as_written(duration: timedelta) -> None:
    assert read_duration(write_duration(duration)) == duration


@given(positive)
def test_rates_are_read_as_written(rate: float) -> None:
    assert read_rate(write_rate(rate)) == rate


@given(st.floats(1e-6, 0.999999), st.one_of(st.just(timedelta(0)), durations))
def test_canaries_are_read_as_written(share: float, least: timedelta) -> None:
    step = Step(stage="canary", share=share, least=least)
    assert read_step(write_step(step)) == step


@st.composite
def columns(draw: st.DrawFn, name: str) -> Column:
    kind = draw(st.sampled_from(["number", "integer", "category", "boolean", "time"]))
    ends = sorted(draw(st.tuples(finite, finite)))
    ranged = kind in ("number", "integer") and draw(st.booleans())
    return Column(
        name=name,
        type=kind,
        low=ends[0] if ranged and draw(st.booleans()) else None,
        high=ends[1] if ranged else None,
        categories=tuple(draw(st.lists(words, max_size=4, unique=True))) if kind == "category" else (),
        outside="flag" if kind in ("boolean", "time") else draw(st.sampled_from(["flag", "refuse", "missing"])),
        nullable=draw(st.booleans()),
    )


@st.composite
def limits(draw: st.DrawFn, against: str | None) -> Limit:
    at_least, at_most = sorted(draw(st.tuples(finite, finite)))
    other = draw(st.sampled_from([None, against]))
    return Limit(
        at_least=draw(st.sampled_from([None, at_least])),
        at_most=draw(st.sampled_from([None, at_most])),
        no_worse_than=other,
        margin=draw(positive) if other else 0.0,
    )


@st.composite
def checks(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    if draw(st.booleans()):
        return "quality", {"metric": draw(st.sampled_from(METRICS))}
    given = {
        "method": draw(st.sampled_from(["psi", "ks"])),
        "columns": tuple(draw(st.lists(words, max_size=3))),
        "late": draw(durations),
    }
    return "drift", {name: given[name] for name in draw(st.sets(st.sampled_from(sorted(given))))}


@st.composite
def gates(draw: st.DrawFn) -> Gate:
    check, options = draw(checks())
    limit = draw(limits("live" if check == "quality" else None))
    promised = limit if limit.is_stated else Limit(at_most=1.0)
    return Gate(check=check, options=options, limit=promised if check == "quality" else limit)


@st.composite
def monitors(draw: st.DrawFn) -> Monitor:
    check, options = draw(checks())
    every, window = draw(durations), draw(durations)
    limit = draw(limits(None))
    if options.get("metric") == "roc_auc" and not limit.is_stated:
        limit = Limit(at_least=0.5)
    return Monitor(check=check, options=options, limit=limit, every=every, window=window)


def renamed(draw: st.DrawFn, entries: list[Any]) -> tuple[Any, ...]:
    """Some entries with names of their own, the rest with made ones."""
    names = draw(st.lists(st.one_of(st.just(""), words), min_size=len(entries), max_size=len(entries)))
    unique = [name if names.count(name) == 1 else "" for name in names]
    return fill_names(msgspec.structs.replace(e, name=name) for e, name in zip(entries, unique, strict=True))


@st.composite
def specs(draw: st.DrawFn) -> SystemSpec:
    feeds = {
        "rows": Feed(from_=draw(words), event_at=draw(words), known_at=draw(words), key=tuple(draw(st.lists(words)))),
        draw(safe): Feed(from_=draw(words), take=(draw(words),), by=(draw(words),), fresh=None),
        "sums": Feed(
            from_=draw(words),
            known_at=draw(words),
            by=(draw(words),),
            aggregate={draw(words): ("mean", "count")},
            last=draw(durations),
        ),
    }
    unreserved = words.filter(lambda word: word not in RESERVED)
    names = draw(st.lists(unreserved, min_size=1, max_size=4, unique=True))
    label = Label(
        feed="rows", column=draw(words.filter(lambda w: w not in names)), known_at="k", mature_after=draw(durations)
    )
    data = Data(
        feeds=feeds,
        rows="rows",
        key=draw(words),
        unit=draw(st.none() | words),
        timezone=draw(st.sampled_from(["UTC", "Europe/Oslo"])),
        label=label,
        columns={name: draw(columns(name)) for name in names},
        expect=Expect(complete={names[0]: draw(shares)}, rows=draw(st.integers(0, 9)), bad_rows=draw(shares)),
    )
    steps = draw(st.lists(st.sampled_from([read_step("shadow 3h"), read_step("canary 12.5%")]), unique=True))
    steps.sort(key=lambda step: step.stage == "canary")
    within = draw(st.timedeltas(timedelta(hours=3), timedelta(days=999)))
    decide = Decide(loss="brier", margin=draw(positive), confidence=draw(st.floats(0.51, 0.99)), within=within)
    watching = renamed(draw, draw(st.lists(monitors(), max_size=4)))
    response = Response(do="notify", on="any", options={"url": draw(words)}, cooldown=draw(durations))
    return SystemSpec(
        system=draw(safe),
        about=draw(st.text(max_size=30)),
        data=data,
        model=Model(
            task="classification",
            params={"rate": draw(finite)},
            window=draw(spans),
            validate=Validate(folds=draw(st.integers(1, 9)), holdout=draw(durations)),
            seed=draw(st.integers(0, 2**40)),
        ),
        gates=renamed(draw, draw(st.lists(gates(), min_size=1, max_size=3))),
        release=ReleasePlan(steps=(*steps, read_step("live")), decide=decide),
        monitors=watching,
        false_alarms=draw(positive),
        responses=(response, Response(do="retrain", every=draw(durations))),
        serve=Serve(record=draw(st.sampled_from(["process", "disk", "memory"])), queue=draw(st.integers(1, 99))),
    )


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(specs())
def test_a_dumped_file_reads_as_the_same_system(spec: SystemSpec) -> None:
    text = dump_spec(spec)
    again = parse_spec(text)
    assert again == spec
    assert spec_hash(again) == spec_hash(spec)
    assert dump_spec(again) == text


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40), st.integers(0, len(GOOD)), st.integers(0, 30))
def test_any_text_is_read_or_refused_but_never_crashes(text: str, at: int, cut: int) -> None:
    damaged = GOOD[:at] + text + GOOD[at + cut :]
    with contextlib.suppress(SpecError):
        parse_spec(damaged)
