"""The messages of the Open Inference Protocol over gRPC, and of gRPC's own services: health check and reflection.

Source: the protocol's public specification (github.com/kserve/open-inference-protocol), Triton's extensions of it, and
the health checking and server reflection protocols of gRPC. The classes live in a pool of their own, so a client's copy
of the same package may be loaded in the same process. Each message is written here as ``field type number``; ``[type]``
is a list, ``{type}`` a map from text.
"""

from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

Message = Any
"""A message: its fields are attributes, of the types written here."""
MessageClass = Any

_INFERENCE = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "live bool 1",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "ready bool 1",
    "ModelReadyRequest": "name string 1, version string 2",
    "ModelReadyResponse": "ready bool 1",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "name string 1, version string 2, extensions [string] 3",
    "ModelMetadataRequest": "name string 1, version string 2",
    "ModelMetadataResponse": "name string 1, versions [string] 2, platform string 3, "
    "inputs [ModelMetadataResponse.TensorMetadata] 4, outputs [ModelMetadataResponse.TensorMetadata] 5",
    "ModelMetadataResponse.TensorMetadata": "name string 1, datatype string 2, shape [int64] 3",
    "InferParameter": "bool_param bool 1, int64_param int64 2, string_param string 3, double_param double 4, "
    "uint64_param uint64 5",
    "InferTensorContents": "bool_contents [bool] 1, int_contents [int32] 2, int64_contents [int64] 3, "
    "uint_contents [uint32] 4, uint64_contents [uint64] 5, fp32_contents [float] 6, fp64_contents [double] 7, "
    "bytes_contents [bytes] 8",
    "ModelInferRequest": "model_name string 1, model_version string 2, id string 3, parameters {InferParameter} 4, "
    "inputs [ModelInferRequest.InferInputTensor] 5, outputs [ModelInferRequest.InferRequestedOutputTensor] 6, "
    "raw_input_contents [bytes] 7",
    "ModelInferRequest.InferInputTensor": "name string 1, datatype string 2, shape [int64] 3, "
    "parameters {InferParameter} 4, contents InferTensorContents 5",
    "ModelInferRequest.InferRequestedOutputTensor": "name string 1, parameters {InferParameter} 2",
    "ModelInferResponse": "model_name string 1, model_version string 2, id string 3, parameters {InferParameter} 4, "
    "outputs [ModelInferResponse.InferOutputTensor] 5, raw_output_contents [bytes] 6",
    "ModelInferResponse.InferOutputTensor": "name string 1, datatype string 2, shape [int64] 3, "
    "parameters {InferParameter} 4, contents InferTensorContents 5",
    "ModelStreamInferResponse": "error_message string 1, infer_response ModelInferResponse 2",
    "ModelConfigRequest": "name string 1, version string 2",
    "ModelConfigResponse": "config ModelConfig 1",
    # Of a configuration only what says something here; the numbers are those of the whole.
    "ModelConfig": "name string 1, platform string 2, max_batch_size int32 4, input [ModelInput] 5, "
    "output [ModelOutput] 6, backend string 17",
    "ModelInput": "name string 1, data_type DataType 2, dims [int64] 4, optional bool 8",
    "ModelOutput": "name string 1, data_type DataType 2, dims [int64] 3",
    "ModelStatisticsRequest": "name string 1, version string 2",
    "ModelStatisticsResponse": "model_stats [ModelStatistics] 1",
    "ModelStatistics": "name string 1, version string 2, last_inference uint64 3, inference_count uint64 4, "
    "execution_count uint64 5, inference_stats InferStatistics 6, batch_stats [InferBatchStatistics] 7",
    "StatisticDuration": "count uint64 1, ns uint64 2",
    "InferStatistics": "success StatisticDuration 1, fail StatisticDuration 2, queue StatisticDuration 3, "
    "compute_input StatisticDuration 4, compute_infer StatisticDuration 5, compute_output StatisticDuration 6, "
    "cache_hit StatisticDuration 7, cache_miss StatisticDuration 8",
    "InferBatchStatistics": "batch_size uint64 1, compute_input StatisticDuration 2, "
    "compute_infer StatisticDuration 3, compute_output StatisticDuration 4",
    "RepositoryIndexRequest": "repository_name string 1, ready bool 2",
    "RepositoryIndexResponse": "models [RepositoryIndexResponse.ModelIndex] 1",
    "RepositoryIndexResponse.ModelIndex": "name string 1, version string 2, state string 3, reason string 4",
}
_HEALTH = {
    "HealthCheckRequest": "service string 1",
    "HealthCheckResponse": "status HealthCheckResponse.ServingStatus 1",
}
_REFLECTION = {
    "ServerReflectionRequest": "host string 1, file_by_filename string 3, file_containing_symbol string 4, "
    "file_containing_extension ExtensionRequest 5, all_extension_numbers_of_type string 6, list_services string 7",
    "ExtensionRequest": "containing_type string 1, extension_number int32 2",
    "ServerReflectionResponse": "valid_host string 1, original_request ServerReflectionRequest 2, "
    "file_descriptor_response FileDescriptorResponse 4, all_extension_numbers_response ExtensionNumberResponse 5, "
    "list_services_response ListServiceResponse 6, error_response ErrorResponse 7",
    "FileDescriptorResponse": "file_descriptor_proto [bytes] 1",
    "ExtensionNumberResponse": "base_type_name string 1, extension_number [int32] 2",
    "ListServiceResponse": "service [ServiceResponse] 1",
    "ServiceResponse": "name string 1",
    "ErrorResponse": "error_code int32 1, error_message string 2",
}
DATA_TYPES = {
    "BOOL": 1,
    "UINT8": 2,
    "UINT16": 3,
    "UINT32": 4,
    "UINT64": 5,
    "INT8": 6,
    "INT16": 7,
    "INT32": 8,
    "INT64": 9,
    "FP16": 10,
    "FP32": 11,
    "FP64": 12,
    "BYTES": 13,
    "BF16": 14,
}
"""Numbers of the datatypes in a model's configuration."""
SERVING_STATUS = {"UNKNOWN": 0, "SERVING": 1, "NOT_SERVING": 2, "SERVICE_UNKNOWN": 3}

