"""MLflow's scoring protocol: the same bytes as MLflow's own server gives."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import numpy as np
import pandas as pd
import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from selfheal_cli.serve.http import tables
from selfheal_cli.serve.http.invocations import JSON, full_answer, quick_answer
from tests.conftest import PATIENCE
from tests.serve.conftest import Running

SHARED = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
NUMBER = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**70), 2**70), st.none(),
    st.floats(-5, 5),
)  # fmt: skip
ODD = st.one_of(NUMBER, st.booleans(), st.text(max_size=4), st.sampled_from(["1.5", "nan"]))


def frame_of(running: Running, n: int = 5) -> pd.DataFrame:
    rows = running.rows(n)
    return pd.DataFrame(rows["data"], columns=rows["columns"])


def bodies(frame: pd.DataFrame) -> dict[str, dict[str, Any]]:
    return {
        "split": {"dataframe_split": frame.to_dict(orient="split")},
        "split without index": {
            "dataframe_split": {"columns": list(frame), "data": frame.to_numpy().tolist()}
        },
        "records": {"dataframe_records": frame.to_dict(orient="records")},
        "instances": {"instances": frame.to_dict(orient="records")},
        "inputs": {"inputs": frame.to_dict(orient="list")},
        "columns turned": {"dataframe_split": frame[frame.columns[::-1]].to_dict(orient="split")},
        "a column more": {"dataframe_records": frame.assign(more="x").to_dict(orient="records")},
        "labels": {
            "dataframe_records": frame.to_dict(orient="records"),
            "params": {"output": "label"},
        },
    }


@pytest.mark.parametrize("form", list(bodies(pd.DataFrame({"a": [1.0]}))))
def test_json_is_answered_with_the_same_bytes(
    served: Running, mlflow_server: str, form: str
) -> None:
    body = bodies(frame_of(served))[form]
    ours = served.post("/invocations", json=body)
    theirs = requests.post(mlflow_server + "/invocations", json=body, timeout=PATIENCE)
    assert theirs.status_code == 200, theirs.text
    assert (ours.status_code, ours.content) == (200, theirs.content)
    assert ours.headers["content-type"] == theirs.headers["content-type"]


@pytest.mark.parametrize("path", ["/ping", "/health", "/version", "/nothing"])
def test_the_small_routes_answer_with_the_same_bytes(
    served: Running, mlflow_server: str, path: str
) -> None:
    ours, theirs = served.get(path), requests.get(mlflow_server + path, timeout=PATIENCE)
    assert (ours.status_code, ours.content) == (theirs.status_code, theirs.content)
    assert ours.headers["content-type"] == theirs.headers["content-type"]


def test_parquet_is_answered_with_the_same_bytes(served: Running, mlflow_server: str) -> None:
    kind, buffer = {"content-type": "application/vnd.apache.parquet"}, BytesIO()
    frame_of(served).to_parquet(buffer)
    ours = served.post("/invocations", data=buffer.getvalue(), headers=kind)
    theirs = requests.post(
        mlflow_server + "/invocations", data=buffer.getvalue(), headers=kind, timeout=PATIENCE
    )
    assert (ours.status_code, ours.content) == (200, theirs.content)


def test_csv_is_answered_as_the_same_table_in_json(served: Running) -> None:
    frame = frame_of(served)
    csv = {"content-type": "text/csv"}
    ours = served.post("/invocations", data=frame.to_csv(index=False), headers=csv)
    json_table = served.post("/invocations", json=bodies(frame)["split"])
    assert (ours.status_code, ours.content) == (200, json_table.content)


def test_content_types_are_refused_with_mlflows_words(served: Running, mlflow_server: str) -> None:
    for kind in ("application/xml", "application/json; charset=latin-1", "text/csv; a=b"):
        sent = {"data": b"{}", "headers": {"content-type": kind}}
        ours = served.post("/invocations", **sent)
        theirs = requests.post(mlflow_server + "/invocations", timeout=PATIENCE, **sent)
        assert (ours.status_code, ours.content) == (415, theirs.content)


def test_mlflows_own_client_is_answered(served: Running, mlflow_model: Any) -> None:
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient

    host, _, port = served.url.removeprefix("http://").partition(":")
    client = ScoringServerClient(host, port)
    client.ping()
    frame = frame_of(served)
    predictions = client.invoke(frame).get_predictions()
    assert predictions[0].astype(np.float32).tolist() == mlflow_model.predict(frame).tolist()
    labels = client.invoke(frame, params={"output": "label"}).get_predictions()
    assert labels[0].astype(str).tolist() == mlflow_model.predict(frame, params={"output": "label"})


@SHARED
@given(data=st.data())
def test_the_short_way_gives_what_mlflows_functions_give(served: Running, data: Any) -> None:
    one = served.front.scorer.served
    names = list(one.quick.encoding.names)
    width = len(names)
    cells = data.draw(st.sampled_from([NUMBER, ODD]))
    rows = data.draw(st.lists(st.lists(cells, min_size=width, max_size=width), max_size=4))
    names = data.draw(st.permutations(names))
    body: dict[str, Any] = {"dataframe_split": {"columns": names, "data": rows}}
    if data.draw(st.booleans()):
        body = {"dataframe_records": [dict(zip(names, row, strict=True)) for row in rows]}
    if data.draw(st.booleans()):
        body["params"] = {"output": data.draw(st.sampled_from(["label", "probability"]))}
    text = json.dumps(body).encode()
    quick = quick_answer(one, text, JSON, None, 10)
    if quick is None:
        return
    full = full_answer(one, text, JSON, None, 10)
    assert quick.text == full.text
    assert quick.scored is not None and full.scored is not None
    for name, values in full.scored.columns.items():
        np.testing.assert_array_equal(quick.scored.columns[name], values)


def test_plain_tables_go_the_short_way(served: Running) -> None:
    encoding = served.front.scorer.served.quick.encoding
    for form in ("split without index", "records", "columns turned", "labels"):
        body = bodies(frame_of(served))[form]
        if "dataframe_split" in body:
            body["dataframe_split"].pop("index", None)
        assert tables.read(json.dumps(body).encode(), encoding, None) is not None, form


def test_an_answer_names_what_gave_it(served: Running) -> None:
    answer = served.post("/invocations", json={"dataframe_split": served.rows()})
    now = served.front.scorer.served
    assert answer.headers["x-selfheal-version"] == str(now.version)
    assert answer.headers["x-selfheal-snapshot"] == now.snapshot
    assert float(answer.headers["x-selfheal-threshold"]) == now.threshold
    assert answer.headers["x-request-id"]


MALFORMED = {
    "not JSON": b"{",
    "a list": b"[1]",
    "nothing": b"",
    "no text": b"\xff\xfe\x00",
    "deep": b"[" * 100_000,
    "deep object": b'{"dataframe_split":' + b"[" * 100_000,
    "huge number": b'{"inputs": ' + b"9" * 5000 + b"}",
    "too large for a float": b'{"dataframe_records": [{"V7": ' + b"9" * 400 + b"}]}",
    "two forms": b'{"inputs": [1], "instances": [1]}',
    "no columns": b'{"dataframe_split": {"data": [[1]]}}',
    "ragged": b'{"dataframe_split": {"columns": ["V7"], "data": [[1], [1, 2]]}}',
    "nested": b'{"dataframe_records": [{"V7": {"secret-4711": [1]}}]}',
    "params": b'{"dataframe_records": [{"V7": 1}], "params": {"output": "secret-4711"}}',
    "params no object": b'{"dataframe_records": [{"V7": 1}], "params": 4711}',
    "null": b'{"inputs": null}',
    "messages": b'{"messages": [{"role": "secret-4711", "content": "x"}]}',
}


@pytest.mark.parametrize("name", list(MALFORMED))
def test_a_malformed_body_is_a_400_without_trace_and_data(served: Running, name: str) -> None:
    for kind in ("application/json", "text/csv", "application/vnd.apache.parquet"):
        answer = served.post("/invocations", data=MALFORMED[name], headers={"content-type": kind})
        assert answer.status_code == 400, answer.text
        document = answer.json()
        assert set(document) == {"error_code", "message", "sqlstate", "error_class"}  # as MLflow
        assert "Traceback" not in answer.text and "4711" not in answer.text


def test_missing_and_wrong_columns_are_named(served: Running) -> None:
    rows = served.rows()
    rows["columns"] = ["other", *rows["columns"][1:]]
    missing = served.post("/invocations", json={"dataframe_split": rows})
    assert missing.status_code == 400 and "V7" in missing.json()["message"]
    wrong = served.rows(1)
    wrong["data"][0][2] = "secret-4711"
    answer = served.post("/invocations", json={"dataframe_split": wrong})
    assert answer.status_code == 400
    assert "'V9'" in answer.json()["message"] and "4711" not in answer.text


@SHARED
@given(body=st.one_of(st.binary(max_size=200), st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(
        st.sampled_from(["dataframe_split", "dataframe_records", "inputs", "instances", "params",
                         "columns", "data", "index", "V7", "V14"]), inner, max_size=4)),
    max_leaves=12,
).map(lambda value: json.dumps(value).encode())))  # fmt: skip
def test_no_body_is_a_500(served: Running, body: bytes) -> None:
    for kind in ("application/json", "text/csv", "application/vnd.apache.parquet"):
        answer = served.post("/invocations", data=body, headers={"content-type": kind})
        assert answer.status_code in (200, 400), answer.text
