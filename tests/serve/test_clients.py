"""Clients of others as themselves, in a virtual environment of their own, over HTTP."""

from __future__ import annotations

import gzip
import json
import subprocess
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import PATIENCE
from tests.serve.conftest import Limits, Running, programs, serving

CLIENTS = Path(__file__).with_name("clients")
REQUIREMENTS = ("--only-binary", ":all:", "-r", str(CLIENTS / "requirements.txt"))
INFER = "/v2/models/fraud/infer"


@pytest.fixture(scope="session")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter that has them."""
    return programs(tmp_path_factory, "clients-of-others", *REQUIREMENTS) / "python"


def asked(clients: Path, name: str, served: Running) -> dict[str, Any]:
    rows = served.rows(4)
    given = [served.url, "fraud", json.dumps(rows["columns"]), json.dumps(rows["data"])]
    done = subprocess.run(
        [clients, CLIENTS / name, *given],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def expected(served: Running) -> tuple[list[float], list[str]]:
    answer = served.post("/invocations", json={"dataframe_split": served.rows(4)}).json()
    threshold = served.front.scorer.served.threshold
    return answer["predictions"], [
        "fraud" if p >= threshold else "normal" for p in answer["predictions"]
    ]


@pytest.mark.slow
def test_tritons_client_scores_in_its_default_settings(served: Running, clients: Path) -> None:
    told = asked(clients, "triton.py", served)
    probabilities, labels = expected(served)
    assert len(told["answers"]) == 11
    for name, (given, named) in told["answers"].items():
        exactly = name != "float32"
        np.testing.assert_allclose(given, probabilities, rtol=0 if exactly else 1e-5, err_msg=name)
        assert named == labels, name
    assert [status for status, _ in told["refused"]] == ["400", "400"]
    assert "classification" in told["refused"][0][1]


@pytest.mark.slow
def test_kserves_client_scores_by_both_protocols(served: Running, clients: Path) -> None:
    told = asked(clients, "kserve_rest.py", served)
    probabilities, labels = expected(served)
    for name, (given, named) in told["answers"].items():
        assert (given, named) == (probabilities, labels), name
    assert told["predicted"] == {"lists": probabilities, "objects": probabilities}


def tensor(**other: Any) -> dict[str, Any]:
    return {"name": "x", "shape": [1, 10], "datatype": "FP64", "data": [0.5] * 10} | other


@pytest.mark.parametrize(
    ("datatype", "value"),
    [
        ("INT8", 999), ("INT8", 0.5), ("UINT8", -1), ("BOOL", 5), ("UINT64", 2**64),
        ("FP16", 1e6), ("FP32", 1e39), ("BF16", 1e39), ("BYTES", 1.5), ("INT64", True),
    ],
)  # fmt: skip
def test_a_declared_datatype_is_held(served: Running, datatype: str, value: Any) -> None:
    answer = served.post(INFER, json={"inputs": [tensor(datatype=datatype, data=[value] * 10)]})
    assert answer.status_code == 400
    assert f"no {datatype}" in answer.json()["error"]


@pytest.mark.parametrize(
    ("parameters", "behind", "says"),
    [
        ({"binary_data_size": 79}, b"\0" * 79, "10 values of FP64 have 80 bytes, and not 79"),
        ({"binary_data_size": 80}, b"\0" * 79, "so many bytes do not follow"),
        ({"binary_data_size": 80}, b"\0" * 81, "more bytes follow"),
        ({"binary_data_size": "80"}, b"\0" * 80, "so many bytes do not follow"),
        ({"shared_memory_region": "r"}, b"", "shared memory"),
        ({}, b"", "neither data nor"),
    ],
)
def test_bytes_that_do_not_fit_are_refused(
    served: Running, parameters: dict[str, Any], behind: bytes, says: str
) -> None:
    text = json.dumps({"inputs": [tensor(data=None, parameters=parameters)]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(text))}
    answer = served.post(INFER, data=text + behind, headers=headers)
    assert answer.status_code == 400
    assert says in answer.json()["error"]
    longer = {"Inference-Header-Content-Length": str(len(text) + len(behind) + 1)}
    assert served.post(INFER, data=text + behind, headers=longer).status_code == 400


def test_a_compressed_body_is_read_and_may_not_grow_beyond_the_limit(
    short_run: Path, tmp_path: Path
) -> None:
    with serving(short_run, tmp_path, limits=Limits(body_bytes=20_000)) as running:
        plain = json.dumps({"dataframe_split": running.rows(4)}).encode()
        answers = {}
        for encoding, body in (("gzip", gzip.compress(plain)), ("deflate", zlib.compress(plain)),
                               ("identity", plain)):  # fmt: skip
            headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
            answers[encoding] = running.post("/invocations", data=body, headers=headers)
        assert {one.status_code for one in answers.values()} == {200}
        assert len({one.content for one in answers.values()}) == 1
        for encoding, body, status in (
            ("gzip", gzip.compress(b" " * 50_000), 413), ("gzip", plain, 400),
            ("gzip", gzip.compress(plain)[:-9], 400), ("br", plain, 415),
        ):  # fmt: skip
            headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
            assert running.post("/invocations", data=body, headers=headers).status_code == status


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"instances": 3}', b'{"instances": [[1]]}', b'{"instances": []}']
)
def test_rows_that_are_none_are_refused_in_kserves_form(served: Running, body: bytes) -> None:
    answer = served.post("/v1/models/fraud:predict", data=body)
    assert answer.status_code == 400
    assert answer.json().keys() == {"error"}
    assert served.post("/v1/models/other:predict", data=body).status_code == 404
