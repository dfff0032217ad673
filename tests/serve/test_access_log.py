"""Who asked for what: a line a request, without what was sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from selfheal_cli.errors import ConfigurationError
from selfheal_cli.serve.http.access_log import Access, as_combined, as_json, opened
from selfheal_cli.serve.settings import Right, Token, Tokens
from tests.serve.conftest import serving, until

ASKED = Access(
    at=1_790_000_000.25, client="10.0.0.7", caller="shop", method="POST", path="/invocations",
    status=200, bytes=57, seconds=0.0012345678, request_id="order-17", version="3", refused="",
    agent='curl "8"\n',
)  # fmt: skip
SHOP, DESK = "shop-token-0123456", "desk-token-0123456"
TOKENS = Tokens(
    callers=(
        Token(name="shop", secret=SHOP, rights=frozenset((Right.SCORE,))),
        Token(name="desk", secret=DESK, rights=frozenset((Right.LABEL, Right.LOOK))),
    ),
    open=frozenset(),
)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_a_line_is_json_or_what_apache_and_nginx_write() -> None:
    told = json.loads(as_json(ASKED))
    assert told["at"] == "2026-09-21T14:13:20.250+00:00"
    assert (told["caller"], told["seconds"], told["agent"]) == ("shop", 0.001235, 'curl "8"')
    assert as_combined(ASKED) == (
        '10.0.0.7 - shop [21/Sep/2026:14:13:20 +0000] "POST /invocations HTTP/1.1" 200 57 "-" '
        '"curl \\"8\\""'
    )


def test_every_request_has_a_line_and_every_label_its_caller_and_no_line_has_rows(
    short_run: Path, tmp_path: Path
) -> None:
    path = tmp_path / "access.log"
    with serving(short_run, tmp_path, tokens=TOKENS, access_log=path) as running:
        rows = running.rows(2)
        rows["data"][0][0] = 4711.25
        scored = running.post(
            "/invocations", json={"dataframe_split": rows},
            headers=bearer(SHOP) | {"X-Request-Id": "order-17"},
        )  # fmt: skip
        assert scored.status_code == 200
        told = {"labels": [{"request_id": "order-17", "label": "fraud"}]}
        assert running.post("/feedback", json=told, headers=bearer(SHOP)).status_code == 403
        assert running.post("/feedback", json=told, headers=bearer(DESK)).json()["joined"] == 1
        again = {"labels": [{"request_id": "order-17", "label": "normal"}]}
        assert running.post("/feedback", json=again, headers=bearer(DESK)).json() == {
            "joined": 0, "repeated": 1, "unknown": 0, "contradicting": 0, "corrected": 1,
        }  # fmt: skip
        told_by = running.front.spool.told_of("order-17")
        assert [(y, caller) for y, caller, _ in told_by] == [(1, "desk"), (0, "desk")]
        assert running.get("/status?secret=4711", headers=bearer("guess")).status_code == 401
        refused = running.post("/operate/hold", json={}, headers=bearer(DESK))
        assert (refused.status_code, refused.json()["message"]) == (
            403, "the token 'desk' may label, look; this needs the right to operate"
        )  # fmt: skip
        until(lambda: len(lines(path)) == 6)
        moved = path.rename(tmp_path / "access.log.1")  # as logrotate does
        running.get("/ping")
        until(lambda: path.exists() and len(lines(path)) == 1)
    assert [
        (one["caller"], one["path"], one["status"], one["refused"]) for one in lines(moved)
    ] == [
        ("shop", "/invocations", 200, ""),
        ("shop", "/feedback", 403, "right"),
        ("desk", "/feedback", 200, ""),
        ("desk", "/feedback", 200, ""),
        ("", "/status", 401, "token"),
        ("desk", "/operate/hold", 403, "right"),
    ]
    first = lines(moved)[0]
    assert (first["request_id"], first["bytes"]) == ("order-17", len(scored.content))
    assert "4711" not in moved.read_text() and DESK not in moved.read_text()
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_address_is_believed_from_a_proxy_that_is_trusted_and_from_nobody_else(
    short_run: Path, tmp_path: Path
) -> None:
    for place, trusted in enumerate(((), ("127.0.0.1",))):
        path = tmp_path / f"access-{place}.log"
        given = {"access_log": path, "trusted_proxies": trusted}
        with serving(short_run, tmp_path / str(place), **given) as running:
            running.get("/ping", headers={"X-Forwarded-For": "203.0.113.9"})
            until(lambda path=path: len(lines(path)) == 1)
        assert lines(path)[0]["client"] == ("203.0.113.9" if trusted else "127.0.0.1")


def test_a_log_that_cannot_be_written_is_told_at_the_start(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigurationError, match="--access-log"),
        opened(tmp_path / "none" / "access.log", "json"),
    ):
        pass
