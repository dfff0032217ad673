"""`selfheal demo`: its figures come from the run, and what it writes can be tried."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Invoke


@pytest.fixture
def few(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tenth of the payments."""
    monkeypatch.setattr("selfheal_cli.sources.payments.ROWS", 2_400)
    return workdir


def test_it_holds_the_run_against_trees_and_the_limit(few: Path, invoke: Invoke) -> None:
    shown = json.loads(invoke("demo", "--json").stdout)
    figures = {line["title"]: line["figures"] for line in shown["lines"]}
    assert list(figures) == [
        "frozen network",
        "healed network",
        "boosted trees, refitted every 10 batches",
        "limit for any model",
    ]
    frozen, healed, trees, limit = (line["roc_auc"] for line in figures.values())
    assert limit > max(frozen, healed, trees)
    assert shown["rows"] == 1_800
    assert shown["gained"]["low"] < shown["gained"]["share"] < shown["gained"]["high"]
    assert [one["change"]["name"] for one in shown["noticed"]] == [
        "a holiday",
        "a new app",
        "a wave of fraud",
    ]
    assert shown["recommendation"]["sentence"]
    (run,) = Path("mlruns/selfheal/runs").iterdir()
    assert shown["run_id"] == run.name
    assert json.loads(invoke("snapshots", "--model", "payments", "--json").stdout)


def test_what_it_writes_goes_through_init(few: Path, invoke: Invoke) -> None:
    said = invoke("demo", "--write", "trial").stdout
    assert "selfheal init payments.csv --target is_fraud" in said
    invoke("init", "trial/payments.csv", "--target", "is_fraud")
    assert not Path("mlruns/selfheal/runs").exists()