_ENUMS = {
    "inference": {"DataType": {"TYPE_INVALID": 0} | {f"TYPE_{name}": number for name, number in DATA_TYPES.items()}},
    "grpc.health.v1": {"HealthCheckResponse.ServingStatus": SERVING_STATUS},
}
_ENUMS["inference"]["DataType"]["TYPE_STRING"] = _ENUMS["inference"]["DataType"].pop("TYPE_BYTES")
_ONE_OF = {
    "InferParameter": ("parameter_choice", 1),
    "ServerReflectionRequest": ("message_request", 3),
    "ServerReflectionResponse": ("message_response", 4),
}
"""Messages of which only one field is set, from this number on."""
_UNARY = ("ServerLive", "ServerReady", "ServerMetadata", "ModelReady", "ModelMetadata", "ModelConfig",
          "ModelStatistics", "RepositoryIndex", "ModelInfer")  # fmt: skip
_SERVICES = {
    "inference": {
        "GRPCInferenceService": {
            **{name: f"{name}Request {name}Response" for name in _UNARY},
            "ModelStreamInfer": "[ModelInferRequest] [ModelStreamInferResponse]",
        }
    },
    "grpc.health.v1": {
        "Health": {
            "Check": "HealthCheckRequest HealthCheckResponse",
            "Watch": "HealthCheckRequest [HealthCheckResponse]",
        }
    },
}
_OF_REFLECTION = {"ServerReflection": {"ServerReflectionInfo": "[ServerReflectionRequest] [ServerReflectionResponse]"}}
"""Methods of the services: what they take and what they answer, in brackets where it is a stream."""
_SCALARS = {
    name: FieldDescriptorProto.Type.Value(f"TYPE_{name.upper()}")
    for name in ("bool", "bytes", "double", "float", "int32", "int64", "string", "uint32", "uint64")
}


def _classes(package: str, messages: dict[str, str]) -> dict[str, MessageClass]:
    """The classes of a package, by the names of their messages within it."""
    file = FileDescriptorProto(name=f"holdfast/{package}.proto", package=package, syntax="proto3")
    made: dict[str, DescriptorProto] = {}
    for path, fields in messages.items():
        outer, _, name = path.rpartition(".")
        message = made[path] = made[outer].nested_type.add(name=name) if outer else file.message_type.add(name=name)
        if path in _ONE_OF:
            message.oneof_decl.add(name=_ONE_OF[path][0])
        for field in filter(None, fields.split(", ")):
            _add_field(message, path, field, package)
    for path, values in _ENUMS.get(package, {}).items():
        outer, _, name = path.rpartition(".")
        enum = (made[outer] if outer else file).enum_type.add(name=name)
        for value, number in values.items():
            enum.value.add(name=value, number=number)
    for name, methods in _SERVICES.get(package, _OF_REFLECTION).items():
        service = file.service.add(name=name)
        for method, written in methods.items():
            taken, answered = written.split(" ")
            service.method.add(
                name=method,
                input_type=f".{package}.{taken.strip('[]')}",
                output_type=f".{package}.{answered.strip('[]')}",
                client_streaming=taken[0] == "[",
                server_streaming=answered[0] == "[",
            )
    pool = DescriptorPool()
    pool.Add(file)
    return {path: GetMessageClass(pool.FindMessageTypeByName(f"{package}.{path}")) for path in messages}


def _add_field(message: DescriptorProto, path: str, written: str, package: str) -> None:
    name, kind, number = written.split(" ")
    field = message.field.add(name=name, number=int(number))
    field.label = FieldDescriptorProto.LABEL_REPEATED if kind[0] in "[{" else FieldDescriptorProto.LABEL_OPTIONAL
    if path in _ONE_OF and field.number >= _ONE_OF[path][1]:
        field.oneof_index = 0
    inner = kind.strip("[]{}")
    if kind[0] == "{":
        entry = message.nested_type.add(name="".join(map(str.capitalize, name.split("_"))) + "Entry")
        entry.options.map_entry = True
        _add_field(entry, "", "key string 1", package)
        _add_field(entry, "", f"value {inner} 2", package)
        inner = f"{path}.{entry.name}"
    if inner in _SCALARS:
        field.type = _SCALARS[inner]
        return
    is_enum = inner in _ENUMS.get(package, {})
    field.type = FieldDescriptorProto.TYPE_ENUM if is_enum else FieldDescriptorProto.TYPE_MESSAGE
    field.type_name = f".{package}.{inner}"


INFERENCE = _classes("inference", _INFERENCE)
"""Classes of the messages of `inference.GRPCInferenceService`, by name."""
HEALTH = _classes("grpc.health.v1", _HEALTH)
"""Classes of the messages of `grpc.health.v1.Health`, by name."""
REFLECTION = _classes("grpc.reflection.v1", _REFLECTION)
"""Classes of the messages of `grpc.reflection.v1.ServerReflection`, by name."""
REFLECTION_ALPHA = _classes("grpc.reflection.v1alpha", _REFLECTION)
"""The same ones under their older name, which most clients ask for."""
