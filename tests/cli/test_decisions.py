"""What a run on own data concludes: whether healing helped, and whether to go back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import Invoke

COLUMNS = ["x0", "x1", "x2", "y"]
OPTIONS = ("--target", "y", "--seed", "1", "--set", "plots=false", "--json")


def written(turn: float, rows: int = 3_000) -> None:
    """Rows whose relation turns by an angle, after a quarter that trains."""
    random = np.random.default_rng(1)
    x = random.normal(size=(rows, 3))
    angle = turn * (np.arange(rows) > rows // 4)
    logits = 3 * (np.cos(angle) * x[:, 0] + np.sin(angle) * x[:, 1])
    y = random.random(rows) < 1 / (1 + np.exp(-logits))
    pd.DataFrame(np.column_stack([x, y]), columns=COLUMNS).astype({"y": int}).to_csv(
        "rows.csv", index=False
    )


@pytest.mark.parametrize(("turn", "word"), [(1.2, "helped"), (0.0, "no difference")])
def test_the_verdict_knows_chance_and_nothing_is_gone_back_to_without_a_reason(
    workdir: Path, invoke: Invoke, turn: float, word: str
) -> None:
    written(turn)
    results = json.loads(invoke("run", "rows.csv", *OPTIONS).stdout)["results"]
    assert results["verdict"]["ROC AUC"] == word
    assert f"{word}" in results["verdict"]["sentence"]
    assert {one["figure"] for one in results["compared"]} == {
        "accuracy", "F1", "ROC AUC", "log loss"
    }  # fmt: skip
    page = Path("monitoring_export/report.html").read_text()
    assert "rollback --to-best" not in page
    assert "--by f1" not in page
    refused = invoke("rollback", "--to-best", "--yes", "--model-name", "rows", expect=5).stderr
    assert "no version is better than the serving one" in refused
    if not turn:  # nothing was healed
        return
    assert "'selfheal rollback --by f1' restores it" in refused
    named = invoke("rollback", "--by", "f1", "--dry-run", "--json", "--model-name", "rows").stdout
    assert json.loads(named)["criterion"].startswith("highest F1")
