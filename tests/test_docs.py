"""Documents that cannot lie: the reference is the live help, and the README's commands run."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.conftest import Invoke, enter

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
MAIN_JOB, _, *SESSIONS = BLOCKS
ELSEWHERE = ("selfheal drill",)  # tests/cli/test_commands.py runs it, to its end


def test_the_command_reference_is_what_help_says() -> None:
    spec = importlib.util.spec_from_file_location("make_commands", ROOT / "docs/make_commands.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs/commands.md").read_text() == module.reference()


@pytest.mark.parametrize(
    "line",
    [line for block in SESSIONS for line in block.splitlines() if line not in ELSEWHERE],
    ids=str.strip,
)
def test_every_command_of_the_readme_runs(article_copy: Path, invoke: Invoke, line: str) -> None:
    program, *arguments = shlex.split(line)
    assert program == "selfheal"
    if "--to-previous" in arguments:
        invoke("rollback", "--by", "f1", "--yes")
    if arguments[0] == "compare":
        arguments += ["--batches", "4"]
    invoke(*arguments)


def test_the_table_of_the_articles_page_is_the_runs(
    article_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    article = (ROOT / "docs/article.md").read_text()
    enter(article_run, monkeypatch)
    text = Path("output.txt").read_text()
    table = text[text.index("Results") : text.index("With --wide")].splitlines()[3:]
    printed = [re.split(r"  +", line.strip()) for line in table]
    written = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in article.partition("| stage")[2].partition("\n\n")[0].splitlines()
        if line.startswith("| ")
    ]
    assert written == printed


def anchors(page: Path) -> set[str]:
    """Those of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "benchmarks/README.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for path, anchor in re.findall(r"\]\((?!\w+:)([^)#\s]*)#?([^)\s]*)\)", page.read_text()):
        target = page.parent / path if path else page
        assert target.exists(), f"{page.name}: {path}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {path}#{anchor}"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What a clone holds, and beside it an environment that sees this one's libraries."""
    for name in ("selfheal_cli", "registry_policies"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "constraints.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / name)
    venv.create(tmp_path / "venv")
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    libraries = [place for place in sys.path if place.endswith("site-packages")]
    (site / "libraries.pth").write_text("\n".join(libraries))
    pip = tmp_path / "venv/bin/pip"  # that of the libraries: one of its own takes seconds to unpack
    pip.write_text(f'#!/bin/sh\nexec {tmp_path}/venv/bin/python -m pip "$@"\n')
    pip.chmod(0o755)
    return tmp_path


def test_the_main_job_of_the_readme_works(clone: Path) -> None:
    """Its other command, that of the tests, is what CI runs."""
    environment = {"PATH": f"{clone}/venv/bin:/usr/bin:/bin", "HOME": str(clone)}
    environment |= {"OMP_NUM_THREADS": "1"}  # no threads that wait while others test
    done = subprocess.run(
        ["bash", "-c", f"set -euo pipefail\n{MAIN_JOB}"],
        capture_output=True, text=True, check=False, cwd=clone, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "of the F1 that any model could have gained" in done.stdout
    assert (clone / "mlflow.db").exists()
