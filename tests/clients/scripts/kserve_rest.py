"""Asks through KServe's InferenceRESTClient; prints what came back."""

import asyncio
import json
import sys

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

TABLE = [[8, 12, 1], [20, 3, 0]]
FLIGHTS = {
    "dep_hour": ("INT64", np.array([8, 20], dtype=np.int64)),
    "distance": ("FP64", np.array([12.5, 3.0])),
    "carrier": ("BYTES", np.array(["AA", "UA"], dtype=np.object_)),
    "is_holiday": ("BOOL", np.array([True, False])),
}


def tensor(name, datatype, array, is_binary):
    made = InferInput(name=name, shape=list(array.shape), datatype=datatype)
    made.set_data_from_numpy(array, binary_data=is_binary)
    return made


async def main(url):
    config = RESTConfig(protocol="v2", retries=0)
    async with InferenceRESTClient(config) as client:

        async def ask(model, inputs, **more):
            request = InferRequest(model_name=model, infer_inputs=inputs, **more)
            answer = await client.infer(url, request, model_name=model)
            return [answer.id, answer.outputs[0].as_numpy().tolist()]

        answers = {}
        for is_binary in (True, False):
            inputs = [tensor(name, datatype, array, is_binary) for name, (datatype, array) in FLIGHTS.items()]
            answers[f"flights {is_binary}"] = await ask("flights", inputs, request_id=f"kserve-{is_binary}")
            for datatype, dtype in (("FP32", np.float32), ("FP64", np.float64), ("INT32", np.int32)):
                inputs = [tensor("rows", datatype, np.array(TABLE, dtype=dtype), is_binary)]
                answers[f"{datatype} {is_binary}"] = await ask("pumps", inputs)
        inputs = [tensor("rows", "FP16", np.array(TABLE, dtype=np.float16), True)]
        answers["FP16 True"] = await ask("pumps", inputs, parameters={"binary_data_output": True})
        try:
            wanted = [RequestedOutput("probabilty")]
            refused = await ask("pumps", inputs, request_outputs=wanted)
        except httpx.HTTPStatusError as error:
            refused = [error.response.status_code, str(error)]
        print(
            json.dumps(
                {
                    "live": await client.is_server_live(url),
                    "ready": await client.is_server_ready(url),
                    "model_ready": [await client.is_model_ready(url, model) for model in ("flights", "unknown")],
                    "answers": answers,
                    "refused": refused,
                }
            )
        )


asyncio.run(main(sys.argv[1]))
