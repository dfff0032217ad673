"""KServe's REST client in its default settings, V2 and V1: URL, MODEL, COLUMNS, ROWS (JSON)."""

import asyncio
import json
import sys

import numpy as np
import pandas as pd
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

url, model, columns, rows = (
    sys.argv[1],
    sys.argv[2],
    json.loads(sys.argv[3]),
    json.loads(sys.argv[4]),
)
matrix = np.array(rows)


def asked(*, binary=True, outputs=None):
    tensor = InferInput("rows", list(matrix.shape), "FP64")
    tensor.set_data_from_numpy(matrix, binary_data=binary)
    return InferRequest(model_name=model, infer_inputs=[tensor], request_outputs=outputs)


def by_column():
    frame = pd.DataFrame(rows, columns=columns)
    tensors = [InferInput(name, [len(frame)], "FP64") for name in columns]
    for tensor in tensors:
        tensor.set_data_from_numpy(frame[tensor.name].to_numpy(), binary_data=False)
    return InferRequest(model_name=model, infer_inputs=tensors)


def read(answer):
    values = {one.name: one.as_numpy().tolist() for one in answer.outputs}
    labels = [one.decode() if isinstance(one, bytes) else one for one in values["label"]]
    return [values["probability"], labels]


async def main():
    second = InferenceRESTClient(RESTConfig(protocol="v2"))
    first = InferenceRESTClient(RESTConfig(protocol="v1"))
    wanted = [RequestedOutput(name, {"binary_data": True}) for name in ("probability", "label")]
    assert await second.is_server_live(url) and await second.is_server_ready(url)
    assert await second.is_model_ready(url, model) and await first.is_model_ready(url, model)
    answers = {
        "binary": read(await second.infer(url, asked(), model_name=model)),
        "binary both ways": read(await second.infer(url, asked(outputs=wanted), model_name=model)),
        "json": read(await second.infer(url, asked(binary=False), model_name=model)),
        "columns": read(await second.infer(url, by_column(), model_name=model)),
    }
    predicted = {}
    for name, instances in (
        ("lists", rows), ("objects", [dict(zip(columns, row, strict=True)) for row in rows])
    ):  # fmt: skip
        answer = await first.infer(url, {"instances": instances}, model_name=model)
        predicted[name] = answer["predictions"]
    print(json.dumps({"answers": answers, "predicted": predicted}))


asyncio.run(main())
