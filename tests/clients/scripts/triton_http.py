"""Asks through tritonclient over HTTP, blocking and with requests in flight; prints what came back."""

import json
import sys

import ml_dtypes
import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

TABLE = [[8, 12, 1], [20, 3, 0]]
FLAGS = [[1, 0, 1], [0, 1, 0]]
DTYPES = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64, np.float16, np.float32,
          np.float64, ml_dtypes.bfloat16, np.bool_]  # fmt: skip
FLIGHTS = {
    "dep_hour": np.array([8, 20], dtype=np.int64),
    "distance": np.array([12.5, np.nan]),
    "carrier": np.array(["AA", "UA"], dtype=np.object_),
    "is_holiday": np.array([True, False]),
}


def tensor(name, array, is_binary=True):
    made = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    made.set_data_from_numpy(array, binary_data=is_binary)
    return made


def wanted(is_binary):
    return [triton.InferRequestedOutput("probability", binary_data=is_binary)]


def refused(work):
    try:
        work()
    except InferenceServerException as error:
        return [error.status(), error.message()]
    return None


def packed(client):
    answers = {}
    for dtype in DTYPES:
        array = np.array(FLAGS if dtype is np.bool_ else TABLE).astype(dtype)
        name = np_to_triton_dtype(array.dtype)
        for given in (True,) if name in ("FP16", "BF16") else (True, False):  # the client sends these as bytes only
            for back in (True, False):
                answer = client.infer("pumps", [tensor("rows", array, given)], outputs=wanted(back))
                answers[f"{name} {given} {back}"] = answer.as_numpy("probability").tolist()
    return answers


def named(client):
    present = {**FLIGHTS, "distance": np.array([12.5, 3.0])}
    columns = {name: array.reshape(2, 1) for name, array in present.items()}
    return {
        "bytes": [tensor(name, array) for name, array in present.items()],
        "json": [tensor(name, array, is_binary=False) for name, array in present.items()],
        "both": [tensor(name, array, is_binary=name in ("dep_hour", "carrier")) for name, array in present.items()],
        "columns": [tensor(name, array) for name, array in columns.items()],
        "nan": [tensor(name, array) for name, array in FLIGHTS.items()],
    }


def in_flight(client):
    asked = [client.async_infer("pumps", [tensor("rows", np.full((1, 3), i, dtype=np.float32))]) for i in range(8)]
    return [each.get_result().as_numpy("probability").tolist()[0] for each in asked]


def main(url):
    with triton.InferenceServerClient(url.removeprefix("http://"), concurrency=4) as client:
        one = client.infer(
            "flights",
            named(client)["json"],
            model_version="1",
            request_id="asked-by-triton",
            parameters={"unit": "N1"},
        )
        rows = tensor("rows", np.array(TABLE, dtype=np.float32))
        late = {**FLIGHTS, "dep_hour": np.array([8, 99], dtype=np.int64)}
        print(
            json.dumps(
                {
                    "live": client.is_server_live(),
                    "ready": client.is_server_ready(),
                    "model_ready": [
                        client.is_model_ready(*model) for model in (("flights",), ("flights", "1"), ("flights", "9"))
                    ],
                    "server": client.get_server_metadata(),
                    "metadata": client.get_model_metadata("pumps"),
                    "index": client.get_model_repository_index(),
                    "load": refused(lambda: client.load_model("flights")),
                    "packed": packed(client),
                    "named": {
                        name: client.infer("flights", inputs).as_numpy("probability").tolist()
                        for name, inputs in named(client).items()
                    },
                    "answer": one.get_response(),
                    "in_flight": in_flight(client),
                    "unknown_output": refused(
                        lambda: client.infer("pumps", [rows], outputs=[triton.InferRequestedOutput("probabilty")])
                    ),
                    "unknown_model": refused(lambda: client.infer("pmups", [rows])),
                    "bad_value": refused(lambda: client.infer("flights", [tensor(n, a) for n, a in late.items()])),
                    "compressed": refused(lambda: client.infer("pumps", [rows], request_compression_algorithm="gzip")),
                    "sequence": refused(lambda: client.infer("pumps", [rows], sequence_id=7)),
                }
            )
        )


main(sys.argv[1])
