"""``selfheal status``: a server's words in the terminal, once, live, and without a server."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from selfheal_cli.serve.operator.status import HEALER
from selfheal_cli.serve.settings import Tokens
from selfheal_cli.spool.control import ControlChannel
from tests.conftest import PATIENCE, Invoke
from tests.serve.operating import BETTER, WORSE, channel_with, operator_app, serving

SCORING, OPERATING = "s" * 20, "o" * 20
MAIN = "from selfheal_cli.cli.main import main; main()"
# a shell that begins tests in the background has their programs ignore Ctrl-C
INTERRUPTIBLE = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "


@pytest.fixture
def channel(tmp_path: Path) -> Iterator[ControlChannel]:
    new_board = channel_with(tmp_path, WORSE)
    yield new_board
    new_board.close()


def test_it_says_what_the_page_says(channel: ControlChannel, invoke: Invoke) -> None:
    with serving(operator_app(channel)) as url:
        text = " ".join(invoke("status", url).stdout.split())
        document = json.loads(invoke("status", url.removeprefix("http://"), "--json").stdout)
    assert "Model 'fraud', v12: ROLLED_BACK" in text
    assert "Healing makes it worse: F1 0.402 against 0.517 without it" in text
    assert "On 18,040 labelled rows, scored before anything learned from them." in text
    assert "No heal that waits for approval is in these figures. !" in text
    assert "'selfheal approve 7 --model fraud' shows its plan and asks" in text
    assert "V14 is 2.31 training standard deviations away (threshold 1): it drifts" in text
    assert "psi 0.310 ALARM" in text
    assert "Heals: 9 healed, 2 rejected, 1 failed; 1 rollbacks" in text
    assert re.search(r"F1 +0.402 +0.517 +-0.115", text)
    assert "worse on 180 held-out rows" in text
    assert document["standing"] == WORSE.as_status()


def test_it_takes_the_token_from_a_file(
    channel: ControlChannel, invoke: Invoke, tmp_path: Path
) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"scoring: {SCORING}\n")
    path.chmod(0o600)
    tokens = Tokens.of(scoring=SCORING, operating=OPERATING)
    with serving(operator_app(channel, tokens)) as url:
        refused = invoke("status", url, expect=4)
        assert "ROLLED_BACK" in invoke("status", url, "--token-file", str(path)).stdout
    assert "a token is needed: give --token-file" in refused.stderr


def test_where_nothing_answers_it_says_what_to_do(invoke: Invoke) -> None:
    result = invoke("status", "http://127.0.0.1:9", expect=4)
    assert result.stderr.count("\n") == 1
    assert "http://127.0.0.1:9: nothing answers" in result.stderr
    assert "--model NAME to read the registry" in result.stderr


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (200, b"<html>", "no 'selfheal serve' (no JSON)"),
        (200, b"[1]", "no 'selfheal serve' (no status)"),
        (404, b"gone", "answers with status 404"),
        (503, b'{"message": "the disk is full"}', "status 503: the disk is full"),
        (302, b"", "answers with status 302"),
    ],
)
def test_another_server_is_told_from_ours(
    invoke: Invoke, status: int, body: bytes, words: str
) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert "Authorization" not in self.headers
            self.send_response(status)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}"
        assert words in invoke("status", url, expect=4).stderr
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("url", ["ftp://host", "http://", "file:///etc/passwd"])
def test_what_is_no_url_is_refused(invoke: Invoke, url: str) -> None:
    assert (
        "a URL such as http://127.0.0.1:5001 is expected" in invoke("status", url, expect=3).stderr
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("http://127.0.0.1:1", "--model", "fraud"),
        ("--watch", "--json"),
        ("--tracking-uri", "sqlite:///x.db"),
        ("--model", "../x"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    invoke: Invoke, arguments: tuple[str, ...]
) -> None:
    invoke("status", *arguments, expect=2)


def test_without_a_server_the_registry_says_what_it_knows(short_copy: Path, invoke: Invoke) -> None:
    assert short_copy.exists()
    invoke("hold", "--reason", "labels look odd")
    text = invoke("status", "--model", "fraud").stdout
    document = json.loads(invoke("status", "--model", "fraud", "--json").stdout)
    champion = document["champion"]["version"]
    assert f"Champion: v{champion}, since " in text
    assert "Healing: held by" in text
    assert "labels look odd" in text
    assert "Lease: no run heals it" in text
    assert len(document["versions"]) == 5
    assert "no such model" not in text
    unknown = invoke("status", "--model", "other", expect=4)
    assert "other" in unknown.stderr


def read_until(terminal: int, wanted: str, seconds: float = PATIENCE) -> str:
    """What a terminal shows, up to some words."""
    shown, end = "", time.monotonic() + seconds
    while wanted not in shown:
        assert time.monotonic() < end, shown
        if select.select([terminal], [], [], 0.1)[0]:
            shown += os.read(terminal, 65_536).decode("utf-8", "replace")
    return shown


def test_watching_goes_on_and_ends_with_ctrl_c(
    channel: ControlChannel, request: pytest.FixtureRequest
) -> None:
    ours, theirs = pty.openpty()
    environ = os.environ | {"COLUMNS": "160", "LINES": "60", "TERM": "xterm"}
    with serving(operator_app(channel)) as url:
        process = subprocess.Popen(
            [sys.executable, "-c", INTERRUPTIBLE + MAIN, "status", url, "--watch"],
            stdout=theirs, stderr=theirs, stdin=theirs, env=environ,
        )  # fmt: skip
        request.addfinalizer(process.kill)
        read_until(ours, "Healing makes it worse")
        channel.set_status(HEALER, BETTER.as_status())
        read_until(ours, "Healing helps")
    read_until(ours, "What is above may be old")
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 0
    os.close(theirs)
    os.close(ours)
