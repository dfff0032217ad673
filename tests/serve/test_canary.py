"""A canary's share of the requests: who answers, what the answer says, and when it is over."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selfheal_cli.serve.http.model import CanaryModel
from selfheal_cli.spool.tried import TriedVersion, number_tried, once_tried, put_tried, tried_now
from tests.serve.conftest import Running, serving, until
from tests.serve.test_following import published


@pytest.fixture(scope="module")
def server(short_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(short_run, tmp_path_factory.mktemp("tried")) as running:
        yield running


@pytest.fixture
def tried(server: Running) -> Iterator[Running]:
    """A server beside whose champion version 2 is tried; none is before a test."""
    yield server
    put_tried(server.front.channel, None)
    until(lambda: server.front.scorer.canary is None)


def try_out(running: Running, share: float = 0.5, by: str = "", seconds: float = 600.0) -> None:
    front = running.front
    told = TriedVersion(published(running, 2), share, by, time.time() + seconds)
    put_tried(front.channel, told)
    until(lambda: (one := front.scorer.canary) is not None and one.told.mark == told.mark)


def asked(running: Running, request: str, rows: dict[str, Any] | None = None) -> Any:
    body = {"dataframe_split": rows or running.rows(1)}
    return running.post("/invocations", json=body, headers={"X-Request-ID": request})


def test_a_share_is_answered_by_the_canary_and_an_id_always_by_the_same(tried: Running) -> None:
    front, names = tried.front, [f"id-{number}" for number in range(60)]
    before = asked(tried, "x").json()
    try_out(tried)
    answers = {name: asked(tried, name) for name in names}
    by = {name: answer.headers["x-selfheal-snapshot"] for name, answer in answers.items()}
    mine = [name for name in names if by[name] == "snapshot-2"]
    assert 15 < len(mine) < 45
    assert {answers[name].headers["x-selfheal-version"] for name in mine} == {"pending"}
    texts = {by[name]: answers[name].json() for name in names}
    assert texts.pop("snapshot-2") != before
    assert list(texts.values()) == [before]
    canary = front.scorer.canary
    assert canary is not None
    assert mine == [name for name in names if canary.takes(name)]
    number_tried(front.channel, "snapshot-2", 2)
    until(lambda: (one := front.scorer.canary) is not None and one.served.version == 2)
    again = asked(tried, f"{mine[0]}")
    assert again.headers["x-selfheal-version"] == "2"
    assert front.scorer.canary_rows >= len(mine)
    put_tried(front.channel, None)
    until(lambda: front.scorer.canary is None)
    assert asked(tried, mine[0]).json() == before
    assert once_tried(front.channel) == {"snapshot-2"}


def test_of_two_protocols_both_go_to_the_canary_and_a_version_that_is_named_does_not(
    tried: Running,
) -> None:
    try_out(tried, share=0.9)
    rows = tried.rows(1)
    flat = {"name": "x", "datatype": "FP64", "shape": [1, len(rows["columns"])],
            "data": rows["data"][0]}  # fmt: skip
    canary = tried.front.scorer.canary
    assert canary is not None
    name = next(one for one in map(str, range(9)) if canary.takes(one))
    body = {"id": name, "inputs": [flat]}
    answer = tried.post("/v2/models/fraud/infer", json=body)
    assert answer.headers["x-selfheal-snapshot"] == "snapshot-2"
    number = tried.front.scorer.served.version
    pinned = tried.post(f"/v2/models/fraud/versions/{number}/infer", json=body)
    assert pinned.json()["model_version"] == str(number)
    csv = ",".join(rows["columns"]) + "\n" + ",".join(map(str, rows["data"][0])) + "\n"
    headers = {"X-Request-ID": name, "Content-Type": "text/csv"}
    slow = tried.post("/invocations", data=csv, headers=headers)
    assert slow.headers["x-selfheal-snapshot"] == "snapshot-2"
    assert slow.json()["predictions"] == asked(tried, name).json()["predictions"]


def test_by_a_column_a_caller_stays_and_rows_of_both_kinds_stay_with_the_champion(
    tried: Running,
) -> None:
    rows = tried.rows(1)
    column = rows["columns"][0]
    try_out(tried, by=column)
    canary = tried.front.scorer.canary
    assert canary is not None
    values = [float(number) for number in range(12)]
    mine = [value for value in values if canary.takes(value)]
    others = [value for value in values if value not in mine]

    def by(*firsts: float, kind: str = "json") -> str:
        data = [[first, *rows["data"][0][1:]] for first in firsts]
        if kind == "json":
            answer = asked(
                tried, "-".join(map(str, firsts)), {"columns": rows["columns"], "data": data}
            )
        else:
            lines = [rows["columns"], *data]
            text = "".join(",".join(map(str, line)) + "\n" for line in lines)
            answer = tried.post("/invocations", data=text, headers={"Content-Type": "text/csv"})
        return str(answer.headers["x-selfheal-snapshot"])

    for kind in ("json", "csv"):
        assert by(mine[0], kind=kind) == by(mine[0], mine[1], kind=kind) == "snapshot-2"
        assert by(others[0], kind=kind) != "snapshot-2"
        assert by(mine[0], others[0], kind=kind) == by(others[0], kind=kind)


def test_a_canary_whose_time_is_over_answers_nobody_whether_the_healer_says_so_or_not(
    tried: Running,
) -> None:
    try_out(tried, share=0.9, seconds=-1.0)
    scorer = tried.front.scorer
    assert all(scorer.choose(str(number))[0] is scorer.served for number in range(20))


def test_what_is_tried_is_on_the_status_page_and_in_the_metrics(tried: Running) -> None:
    from selfheal_cli.serve.operator.status import HEALER, ModelStatus, Trial

    trial = Trial(
        version=2, snapshot="snapshot-2", share=0.25, by="", since="2026-11-25T21:00:00+00:00",
        until="2026-12-02T21:00:00+00:00", margin=0.0, level=0.95, batches=31, rows=3_100,
        difference=0.0123, low=-0.001, high=0.0256,
    )  # fmt: skip
    standing = ModelStatus(canary=trial, canaries={"withdrawn": 1})
    tried.front.channel.set_status(HEALER, standing.as_status())
    page = tried.get("/").text
    assert "v2</strong> answers 25 % of requests, chosen by their ids" in page
    assert "+0.0123</strong>, between -0.0010 and +0.0256 at level 0.95, on 3,100 labelled" in page
    metrics = tried.get("/metrics").text
    assert "selfheal_canary_share 0.25" in metrics
    assert 'selfheal_canary_difference{bound="low"} -0.001' in metrics
    assert 'selfheal_canaries_total{outcome="withdrawn"} 1.0' in metrics
    assert tried.get("/status").json()["standing"]["canary"]["rows"] == 3_100


def test_what_is_known_of_a_canary_is_not_read_again(tried: Running) -> None:
    try_out(tried)
    canary = tried.front.scorer.canary
    assert isinstance(canary, CanaryModel)
    until_later = replace(canary.told, until=canary.told.until + 1.0)
    again = tried_now(tried.front.channel, until_later)
    assert again is not None
    assert again.wanted.adapter is canary.told.wanted.adapter
