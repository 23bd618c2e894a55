"""pytriton: NVIDIA Triton in front, this process behind it; batches as they come, without waiting."""

import sys

import numpy as np
import onnxruntime as ort
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

options = ort.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])


@batch
def predict(input: np.ndarray) -> dict[str, np.ndarray]:
    """Probabilities (rows, 1)."""
    return {"probability": session.run(None, {"x": input})[0]}


if __name__ == "__main__":
    port = int(sys.argv[2])
    config = TritonConfig(
        http_address="127.0.0.1", http_port=port, allow_grpc=False, allow_metrics=False, log_verbose=0
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name="flights",
            infer_func=predict,
            inputs=[Tensor(name="input", dtype=np.float32, shape=(13,))],
            outputs=[Tensor(name="probability", dtype=np.float32, shape=(1,))],
            config=ModelConfig(max_batch_size=64, batcher=DynamicBatcher(max_queue_delay_microseconds=0)),
        )
        triton.serve()
