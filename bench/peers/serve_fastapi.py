"""FastAPI: `async def` routes under one uvicorn with uvloop and httptools, without access log.

``/predict`` takes a pydantic body, as FastAPI is meant to be used; ``/raw`` goes past that, with orjson both ways.
"""

import sys

import numpy as np
import onnxruntime as ort
import orjson
import uvicorn
from fastapi import FastAPI, Response
from fastapi import Request as HTTPRequest
from pydantic import BaseModel


class Request(BaseModel):
    """Body of a request."""

    data: list[list[float]]


class Answer(BaseModel):
    """Body of an answer."""

    output: list[float]


options = ort.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
app = FastAPI()


@app.post("/predict")
async def predict(request: Request) -> Answer:
    """Probabilities, one for each row."""
    [output] = session.run(None, {"x": np.array(request.data, dtype=np.float32)})
    return Answer(output=output.ravel().tolist())


@app.post("/raw")
async def raw(request: HTTPRequest) -> Response:
    """The same without FastAPI's own reading and writing of bodies, and without a check of what comes in."""
    rows = orjson.loads(await request.body())["data"]
    [output] = session.run(None, {"x": np.array(rows, dtype=np.float32)})
    return Response(orjson.dumps({"output": output.ravel().tolist()}), media_type="application/json")


if __name__ == "__main__":
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[2]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="error",
    )
