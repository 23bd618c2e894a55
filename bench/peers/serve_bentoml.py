"""BentoML: one worker and an async API on lists of numbers, which is faster than on numpy arrays.

Metrics and access log are off, unless PLAIN stands in the environment.
"""

import os
import sys
from pathlib import Path

import bentoml
import numpy as np
import onnxruntime as ort

IS_PLAIN = "PLAIN" in os.environ


@bentoml.service(
    workers=1,
    metrics={"enabled": IS_PLAIN},
    logging={"access": {"enabled": IS_PLAIN}},
    monitoring={"enabled": IS_PLAIN},
)
class Flights:
    """Answers rows."""

    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])

    @bentoml.api
    async def predict(self, data: list[list[float]]) -> list[float]:
        """Probabilities, one for each row."""
        [output] = self.session.run(None, {"x": np.array(data, dtype=np.float32)})
        return output.ravel().tolist()


if __name__ == "__main__":
    os.environ |= {"MODEL": sys.argv[1], "BENTOML_DO_NOT_TRACK": "True"}
    command = str(Path(sys.executable).with_name("bentoml"))
    here = str(Path(__file__).parent)
    words = ["serve", "serve_bentoml:Flights", "--working-dir", here, "--host", "127.0.0.1", "--port", sys.argv[2]]
    os.execv(command, [command, *words, *([] if IS_PLAIN else ["--quiet"])])
