"""A short run of the article's stream, made once, to be attacked in copies."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from selfheal_cli.cli.main import main
from tests.conftest import enter, moved


@pytest.fixture(scope="session")
def short_run(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Path:
    """The folder of ``selfheal run --batches 4``: nine versions, the best of them v5."""
    folder = tmp_path_factory.mktemp("short")
    shutil.copy(store_template, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        enter(folder, patch)
        result = CliRunner().invoke(main, ["run", "--batches", "4", "--no-plots"])
        assert result.exit_code == 0, result.output
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    return folder


@pytest.fixture
def short_copy(short_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The short run with its registry, moved here, to change."""
    shutil.copytree(short_run, tmp_path, dirs_exist_ok=True)
    moved(short_run, tmp_path)
    enter(tmp_path, monkeypatch)
    return tmp_path
