"""The command: ready when warm, drained by SIGTERM, and what it refuses to begin with."""

from __future__ import annotations

import importlib.util
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests

from selfheal_cli.spool.file import spool_path
from selfheal_cli.spool.store import Spool
from tests.conftest import PATIENCE, Invoke


def test_it_says_where_it_serves_and_ends_with_nothing_lost(short_copy: Path) -> None:
    main = "from selfheal_cli.cli.main import main; main()"
    command = [sys.executable, "-c", main, "serve", "fraud", "--port", "0"]
    with subprocess.Popen([*command, "--no-heal"], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = next(text for text in process.stderr if text.startswith("selfheal: 'fraud' v"))
        url = line.split()[-1]
        process.send_signal(signal.SIGHUP)  # as a tool does that has moved the access log away
        columns = requests.get(f"{url}/v2/models/fraud", timeout=PATIENCE).json()["inputs"]
        body = {"dataframe_records": [{one["name"]: 0.5 for one in columns}] * 7}
        answer = requests.post(f"{url}/invocations", json=body, timeout=PATIENCE)
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
        assert process.wait(PATIENCE) == 0
    spool = Spool(spool_path("fraud", short_copy / "mlruns" / "selfheal"))
    kept = {one.request: len(one) for one in spool.rows_after(0, 100)}
    assert kept[answer.headers["x-request-id"]] == 7
    spool.close()


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["other"], 4, "no registered model 'other'"),
        (["fraud", "--host", "0.0.0.0"], 3, "--token-file"),  # noqa: S104
        (["fraud", "--target", "y"], 2, "--reference"),
        (["fraud", "--max-body", "0"], 3, "body_bytes"),
        (["../x"], 2, "letters"),
        (["fraud", "--policy", "nothing"], 3, "nothing"),
        (["fraud", "--monitor", "nothing"], 3, "nothing"),
    ],
)
def test_what_cannot_be_served_is_said_before_anything_listens(
    short_copy: Path, invoke: Invoke, options: list[str], code: int, says: str
) -> None:
    assert says in invoke("serve", "--port", "0", *options, expect=code).output


def test_a_port_that_is_taken_is_said(short_copy: Path, invoke: Invoke) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        result = invoke("serve", "fraud", "--port", str(port), expect=3)
    assert f"port {port}" in result.stderr and "--port" in result.stderr


def test_a_missing_extra_is_named(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec

    def without(name: str, *more: Any) -> Any:
        return None if name == "uvicorn" else find_spec(name, *more)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    assert "selfheal-cli[serve]" in invoke("serve", "fraud", expect=3).stderr
