"""Asks through tritonclient's asyncio client over HTTP; prints what came back."""

import asyncio
import json
import sys

import numpy as np
import tritonclient.http.aio as triton


def rows(i):
    made = triton.InferInput("rows", [1, 3], "FP32")
    made.set_data_from_numpy(np.full((1, 3), i, dtype=np.float32))
    return [made]


async def main(url):
    async with triton.InferenceServerClient(url.removeprefix("http://")) as client:
        answers = await asyncio.gather(*(client.infer("pumps", rows(i), request_id=f"aio-{i}") for i in range(16)))
        print(
            json.dumps(
                {
                    "live": await client.is_server_live(),
                    "metadata": await client.get_model_metadata("flights", "1"),
                    "outputs": [answer.as_numpy("probability").tolist()[0] for answer in answers],
                    "ids": [answer.get_response()["id"] for answer in answers],
                }
            )
        )


asyncio.run(main(sys.argv[1]))
