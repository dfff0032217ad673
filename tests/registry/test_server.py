"""The same over HTTP, against MLflow's own tracking server."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from selfheal_cli.registry.mlflow_registry import MlflowRegistry
from tests.conftest import Invoke

START_SECONDS = 120


@pytest.fixture
def server(store_template: Path, tmp_path: Path) -> Iterator[str]:
    """A tracking server on a free port of loopback, with a store of its own."""
    (tmp_path / "server.db").write_bytes(store_template.read_bytes())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
               "--workers", "1", "--backend-store-uri", f"sqlite:///{tmp_path}/server.db",
               "--artifacts-destination", str(tmp_path / "artifacts")]  # fmt: skip
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, "PATH": path}, cwd=tmp_path
        )
        try:
            _await(f"http://127.0.0.1:{port}/health", process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(30)


def _await(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urlopen(url, timeout=1):  # noqa: S310 (loopback)
                return
        except (URLError, OSError):
            continue
    pytest.fail(f"the tracking server did not start (exit code {process.poll()})")


def test_a_run_over_http_registers_rolls_back_and_prints_one_document(
    server: str, empty_dir: Path, invoke: Invoke
) -> None:
    store = ("--tracking-uri", server)
    document = json.loads(invoke("run", "--batches", "3", "--json", "--no-plots", *store).stdout)
    assert document["versions"] == 7
    assert not Path("mlflow.db").exists()
    best = json.loads(invoke("rollback", "--to-best", "--yes", "--json", *store).stdout)
    assert (best["target"]["version"], best["verified"]) == (5, True)
    registry = MlflowRegistry(server)
    assert registry.aliases("fraud") == {"baseline": 1, "champion": 5}
    assert registry.best("fraud", base=best["target"]["tags"]["selfheal.base"]) is not None
