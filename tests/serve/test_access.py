"""Tokens, addresses, other sites, rates: who is let in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from selfheal_cli.errors import ConfigurationError, RequestRefused
from selfheal_cli.serve.http.auth import (
    Need,
    Rates,
    need_of,
    read_tokens,
    require_allowed,
    require_guarded,
)
from selfheal_cli.serve.settings import Limits, Tokens

SCORING, OPERATING = "scoring-token-0123", "operating-token-0123"
TOKENS = Tokens(scoring=SCORING, operating=OPERATING)


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_token_file_holds_a_line_a_kind(tmp_path: Path) -> None:
    text = f"# for the shop\nscoring: {SCORING}\n\noperating: {OPERATING}\n"
    assert read_tokens(write(tmp_path / "tokens", text)) == TOKENS


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no token"),
        ("scoring: short", "16 or more"),
        ("reading: 0123456789abcdef", "line 1"),
        ("scoring 0123456789abcdef", "line 1"),
        ("scoring: 0123456789abcdef\nscoring: 0123456789abcdeg", "line 2"),
        ("scoring: 0123456789abcdef\noperating: 0123456789abcdef", "of their own"),
    ],
)
def test_a_token_file_that_is_none_is_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        read_tokens(write(tmp_path / "tokens", text))
    assert "0123456789abcde" not in str(caught.value)


@pytest.mark.skipif(os.name != "posix", reason="rights of files")
def test_a_token_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "tokens", f"scoring: {SCORING}", 0o640)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        read_tokens(path)


def test_another_host_needs_both_tokens_or_a_word() -> None:
    require_guarded("127.0.0.1", Tokens(), insecure=False)
    require_guarded("0.0.0.0", TOKENS, insecure=False)  # noqa: S104
    require_guarded("0.0.0.0", Tokens(), insecure=True)  # noqa: S104
    for tokens in (Tokens(), Tokens(scoring=SCORING)):
        with pytest.raises(ConfigurationError, match="--insecure"):
            require_guarded("0.0.0.0", tokens, insecure=False)  # noqa: S104


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    ("method", "path", "need"),
    [
        ("POST", "/invocations", Need.SCORING),
        ("POST", "/feedback", Need.SCORING),
        ("POST", "/v2/models/m/versions/1/infer", Need.SCORING),
        ("GET", "/ping", Need.NOTHING),
        ("GET", "/v2/models/m/ready", Need.NOTHING),
        ("GET", "/metrics", Need.READING),
        ("GET", "/health/details", Need.READING),
        ("POST", "/anything", Need.OPERATING),
        ("DELETE", "/ping", Need.OPERATING),
    ],
)
def test_each_route_needs_what_it_needs(method: str, path: str, need: Need) -> None:
    assert need_of(method, path) is need


@pytest.mark.parametrize(
    ("need", "headers", "allowed"),
    [
        (Need.NOTHING, {}, True),
        (Need.SCORING, {}, False),
        (Need.SCORING, bearer(SCORING), True),
        (Need.SCORING, bearer(OPERATING), False),
        (Need.SCORING, bearer(SCORING + "x"), False),
        (Need.SCORING, {"authorization": SCORING}, False),
        (Need.OPERATING, bearer(SCORING), False),
        (Need.OPERATING, bearer(OPERATING), True),
        (Need.READING, bearer(SCORING), True),
        (Need.READING, {"authorization": "Basic b3A6b3BlcmF0aW5nLXRva2VuLTAxMjM="}, True),
        (Need.READING, {"authorization": "Basic ???"}, False),
        (Need.READING, {"authorization": "Bearer \xe4"}, False),
    ],
)
def test_a_token_opens_its_own_doors(need: Need, headers: dict[str, str], allowed: bool) -> None:
    if allowed:
        require_allowed(need, headers, TOKENS)
        return
    with pytest.raises(RequestRefused) as caught:
        require_allowed(need, headers, TOKENS)
    assert caught.value.status == 401 and "token-0123" not in str(caught.value)


@pytest.mark.parametrize(
    "headers",
    [{"origin": "http://other.example", "host": "here"}, {"sec-fetch-site": "cross-site"}],
)
def test_another_sites_page_operates_nothing(headers: dict[str, str]) -> None:
    with pytest.raises(RequestRefused) as caught:
        require_allowed(Need.OPERATING, headers, Tokens())
    assert caught.value.status == 403
    require_allowed(Need.OPERATING, {"origin": "http://here", "host": "here"}, Tokens())


def test_a_caller_has_a_rate_of_its_own_and_gets_it_back() -> None:
    now = [0.0]
    rates = Rates(Limits(requests=2.0), clock=lambda: now[0])
    for _ in range(4):
        rates.take("a")
    with pytest.raises(RequestRefused) as caught:
        rates.take("a")
    assert caught.value.status == 429
    rates.take("b")
    now[0] += 0.5
    rates.take("a")
    with pytest.raises(RequestRefused):
        rates.take("a")
