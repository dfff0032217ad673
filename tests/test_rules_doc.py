"""docs/rules.md cannot lie: its rules parse, its sessions and commands run."""

from __future__ import annotations

import doctest
import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from selfheal_cli.rules.ruleset import check_features, parse_rule, read_rules, write_rules
from tests.conftest import Invoke

PAGE = Path(__file__).parents[1] / "docs/rules.md"
TEXT = PAGE.read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The page's code blocks in a language."""
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def test_the_sessions_print_what_the_page_says() -> None:
    tally = doctest.testfile(str(PAGE), module_relative=False, encoding="utf-8")
    assert tally.attempted >= 8
    assert tally.failed == 0


@pytest.mark.parametrize("line", blocks("rules")[0].splitlines())
def test_each_example_is_a_rule_on_the_columns_that_it_names(line: str) -> None:
    rule = parse_rule(line)
    assert parse_rule(str(rule)) == rule
    check_features([rule], ["amount", "age"], ["country", "card type"])


@pytest.mark.parametrize("text", blocks("yaml"))
def test_each_file_reads_and_reads_back(tmp_path: Path, text: str) -> None:
    (tmp_path / "rules.yaml").write_text(text, encoding="utf-8")
    rules = read_rules(tmp_path / "rules.yaml")
    (tmp_path / "again.yaml").write_text(write_rules(rules), encoding="utf-8")
    assert read_rules(tmp_path / "again.yaml") == rules


@pytest.mark.parametrize("command", [line.strip() for line in blocks("sh")])
def test_each_command_runs(empty_dir: Path, invoke: Invoke, command: str) -> None:
    draw = np.random.default_rng(0)
    amount = draw.exponential(400, 3_000).round(2)
    country = draw.choice(["AT", "DE", "FR"], 3_000)
    fraud = (amount > 900) & (country != "AT") & (draw.random(3_000) < 0.8)
    frame = pd.DataFrame({"amount": amount, "country": country, "is_fraud": fraud.astype(int)})
    frame.to_csv("transactions.csv", index=False)
    Path("rules.yaml").write_text(blocks("yaml")[0])
    program, *arguments = shlex.split(command)
    assert program == "selfheal"
    printed = invoke(*arguments).stdout
    assert "large-abroad" in printed or "rule: amount > " in printed
