"""`selfheal mode`, `proposals` and `approve` of what a heal proposed, on a store of MLflow's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from selfheal_cli.actor import now_text
from selfheal_cli.registry.aliases import Move, move_alias
from selfheal_cli.registry.base import CANARY, CHAMPION
from selfheal_cli.registry.journal import Proposal, standing
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from selfheal_cli.registry.orders import propose
from tests.conftest import Invoke


def test_modes_and_proposals_by_command_are_in_history_and_audited(
    short_copy: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFHEAL_ACTOR", "ann")
    assert invoke("mode").stdout.splitlines() == [
        "'fraud' is in mode auto.",
        "auto: heals serve within the budget, and are proposed beyond it.",
    ]
    assert invoke("proposals").stdout == "'fraud': nothing waits for approval.\n"
    dry = invoke("mode", "shadow", "--dry-run").stdout
    assert "shadow: heals are registered, and nothing is published" in dry
    assert json.loads(invoke("mode", "--json").stdout)["mode"] == "auto"
    assert "give --yes" in invoke("mode", "shadow", expect=2).stderr
    assert "--yes or --dry-run" in invoke("mode", "shadow", "--json", expect=2).stderr
    invoke("mode", "recommend", "--yes", "--reason", "second week")
    assert "recommend, by ann (claimed)" in invoke("mode").stdout
    assert "Nothing was changed" in invoke("mode", "recommend", "--yes").stdout

    registry = MlflowRegistry()
    target, now = registry.version("fraud", 5), standing(registry, "fraud")
    wanted = Proposal(
        5, target.sha256, "the run", now_text(), "heal h1", now.moves[CHAMPION].sequence,
        snapshot="h1", expires="2999-01-01T00:00:00.000+00:00",
    )  # fmt: skip
    number = str(propose(registry, "fraud", wanted).sequence)
    (told,) = json.loads(invoke("proposals", "--json").stdout)
    assert (told["target"], told["open"], told["sha256"]) == (5, True, target.sha256)
    assert "heal h1" in invoke("proposals", "--wide").stdout
    shown = invoke("approve", number, "--dry-run").stdout
    assert "\nJudged as sha256" in shown
    assert "nothing was approved" in shown
    invoke("approve", number, "--yes", "--reason", "seen by two")
    assert registry.alias("fraud", CHAMPION) == 5
    assert "seen by two" in standing(registry, "fraud").moves[CHAMPION].reason

    late = propose(registry, "fraud", replace(wanted, after=_last(registry), expires="2000-01-01"))
    assert "expired at" in invoke("approve", str(late.sequence), "--yes", expect=4).stderr
    invoke("reject", str(late.sequence))

    assert "no canary is tried" in invoke("canary", "show", expect=5).stderr
    for number in (4, 6):
        began = Move("fraud", CANARY, number, "the run", now_text(), "heal h2", run="r1")
        move_alias(registry, began)
        assert f"v{number} is tried since" in invoke("canary", "show").stdout
        if number == 4:
            assert "nothing was changed" in invoke("canary", "withdraw", "--dry-run").stdout
            assert "give --yes" in invoke("canary", "withdraw", expect=2).stderr
            withdrawn = invoke("canary", "withdraw", "--yes", "--json", "--reason", "complaints")
            assert json.loads(withdrawn.stdout)["move"]["reason"] == "complaints"
            assert registry.alias("fraud", CANARY) is None
    assert "nothing was moved" in invoke("canary", "promote", "--dry-run").stdout
    invoke("canary", "promote", "--yes")
    assert registry.alias("fraud", CHAMPION) == 6
    history = json.loads(invoke("history", "--json").stdout)
    reasons = [(one["kind"], one["actor"], one["reason"]) for one in history]
    assert ("mode-set", "ann (claimed)", "recommend: second week") in reasons
    assert "Everything holds" in invoke("audit").stdout


def _last(registry: MlflowRegistry) -> int:
    return standing(registry, "fraud").moves[CHAMPION].sequence
