"""Ray Serve on one machine: one proxy, one replica, tuned for throughput, without access log."""

import os
import signal
import sys

os.environ |= {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_USAGE_STATS_ENABLED": "0"}

import numpy as np
import onnxruntime as ort
import ray
from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.schema import LoggingConfig
from starlette.requests import Request


@serve.deployment(num_replicas=1, max_ongoing_requests=128, ray_actor_options={"num_cpus": 0})
class Flights:
    """Answers rows."""

    def __init__(self, model: str) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    async def __call__(self, request: Request) -> dict[str, list[float]]:
        """Probabilities, one for each row."""
        x = np.array((await request.json())["data"], dtype=np.float32)
        return {"output": self.session.run(None, {"x": x})[0].ravel().tolist()}


if __name__ == "__main__":
    ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
    quiet = LoggingConfig(enable_access_log=False, log_level="ERROR")
    serve.start(http_options=HTTPOptions(host="127.0.0.1", port=int(sys.argv[2])), logging_config=quiet)
    serve.run(Flights.bind(sys.argv[1]), logging_config=quiet)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()
