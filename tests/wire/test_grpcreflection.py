"""What server reflection tells, and that it describes what is served."""

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from holdfast.wire.grpcmessages import HEALTH, INFERENCE, REFLECTION, REFLECTION_ALPHA
from holdfast.wire.grpcreflection import SERVICES, answers

PATHS = {
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": REFLECTION,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": REFLECTION_ALPHA,
}


@pytest.fixture(params=sorted(PATHS))
def ask(request):
    """Asks one version of the protocol."""
    kind, answer = answers()[request.param]
    assert kind is PATHS[request.param]["ServerReflectionRequest"]
    return lambda **fields: answer(kind(**fields))


def file_of(response):
    [data] = response.file_descriptor_response.file_descriptor_proto
    return FileDescriptorProto.FromString(data)


def test_there_are_answers_for_both_versions():
    assert set(answers()) == set(PATHS)


def test_all_services_are_listed(ask):
    listed = [each.name for each in ask(list_services="").list_services_response.service]
    assert listed == sorted(SERVICES)
    assert "inference.GRPCInferenceService" in listed


@pytest.mark.parametrize(
    "symbol",
    [
        "inference.GRPCInferenceService",
        "inference.GRPCInferenceService.ModelInfer",
        "inference.ModelInferRequest",
        "inference.ModelInferRequest.InferInputTensor",
        "inference.InferParameter.bool_param",
        "inference.DataType",
    ],
)
def test_a_symbol_leads_to_the_file_that_describes_it(ask, symbol):
    assert file_of(ask(file_containing_symbol=symbol)).package == "inference"


def test_a_file_describes_the_messages_that_are_spoken(ask):
    for package, kinds in (("inference", INFERENCE), ("grpc.health.v1", HEALTH), ("grpc.reflection.v1", REFLECTION)):
        file = file_of(ask(file_by_filename=f"holdfast/{package}.proto"))
        pool = DescriptorPool()
        pool.Add(file)
        for name, kind in kinds.items():
            theirs = pool.FindMessageTypeByName(f"{package}.{name}")
            assert [(f.name, f.number, f.type) for f in theirs.fields] == [
                (f.name, f.number, f.type) for f in kind.DESCRIPTOR.fields
            ]


@pytest.mark.parametrize(
    "symbol", ["", "inference", "inference.GRPCInferenceService.", "inference.Nothing", "x.y", "ü"]
)
def test_what_is_not_there_is_said_with_what_is(ask, symbol):
    response = ask(file_containing_symbol=symbol, host="h")
    assert response.error_response.error_code == 5
    assert "inference.GRPCInferenceService" in response.error_response.error_message
    assert (response.valid_host, response.original_request.file_containing_symbol) == ("h", symbol)


def test_no_message_has_extensions(ask):
    found = ask(all_extension_numbers_of_type="inference.ModelInferRequest").all_extension_numbers_response
    assert (found.base_type_name, list(found.extension_number)) == ("inference.ModelInferRequest", [])
    assert ask(all_extension_numbers_of_type="nothing").error_response.error_code == 5
    extension = {"containing_type": "inference.ModelInferRequest", "extension_number": 7}
    assert ask(file_containing_extension=extension).error_response.error_code == 5


def test_a_request_for_nothing_is_refused(ask):
    assert ask(host="h").error_response.error_code == 3


FIELDS = ["list_services", "file_by_filename", "file_containing_symbol", "all_extension_numbers_of_type"]
NAMES = st.text(max_size=12) | st.sampled_from(
    ["inference.", ".inference", "inference.GRPCInferenceService", "a" * 5_000]
)


@given(st.sampled_from(sorted(PATHS)), st.sampled_from(FIELDS), NAMES)
def test_any_question_has_an_answer(path, field, name):
    kind, answer = answers()[path]
    assert answer(kind(**{field: name})).WhichOneof("message_response")


@given(st.sampled_from(sorted(PATHS)), st.binary(max_size=60))
def test_any_message_has_an_answer(path, data):
    kind, answer = answers()[path]
    try:
        request = kind.FromString(data)
    except DecodeError:
        return
    assert answer(request).original_request == request
