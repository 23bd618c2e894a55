"""A system file whose model is served elsewhere: what it says, and what it may not say."""

from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from holdfast.core.signature import Column
from holdfast.core.spec import Predictions, Stretch, SystemSpec
from holdfast.core.specdump import document, dump_spec, settings
from holdfast.core.specelsewhere import answer_columns, check_elsewhere, must_have_model, stated_signature
from holdfast.core.specfile import parse_spec, spec_hash
from holdfast.core.specschema import file_schema
from holdfast.errors import SpecError, StateError

FILE = """\
system: loans
data:
  feeds:
    answers: {from: logs/*.parquet, event_at: answered_at, key: id}
    repaid: {from: repaid/*.parquet, known_at: repaid_at}
  rows: answers
  key: loan
  label: {feed: repaid, column: repaid, known_at: repaid_at}
  columns: {amount: number, kind: category}
predictions:
  task: classification
  score: proba
  version: model
  reference: {first: 60d}
monitors:
  - {check: drift}
  - {check: quality, metric: brier}
responses:
  - {on: drift, do: notify}
"""


def problems(text: str) -> str:
    with pytest.raises(SpecError) as caught:
        parse_spec(text)
    return str(caught.value)


def test_answers_of_elsewhere_stand_in_the_place_of_a_model() -> None:
    spec = parse_spec(FILE)
    assert spec.task == "classification"
    assert spec.predictions == Predictions(
        task="classification", score="proba", version="model", reference=Stretch(first=timedelta(days=60))
    )
    assert (spec.gates, spec.model.task) == ((), "")


def test_a_reference_may_be_two_days() -> None:
    spec = parse_spec(FILE.replace("{first: 60d}", "{from: 2026-01-01, until: 2026-03-31}"))
    assert spec.predictions is not None
    assert spec.predictions.reference == Stretch(from_=date(2026, 1, 1), until=date(2026, 3, 31))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("monitors:", "model: {task: regression}\nmonitors:", "model: cannot take effect"),
        ("monitors:", "gates: [{check: calibration, at_most: 1}]\nmonitors:", "gates: cannot take effect"),
        ("do: notify", "do: retrain", "responses[0].do: 'retrain' cannot take effect"),
        ("do: notify", "do: rollback", "responses[0].do: 'rollback' cannot take effect"),
        ("{check: drift}", "{check: latency}", "monitors[0].check: 'latency' cannot be measured"),
        ("{check: drift}", "{check: attribution}", "monitors[0].check: 'attribution' cannot be measured"),
        ("key: loan", "key: loan\n  unit: customer", "data.unit: has no effect"),
        ("key: loan", "key: loan\n  expect: {rows: 5}", "data.expect: has no effect"),
        (", key: id}", "}", "needs 'key', the column that identifies an answer"),
        ("score: proba", "score: amount", "predictions.score: 'amount' is among the columns"),
        ("version: model", "version: kind", "predictions.version: 'kind' is among the columns"),
        ("score: proba", "score: repaid", "predictions.score: 'repaid' holds something else"),
        ("score: proba", "score: known_at", "predictions.score: 'known_at' is a name that Holdfast uses itself"),
        (", key: id}", ", key: label}", "data.feeds.answers.key: 'label' is a name that Holdfast uses itself"),
        ("score: proba", "scores: proba", "predictions.scores: unknown key; did you mean 'score'?"),
        ("task: classification", "task: classificaton", "did you mean 'classification'?"),
        ("  reference: {first: 60d}\n", "", "'reference' is required and not there"),
        ("{first: 60d}", "{}", "either 'first: 60d', or 'from' and 'until'"),
        ("{first: 60d}", "{first: 60d, from: 2026-01-01}", "either 'first: 60d', or 'from' and 'until'"),
        ("{first: 60d}", "{first: 0d}", "must be longer than 0s"),
        ("{first: 60d}", "{first: 36h}", "whole days"),
        ("{first: 60d}", "{from: 2026-01-01}", "go together"),
        ("{first: 60d}", "{from: 2026-02-01, until: 2026-01-01}", "ends (2026-01-01) before it begins"),
        ("{first: 60d}", "{from: soon, until: 2026-01-01}", "reference.from"),
        ("responses:", "serve: {record: none}\nresponses:", "serve.record"),
        ("responses:", "serve: {unrecorded: shed}\nresponses:", "serve.unrecorded: has no effect"),
        ("responses:", "serve: {cache: 5}\nresponses:", "serve.cache: has no effect"),
        ("quality, metric: brier", "quality, metric: brie", "did you mean 'brier'?"),
    ],
)
def test_what_cannot_take_effect_is_refused(old: str, new: str, said: str) -> None:
    assert FILE.count(old) == 1
    assert said in problems(FILE.replace(old, new))


