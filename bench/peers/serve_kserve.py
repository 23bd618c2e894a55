"""The SDK of KServe: one uvicorn worker, no gRPC; nothing is logged for each request."""

import logging
import sys

import numpy as np
import onnxruntime as ort
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from kserve.utils.utils import generate_uuid


class Flights(Model):
    """Answers the packed tensor of a request."""

    def __init__(self, model: str) -> None:
        super().__init__("flights")
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.ready = True

    async def predict(self, payload: InferRequest, headers: object = None, **_: object) -> InferResponse:
        """Probabilities (rows, 1)."""
        x = payload.inputs[0].as_numpy().astype(np.float32, copy=False)
        [output] = self.session.run(None, {"x": x})
        answer = InferOutput(name="probability", shape=list(output.shape), datatype="FP32")
        answer.set_data_from_numpy(output, binary_data=False)
        return InferResponse(response_id=payload.id or generate_uuid(), model_name=self.name, infer_outputs=[answer])


if __name__ == "__main__":
    model, port = sys.argv[1:]
    sys.argv[1:] = []
    server = ModelServer(http_port=int(port), workers=1, enable_grpc=False, enable_latency_logging=False)
    for name in ("uvicorn.access", "kserve.trace"):
        logging.getLogger(name).disabled = True
    server.start([Flights(model)])
