"""What KServe's gRPC client and grpcio's own clients get, as JSON. Argument: host and port."""

import asyncio
import json
import sys

import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest

import grpc


def request(hours, binary, request_id=None):
    n, made = len(hours), []
    columns = {
        "dep_hour": ("INT64", np.array(hours)),
        "distance": ("FP64", np.full(n, 500.0)),
        "carrier": ("BYTES", np.array(["AA"] * n, dtype=object)),
        "is_holiday": ("BOOL", np.zeros(n, dtype=bool)),
    }
    for name, (datatype, values) in columns.items():
        tensor = InferInput(name, [n], datatype)
        tensor.set_data_from_numpy(values, binary_data=binary)
        made.append(tensor)
    return InferRequest("flights", made, request_id=request_id)


def health(service):
    with grpc.insecure_channel(sys.argv[1]) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        return check(b"\x0a" + bytes([len(service)]) + service.encode()).hex()


async def main():
    async with InferenceGRPCClient(sys.argv[1]) as client:
        answers = [await client.infer(request([8, 9], binary, "mine")) for binary in (True, False)]
        many = await asyncio.gather(*[client.infer(request([i % 12], True)) for i in range(1000)])
        return {
            "ready": [
                await client.is_server_live(),
                await client.is_server_ready(),
                await client.is_model_ready("flights"),
            ],
            "outputs": [answer.outputs[0].as_numpy().tolist() for answer in answers],
            "ids": [answer.id for answer in answers],
            "many": [answer.outputs[0].as_numpy().tolist()[0] for answer in many],
        }


said = asyncio.run(main())
print(json.dumps(said | {"health": [health(""), health("flights")]}))
