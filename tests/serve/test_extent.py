"""Bodies that are small and stand for large tables: refused before a frame is made of them."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.pyfunc import scoring_server

from selfheal_cli.errors import RequestRefused
from selfheal_cli.registry.scoring import READERS
from selfheal_cli.serve.http.extent import OTHERS, require_extent
from selfheal_cli.serve.http.lanes import Lane
from tests.conftest import PATIENCE
from tests.serve.conftest import Running

JSON, CSV, PARQUET = "application/json", "text/csv", "application/vnd.apache.parquet"
INPUTS, ROWS = 30, 100_000


def as_parquet(frame: pd.DataFrame) -> bytes:
    kept = io.BytesIO()
    frame.to_parquet(kept)
    return kept.getvalue()


def own_keys(rows: int) -> list[dict[str, int]]:
    return [{f"k{row}": 0} for row in range(rows)]


def wide(columns: int) -> dict[str, list[int]]:
    return {f"c{column}": [0] for column in range(columns)}


LARGE: dict[str, tuple[str, Callable[[], Any]]] = {  # made when they are sent
    "records, each with a key of its own": (JSON, lambda: {"dataframe_records": own_keys(10_000)}),
    "instances, each with a key of its own": (JSON, lambda: {"instances": own_keys(10_000)}),
    "far more columns than the model has": (JSON, lambda: {"inputs": wide(10_000)}),
    "one wide row among many": (
        JSON, lambda: {"dataframe_split": {"data": [[0]] * 50_000 + [[0] * 1_000]}},
    ),
    "an index and columns without data": (
        JSON, lambda: {"dataframe_split": {"data": [], "index": list(range(90_000)),
                                           "columns": list(range(900))}},
    ),
    "columns as objects with keys of their own": (
        JSON, lambda: {"inputs": {f"c{one}": {f"r{one}": 0} for one in range(1_030)} | {
            "x": {f"s{one}": 0 for one in range(60_000)}}},
    ),
    "one value for each of many rows": (
        JSON, lambda: {"inputs": {"x": [0] * 90_000, **{f"c{one}": 0 for one in range(900)}}},
    ),
    "too many rows": (
        JSON, lambda: {"dataframe_split": {"columns": ["x"], "data": [[0]] * 100_001}},
    ),
    "a wide CSV header over short rows": (CSV, lambda: b",".join([b"c"] * 900) + b"\n1" * 90_000),
    "too many CSV rows": (CSV, lambda: b"x" + b"\r1" * 100_001),
    "a million equal rows of Parquet": (
        PARQUET, lambda: as_parquet(pd.DataFrame({"x": np.ones(1_000_000)})),
    ),
    "a long text in many rows of Parquet": (
        PARQUET, lambda: as_parquet(pd.DataFrame({"x": ["long" * 10_000] * 6_000})),
    ),
}  # fmt: skip


def body_of(sent: Any) -> bytes:
    return sent if isinstance(sent, bytes) else json.dumps(sent).encode()


@pytest.fixture
def frames(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What frames were asked to be made of, by MLflow or by the readers of files."""
    asked: list[str] = []
    ask = scoring_server.invocations

    def invocations(data: Any, content_type: str, *rest: Any) -> Any:
        asked.append(content_type)
        return ask(data, content_type, *rest)

    def reading(kind: str, read: Callable[[bytes], pd.DataFrame]) -> Callable[[bytes], Any]:
        def recorded(body: bytes) -> pd.DataFrame:
            asked.append(kind)
            return read(body)

        return recorded

    monkeypatch.setattr(scoring_server, "invocations", invocations)
    for kind, read in READERS.items():
        monkeypatch.setitem(READERS, kind, reading(kind, read))
    yield asked


@pytest.mark.parametrize("name", LARGE)
def test_a_small_body_for_a_large_table_is_refused_before_a_frame_is_made(
    served: Running, frames: list[str], name: str
) -> None:
    kind, make = LARGE[name]
    answer = served.post("/invocations", data=body_of(make()), headers={"content-type": kind})
    assert answer.status_code == 413, answer.text
    assert answer.json()["error_code"] == "REQUEST_LIMIT_EXCEEDED"
    assert frames == []


