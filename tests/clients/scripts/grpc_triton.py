"""What tritonclient's gRPC client gets, as JSON. Argument: host and port."""

import json
import queue
import sys

import numpy as np
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

KINDS = {"dep_hour": ("INT64", np.int64), "distance": ("FP64", np.float64), "is_holiday": ("BOOL", bool)}


def inputs(hours):
    n, made = len(hours), []
    for name, values in (("dep_hour", hours), ("distance", [500.0] * n), ("is_holiday", [False] * n)):
        tensor = triton.InferInput(name, [n], KINDS[name][0])
        made.append(tensor.set_data_from_numpy(np.array(values, dtype=KINDS[name][1])))
    carrier = triton.InferInput("carrier", [n], "BYTES")
    return [*made, carrier.set_data_from_numpy(np.array([b"AA"] * n, dtype=object))]


def refusal(call):
    try:
        call()
    except InferenceServerException as error:
        return [error.status(), error.message()]
    return None


def fields(message, seen):
    """Number and type of every field of a message and of those in it."""
    if message.full_name in seen:
        return
    seen[message.full_name] = {f.name: [f.number, f.type] for f in message.fields}
    for field in message.fields:
        if field.message_type is not None:
            fields(field.message_type, seen)


client = triton.InferenceServerClient(sys.argv[1])
answers = queue.Queue()
client.start_stream(lambda result, error: answers.put((result, error)))
for i in range(100):
    client.async_stream_infer("flights", inputs([99 if i == 7 else i % 12]), request_id=str(i))
streamed = [answers.get(timeout=30) for _ in range(100)]
client.stop_stream()
answer = client.infer("flights", inputs([8, 9]), request_id="mine")
descriptors = {}
for descriptor in service_pb2.DESCRIPTOR.message_types_by_name.values():
    fields(descriptor, descriptors)
said = {
    "ready": [client.is_server_live(), client.is_server_ready(), client.is_model_ready("flights")],
    "metadata": client.get_model_metadata("flights", as_json=True),
    "config": client.get_model_config("flights", as_json=True),
    "index": client.get_model_repository_index(as_json=True),
    "statistics": client.get_inference_statistics("flights", as_json=True),
    "outputs": answer.as_numpy("probability").tolist(),
    "id": answer.get_response().id,
    "gzip": client.infer("flights", inputs([8] * 5000), compression_algorithm="gzip").as_numpy("probability").shape,
    "large": client.infer("flights", inputs([8] * 10000)).as_numpy("probability").shape,
    "refusals": {
        "hour": refusal(lambda: client.infer("flights", inputs([99]))),
        "model": refusal(lambda: client.infer("flight", inputs([8]))),
        "large": refusal(lambda: client.infer("flights", inputs([8] * 400_000))),
        "deadline": refusal(lambda: client.infer("flights", inputs([8] * 10_000), client_timeout=1e-6)),
        "load": refusal(lambda: client.load_model("flights")),
    },
    "streamed": [
        [result.get_response().id, result.as_numpy("probability").tolist()] if error is None else error.message()
        for result, error in streamed
    ],
    "fields": descriptors,
}
print(json.dumps(said))
