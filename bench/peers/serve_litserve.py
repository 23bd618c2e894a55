"""LitServe: one API server and one worker process, joined by its fast queue."""

import os
import sys

import litserve
import numpy as np
import onnxruntime as ort


class Flights(litserve.LitAPI):
    """Answers rows."""

    def setup(self, device: str) -> None:
        """Load the session in the worker."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])

    def decode_request(self, request: dict[str, list[list[float]]]) -> object:
        """The rows as float32."""
        return np.array(request["data"], dtype=np.float32)

    def predict(self, x: object) -> object:
        """Probabilities (rows, 1)."""
        return self.session.run(None, {"x": x})[0]

    def encode_response(self, output: np.ndarray) -> dict[str, list[float]]:
        """The answer as JSON takes it."""
        return {"output": output.ravel().tolist()}


if __name__ == "__main__":
    os.environ["MODEL"] = sys.argv[1]
    server = litserve.LitServer(
        Flights(), accelerator="cpu", workers_per_device=1, fast_queue=True, disable_openapi_url=True
    )
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[2]),
        num_api_servers=1,
        generate_client_file=False,
        log_level="error",
        access_log=False,
    )
