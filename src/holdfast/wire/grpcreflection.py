"""Server reflection of gRPC: tells clients that know nothing of them which services there are, and their messages."""

from collections.abc import Callable
from typing import Any

from holdfast.wire.grpcmessages import HEALTH, INFERENCE, REFLECTION, REFLECTION_ALPHA, Message, MessageClass
from holdfast.wire.grpcwire import StatusCode

METHOD = "ServerReflection/ServerReflectionInfo"

_FILES = [next(iter(each.values())).DESCRIPTOR.file for each in (INFERENCE, HEALTH, REFLECTION, REFLECTION_ALPHA)]
_BY_NAME = {file.name: file for file in _FILES}
_SERVICES = {each.full_name: each for file in _FILES for each in file.services_by_name.values()}
SERVICES = tuple(sorted(_SERVICES))
"""All services that are described."""


def answers() -> dict[str, tuple[MessageClass, Callable[[Message], Message]]]:
    """By path of the method, in both versions that clients speak: what it takes, and what answers it."""

    def of(kinds: dict[str, MessageClass]) -> tuple[MessageClass, Callable[[Message], Message]]:
        return kinds["ServerReflectionRequest"], lambda request: _answer(request, kinds["ServerReflectionResponse"]())

    return {f"/{_package(kinds)}.{METHOD}": of(kinds) for kinds in (REFLECTION, REFLECTION_ALPHA)}


def _package(kinds: dict[str, MessageClass]) -> str:
    return str(next(iter(kinds.values())).DESCRIPTOR.file.package)


def _answer(request: Message, response: Message) -> Message:
    """What is asked, answered in the empty response that is given; what is not found is an answer too."""
    response.valid_host = request.host
    response.original_request.CopyFrom(request)
    asked = request.WhichOneof("message_request")
    match asked:
        case "list_services":
            for name in SERVICES:
                response.list_services_response.service.add(name=name)
        case "file_by_filename":
            _give(response, _BY_NAME.get(request.file_by_filename), f"file '{request.file_by_filename[:200]}'")
        case "file_containing_symbol":
            name = request.file_containing_symbol
            _give(response, _file_of(name), f"symbol '{name[:200]}'")
        case "all_extension_numbers_of_type" if _file_of(request.all_extension_numbers_of_type) is not None:
            response.all_extension_numbers_response.base_type_name = request.all_extension_numbers_of_type
        case None:
            _refuse(response, StatusCode.INVALID_ARGUMENT, "the request asks for nothing")
        case _:
            _refuse(response, StatusCode.NOT_FOUND, "no message here has extensions")
    return response


def _give(response: Message, file: Any, what: str) -> None:
    if file is None:
        _refuse(response, StatusCode.NOT_FOUND, f"no {what}; the services are {', '.join(SERVICES)}")
    else:
        response.file_descriptor_response.file_descriptor_proto.append(file.serialized_pb)


def _file_of(name: str) -> Any:
    """The file in which a service, a method, a message or a field is described; None where there is none."""
    for file in _FILES:
        try:
            return file.pool.FindFileContainingSymbol(name)
        except KeyError:
            continue
    service, _, method = name.rpartition(".")  # a pool knows no methods
    found = _SERVICES.get(service)
    return found.file if found is not None and method in found.methods_by_name else None


def _refuse(response: Message, code: StatusCode, message: str) -> None:
    response.error_response.error_code = code
    response.error_response.error_message = message
