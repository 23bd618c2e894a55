"""mosec: one worker process behind its Rust server; bodies are typed with msgspec.

With BATCH=n in the environment the worker takes up to n requests at once, waiting at most a millisecond for them.
"""

import os
import sys
from itertools import accumulate

import msgspec
import numpy as np
import onnxruntime as ort
from mosec import Server, Worker


class Request(msgspec.Struct):
    """Body of a request."""

    data: list[list[float]]


_decode = msgspec.json.Decoder(Request).decode


class Flights(Worker):
    """Answers each request by itself."""

    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])

    def deserialize(self, data: bytes) -> Request:
        """The body, typed."""
        return _decode(data)

    def serialize(self, data: list[float]) -> bytes:
        """The answer as JSON."""
        return msgspec.json.encode({"output": data})

    def forward(self, data: Request) -> list[float]:
        """Probabilities, one for each row."""
        return self.run(data.data)

    def run(self, rows: list[list[float]]) -> list[float]:
        """What the model says of rows."""
        [output] = self.session.run(None, {"x": np.array(rows, dtype=np.float32)})
        return output.ravel().tolist()


class Batched(Flights):
    """Answers several requests with one run."""

    def forward(self, data: list[Request]) -> list[list[float]]:
        """Probabilities for each request."""
        outputs = self.run([row for request in data for row in request.data])
        ends = list(accumulate(len(request.data) for request in data))
        return [outputs[start:end] for start, end in zip([0, *ends], ends, strict=False)]


if __name__ == "__main__":
    os.environ["MODEL"] = sys.argv[1]
    os.environ["MOSEC_PORT"], os.environ["MOSEC_ADDRESS"] = sys.argv[2], "127.0.0.1"
    os.environ["MOSEC_LOG_LEVEL"] = "error"
    sys.argv[1:] = []
    server = Server()
    if "BATCH" in os.environ:
        server.append_worker(Batched, num=1, max_batch_size=int(os.environ["BATCH"]), max_wait_time=1)
    else:
        server.append_worker(Flights, num=1)
    server.run()
