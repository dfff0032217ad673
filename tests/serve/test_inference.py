"""The V2 inference protocol: metadata, health, and tensors of both shapes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.serve.conftest import Running

INFER = "/v2/models/fraud/infer"


def matrix(running: Running, n: int = 3) -> dict[str, Any]:
    data = running.rows(n)["data"]
    return {"name": "input-0", "shape": [n, len(data[0])], "datatype": "FP64", "data": data}


def test_the_metadata_names_columns_and_outputs(served: Running) -> None:
    metadata = served.get("/v2/models/fraud").json()
    assert [one["name"] for one in metadata["inputs"]] == served.rows()["columns"]
    assert [one["name"] for one in metadata["outputs"]] == ["probability", "label"]
    version = served.front.scorer.served.shown_version
    assert metadata["versions"] == [version]
    assert served.get(f"/v2/models/fraud/versions/{version}").json() == metadata
    assert served.get("/v2").json()["name"] == "selfheal"
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/fraud/ready"):
        assert served.get(path).status_code == 200


@pytest.mark.parametrize("path", ["/v2/models/other", "/v2/models/fraud/versions/999"])
def test_what_does_not_serve_here_is_a_404(served: Running, path: str) -> None:
    for answer in (served.get(path), served.post(path + "/infer", json={"inputs": []})):
        assert answer.status_code == 404 and "'fraud'" in answer.json()["error"]


def test_one_tensor_and_a_tensor_a_column_give_what_invocations_gives(served: Running) -> None:
    rows = served.rows()
    expected = served.post("/invocations", json={"dataframe_split": rows}).json()["predictions"]
    flat = {**matrix(served), "data": [value for row in rows["data"] for value in row]}
    columns = [
        {"name": name, "shape": shape, "datatype": "FP64", "data": [r[at] for r in rows["data"]]}
        for at, name in enumerate(rows["columns"])
        for shape in [[3] if at % 2 else [3, 1]]
    ]
    for inputs in ([matrix(served)], [flat], columns):
        answer = served.post(INFER, json={"id": "v2-1", "inputs": inputs})
        document = answer.json()
        assert answer.status_code == 200, document
        assert document["id"] == answer.headers["x-request-id"] == "v2-1"
        probability, label = document["outputs"]
        assert (probability["data"], probability["shape"]) == (expected, [3])
        threshold = served.front.scorer.served.threshold
        assert label["data"] == ["fraud" if p >= threshold else "normal" for p in expected]


def test_only_the_outputs_that_were_asked_for_come(served: Running) -> None:
    asked = {"inputs": [matrix(served)], "outputs": [{"name": "label"}]}
    document = served.post(INFER, json=asked).json()
    assert [one["name"] for one in document["outputs"]] == ["label"]


@pytest.mark.parametrize(
    "inputs",
    [
        [],
        [{"name": "x", "shape": [1], "datatype": "FP64", "data": [4711.5]}],
        [{"name": "x", "shape": [1, 10], "datatype": "FP64", "data": [4711.5]}],
        [{"name": "x", "shape": [1, 10], "datatype": "FP64", "data": ["4711"] * 10}],
        [{"name": "x", "shape": [1, 10], "datatype": "BYTES", "data": ["4711 x"] * 10}],
        [{"name": "x", "shape": [1, 10], "datatype": "FP128", "data": [1] * 10}],
        [{"name": "x", "shape": [-1], "datatype": "FP64", "data": []}],
        [{"name": "x", "shape": [2, 10], "datatype": "FP64", "data": [[1] * 10, 4711]}],
        [{"name": "x", "shape": [1, 10], "datatype": "FP32", "data": [10**400] * 10}],
        [{"name": "x", "shape": [2**31 - 1] * 500, "datatype": "FP64", "data": []}],
    ],
)
def test_tensors_that_do_not_fit_are_refused_without_their_data(
    served: Running, inputs: list[Any]
) -> None:
    answer = served.post(INFER, json={"inputs": inputs})
    assert answer.status_code == 400
    assert answer.json().keys() == {"error"} and "4711" not in answer.text


def test_an_output_comes_once_and_a_length_is_one_of_the_bodys(served: Running) -> None:
    twice = {"inputs": [matrix(served)], "outputs": [{"name": "label"}] * 2}
    answer = served.post(INFER, json=twice)
    assert answer.json() == {"error": "outputs: each may be asked for once"}
    long = {"Inference-Header-Content-Length": "9" * 5_000}
    assert served.post(INFER, json={"inputs": [matrix(served)]}, headers=long).status_code == 400
