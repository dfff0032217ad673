"""Triton's HTTP client in its default settings: URL, MODEL, COLUMNS (JSON), ROWS (JSON)."""

import asyncio
import json
import sys

import numpy as np
import tritonclient.http as triton
import tritonclient.http.aio as asynchronous

url, model, columns, rows = (
    sys.argv[1],
    sys.argv[2],
    json.loads(sys.argv[3]),
    json.loads(sys.argv[4]),
)
host = url.removeprefix("http://")
matrix = np.array(rows)
client = triton.InferenceServerClient(host)
assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(model)
assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
assert [one["name"] for one in client.get_model_metadata(model)["inputs"]] == columns


def whole(kind, *, binary=True):
    values = matrix.astype({"FP64": "f8", "FP32": "f4"}[kind])
    tensor = triton.InferInput("rows", list(values.shape), kind)
    tensor.set_data_from_numpy(values, binary_data=binary)
    return [tensor]


def each():
    tensors = []
    for place, name in enumerate(columns):
        tensors.append(triton.InferInput(name, [len(rows), 1], "FP64"))
        tensors[-1].set_data_from_numpy(matrix[:, place : place + 1].copy())
    return tensors


answers = {
    "binary": client.infer(model, whole("FP64")),
    "float32": client.infer(model, whole("FP32")),
    "json": client.infer(model, whole("FP64", binary=False)),
    "columns": client.infer(model, each()),
    "any id": client.infer(model, whole("FP64"), request_id="r 1/ü="),
    "gzip": client.infer(
        model, whole("FP64"), request_compression_algorithm="gzip",
        response_compression_algorithm="gzip",
    ),
    "deflate": client.infer(model, whole("FP64"), request_compression_algorithm="deflate"),
    "parameters": client.infer(model, whole("FP64"), parameters={"team": "risk"}, priority=1),
    "json outputs": client.infer(
        model, whole("FP64"),
        outputs=[triton.InferRequestedOutput(name, binary_data=False)
                 for name in ("label", "probability")],
    ),
    "async": client.async_infer(model, whole("FP64")).get_result(),
}  # fmt: skip
assert answers["any id"].get_response()["id"] == "r 1/ü="


async def awaited():
    async with asynchronous.InferenceServerClient(host) as other:
        return await other.infer(model, whole("FP64"))


answers["aio"] = asyncio.run(awaited())
refused = []
for outputs in ([triton.InferRequestedOutput("probability", class_count=1)],
                [triton.InferRequestedOutput("nothing")]):  # fmt: skip
    try:
        client.infer(model, whole("FP64"), outputs=outputs)
    except triton.InferenceServerException as exc:
        refused.append((exc.status(), exc.message()))
print(json.dumps({
    "answers": {
        name: [answer.as_numpy("probability").tolist(),
               [one.decode() if isinstance(one, bytes) else one
                for one in answer.as_numpy("label").tolist()]]
        for name, answer in answers.items()
    },
    "refused": refused,
}))  # fmt: skip
