"""gRPC clients that nobody here wrote: tritonclient with its stream, KServe's client, grpcio itself and its client of
server reflection."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.serve.supervisor import listen
from holdfast.wire.grpcmessages import INFERENCE

from ..lines import next_line

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def grpc_client(interpreter):
    """Runs one of `scripts` against a server and gives what it printed as JSON."""
    with listen() as listening:
        argv = [sys.executable, str(HERE / "grpc_worker.py"), str(listening.fileno())]
        worker = subprocess.Popen(argv, pass_fds=[listening.fileno()], stdout=subprocess.PIPE, text=True)
        assert next_line(worker, "the worker") == "ready\n"

        def run(name):
            environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
            argv = [str(interpreter), "-W", "ignore", str(HERE / "scripts" / name)]
            place = "{}:{}".format(*listening.getsockname())
            done = subprocess.run(
                [*argv, place], capture_output=True, text=True, timeout=120, check=False, env=environment
            )
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout)

        yield run
        worker.terminate()
        assert worker.wait(20) == 0
        worker.stdout.close()


@pytest.fixture(scope="module")
def triton(grpc_client):
    return grpc_client("grpc_triton.py")


@pytest.fixture(scope="module")
def kserve(grpc_client):
    return grpc_client("grpc_kserve.py")


def test_triton_sees_what_there_is(triton):
    assert triton["ready"] == [True, True, True]
    assert [each["datatype"] for each in triton["metadata"]["inputs"]] == ["INT64", "FP64", "BYTES", "BOOL"]
    assert triton["config"]["config"]["input"][2]["data_type"] == "TYPE_STRING"
    assert triton["index"]["models"] == [{"name": "flights", "version": "1", "state": "READY"}]
    assert triton["statistics"]["model_stats"][0]["name"] == "flights"


def test_triton_gets_answers_small_large_and_packed(triton):
    assert (triton["outputs"], triton["id"]) == ([1.08, 1.09], "mine")
    assert (triton["gzip"], triton["large"]) == ([5000], [10000])


def test_triton_is_told_what_is_wrong(triton):
    refusals = triton["refusals"]
    assert {name: code for name, (code, _) in refusals.items()} == {
        "hour": "StatusCode.INVALID_ARGUMENT",
        "model": "StatusCode.NOT_FOUND",
        "large": "StatusCode.RESOURCE_EXHAUSTED",
        "deadline": "StatusCode.DEADLINE_EXCEEDED",
        "load": "StatusCode.UNIMPLEMENTED",
    }
    assert "from 0 to 23" in refusals["hour"][1]
    assert "did you mean 'flights'" in refusals["model"][1]


def test_a_stream_of_triton_is_answered_in_order(triton):
    for i, said in enumerate(triton["streamed"]):
        if i == 7:
            assert "from 0 to 23" in said
        else:
            assert said == [str(i), [1 + (i % 12) / 100]]


def test_the_messages_are_those_of_triton(triton):
    """Every field that is written here has the number and the type that the published protocol gives it."""
    for name, kind in INFERENCE.items():
        ours = {field.name: [field.number, field.type] for field in kind.DESCRIPTOR.fields}
        theirs = triton["fields"][f"inference.{name}"]
        assert ours == {field: theirs[field] for field in ours}, name


def test_kserve_gets_answers_as_values_and_as_bytes(kserve):
    assert kserve["ready"] == [True, True, True]
    assert (kserve["outputs"], kserve["ids"]) == ([[1.08, 1.09]] * 2, ["mine"] * 2)
    assert kserve["many"] == [1 + (i % 12) / 100 for i in range(1000)]


def test_the_health_check_of_grpc_is_answered(kserve):
    assert kserve["health"] == ["0801", "0801"]


@pytest.fixture(scope="module")
def reflected(grpc_client):
    return grpc_client("grpc_reflected.py")


def test_a_client_that_knows_nothing_finds_the_services_and_asks(reflected):
    assert reflected["services"] == [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "inference.GRPCInferenceService",
    ]
    assert (reflected["methods"]["ModelInfer"], len(reflected["methods"])) == ([False, False], 10)
    assert reflected["methods"]["ModelStreamInfer"] == [True, True]
    assert reflected["output"] == 1.08
    assert reflected["status"] == 1
    assert reflected["statuses"] == ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"]


def test_both_versions_of_reflection_answer_a_stream_of_questions(reflected):
    assert reflected["both"]
    assert reflected["kinds"] == ["list_services_response", "file_descriptor_response", *["error_response"] * 2]
    assert (reflected["host"], reflected["asked"]) == ("here", "inference.Nothing")
    [[missing, why], [nothing, _]] = reflected["errors"]
    assert (missing, nothing) == (5, 3)
    assert "inference.GRPCInferenceService" in why
