"""Builds requests with MLServer's codecs and reads answers with its types; prints what came back."""

import json
import sys

import httpx
import numpy as np
import pandas as pd
from mlserver.codecs import Base64Codec, NumpyCodec, NumpyRequestCodec, PandasCodec, StringCodec
from mlserver.types import (
    InferenceRequest,
    InferenceResponse,
    MetadataModelResponse,
    MetadataServerResponse,
    RepositoryIndexResponse,
    RequestOutput,
)

TABLE = [[8, 12, 1], [20, 3, 0]]
FRAME = pd.DataFrame(
    {"dep_hour": [8, 20], "distance": [12.5, 3.0], "carrier": ["AA", "UA"], "is_holiday": [True, False]}
)


def main(url):
    def ask(model, request, **options):
        answer = httpx.post(f"{url}/v2/models/{model}/infer", content=request.model_dump_json(**options))
        if answer.status_code != 200:
            return [answer.status_code, answer.text]
        read = InferenceResponse.model_validate_json(answer.content)
        return NumpyCodec.decode_output(read.outputs[0]).ravel().tolist()

    missing = FRAME.assign(distance=[12.5, np.nan])  # the codec itself fails on missing text
    columns = InferenceRequest(
        inputs=[
            NumpyCodec.encode_input("dep_hour", FRAME["dep_hour"].to_numpy()),
            NumpyCodec.encode_input("distance", FRAME["distance"].to_numpy()),
            StringCodec.encode_input("carrier", ["AA", "UA"], use_bytes=False),
            NumpyCodec.encode_input("is_holiday", FRAME["is_holiday"].to_numpy()),
        ],
        outputs=[RequestOutput(name="probability")],
    )
    base64 = columns.model_copy(deep=True)
    base64.inputs[2] = Base64Codec.encode_input("carrier", [b"AA", b"UA"], use_bytes=False)
    print(
        json.dumps(
            {
                "numpy": {
                    np.dtype(dtype).name: ask("pumps", NumpyRequestCodec.encode_request(np.array(TABLE, dtype=dtype)))
                    for dtype in (np.int8, np.int32, np.int64, np.uint8, np.float32, np.float64)
                },
                "pandas": {
                    "text": ask("flights", PandasCodec.encode_request(FRAME, use_bytes=False)),
                    "bytes": ask("flights", PandasCodec.encode_request(FRAME)),
                    "nothing empty": ask("flights", PandasCodec.encode_request(FRAME), exclude_none=True),
                },
                "missing": ask("flights", PandasCodec.encode_request(missing, use_bytes=False)),
                "columns": ask("flights", columns),
                "base64": ask("flights", base64),
                "metadata": MetadataModelResponse.model_validate_json(
                    httpx.get(f"{url}/v2/models/flights").content
                ).model_dump(),
                "server": MetadataServerResponse.model_validate_json(httpx.get(f"{url}/v2").content).model_dump(),
                "index": RepositoryIndexResponse.model_validate_json(
                    httpx.post(f"{url}/v2/repository/index", json={"ready": True}).content
                ).model_dump(mode="json"),
            }
        )
    )


main(sys.argv[1])
