"""Labels by request or key: late, in any order, repeated, of rows that nobody knows."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from selfheal_cli.errors import RequestRefused
from selfheal_cli.labels.selection import LabelSelection, lots_of
from selfheal_cli.serve.http.feedback import Labels
from selfheal_cli.serve.http.parsing import parsed
from tests.serve.conftest import Running


def scored(running: Running, n: int = 3, **more: Any) -> str:
    answer = running.post("/invocations", json={"dataframe_split": {**running.rows(n), **more}})
    assert answer.status_code == 200, answer.text
    return answer.headers["x-request-id"]


def told(running: Running, *labels: dict[str, Any]) -> dict[str, int]:
    answer = running.post("/feedback", json={"labels": list(labels)})
    assert answer.status_code == 200, answer.text
    counts: dict[str, int] = answer.json()
    return counts


def test_labels_join_the_rows_that_were_just_answered(served: Running) -> None:
    one, other = scored(served), scored(served)
    counts = told(
        served,
        {"request_id": other, "labels": ["fraud", None, "normal"]},
        {"request_id": one, "place": 2, "label": "fraud"},
        {"request_id": one, "label": "normal"},
    )
    assert counts == {"joined": 4, "repeated": 0, "unknown": 0, "contradicting": 0, "corrected": 0}
    joined = served.front.spool.labels_after(0, 100_000)[-4:]
    assert [(label.place, label.y) for label in joined] == [(0, 1), (2, 0), (2, 1), (0, 0)]


def test_a_label_that_comes_again_is_repeated_and_of_no_known_row_unknown(served: Running) -> None:
    one = scored(served)
    assert told(served, {"request_id": one, "label": "fraud"})["joined"] == 1
    counts = told(
        served,
        {"request_id": one, "label": "normal"},
        {"request_id": one, "place": 3, "label": "fraud"},
        {"request_id": "never-seen", "label": "fraud"},
        {"key": "never-seen", "label": "fraud"},
    )
    assert counts == {
        "joined": 0, "repeated": 1, "unknown": 3, "contradicting": 0, "corrected": 1,
    }  # fmt: skip


@pytest.mark.parametrize("form", ["dataframe_split", "dataframe_records", "csv"])
def test_rows_are_found_by_the_key_that_came_with_them(served: Running, form: str) -> None:
    rows, first = served.rows(2), uuid4().int % 10**12
    names = [*rows["columns"], "order"]
    data = [[*row, first + place] for place, row in enumerate(rows["data"])]
    if form == "csv":
        lines = [",".join(map(str, line)) for line in [names, *data]]
        answer = served.post(
            "/invocations", data="\n".join(lines), headers={"content-type": "text/csv"}
        )
    elif form == "dataframe_split":
        answer = served.post("/invocations", json={form: {"columns": names, "data": data}})
    else:
        records = [dict(zip(names, row, strict=True)) for row in data]
        answer = served.post("/invocations", json={form: records})
    assert answer.status_code == 200, answer.text
    counts = told(
        served, {"key": first + 1, "label": "fraud"}, {"key": str(first), "label": " Normal "}
    )
    assert counts == {"joined": 2, "repeated": 0, "unknown": 0, "contradicting": 0, "corrected": 0}


def test_what_is_kept_are_the_raw_columns_and_the_answered_probabilities(served: Running) -> None:
    rows = served.rows(2)
    answer = served.post(
        "/invocations", json={"dataframe_split": rows}, headers={"x-request-id": "kept-1"}
    )
    served.front.recorder.flush()
    kept = served.front.spool.rows_after(0, 100_000)[-1]
    assert kept.request == "kept-1"
    for place, name in enumerate(rows["columns"]):
        assert kept.columns[name].tolist() == [row[place] for row in rows["data"]]
    assert kept.probabilities.tolist() == answer.json()["predictions"]
    assert kept.snapshot == answer.headers["x-selfheal-snapshot"]


def test_a_request_that_is_sent_again_is_one_request(served: Running) -> None:
    name = {"x-request-id": f"again-{uuid4()}"}
    for _ in range(2):
        answer = served.post("/invocations", json={"dataframe_split": served.rows()}, headers=name)
        assert answer.status_code == 200
        assert answer.headers["x-request-id"] == name["x-request-id"]
        served.front.recorder.flush()
    kept = served.front.spool.rows_after(0, 100_000)
    assert [one.request for one in kept].count(name["x-request-id"]) == 1


@pytest.mark.parametrize(
    ("item", "says"),
    [
        ({"request_id": "a", "label": "maybe"}, "normal, fraud"),
        ({"request_id": "a", "label": 2}, "normal, fraud"),
        ({"request_id": "a"}, "label"),
        ({"label": "fraud"}, "request_id and key"),
        ({"request_id": "a", "key": "b", "label": "fraud"}, "request_id and key"),
        ({"key": "b", "labels": [1]}, "whole request"),
        ({"request_id": "a", "place": -1, "label": "fraud"}, "place"),
        ({"request_id": "no spaces", "label": "fraud"}, "request_id"),
        ({"request_id": "a", "label": "fraud", "secret": 4711}, "; allowed: request_id, place"),
    ],
)
def test_a_label_that_says_nothing_is_refused(
    served: Running, item: dict[str, Any], says: str
) -> None:
    answer = served.post("/feedback", json={"labels": [item]})
    assert answer.status_code == 400, answer.text
    assert says in answer.json()["message"]
    assert "4711" not in answer.text and "maybe" not in answer.text


def test_rows_that_are_let_through_by_lot_are_named_by_their_places(served: Running) -> None:
    selection = LabelSelection("decision = 0", 0.5)
    served_by, rows = served.front.scorer.served, served.rows(40)
    object.__setattr__(served.front, "selection", selection)
    try:
        answer = served.post(
            "/invocations", json={"dataframe_split": rows}, headers={"x-request-id": "lots"}
        )
    finally:
        object.__setattr__(served.front, "selection", None)
    p = np.array(answer.json()["predictions"])
    flagged = p >= served_by.threshold
    expected = np.flatnonzero(flagged & (lots_of("lots", 0, 40) < 0.5))
    told = answer.headers.get("x-selfheal-let-through", "")
    assert told == ",".join(map(str, expected))
    again = served.post("/invocations", json={"dataframe_split": rows})
    assert "x-selfheal-let-through" not in again.headers


@pytest.mark.parametrize(
    ("label", "says"),
    [
        ({"key": 1.5, "label": 1}, "labels.0.key: expected is one of: a text, a whole number"),
        ({"key": "k" * 513, "label": 1}, "labels.0.key: String should have at most 512 characters"),
        ({"key": 2**63, "label": 1}, "labels.0.key: Input should be less than 9223372036854775808"),
        (
            {"key": "k", "label": {}},
            "labels.0.label: expected is one of: true or false, a whole number, a number, a text",
        ),
    ],
)
def test_a_value_of_no_kind_is_told_which_kinds_are_meant(label: dict[str, Any], says: str) -> None:
    with pytest.raises(RequestRefused) as refused:
        parsed(Labels, json.dumps({"labels": [label]}).encode())
    assert str(refused.value) == says
