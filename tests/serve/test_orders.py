"""Orders over HTTP: who may give them, what is asked of the healer, what comes back."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import requests

from selfheal_cli.serve.operator.status import Happening
from selfheal_cli.serve.settings import Tokens
from selfheal_cli.spool.control import ControlChannel
from tests.conftest import PATIENCE
from tests.serve.operating import (
    ANSWERS,
    DIGEST,
    REFUSED,
    WORSE,
    Healer,
    channel_with,
    operator_app,
    serving,
)

PASSWORD = {"Authorization": "Basic b3A6b3BlcmF0ZQ=="}  # what a browser sends by itself
TOKENS = Tokens.of(scoring="score", operating="operate")
OPERATOR = {"Authorization": "Bearer operate"}


@pytest.fixture
def channel(tmp_path: Path) -> Iterator[ControlChannel]:
    new_board = channel_with(tmp_path, WORSE)
    yield new_board
    new_board.close()


def post(url: str, kind: str, document: Any, **headers: str) -> requests.Response:
    return requests.post(f"{url}/operate/{kind}", json=document, headers=headers, timeout=PATIENCE)


def test_a_rollback_shows_its_plan_and_is_carried_out_by_its_digest(
    channel: ControlChannel,
) -> None:
    with Healer(channel, ANSWERS) as healer, serving(operator_app(channel, TOKENS)) as url:
        plan = post(url, "plan", {"to": 9}, **OPERATOR)
        assert (plan.status_code, plan.json()["plan"]["digest"]) == (200, DIGEST)
        asked = {"to": 9, "digest": DIGEST, "reason": "F1 fell\x1b[2J"}
        done = post(url, "rollback", asked, **OPERATOR, **{"X-Actor": "ann"})
        assert done.json() == ANSWERS["rollback"]
        held = post(url, "hold", {"reason": "labels look odd"}, **OPERATOR)
        released = post(url, "release", {}, **OPERATOR)
    assert (held.status_code, released.status_code) == (200, 200)
    assert healer.orders == [
        ("plan", {"to": 9}),
        ("rollback", {"to": 9, "digest": DIGEST, "reason": "F1 fell[2J", "actor": "ann (claimed)"}),
        ("hold", {"reason": "labels look odd", "actor": "operator@127.0.0.1"}),
        ("release", {"reason": "by hand", "actor": "operator@127.0.0.1"}),
    ]


def test_what_the_healer_refuses_comes_back_with_its_reason(channel: ControlChannel) -> None:
    with Healer(channel, ANSWERS | {"rollback": REFUSED}), serving(operator_app(channel)) as url:
        answer = post(url, "rollback", {"to": "best", "digest": DIGEST})
    assert answer.status_code == 409
    assert answer.json() == {"error_code": "CONFLICT", "message": REFUSED["error"]}


def test_an_order_that_nobody_takes_is_taken_back(channel: ControlChannel) -> None:
    with serving(operator_app(channel, wait_seconds=0.1)) as url:
        answer = post(url, "hold", {})
    assert answer.status_code == 503
    assert "it was taken back: is the healer up?" in answer.json()["message"]
    assert channel.take_command(0.0) is None


def test_an_order_that_was_taken_may_still_be_carried_out_and_that_is_said(
    channel: ControlChannel,
) -> None:
    number = channel.send_command("hold", {})
    assert channel.take_command(0.0) is not None
    assert not channel.withdraw(number)


@pytest.mark.parametrize("kind", ["plan", "rollback", "hold", "release"])
def test_nobody_else_orders(channel: ControlChannel, kind: str) -> None:
    document = {"plan": {"to": "best"}, "rollback": {"to": 1, "digest": "d"}}.get(kind, {})
    others: list[tuple[dict[str, str], int]] = [
        ({}, 401),
        ({"Authorization": "Bearer score"}, 403),
        ({"Authorization": "Basic operate"}, 401),
        ({"Authorization": "Bearer operat\u00e9"}, 401),
        (PASSWORD | {"Origin": "http://evil.example"}, 403),
        (PASSWORD | {"Origin": "null"}, 403),
        (PASSWORD | {"Sec-Fetch-Site": "cross-site"}, 403),
    ]
    with serving(operator_app(channel, TOKENS)) as url:
        for headers, code in others:
            assert post(url, kind, document, **headers).status_code == code, headers
    assert channel.take_command(0.0) is None


def test_without_a_token_a_site_whose_name_points_here_orders_nothing(
    channel: ControlChannel,
) -> None:
    with Healer(channel, ANSWERS) as healer, serving(operator_app(channel)) as url:
        here = url.removeprefix("http://")
        rebound = {"Host": "evil.example:80", "Origin": "http://evil.example:80"}
        assert post(url, "hold", {}, **rebound).status_code == 403
        assert post(url, "hold", {}, Host="localhost", Origin="http://localhost").status_code == 200
        assert post(url, "hold", {}, Origin=f"http://{here}").status_code == 200
    assert len(healer.orders) == 2


NO_ORDERS: list[tuple[str, Any]] = [
    ("plan", {}),
    ("plan", {"to": 0}),
    ("plan", {"to": "worst"}),
    ("plan", {"to": True}),
    ("plan", {"to": 10**40}),
    ("rollback", {"to": "best"}),
    ("rollback", {"to": "best", "digest": ""}),
    ("hold", {"reason": "x" * 301}),
    ("hold", {"who": "me"}),
    ("release", []),
]


def test_what_is_no_order_is_told_so(channel: ControlChannel) -> None:
    with serving(operator_app(channel)) as url:
        for kind, document in NO_ORDERS:
            assert post(url, kind, document).status_code == 400, (kind, document)
    assert channel.take_command(0.0) is None


def test_the_status_has_the_healers_words_and_the_servers_facts(channel: ControlChannel) -> None:
    with serving(operator_app(channel, TOKENS)) as url:
        assert requests.get(f"{url}/status", timeout=PATIENCE).status_code == 401
        headers = {"Authorization": "Bearer score"}
        status = requests.get(f"{url}/status", headers=headers, timeout=PATIENCE).json()
    assert status["standing"] == WORSE.as_status()
    assert status["server"]["version"] == 12
    assert status["healer"]["up"]
    assert status["told"]["tone"] == "worse"
    assert status["told"]["headline"].startswith("Healing makes it worse: F1 0.402 against 0.517")


def form(url: str, fields: dict[str, str], **headers: str) -> requests.Response:
    return requests.post(f"{url}/", data=fields, headers=headers, timeout=PATIENCE)


def test_the_page_has_nothing_inline_and_asks_no_other_host(channel: ControlChannel) -> None:
    with serving(operator_app(channel)) as url:
        page = requests.get(f"{url}/", timeout=PATIENCE)
        style, script = (requests.get(f"{url}/static/{n}", timeout=PATIENCE)
                         for n in ("page.css", "page.js"))  # fmt: skip
    assert "unsafe" not in page.headers["content-security-policy"]
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["cache-control"] == "no-store"
    assert " style=" not in page.text
    assert "<style" not in page.text
    assert not re.search(r"<[^>]* on[a-z]+=", page.text)  # onclick and its kind
    for text in (page.text, style.text, script.text):
        assert "http://" not in text
        assert "https://" not in text
        assert "//cdn" not in text
    assert (style.status_code, script.status_code) == (200, 200)


def test_what_others_wrote_is_text_on_the_page(tmp_path: Path) -> None:
    bad = "<img src=x onerror=alert(1)>"
    channel = channel_with(
        tmp_path,
        WORSE.model_copy(
            update={
                "happenings": (Happening(at="2026-11-25T21:57:02+00:00", kind=bad, text=bad),),
                "held_by": bad,
                "monitors": {bad: 1.0},
            }
        ),
    )
    answers = ANSWERS | {
        "plan": {"ok": True, "plan": {"lines": [bad], "notes": [bad], "digest": bad}}
    }
    with Healer(channel, answers), serving(operator_app(channel)) as url:
        pages = [requests.get(f"{url}/{name}", timeout=PATIENCE) for name in ("", "live")]
        pages.append(form(url, {"do": "plan:best", "reason": '"' + bad, "actor": bad}))
    for page in pages:
        assert page.status_code == 200
        assert "<img" not in page.text
        assert "&lt;img" in page.text


def test_a_form_shows_the_plan_and_moves_nothing_until_it_is_confirmed(
    channel: ControlChannel,
) -> None:
    with Healer(channel, ANSWERS) as healer, serving(operator_app(channel, TOKENS)) as url:
        plan = form(url, {"do": "plan:previous", "token": "operate", "actor": "ann"})
        assert plan.status_code == 200
        assert "would serve: v9, F1 0.584 on 700 rows" in plan.text
        assert f'name="digest" value="{DIGEST}"' in plan.text
        assert "rests on few rows" in plan.text
        assert 'value="operate"' not in plan.text
        assert healer.orders == [("plan", {"to": "previous"})]
        done = form(
            url,
            {"do": "rollback", "to": "previous", "digest": DIGEST, "token": "operate",
             "actor": "ann", "reason": "worse"},
        )  # fmt: skip
    assert "Rolled back" in done.text
    assert healer.orders[1:] == [
        (
            "rollback",
            {"to": "previous", "digest": DIGEST, "actor": "ann (claimed)", "reason": "worse"},
        )
    ]


TRIED = {"ok": True, "move": {"alias": "canary", "source": None, "target": 13}}
WITHDRAWN = {"do": "withdraw", "digest": DIGEST}


@pytest.mark.parametrize(
    ("looks", "does", "argument", "told"),
    [
        ("mode-plan:shadow", "mode", {"mode": "shadow", "digest": "auto-shadow"}, "Mode shadow"),
        ("approve-plan:7", "approve", {"proposal": 7, "digest": DIGEST}, "v9 is the champion"),
        ("", "reject:7", {"proposal": 7}, "Proposal 7 is closed"),
        (
            "canary-plan:withdraw",
            "canary",
            WITHDRAWN,
            "v9, is withdrawn",
        ),
        (
            "canary-plan:try",
            "canary",
            {"do": "try", "version": 13, "digest": DIGEST},
            "v13 is tried",
        ),
    ],
)
def test_a_mode_a_proposal_and_a_canary_are_decided_on_the_page_with_their_plan_first(
    channel: ControlChannel, looks: str, does: str, argument: Mapping[str, Any], told: str
) -> None:
    said = {"token": "operate", "actor": "ann", "reason": "looked at", "version": "v13"}
    version = argument.get("version")
    answers = ANSWERS | ({"canary": TRIED} if version else {})
    with Healer(channel, answers) as healer, serving(operator_app(channel, TOKENS)) as url:
        if looks:
            plan = form(url, {"do": looks, **said})
            assert f'name="do" value="{does}" class="strong"' in plan.text
            to = str(version or looks.partition(":")[2])
            assert f'name="to" value="{to}"' in plan.text
        else:
            to = ""
        done = form(url, {"do": does, "to": to, "digest": str(argument.get("digest", "")), **said})
    assert told in done.text
    by = {"actor": "ann (claimed)", "reason": "looked at"}
    assert healer.orders[-1] == (does.partition(":")[0], {**argument, **by})


def test_a_form_without_the_token_or_from_another_site_orders_nothing(
    channel: ControlChannel,
) -> None:
    with serving(operator_app(channel, TOKENS)) as url:
        fields = {"do": "hold", "token": "score"}
        assert form(url, fields).status_code == 403
        fields = {"do": "hold", "token": "operate"}
        assert form(url, fields, Origin="http://evil.example").status_code == 403
        assert requests.get(f"{url}/?do=hold&token=operate", timeout=PATIENCE).status_code == 401
    assert channel.take_command(0.0) is None


URLENCODED = "application/x-www-form-urlencoded"
NO_FORMS = [
    (b"do=" + b"x" * 9_000, URLENCODED, 413),
    (b"&".join(b"f%d=1" % n for n in range(40)), URLENCODED, 413),
    (b"\xff\xfe%zz=&&==", URLENCODED, 400),
    (b"do=plan:" + b"9" * 8_000, URLENCODED, 400),
    (b"do=dance", URLENCODED, 400),
    (b"{}", "text/plain", 415),
    (b"{}", "application/json", 415),
]


def test_a_form_that_no_page_of_ours_sends_is_refused(channel: ControlChannel) -> None:
    with serving(operator_app(channel)) as url:
        for body, kind, code in NO_FORMS:
            headers = {"Content-Type": kind}
            answer = requests.post(f"{url}/", data=body, headers=headers, timeout=PATIENCE)
            assert answer.status_code == code, (body[:20], kind)
    assert channel.take_command(0.0) is None


def test_who_may_not_look_sees_nothing_of_the_model(channel: ControlChannel) -> None:
    with serving(operator_app(channel, TOKENS)) as url:
        page = requests.get(f"{url}/", timeout=PATIENCE)
        live = requests.get(f"{url}/live", timeout=PATIENCE)
        opened = form(url, {"do": "look", "token": "score"})
    assert (page.status_code, live.status_code, opened.status_code) == (401, 401, 200)
    for text in (page.text, live.text):
        assert "fraud" not in text
        assert "V14" not in text
    assert "V14" in opened.text
