import json

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from holdfast.serve.phrases import Phrases
from holdfast.serve.requests import PredictAnswer
from holdfast.wire.plain import predict_answer
from holdfast.wire.protocol import Inference
from holdfast.wire.rest import Asked, write_infer

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
OUTPUTS = st.lists(st.floats() | st.sampled_from([0.0, -0.0, 1e22, 5e-324, 1 / 3]), min_size=1, max_size=5)


def both(system, version, id, outputs, outside):
    """Phrases of a version, and the answer that the general way writes."""
    n = len(outputs)
    answer = PredictAnswer(
        system=system,
        request_id=id,
        output="probability",
        outputs=np.array(outputs),
        versions=[version] * n,
        stages=["live"] * n,
        outside=np.array(outside),
    )
    phrases = Phrases(system=system, version=version, stage="live", output="probability")
    return phrases, answer, [msgspec.json.encode(each) for each in np.array(outputs).tolist()]


@given(TEXTS, TEXTS, TEXTS, OUTPUTS, st.integers(0, 3))
def test_a_plain_answer_reads_as_the_general_way_writes_it(system, version, id, outputs, beyond):
    outside = [beyond] * len(outputs)
    phrases, answer, numbers = both(system, version, id, outputs, outside)
    assert phrases.predict(msgspec.json.encode(id), numbers, outside) == msgspec.json.encode(predict_answer(answer))


@given(TEXTS, TEXTS, TEXTS, OUTPUTS, st.integers(0, 3), st.booleans())
def test_an_answer_of_the_protocol_reads_as_the_general_way_writes_it(system, version, id, outputs, beyond, binary):
    outside = [beyond] * len(outputs)
    phrases, answer, numbers = both(system, version, id, outputs, outside)
    expected, raw = write_infer(answer, Asked(inference=Inference(tensors=()), all_binary=binary, binary={}))
    if binary:
        assert phrases.before_bytes(msgspec.json.encode(id), len(outputs), outside) == expected
        assert np.array(outputs).astype("<f8").tobytes() == raw
    else:
        assert phrases.infer(msgspec.json.encode(id), numbers, outside) == expected


def test_an_answer_is_json_and_what_is_no_number_is_null():
    phrases, _, numbers = both("flights", "7", "i", [float("nan"), 0.5], [0, 2])
    said = json.loads(phrases.infer(b'"i"', numbers, [0, 2]))
    assert said["outputs"] == [{"name": "probability", "shape": [2], "datatype": "FP64", "data": [None, 0.5]}]
    assert (said["model_version"], said["parameters"]) == ("7", {"stage": "live", "outside": 2})
