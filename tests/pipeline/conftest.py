"""Runs here heal beside scoring in a worker that is forked from here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipeline.test_served import Server


@pytest.fixture(autouse=True)
def _forked(forked_worker: None) -> None:
    """How a worker starts is tested in tests/heal/test_engine.py."""


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    """A server with a model from a run, made once, and its folder: see `Server.again`."""
    folder = tmp_path_factory.mktemp("begun")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        server = Server()
        server.spool.close()
        yield server, folder


@pytest.fixture
def server(begun: tuple[Server, Path], empty_dir: Path) -> Server:
    """Such a server, to answer and to heal."""
    return Server.again(*begun, empty_dir)