def test_of_ordinary_bodies_frames_are_made(served: Running, frames: list[str]) -> None:
    rows = served.rows(3)
    frame = pd.DataFrame(rows["data"], columns=rows["columns"])
    frame["a note"] = 'with "quotes", commas' + "," * 5_000 + "\nand lines" * 3
    for kind, body in {
        JSON: json.dumps({"inputs": frame.to_dict("list")}).encode(),
        CSV: frame.to_csv(index=False).encode(),
        PARQUET: as_parquet(frame),
    }.items():
        answer = served.post("/invocations", data=body, headers={"content-type": kind})
        assert answer.status_code == 200, answer.text
    assert frames == [JSON, CSV, PARQUET]


def test_a_body_that_is_packed_is_unpacked_no_further_than_a_body_may_be_long(
    served: Running, frames: list[str]
) -> None:
    packed = gzip.compress(b"x\n" + b"1\n" * 50_000_000, 9)
    for kind in (JSON, CSV, PARQUET):
        headers = {"content-type": kind, "content-encoding": "gzip"}
        answer = served.post("/invocations", data=packed, headers=headers)
        assert answer.status_code == 413, answer.text


@pytest.mark.parametrize("kind", [JSON, CSV, PARQUET])
@given(body=st.binary(max_size=60))
def test_what_is_no_table_is_left_to_mlflow(kind: str, body: bytes) -> None:
    require_extent(body, kind, INPUTS, ROWS)


@given(
    document=st.recursive(
        st.none() | st.integers() | st.text(max_size=3),
        lambda one: st.lists(one, max_size=4) | st.dictionaries(
            st.sampled_from(["data", "columns", "index", "inputs", "instances",
                             "dataframe_split", "dataframe_records"]), one, max_size=4),
        max_leaves=12,
    )
)  # fmt: skip
def test_json_of_any_shape_is_measured(document: Any) -> None:
    require_extent(json.dumps(document).encode(), JSON, INPUTS, ROWS)


def test_as_many_columns_as_the_model_has_and_some_are_allowed() -> None:
    for more, allowed in ((OTHERS, True), (OTHERS + 1, False)):
        body = json.dumps({"inputs": wide(INPUTS + more)}).encode()
        if allowed:
            require_extent(body, JSON, INPUTS, ROWS)
        else:
            with pytest.raises(RequestRefused, match="columns; at most"):
                require_extent(body, JSON, INPUTS, ROWS)


def test_a_lane_takes_no_more_than_its_bytes_until_the_work_is_really_done() -> None:
    lane, goes_on, begun = Lane("test", 1, most_bytes=100), threading.Event(), threading.Event()

    def work() -> str:
        begun.set()
        goes_on.wait(PATIENCE)
        return "done"

    async def callers() -> None:
        gives_up = asyncio.create_task(lane.run(150, work))  # alone it may be larger
        await asyncio.to_thread(begun.wait, PATIENCE)
        gives_up.cancel()  # its thread works on
        with pytest.raises(asyncio.CancelledError):
            await gives_up
        with pytest.raises(RequestRefused) as refused:
            await lane.run(1, work)
        assert (refused.value.status, refused.value.reason) == (503, "busy")
        goes_on.set()
        while lane._bytes:
            await asyncio.sleep(0.001)
        assert await lane.run(100, work) == "done"

    asyncio.run(callers())
    lane.close()


def test_labels_are_joined_and_small_tables_scored_while_every_thread_for_large_ones_is_busy(
    served: Running,
) -> None:
    lanes, goes_on = served.front.lanes, threading.Event()
    held = [lanes.large._executor.submit(goes_on.wait, PATIENCE) for _ in range(8)]
    try:
        named = {"X-Selfheal-Request-Id": "beside-large-ones"}
        body = {"inputs": {n: [0.0] for n in served.front.scorer.served.quick.encoding.names}}
        assert served.post("/invocations", json=body, headers=named).status_code == 200
        label = served.front.scorer.served.labels[1]
        told = {"labels": [{"request_id": "beside-large-ones", "label": label}]}
        assert served.post("/feedback", json=told).json()["joined"] == 1
    finally:
        goes_on.set()
    assert all(one.result(PATIENCE) for one in held)


def test_a_server_that_has_too_much_to_do_says_when_to_come_back(served: Running) -> None:
    lane = served.front.lanes.large
    lane._bytes += lane._most
    try:
        rows = served.rows(2_000)
        body = json.dumps({"dataframe_split": rows})
        answer = served.post("/invocations", data=body, headers={"content-type": JSON})
    finally:
        lane._bytes -= lane._most
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert "come back later" in answer.json()["message"]