def of_classes(**data: Any) -> SystemSpec:
    """The system of the file, with labels of three classes."""
    spec = parse_spec(FILE)
    assert spec.predictions is not None
    label = replace(spec.data.label, classes=("late", "2", "never"))
    predictions = replace(spec.predictions, task="multiclass")
    return replace(spec, data=replace(spec.data, label=label, **data), predictions=predictions)


def test_an_answer_of_classes_is_a_column_for_each_in_their_order() -> None:
    spec = of_classes()
    assert answer_columns("proba", spec) == ("proba.2", "proba.late", "proba.never")
    assert stated_signature(spec, "probability").classes == ("2", "late", "never")
    assert answer_columns("proba", parse_spec(FILE)) == ("proba",)
    assert list(check_elsewhere(spec)) == []


def test_a_column_that_holds_the_answer_of_a_class_is_no_input() -> None:
    spec = parse_spec(FILE)
    columns = {
        **spec.data.columns,
        "proba.late": Column(name="proba.late", type="number"),
        "proba": spec.data.columns["amount"],
    }
    [(where, why)] = check_elsewhere(of_classes(columns=columns))
    assert where == "predictions.score"
    assert "'proba.late' is among the columns" in why


@pytest.mark.parametrize(
    ("old", "new"), [("amount: number", "probability: number"), ("version: model", "version: probability")]
)
def test_a_score_that_is_left_out_is_called_as_what_the_task_answers(old: str, new: str) -> None:
    text = FILE.replace("  score: proba\n", "")
    assert parse_spec(text).system == "loans"
    text = text.replace(old, new)
    assert "predictions.score: 'probability'" in problems(text)


def test_the_columns_of_a_score_that_is_left_out_are_no_inputs() -> None:
    several = of_classes(columns={"probability.late": Column(name="probability.late", type="number")})
    assert several.predictions is not None
    [(where, why)] = check_elsewhere(replace(several, predictions=replace(several.predictions, score="")))
    assert (where, "'probability.late' is among the columns" in why) == ("predictions.score", True)


def test_only_answers_and_labels_of_elsewhere_may_come_without_files() -> None:
    spec = parse_spec(FILE.replace("from: logs/*.parquet, ", "").replace("from: repaid/*.parquet, ", ""))
    assert spec.data.feeds["answers"].from_ == ""
    other = "    rates: {known_at: at, take: rate}\n  rows:"
    assert "data.feeds.rates: 'from' is required" in problems(FILE.replace("  rows:", other))


def test_without_predictions_a_model_gates_and_a_release_are_required() -> None:
    start, end = FILE.index("predictions:"), FILE.index("monitors:")
    said = problems(FILE[:start] + FILE[end:])
    for section in ("model", "gates", "release"):
        assert f"'{section}' is required and not there" in said


def test_what_is_shown_has_neither_a_model_nor_gates() -> None:
    shown = dict(settings(parse_spec(FILE)))
    assert shown["predictions.complete_after"] == "1h"
    assert [path for path in shown if path.startswith(("model", "gates", "release"))] == []
    assert "predictions" not in document(replace(parse_spec(FILE), predictions=None), defaults=True)


def test_the_schema_takes_one_or_the_other() -> None:
    schema = file_schema()
    assert schema["oneOf"] == [{"required": ["model", "gates", "release"]}, {"required": ["predictions"]}]
    section: dict[str, Any] = schema["properties"]["predictions"]["anyOf"][0]
    assert "classification" in section["properties"]["task"]["enum"]
    assert section["required"] == ["task", "reference"]


def test_what_needs_a_model_says_that_there_is_none() -> None:
    with pytest.raises(StateError, match=r"'loans' is served elsewhere.*: nothing to do"):
        must_have_model(parse_spec(FILE), "nothing to do")


days = st.dates(date(1990, 1, 1), date(2090, 1, 1))
stretches = st.one_of(
    st.builds(lambda n: Stretch(first=timedelta(days=n)), st.integers(1, 4000)),
    st.builds(lambda one, other: Stretch(from_=min(one, other), until=max(one, other)), days, days),
)
words = st.sampled_from(["", "proba", "Modell Nr. 7", "y: {}", "null", "2026-01-01", "1e3"])


@given(stretches, words, st.sampled_from(["", "v", "model version"]), st.timedeltas(timedelta(0), timedelta(days=9)))
def test_a_dumped_file_reads_as_the_same_system(stretch: Stretch, score: str, version: str, after: timedelta) -> None:
    predictions = Predictions(
        task="classification", score=score, version=version, reference=stretch, complete_after=after
    )
    spec: SystemSpec = replace(parse_spec(FILE), predictions=predictions)
    again = parse_spec(dump_spec(spec))
    assert again == spec
    assert spec_hash(again) == spec_hash(spec)
