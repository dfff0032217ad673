"""A server on loopback beside MLflow's own, on the session's run."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
import uvicorn
from filelock import FileLock

from selfheal_cli.serve.server import Server, bound, config, opened, url_of
from selfheal_cli.serve.service import ScoringService
from selfheal_cli.serve.settings import HealerSettings, Limits, ServerSettings, Tokens
from tests.conftest import PATIENCE, until

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

collect_ignore = ["clients"]  # programs for interpreters of their own
# in the healer's place: takes its settings and lives on
IDLE = (sys.executable, "-S", "-c", "import sys, time; sys.stdin.read(); time.sleep(600)")


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    url: str
    front: ScoringService

    def post(self, path: str, **named: Any) -> requests.Response:
        return requests.post(self.url + path, timeout=PATIENCE, **named)

    def get(self, path: str, **named: Any) -> requests.Response:
        return requests.get(self.url + path, timeout=PATIENCE, **named)

    def rows(self, n: int = 3) -> dict[str, Any]:
        names = self.front.scorer.served.quick.encoding.names
        return {
            "columns": names,
            "data": [[0.25 * i - j / 7 for j in range(len(names))] for i in range(n)],
        }


@contextmanager
def in_thread(server: uvicorn.Server, listening: Any) -> Iterator[None]:
    """uvicorn beside the test."""
    ready = threading.Event()

    async def run() -> None:
        task = asyncio.create_task(server.serve(sockets=[listening]))
        while not server.started and not task.done():
            await asyncio.sleep(0.005)
        ready.set()
        await task

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    assert ready.wait(PATIENCE)
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def serving(
    registry: Path, workspace: Path, *, command: Any = IDLE, log: str | None = None, **settings: Any
) -> Iterator[Running]:
    """`selfheal serve` in this process, with a stand-in for the healer."""
    uri = f"sqlite:///{registry / 'mlflow.db'}"
    healer = HealerSettings(
        model="fraud", actor="test", tracking_uri=uri, workspace=workspace, log=log
    )
    given = ServerSettings(healer=healer, port=0, **settings)
    with (
        bound(given.host, given.port) as listening,
        opened(given, command) as front,
        in_thread(Server(config(given, front), lambda: None), listening),
    ):
        yield Running(url_of(listening), front)


@pytest.fixture(scope="session")
def served(short_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that tests share: they ask it and leave it as it is."""
    with serving(short_run, tmp_path_factory.mktemp("shared"), key="order") as running:
        yield running


def programs(factory: pytest.TempPathFactory, name: str, *wanted: str) -> Path:
    """The folder of commands of a virtual environment of its own that has these packages; built
    once for all workers of a test run, by uv: pip takes ten times as long.
    """
    base = factory.getbasetemp().parent
    uv, made = base / "uv", base / name
    pip = (sys.executable, "-m", "pip", "--python", uv / "bin" / "python", "install", "--quiet")
    _installed(uv, (*pip, "--no-compile", "uv"))
    with_uv = (uv / "bin" / "uv", "pip", "install", "--quiet", "--python", made / "bin" / "python")
    _installed(made, (*with_uv, *wanted))
    return made / "bin"


def _installed(folder: Path, command: tuple[Any, ...]) -> None:
    with FileLock(f"{folder}.lock"):
        if (done := folder / "installed").exists():
            return
        venv.create(folder, clear=True)
        told = subprocess.run(command, check=False, capture_output=True, text=True)
        if told.returncode:
            pytest.skip(f"{folder.name} cannot be installed here: {told.stderr[-300:]}")
        done.touch()


@pytest.fixture(scope="session")
def chrome() -> Iterator[Chrome]:
    """One that runs for all tests."""
    from tests.serve.browser import chromium

    with chromium() as driver:
        yield driver


@pytest.fixture
def browser(chrome: Chrome) -> Iterator[Chrome]:
    """A browser as wide as a desk's, that has seen nothing of the server's address."""
    from tests.serve.browser import look_at

    look_at(chrome, 1200)
    yield chrome
    chrome.get("about:blank")


@pytest.fixture(scope="session")
def mlflow_model(served: Running) -> Any:
    """The same version as MLflow loads it."""
    import mlflow

    mlflow.set_tracking_uri(served.front.settings.healer.tracking_uri)
    return mlflow.pyfunc.load_model(f"models:/fraud/{served.front.scorer.served.version}")


@pytest.fixture(scope="session")
def mlflow_server(mlflow_model: Any) -> Iterator[str]:
    """What ``mlflow models serve`` runs, for the same version."""
    from mlflow.pyfunc import scoring_server

    app = scoring_server.init(mlflow_model)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    with bound("127.0.0.1", 0) as listening, in_thread(server, listening):
        yield url_of(listening)


__all__ = ["Limits", "Running", "Tokens", "serving", "until"]
