"""Clients that nobody here wrote get the answers that plain JSON rows get: tritonclient, KServe, MLServer's types."""

import pytest

pytestmark = pytest.mark.slow

FLIGHTS = [
    {"dep_hour": 8, "distance": 12.5, "carrier": "AA", "is_holiday": True},
    {"dep_hour": 20, "distance": 3.0, "carrier": "UA", "is_holiday": False},
]
PUMPS = [{"pressure": 8, "flow": 12, "speed": 1}, {"pressure": 20, "flow": 3, "speed": 0}]
FLAGS = [{"pressure": 1, "flow": 0, "speed": 1}, {"pressure": 0, "flow": 1, "speed": 0}]


def diagonal(n):
    return [{"pressure": i, "flow": i, "speed": i} for i in range(n)]


@pytest.fixture(scope="module")
def triton(client):
    return client("triton_http.py")


@pytest.fixture(scope="module")
def kserve(client):
    return client("kserve_rest.py")


@pytest.fixture(scope="module")
def mlserver(client):
    return client("mlserver_types.py")


def test_the_models_tell_rows_apart(plain):
    for system, rows in (("flights", FLIGHTS), ("pumps", PUMPS), ("pumps", diagonal(16))):
        assert len(set(plain(system, *rows))) > 1


def test_triton_sees_who_is_ready(triton):
    assert (triton["live"], triton["ready"], triton["model_ready"]) == (True, True, [True, True, False])


def test_triton_reads_metadata_and_index(triton):
    assert "binary_tensor_data" in triton["server"]["extensions"]
    assert [each["name"] for each in triton["metadata"]["inputs"]] == ["pressure", "flow", "speed"]
    assert triton["metadata"]["parameters"]["packed_input"]["shape"] == [-1, 3]
    assert [(each["name"], each["version"], each["state"]) for each in triton["index"]] == [
        ("flights", "1", "READY"),
        ("pumps", "1", "READY"),
    ]


def test_triton_gets_the_same_answer_in_every_datatype_as_json_and_as_bytes(triton, plain):
    pumps, flags = plain("pumps", *PUMPS), plain("pumps", *FLAGS)
    assert len(triton["packed"]) == 13 * 4 - 2 * 2
    assert triton["packed"] == {name: flags if name.startswith("BOOL") else pumps for name in triton["packed"]}


def test_triton_gets_the_same_answer_for_one_tensor_per_column(triton, plain):
    answers = plain("flights", *FLIGHTS)
    assert [triton["named"][way] for way in ("bytes", "json", "both", "columns")] == [answers] * 4
    assert triton["named"]["nan"] == plain("flights", FLIGHTS[0], FLIGHTS[1] | {"distance": None})


def test_triton_gets_back_its_id_and_the_version(triton):
    answer = triton["answer"]
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("asked-by-triton", "flights", "1")


def test_triton_may_have_many_requests_in_flight(triton, client, plain):
    assert triton["in_flight"] == plain("pumps", *diagonal(8))
    aio = client("triton_aio.py")
    assert aio["outputs"] == plain("pumps", *diagonal(16))
    assert aio["ids"] == [f"aio-{i}" for i in range(16)]
    assert (aio["live"], aio["metadata"]["inputs"][2]["datatype"]) == (True, "BYTES")


@pytest.mark.parametrize(
    ("case", "status", "message"),
    [
        ("unknown_output", "422", "no output 'probabilty'; did you mean 'probability'?"),
        ("unknown_model", "404", "no model 'pmups'; did you mean 'pumps'?"),
        ("bad_value", "422", "row 1, column 'dep_hour': 99.0 is outside what the model was trained on"),
        ("compressed", "415", "Content-Encoding gzip"),
        ("sequence", "422", "parameter 'sequence_id' of the request cannot take effect"),
        ("load", "400", "`holdfast train`"),
    ],
)
def test_triton_is_told_what_was_wrong(triton, case, status, message):
    said = triton[case]
    assert said[0] == status
    assert message in said[1]


def test_kserve_sees_who_is_ready(kserve):
    assert (kserve["live"], kserve["ready"], kserve["model_ready"]) == (True, True, [True, False])


def test_kserve_gets_the_same_answer_as_json_and_as_bytes(kserve, plain):
    flights, pumps = plain("flights", *FLIGHTS), plain("pumps", *PUMPS)
    assert len(kserve["answers"]) == 9
    for name, (id, outputs) in kserve["answers"].items():
        kind, is_binary = name.split()
        assert outputs == (flights if kind == "flights" else pumps), name
        assert id == f"kserve-{is_binary}" or kind != "flights"


def test_kserve_is_told_what_was_wrong(kserve):
    status, message = kserve["refused"]
    assert (status, "did you mean 'probability'?" in message) == (422, True)


def test_the_codecs_of_mlserver_are_understood(mlserver, plain):
    pumps, flights = plain("pumps", *PUMPS), plain("flights", *FLIGHTS)
    assert mlserver["numpy"] == dict.fromkeys(mlserver["numpy"], pumps)
    assert mlserver["pandas"] == dict.fromkeys(("text", "bytes", "nothing empty"), flights)
    assert (mlserver["columns"], mlserver["base64"]) == (flights, flights)
    assert mlserver["missing"] == plain("flights", FLIGHTS[0], FLIGHTS[1] | {"distance": None})


def test_the_types_of_mlserver_read_metadata_and_index(mlserver):
    assert [each["datatype"] for each in mlserver["metadata"]["inputs"]] == ["INT64", "FP64", "BYTES", "BOOL"]
    assert mlserver["metadata"]["versions"] == ["1"]
    assert mlserver["server"]["name"] == "holdfast"
    assert [(each["name"], each["state"]) for each in mlserver["index"]] == [("flights", "READY"), ("pumps", "READY")]
