"""grpcio's asyncio server: one process; ModelInfer of the Open Inference Protocol by ONNX Runtime, nothing recorded.

The messages are Holdfast's own classes, so both servers parse with the same library.
"""

import asyncio
import importlib.util
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort

import grpc

FILE = Path(__file__).parents[2] / "src" / "holdfast" / "serve" / "grpcmessages.py"


async def main(model: str, port: str) -> None:
    """Serve until killed."""
    spec = importlib.util.spec_from_file_location("grpcmessages", FILE)
    messages = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(messages)
    request_class, response_class = (messages.INFERENCE[f"ModelInfer{name}"] for name in ("Request", "Response"))
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    async def infer(request, context):
        raw = request.raw_input_contents
        if len(raw) == 1:
            x = np.frombuffer(raw[0], dtype="<f4").reshape(tuple(request.inputs[0].shape))
        else:
            x = np.stack([np.frombuffer(each, dtype="<f4") for each in raw], axis=1)
        output = session.run(None, {name: x})[0].ravel()
        response = response_class(model_name=request.model_name, id=request.id)
        response.outputs.add(name="probability", datatype="FP32", shape=[len(output)])
        response.raw_output_contents.append(output.astype("<f4").tobytes())
        return response

    handler = grpc.unary_unary_rpc_method_handler(
        infer, request_deserializer=request_class.FromString, response_serializer=response_class.SerializeToString
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("inference.GRPCInferenceService", {"ModelInfer": handler})]
    )
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
