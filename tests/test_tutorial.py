"""The commands of the pages that lead somewhere, in their order, each page in an empty folder."""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

from tests.conftest import Invoke

ROOT = Path(__file__).parents[1]
ENDINGS = {
    "first-decision.md": ("Healing helped", "champion of 'payments' moved", "Everything holds"),
    "tutorial.md": ("Healing helped accuracy", "champion of 'digits' moved", "Everything holds"),
    "models.md": ("Healing helped", "adapter lora:2 of"),
}


def commands_of(page: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text()
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize("page", ENDINGS)
def test_the_page_leads_where_it_says(
    workdir: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch, page: str
) -> None:
    (workdir / "digits.py").write_text((ROOT / "examples" / "digits.py").read_text())
    monkeypatch.syspath_prepend(str(workdir))
    monkeypatch.delitem(sys.modules, "digits", raising=False)
    monkeypatch.setenv("SELFHEAL_PLOTS", "no")  # seconds a run
    said = ""
    for line in commands_of(page):
        program, *arguments = shlex.split(line)
        if program == "python":
            runpy.run_path(*arguments, run_name="__main__")
        else:
            assert program == "selfheal"
            said += invoke(*arguments).output
    for words in ENDINGS[page]:
        assert words in said
