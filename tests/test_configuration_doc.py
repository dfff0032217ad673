"""docs/configuration.md cannot lie: its commands run, its file is valid, its reference live."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from selfheal_cli.config import TableSettings
from selfheal_cli.settings.resolve import resolve
from selfheal_cli.settings.sources import MAX_BYTES, parse_document
from tests.conftest import Invoke

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The page's code blocks in a language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_reference_is_what_the_schema_says() -> None:
    path = ROOT / "docs/make_configuration.py"
    spec = importlib.util.spec_from_file_location("make_configuration", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.page(PAGE) == PAGE


def test_the_commands_of_the_page_run_in_their_order(
    workdir: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(1)
    fraud = rng.random(500) < 0.2
    amounts = rng.normal(500 + 400 * fraud, 200).round(2)
    rows = [
        f"{n},{amount},{int(y)}" for n, (amount, y) in enumerate(zip(amounts, fraud, strict=True))
    ]
    Path("transactions.csv").write_text("\n".join(["customer_id,amount,is_fraud", *rows]))
    for line in "".join(blocks("sh")).splitlines():
        program, *arguments = shlex.split(line)
        assert program == "selfheal"
        invoke(*arguments)


def test_the_file_of_the_page_is_valid() -> None:
    (text,) = blocks("yaml")
    config = resolve([parse_document(text, "selfheal.yaml")]).config
    assert isinstance(config.source, TableSettings)
    assert (config.labels.delay, config.objective.fn, config.policy.cooldown) == (5, 5000, 5)
    assert len(config.monitors) == 2


def test_the_limit_of_the_page_is_the_reader_s() -> None:
    assert f"beyond {MAX_BYTES // 1024} KB" in PAGE
