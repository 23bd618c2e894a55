"""What classes are called, in which order they stand, and what a system file may say of them."""

import pytest
from msgspec.structs import replace

from holdfast.core.classes import class_name, class_of, in_order, make_task
from holdfast.core.signature import Column, Signature
from holdfast.core.specdump import dump_spec
from holdfast.core.specfile import parse_spec
from holdfast.errors import SpecError

FILE = """\
system: weather
data:
  feeds:
    days: {{from: days.parquet, event_at: at, known_at: at, key: id}}
  rows: days
  key: id
  label: {{feed: days, column: kind, known_at: told_at{classes}}}
  columns: {{x: number}}
model: {{task: {task}}}
gates:
  - {{check: quality, metric: {metric}, at_least: 0.5}}
release:
  steps: [live]
  decide: {{loss: brier, margin: 0.01{goal}}}
{more}
"""


def file(*, classes: str = ", classes: [b, a, c]", task: str = "multiclass", **more: str) -> str:
    given = {"metric": "accuracy", "goal": "", "more": ""} | more
    return FILE.format(classes=classes, task=task, **given)


def test_classes_stand_in_order_whatever_the_file_says() -> None:
    spec = parse_spec(file())
    assert make_task(spec.task, spec.data.label.classes).classes == ("a", "b", "c")
    assert parse_spec(dump_spec(spec)) == spec
    numbers = parse_spec(file(classes=", classes: [10, 9, 3]"))
    assert numbers.data.label.classes == ("10", "9", "3")
    assert in_order(numbers.data.label.classes) == ("3", "9", "10")


def test_a_whole_number_is_called_the_same_however_it_is_stored() -> None:
    assert [class_name(value) for value in (7, 7.0, "7", "7.0", "7.5", True, "true")] == [
        "7", "7", "7", "7", "7.5", "true", "true",
    ]  # fmt: skip
    assert [class_of(value, ("3", "7")) for value in (7.0, "3", "8")] == [1.0, 0.0, -1.0]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"classes": ""}, "'multiclass' needs the classes of the label, 3 or more, and none is listed"),
        ({"classes": ", classes: [a, b]"}, "3 or more, and 2 are listed"),
        ({"classes": ", classes: [a, b, a]"}, "the class 'a' stands twice"),
        ({"classes": ", classes: [1.0, 2, 3]"}, "'1.0' is not how a class is called: write '1'"),
        ({"task": "classification"}, "has no effect: the task 'classification' is not about classes"),
        ({"metric": "f1"}, "no metric of kind 'f1'"),
        ({"goal": ", goal: label, prefer: lower"}, "is about the mean label"),
    ],
)
def test_what_cannot_take_effect_is_refused(changed: dict[str, str], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        parse_spec(file(**changed))


def test_answers_may_be_kept_and_may_be_given_elsewhere() -> None:
    assert parse_spec(file(more="serve: {cache: 100}")).serve.cache == 100
    text = file()
    start, end = text.index("model:"), text.index("\n\n")
    elsewhere = "predictions: {task: multiclass, reference: {first: 30d}}"
    assert parse_spec(text[:start] + elsewhere + text[end:]).task == "multiclass"


def test_a_part_of_the_answer_may_not_be_the_name_of_an_input() -> None:
    with pytest.raises(SpecError, match=r"'probability\.a' is a name that Holdfast uses itself"):
        parse_spec(file().replace("{x: number}", "{probability.a: number}"))


def test_classes_are_part_of_a_signature_and_others_keep_their_hash() -> None:
    single = Signature(columns=(Column(name="x", type="number"),), task="classification", output="probability")
    assert single.hash() == "68ed2570a6447dcf", "as versions of before classes were signed"
    assert (single.outputs, single.shape(3)) == (("probability",), (3,))
    several = replace(single, task="multiclass", classes=("a", "b"))
    assert (several.outputs, several.shape(3)) == (("probability.a", "probability.b"), (3, 2))
    assert len({each.hash() for each in (single, several, replace(several, classes=("a", "c")))}) == 3
