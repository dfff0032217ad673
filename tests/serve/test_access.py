"""Tokens, addresses, other sites, rates: who is let in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from selfheal_cli.errors import ConfigurationError, RequestRefused
from selfheal_cli.serve.http.auth import Guard, actor_of, require_guarded, rights_for
from selfheal_cli.serve.http.rates import Rates
from selfheal_cli.serve.settings import Limits, Right, Sites, Tokens
from selfheal_cli.serve.token_file import read_tokens, tokens_from_environment

SCORING, OPERATING = "scoring-token-0123", "operating-token-0123"
TOKENS = Tokens.of(scoring=SCORING, operating=OPERATING)


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_token_file_holds_a_line_a_kind(tmp_path: Path) -> None:
    text = f"# for the shop\nscoring: {SCORING}\n\noperating: {OPERATING}\n"
    assert read_tokens(write(tmp_path / "tokens", text)) == TOKENS


def test_callers_have_names_and_rights_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"shop: {SCORING} score\nchargebacks: {OPERATING} label, look\n"
    tokens = read_tokens(write(tmp_path / "tokens", text))
    assert {one.name: set(one.rights) for one in tokens.callers} == {
        "shop": {Right.SCORE}, "chargebacks": {Right.LABEL, Right.LOOK},
    }  # fmt: skip
    assert not tokens.open  # nobody operates
    assert SCORING not in repr(tokens)
    monkeypatch.setenv("SELFHEAL_TOKENS", text.strip().replace("\n", ";"))
    assert tokens_from_environment() == tokens
    assert "SELFHEAL_TOKENS" not in os.environ  # no child process has it


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no token"),
        ("scoring: short", "16 or more"),
        ("reading: 0123456789abcdef", "line 1: 'NAME: TOKEN RIGHTS'"),
        ("ann: 0123456789abcdef fly", "line 1: 'NAME: TOKEN RIGHTS'"),
        ("an n: 0123456789abcdef score", "line 1: 'NAME: TOKEN RIGHTS'"),
        ("scoring 0123456789abcdef", "line 1"),
        ("scoring: 0123456789abcdef\nscoring: 0123456789abcdeg", "line 2"),
        ("scoring: 0123456789abcdef\noperating: 0123456789abcdef", "of its own"),
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
    for tokens in (Tokens(), Tokens.of(scoring=SCORING)):
        with pytest.raises(ConfigurationError, match="--insecure"):
            require_guarded("0.0.0.0", tokens, insecure=False)  # noqa: S104


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


SCORE, LABEL = frozenset((Right.SCORE,)), frozenset((Right.LABEL,))
LOOK, OPERATE = frozenset((Right.LOOK,)), frozenset((Right.OPERATE,))
NOTHING: frozenset[Right] = frozenset()


@pytest.mark.parametrize(
    ("method", "path", "rights"),
    [
        ("POST", "/invocations", SCORE),
        ("POST", "/feedback", LABEL),
        ("POST", "/v2/models/m/versions/1/infer", SCORE),
        ("POST", "/v1/models/m:predict", SCORE),
        ("GET", "/ping", NOTHING),
        ("GET", "/v2/models/m/ready", NOTHING),
        ("GET", "/v1/models/m", NOTHING),
        ("GET", "/v2/models/m", frozenset(Right)),
        ("GET", "/metrics", LOOK),
        ("GET", "/health/details", LOOK),
        ("POST", "/anything", OPERATE),
        ("DELETE", "/ping", OPERATE),
        ("POST", "/invocations/", OPERATE),
    ],
)
def test_each_route_needs_what_it_needs(method: str, path: str, rights: frozenset[Right]) -> None:
    assert rights_for(method, path) == rights


@pytest.mark.parametrize(
    ("rights", "headers", "answer"),
    [
        (NOTHING, {}, ""),
        (SCORE, {}, 401),
        (SCORE, bearer(SCORING), "scoring"),
        (LABEL, bearer(SCORING), "scoring"),
        (SCORE, bearer(OPERATING), 403),
        (SCORE, bearer(SCORING + "x"), 401),
        (SCORE, {"authorization": SCORING}, 401),
        (OPERATE, bearer(SCORING), 403),
        (OPERATE, bearer(OPERATING), "operating"),
        (LOOK, bearer(SCORING), "scoring"),
        (LOOK, {"authorization": "Basic b3A6b3BlcmF0aW5nLXRva2VuLTAxMjM="}, "operating"),
        (LOOK, {"authorization": "Basic ???"}, 401),
        (LOOK, {"authorization": "Bearer \xe4"}, 401),
    ],
)
def test_a_token_opens_its_own_doors(
    rights: frozenset[Right], headers: dict[str, str], answer: str | int
) -> None:
    guard = Guard(TOKENS)
    if isinstance(answer, str):
        assert guard.admit(rights, headers, changes=True) == answer
        return
    with pytest.raises(RequestRefused) as caught:
        guard.admit(rights, headers, changes=True)
    assert caught.value.status == answer and "token-0123" not in str(caught.value)


PASSWORD = {"authorization": "Basic b3A6b3BlcmF0aW5nLXRva2VuLTAxMjM="}
BEHIND = Sites(hosts=("scores",), public_url="https://shop.example/scores")


@pytest.mark.parametrize(
    ("tokens", "sites", "headers", "allowed"),
    [
        # by a token that no page has of itself, wherever the page is from
        (TOKENS, Sites(), {**bearer(OPERATING), "origin": "http://other.example"}, True),
        # a password is sent by the browser, for whatever page
        (TOKENS, Sites(), {**PASSWORD, "host": "h", "origin": "http://other.example"}, False),
        (TOKENS, Sites(), {**PASSWORD, "host": "h", "origin": "http://h"}, True),
        # behind a proxy that puts its own Host there: the browser says that it is the same site
        (TOKENS, Sites(), {**PASSWORD, "host": "127.0.0.1:5256", "origin": "https://shop.example",
                           "sec-fetch-site": "same-origin"}, True),
        # to plain http under a name it does not say it, but the operator has said where it is
        (TOKENS, BEHIND, {**PASSWORD, "host": "127.0.0.1", "origin": "https://shop.example"}, True),
        (TOKENS, Sites(), {**PASSWORD, "host": "1.2.3.4", "origin": "https://shop.example"}, False),
        # without tokens: by names that nobody else can point here
        (Tokens(), Sites(), {"host": "127.0.0.1:5001", "origin": "http://127.0.0.1:5001"}, True),
        (Tokens(), Sites(), {"host": "[::1]:5001"}, True),
        (Tokens(), Sites(), {"host": "10.1.2.3", "sec-fetch-site": "same-origin"}, True),
        (Tokens(), Sites(), {"host": "evil.com", "origin": "http://evil.com",
                             "sec-fetch-site": "same-origin"}, False),
        (Tokens(), BEHIND, {"host": "scores:5001", "origin": "http://scores:5001"}, True),
        (Tokens(), BEHIND, {"host": "shop.example"}, True),
        (Tokens(), Sites(), {"host": "localhost", "sec-fetch-site": "cross-site"}, False),
        (Tokens(), Sites(), {"host": "localhost", "origin": "null"}, False),
    ],
)  # fmt: skip
def test_an_order_comes_by_token_or_from_a_page_of_this_server(
    tokens: Tokens, sites: Sites, headers: dict[str, str], allowed: bool
) -> None:
    guard = Guard(tokens, sites)
    if allowed:
        guard.admit(OPERATE, headers, changes=True)
        return
    with pytest.raises(RequestRefused) as caught:
        guard.admit(OPERATE, headers, changes=True)
    assert caught.value.status == 403


@pytest.mark.parametrize(("rights", "changes"), [(LOOK, False), (LABEL, True), (OPERATE, True)])
def test_a_name_that_was_pointed_here_sees_and_tells_nothing(
    rights: frozenset[Right], changes: bool
) -> None:
    rebound = {"host": "evil.com:5001", "origin": "http://evil.com:5001",
               "sec-fetch-site": "same-origin"}  # fmt: skip
    with pytest.raises(RequestRefused, match="--allowed-host"):
        Guard(Tokens()).admit(rights, rebound, changes=changes)


@pytest.mark.parametrize(
    "host", ["127.0.0.1/x", "127.0.0.1#x", "me@127.0.0.1", "127.0.0.1?x", "127.0.0.1 x", "127.1"]
)
def test_what_is_no_name_with_a_port_is_not_taken_for_this_machine(host: str) -> None:
    with pytest.raises(RequestRefused, match="--allowed-host"):
        Guard(Tokens()).admit(LOOK, {"host": host}, changes=False)


def test_a_page_of_another_site_adds_no_rows() -> None:
    foreign = {"host": "localhost:5001", "origin": "https://other.example"}
    with pytest.raises(RequestRefused, match="this server"):
        Guard(Tokens()).admit(SCORE, foreign, changes=True)
    assert Guard(Tokens()).admit(SCORE, {"host": "scoring.internal"}, changes=True) == ""


def test_the_history_names_the_caller_of_a_token_and_marks_what_somebody_says_to_be() -> None:
    assert actor_of("ann", "bob", "10.0.0.1") == "ann"
    assert actor_of("operating", "bob", "10.0.0.1") == "bob (claimed)"
    assert actor_of("", "", "10.0.0.1") == "operator@10.0.0.1"


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


def test_an_origin_that_is_no_url_is_another_sites() -> None:
    with pytest.raises(RequestRefused, match="only a page of this server"):
        Guard(Tokens()).admit(
            frozenset((Right.LABEL,)), {"host": "localhost", "origin": "http://["}, changes=True
        )
