"""The tutorial's commands, in their order, in one empty folder."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Invoke

ROOT = Path(__file__).parents[1]
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text()
COMMANDS = [
    line
    for block in re.findall(r"```sh\n(.*?)```", TUTORIAL, re.DOTALL)
    for line in block.splitlines()
]


def test_the_tutorial_leads_from_a_trained_model_to_a_rollback(
    workdir: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workdir / "digits.py").write_text((ROOT / "examples" / "digits.py").read_text())
    monkeypatch.syspath_prepend(str(workdir))
    monkeypatch.delitem(sys.modules, "digits", raising=False)
    said = ""
    for line in COMMANDS:
        program, *arguments = shlex.split(line)
        if program == "python":
            subprocess.run([sys.executable, *arguments], check=True)
        else:
            assert program == "selfheal"
            said += invoke(*arguments).output
    assert "Healing helped accuracy" in said
    assert "champion of 'digits' moved" in said
    assert "Everything holds" in said
