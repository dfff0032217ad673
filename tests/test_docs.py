"""Documents that cannot lie: the reference is the live help, and the README's commands run."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.conftest import Invoke, enter

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
MAIN_JOB, TESTS, *SESSIONS = BLOCKS


def test_the_command_reference_is_what_help_says() -> None:
    spec = importlib.util.spec_from_file_location("make_commands", ROOT / "docs/make_commands.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs/commands.md").read_text() == module.reference()


@pytest.mark.parametrize(
    "line", [line for block in SESSIONS for line in block.splitlines()], ids=str.strip
)
def test_every_command_of_the_readme_runs(article_copy: Path, invoke: Invoke, line: str) -> None:
    program, *arguments = shlex.split(line)
    assert program == "selfheal"
    if "--to-previous" in arguments:
        invoke("rollback", "--to-best", "--yes")
    invoke(*arguments)


def test_the_readmes_results_table_is_the_runs(
    article_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter(article_run, monkeypatch)
    printed = [
        [cell.strip() for cell in line.strip("│").split("│")][:7]
        for line in Path("output.txt").read_text().splitlines()
        if line.startswith("│")
    ]
    written = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in README.splitlines()
        if line.startswith("| ") and not line.startswith("| stage")
    ]
    assert written == printed


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a clone holds, and beside it an environment that sees this one's libraries."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("selfheal_cli", "registry_policies", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "constraints.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "tests").mkdir()
    (folder / "tests/test_one.py").write_text("def test_one() -> None:\n    assert True\n")
    venv.create(folder / "venv", with_pip=True)
    (site,) = (folder / "venv").glob("lib/python*/site-packages")
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    return folder


@pytest.mark.parametrize(
    ("block", "tail"),
    [
        (MAIN_JOB, "Next: selfheal ui"),
        (TESTS.replace("&& pytest", "&& python -m pytest"), "passed"),
    ],
    ids=["main-job", "tests"],
)
def test_the_two_commands_of_the_readme_work(clone: Path, block: str, tail: str) -> None:
    environment = {"PATH": f"{clone}/venv/bin:/usr/bin:/bin", "HOME": str(clone)}
    done = subprocess.run(
        ["bash", "-c", f"set -euo pipefail\n{block}"],
        capture_output=True,
        text=True,
        check=False,
        cwd=clone,
        env=environment,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert tail in done.stdout
    assert (clone / "mlflow.db").exists()
