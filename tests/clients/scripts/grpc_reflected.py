"""What grpcio's client of server reflection learns, and an answer asked for with nothing but that. Argument: host and
port."""

import json
import sys

from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

import grpc


def called(channel, service, name, **fields):
    """Call a method by what its description says."""
    method = service.FindMethodByName(name)
    asked, answered = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    call = channel.unary_unary(
        f"/{service.full_name}/{name}",
        request_serializer=asked.SerializeToString,
        response_deserializer=answered.FromString,
    )
    return call(asked(**fields))


def told(channel, package, *requests):
    """What a version of the protocol answers on one stream. Both have the same messages."""
    ask = channel.stream_stream(
        f"/{package}.ServerReflection/ServerReflectionInfo",
        request_serializer=ServerReflectionRequest.SerializeToString,
        response_deserializer=ServerReflectionResponse.FromString,
    )
    return list(ask(iter(requests)))


def inputs():
    columns = {"dep_hour": ("INT64", {"int64_contents": [8]}), "distance": ("FP64", {"fp64_contents": [500.0]})}
    columns |= {"carrier": ("BYTES", {"bytes_contents": [b"AA"]}), "is_holiday": ("BOOL", {"bool_contents": [False]})}
    return [
        {"name": name, "datatype": datatype, "shape": [1], "contents": contents}
        for name, (datatype, contents) in columns.items()
    ]


with grpc.insecure_channel(sys.argv[1]) as channel:
    database = ProtoReflectionDescriptorDatabase(channel)
    pool = DescriptorPool(database)
    service = pool.FindServiceByName("inference.GRPCInferenceService")
    answer = called(channel, service, "ModelInfer", model_name="flights", inputs=inputs())
    health = pool.FindServiceByName("grpc.health.v1.Health")
    requests = (
        ServerReflectionRequest(list_services="", host="here"),
        ServerReflectionRequest(file_by_filename=service.file.name),
        ServerReflectionRequest(file_containing_symbol="inference.Nothing"),
        ServerReflectionRequest(),
    )
    packages = ("grpc.reflection.v1", "grpc.reflection.v1alpha")
    both = [told(channel, package, *requests) for package in packages]
    said = {
        "services": list(database.get_services()),
        "methods": {each.name: [each.client_streaming, each.server_streaming] for each in service.methods},
        "output": answer.outputs[0].contents.fp64_contents[0],
        "status": called(channel, health, "Check").status,
        "statuses": list(
            health.methods_by_name["Check"].output_type.enum_types_by_name["ServingStatus"].values_by_name
        ),
        "both": both[0] == both[1],
        "kinds": [each.WhichOneof("message_response") for each in both[0]],
        "host": both[0][0].valid_host,
        "asked": both[0][2].original_request.file_containing_symbol,
        "errors": [[each.error_response.error_code, each.error_response.error_message] for each in both[0][2:]],
    }
print(json.dumps(said))
