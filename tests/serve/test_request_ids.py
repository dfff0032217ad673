"""Request ids: a proxy's that many requests share, and the caller's own."""

from __future__ import annotations

from typing import Any

import pytest

from selfheal_cli.serve.http.recent import RecentIds
from tests.serve.conftest import Running

OWN, COMMON, RECORDED = "X-Selfheal-Request-Id", "X-Request-Id", "x-selfheal-recorded"


def labelled(served: Running, request: str) -> Any:
    label = served.front.scorer.served.labels[1]
    told = {"labels": [{"request_id": request, "label": label}]}
    return served.post("/feedback", json=told).json()


def scored(served: Running, value: float, **headers: str) -> Any:
    rows = served.rows(1)
    rows["data"][0][0] = value
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    answer = served.post("/invocations", json={"dataframe_split": rows}, headers=named)
    assert answer.status_code == 200, answer.text
    return answer


def conflicting(served: Running) -> tuple[int, float]:
    served.front.recorder.flush()
    name = "selfheal_rows_unrecorded_total"
    counted = served.front.meters.registry.get_sample_value(name)
    assert counted is not None
    return served.front.recorder.conflicting, counted


def test_a_second_request_under_an_id_is_answered_not_recorded_and_its_label_joins_no_row(
    served: Running,
) -> None:
    rows, counted = conflicting(served)
    first = scored(served, 1.0, X_Request_Id="trace-1")
    second = scored(served, 2.0, X_Request_Id="trace-1")
    assert RECORDED not in first.headers and second.headers[RECORDED] == "no"
    assert first.json() != second.json()
    assert conflicting(served) == (rows + 1, counted + 1)
    assert labelled(served, "trace-1") == {
        "joined": 0,
        "repeated": 0,
        "unknown": 1,
        "contradicting": 0,
        "corrected": 0,
    }
    told = served.get("/status").json()
    assert told["server"]["conflicting"] == rows + 1
    assert any("X-Selfheal-Request-Id" in line for line in told["told"]["warnings"])


def test_the_same_request_again_is_one_request(served: Running) -> None:
    before = conflicting(served)
    for _ in range(2):
        assert RECORDED not in scored(served, 3.0, X_Request_Id="again-1").headers
    assert conflicting(served) == before
    assert labelled(served, "again-1") == {
        "joined": 1,
        "repeated": 0,
        "unknown": 0,
        "contradicting": 0,
        "corrected": 0,
    }


def test_a_label_that_came_before_its_id_was_used_twice_stays(served: Running) -> None:
    scored(served, 4.0, X_Request_Id="early-1")
    assert labelled(served, "early-1")["joined"] == 1
    scored(served, 5.0, X_Request_Id="early-1")
    assert labelled(served, "early-1")["unknown"] == 1


def test_our_own_header_comes_first_and_both_are_given_back(served: Running) -> None:
    before = conflicting(served)
    for value in (1.0, 2.0):  # as behind a proxy that names all calls of a user's request alike
        own = f"order-{value:g}"
        answer = scored(served, value, X_Request_Id="user-9", X_Selfheal_Request_Id=own)
        assert (answer.headers[OWN], answer.headers[COMMON]) == (own, "user-9")
        assert labelled(served, own)["joined"] == 1
    assert labelled(served, "user-9")["unknown"] == 1
    assert conflicting(served) == before
    made = scored(served, 1.0)
    assert made.headers[OWN] == made.headers[COMMON]
    assert labelled(served, made.headers[OWN])["joined"] == 1


def test_an_odd_id_of_a_proxy_does_not_matter_beside_our_own(served: Running) -> None:
    answer = scored(served, 1.0, X_Request_Id="Root=1;Self=2", X_Selfheal_Request_Id="own-1")
    assert answer.headers[OWN] == answer.headers[COMMON] == "own-1"
    refused = served.post("/invocations", json={}, headers={OWN: "a b"})
    assert refused.status_code == 400 and OWN in refused.json()["message"]


def test_the_id_in_a_v2_request_is_held_to_the_same(served: Running) -> None:
    names = served.front.scorer.served.quick.encoding.names
    for value, recorded in ((1.0, None), (2.0, "no"), (1.0, None)):
        tensor = {"name": "x", "shape": [1, len(names)], "datatype": "FP64",
                  "data": [value] * len(names)}  # fmt: skip
        body = {"id": "v2-shared", "inputs": [tensor]}
        answer = served.post("/v2/models/fraud/infer", json=body)
        assert answer.status_code == 200
        assert answer.headers.get(RECORDED) == recorded
        assert answer.headers[OWN] == "v2-shared"
    assert labelled(served, "v2-shared")["unknown"] == 1


@pytest.mark.parametrize("most", [1, 3])
def test_only_the_latest_ids_are_remembered(most: int) -> None:
    recent = RecentIds(most)
    assert all(recent.stands_for(f"r{one}", one) for one in range(most))
    assert not recent.stands_for("r0", 7)
    assert recent.stands_for("new", 1)
    assert recent.stands_for("r0", 7)
