"""MLServer with a runtime of our own in its own process: no parallel workers.

There is no gzip, no metrics and no access log, unless PLAIN stands in the environment.
"""

import asyncio
import os
import sys

import onnxruntime as ort
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from mlserver.utils import install_uvloop_event_loop

QUIET = {"debug": False, "gzip_enabled": False, "metrics_endpoint": None}


class Flights(MLModel):
    """Answers the packed tensor of a request."""

    async def load(self) -> bool:
        """Load the session."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Probabilities (rows, 1)."""
        x = NumpyCodec.decode_input(payload.inputs[0])
        [output] = self.session.run(None, {"x": x})
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("probability", output)])


async def main() -> None:
    """Serve."""
    settings = Settings(
        host="127.0.0.1",
        http_port=int(sys.argv[2]),
        grpc_port=0,
        metrics_port=0,
        parallel_workers=0,
        **({} if "PLAIN" in os.environ else QUIET),
    )
    await MLServer(settings).start([ModelSettings(name="flights", implementation=Flights)])


if __name__ == "__main__":
    os.environ["MODEL"] = sys.argv[1]
    install_uvloop_event_loop()
    asyncio.run(main())
