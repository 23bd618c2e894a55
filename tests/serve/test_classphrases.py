"""Answers of several classes, written by parts, read as the general way writes them."""

import json

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.serve.classphrases import NONE, ClassPhrases, likeliest
from holdfast.serve.requests import PredictAnswer
from holdfast.wire.plain import predict_answer
from holdfast.wire.protocol import Inference
from holdfast.wire.rest import Asked, write_infer

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NUMBERS = st.floats() | st.sampled_from([0.0, -0.0, 0.5, 1 / 3, 5e-324, 1e308])


@st.composite
def answers(draw):
    """An answer of a few rows and classes, and the phrases of the version that gave it."""
    classes = draw(st.lists(TEXTS, min_size=1, max_size=4, unique=True))
    rows = draw(st.lists(st.lists(NUMBERS, min_size=len(classes), max_size=len(classes)), min_size=1, max_size=4))
    system, version, output = draw(TEXTS), draw(TEXTS), draw(TEXTS.filter(lambda name: name != "class"))
    answer = PredictAnswer(
        system=system,
        request_id=draw(TEXTS),
        output=output,
        outputs=np.array(rows),
        versions=[version] * len(rows),
        stages=["live"] * len(rows),
        outside=np.array(draw(st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows)))),
        classes=tuple(classes),
    )
    return answer, ClassPhrases(system=system, version=version, stage="live", output=output, classes=classes)


def parts(answer):
    """Id, numbers, places and counts as the quick way hands them to phrases."""
    numbers = [msgspec.json.encode(each) for each in answer.outputs.reshape(-1).tolist()]
    return msgspec.json.encode(answer.request_id), numbers, likeliest(answer.outputs).tolist(), answer.outside.tolist()


@given(answers())
@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered in reduce")
def test_a_plain_answer_reads_as_the_general_way_writes_it(made):
    answer, phrases = made
    assert phrases.predict_classes(*parts(answer)) == msgspec.json.encode(predict_answer(answer))


@given(answers(), st.booleans())
@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered in reduce")
def test_an_answer_of_the_protocol_reads_as_the_general_way_writes_it(made, binary):
    answer, phrases = made
    expected, raw = write_infer(answer, Asked(inference=Inference(tensors=()), all_binary=binary, binary={}))
    id, numbers, places, outside = parts(answer)
    if not binary:
        assert phrases.infer_classes(id, numbers, places, outside) == expected
        return
    named = phrases.classes_as_bytes(places)
    assert phrases.before_class_bytes(id, len(named), len(places), outside) == expected
    assert answer.outputs.astype("<f8").tobytes() + named == raw


def test_of_equal_classes_the_first_is_the_likeliest_and_none_where_a_number_is_none():
    outputs = np.array([[0.4, 0.4, 0.2], [0.1, 0.2, 0.7], [0.9, np.nan, 0.1], [0.9, np.inf, 0.1]])
    assert likeliest(outputs).tolist() == [0, 2, NONE, NONE]
    assert likeliest(outputs[:2]).tolist() == [0, 2]


def test_a_class_may_be_called_as_a_template_is_written():
    phrases = ClassPhrases(system="s", version="1", stage="live", output="100%d", classes=["%b", "50 %"])
    said = json.loads(phrases.predict_classes(b'"i"', [b"0.25", b"0.75"], [1], [2]))
    assert said["predictions"] == [
        {"class": "50 %", "100%d": {"%b": 0.25, "50 %": 0.75}, "prediction_id": "i:0", "version": "1", "stage": "live",
         "outside": 2}
    ]  # fmt: skip
