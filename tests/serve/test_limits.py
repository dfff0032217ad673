"""What a caller may do to the server: it goes on for everyone else."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pandas as pd
import pytest
import requests

from selfheal_cli.errors import StorageError
from selfheal_cli.serve.http.middleware import DECIDING
from tests.conftest import PATIENCE
from tests.serve.conftest import Limits, Running, Tokens, serving, until
from tests.serve.test_access import OPERATING, SCORING, TOKENS


@contextmanager
def limited(registry: Path, folder: Path, seconds: float) -> Iterator[Running]:
    """A server with tokens and small limits."""
    limits = Limits(body_bytes=20_000, rows=10, seconds=seconds)
    with serving(registry, folder, limits=limits, tokens=TOKENS) as running:
        yield running


@pytest.fixture(scope="module")
def narrow(short_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One that has time, however slow the machine."""
    with limited(short_run, tmp_path_factory.mktemp("narrow"), PATIENCE) as running:
        yield running


@pytest.fixture(scope="module")
def hasty(short_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One that has none: whoever sends all at once may be too late, too."""
    with limited(short_run, tmp_path_factory.mktemp("hasty"), 1.0) as running:
        yield running


def scores(running: Running) -> bool:
    answer = running.post(
        "/invocations",
        json={"dataframe_split": running.rows()},
        headers={"authorization": f"Bearer {SCORING}"},
    )
    return answer.status_code == 200


def answers(running: Running) -> bool:
    try:
        return running.get("/ping").ok
    except requests.ConnectionError:
        return False


def refused(running: Running, reason: str) -> float:
    return (
        running.front.meters.registry.get_sample_value("selfheal_refused_total", {"reason": reason})
        or 0.0
    )


def kept(running: Running) -> int:
    """Rows in the spool."""
    return running.front.spool.rows_beyond(0)


def sent(running: Running, *parts: bytes) -> bytes:
    """The answer to raw bytes."""
    host, _, port = running.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as caller:
        for part in parts:
            caller.sendall(part)
        answer = b""
        while part := caller.recv(65_536):
            answer += part
        return answer


HEAD = (
    b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    b"authorization: Bearer " + SCORING.encode() + b"\r\n"
)


def test_scoring_reading_and_operating_need_tokens(narrow: Running) -> None:
    body = {"dataframe_split": narrow.rows()}
    before = refused(narrow, "token")
    answer = narrow.post("/invocations", json=body)
    assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
    answer = narrow.post(
        "/invocations", json=body, headers={"authorization": f"Bearer {OPERATING}"}
    )
    assert (answer.status_code, answer.json()["message"]) == (
        403, "the token 'operating' may look, operate; this needs the right to score"
    )  # fmt: skip
    assert narrow.get("/openapi.json").status_code == 401
    assert refused(narrow, "token") == before + 2
    assert narrow.get("/ping").status_code == 200
    assert scores(narrow)


def test_a_long_body_is_cut_by_its_length_and_without_one(narrow: Running) -> None:
    before = refused(narrow, "body")
    told = sent(narrow, HEAD + b"content-length: 100000000\r\n\r\n")
    chunk = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
    untold = sent(narrow, HEAD + b"transfer-encoding: chunked\r\n\r\n", chunk, chunk)
    for answer in (told, untold):
        assert answer.startswith(b"HTTP/1.1 413") and b"20000 bytes" in answer
    assert refused(narrow, "body") == before + 2
    assert scores(narrow)


def test_too_many_rows_are_refused_in_every_form(narrow: Running) -> None:
    key = {"authorization": f"Bearer {SCORING}"}
    rows = narrow.rows(11)
    csv = "\n".join(",".join(map(str, line)) for line in [rows["columns"], *rows["data"]])
    labels = {"labels": [{"request_id": "a", "labels": ["fraud"] * 11}]}
    tensor = {
        "name": "x", "shape": [11, 10], "datatype": "FP64", "data": rows["data"]
    }  # fmt: skip
    for answer in (
        narrow.post("/invocations", json={"dataframe_split": rows}, headers=key),
        narrow.post("/invocations", data=csv, headers={**key, "content-type": "text/csv"}),
        narrow.post("/feedback", json=labels, headers=key),
        narrow.post("/v2/models/fraud/infer", json={"inputs": [tensor]}, headers=key),
    ):
        assert answer.status_code == 413 and "at most 10" in answer.text


def test_a_body_that_does_not_come_is_cut_in_time(hasty: Running) -> None:
    before = refused(hasty, "time")
    answer = sent(hasty, HEAD + b"content-length: 100\r\n\r\n", b"{")
    assert answer.startswith(b"HTTP/1.1 408") and b"within 1 s" in answer
    assert refused(hasty, "time") == before + 1


@pytest.mark.parametrize("begun", [b"", b"POST /invo", HEAD])
def test_headers_that_do_not_come_end_the_connection(hasty: Running, begun: bytes) -> None:
    assert sent(hasty, begun) == b""
    until(lambda: answers(hasty))  # a slow machine may be too late with this one, too


@pytest.mark.parametrize("name", sorted(DECIDING))
def test_a_header_that_decides_comes_once(narrow: Running, name: str) -> None:
    twice = f"{name}: one\r\n{name}: other\r\n".encode()
    answer = sent(narrow, b"GET /ping HTTP/1.1\r\nconnection: close\r\n" + twice + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 400")
    assert f"the header '{name}' comes twice".encode() in answer


def test_a_header_behind_the_body_decides_nothing(served: Running) -> None:
    head = b"POST /feedback HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
    body = b'd\r\n{"labels":[]}\r\n0\r\nX-Selfheal-Request-Id: behind\r\n\r\n'
    answer = sent(served, head + b"Connection: close\r\n\r\n" + body)
    assert answer.startswith(b"HTTP/1.1 200") and b"behind" not in answer


def test_headers_without_end_end_the_connection(narrow: Running) -> None:
    host, _, port = narrow.url.removeprefix("http://").partition(":")
    with (
        socket.create_connection((host, int(port)), timeout=PATIENCE) as caller,
        pytest.raises(OSError),
    ):
        caller.sendall(b"GET / HTTP/1.1\r\n")
        for number in count():
            caller.sendall(b"x-%d: " % number + b"y" * 4000 + b"\r\n")


@pytest.mark.parametrize("name", ["a b", "x" * 129, "'", "-begins", "ü"])
def test_a_request_id_that_is_none_is_refused(served: Running, name: str) -> None:
    headers = {"x-request-id": name.encode()}
    answer = served.post("/invocations", json={"dataframe_split": served.rows()}, headers=headers)
    assert answer.status_code == 400 and "X-Request-Id" in answer.json()["message"]


def test_scoring_goes_on_while_the_disk_is_full(
    served: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what waited is written when there is room again."""
    served.front.recorder.flush()
    before = kept(served)

    def full(answers: object) -> int:
        raise StorageError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(type(served.front.spool), "append", lambda self, answers: full(answers))
        answer = served.post("/invocations", json={"dataframe_split": served.rows()})
        assert answer.status_code == 200
        label = {"labels": [{"request_id": answer.headers["x-request-id"], "label": "fraud"}]}
        refused_label = served.post("/feedback", json=label)
        assert refused_label.status_code == 503
        details = served.get("/health/details").json()
        assert details["recording"]["waiting"] == 3
        assert "no space" in details["recording"]["problem"]
    assert served.post("/feedback", json=label).json()["joined"] == 1
    assert kept(served) == before + 3
    assert served.get("/health/details").json()["recording"]["problem"] == ""


def test_no_data_and_no_trace_are_logged_or_answered_when_the_server_fails(
    served: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: object, *given: object) -> None:
        raise RuntimeError("secret-4711")

    with monkeypatch.context() as patch:
        patch.setattr("selfheal_cli.serve.http.model.ServedModel.score", broken)
        patch.setattr(logging.getLogger("uvicorn.error"), "handlers", [caplog.handler])
        answer = served.post("/invocations", json={"dataframe_split": served.rows()})
        until(lambda: bool(caplog.text))  # it is answered before it is logged
    assert answer.status_code == 500
    assert answer.json()["error_code"] == "INTERNAL_ERROR"
    assert "4711" not in answer.text + caplog.text
    assert "RuntimeError at " in caplog.text
    assert set(answer.json()) == {"error_code", "message", "sqlstate", "error_class"}


__all__ = ["Tokens"]


def test_mlflows_own_client_sends_a_token_as_its_hosts_password(narrow: Running) -> None:
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient

    host, _, port = narrow.url.removeprefix("http://").partition(":")
    rows = narrow.rows()
    frame = pd.DataFrame(rows["data"], columns=rows["columns"])
    client = ScoringServerClient(f"any:{SCORING}@{host}", port)
    assert len(client.invoke(frame).get_predictions()) == len(frame)
    with pytest.raises(Exception, match="401"):
        ScoringServerClient(host, port).invoke(frame)


def test_of_several_processes_each_lets_its_part_through() -> None:
    limits = Limits(requests=10.0, connections=5, rows=7)
    part = limits.of_one(4)
    assert (part.requests, part.connections, part.rows) == (2.5, 2, 7)
    assert limits.of_one(1) == limits
    assert Limits().of_one(3).requests == 0.0  # any number
