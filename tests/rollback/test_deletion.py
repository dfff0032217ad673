"""Deletion of runs and models: the plan first, then the journal, then what belongs to them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from selfheal_cli.actor import clock
from selfheal_cli.errors import RegistryError
from selfheal_cli.registry.aliases import Move, move_alias
from selfheal_cli.registry.base import BASELINE, CHAMPION
from selfheal_cli.registry.journal import EntryKind, Lease
from selfheal_cli.registry.memory import MemoryRegistry
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from selfheal_cli.rollback.deletion import delete, plan_model, plan_run
from tests.conftest import Invoke
from tests.rollback.test_prune import AT, filled


def nobody(lease: Lease) -> bool:
    return False


def two_runs() -> tuple[MemoryRegistry, str, str]:
    """A model with versions of two runs, the later of which serves."""
    registry = MemoryRegistry()
    filled(registry)
    filled(registry)
    for alias in (BASELINE, CHAMPION):
        move_alias(registry, Move("m", alias, 16, "ann", AT, "the later one"))
    first, second = (registry.version("m", number).run_id for number in (1, 16))
    return registry, first, second


def test_a_run_goes_with_its_versions_once_the_journal_says_so(empty_dir: Path) -> None:
    registry, first, second = two_runs()
    folder = Path("mlruns/selfheal/runs", first)
    folder.mkdir(parents=True)
    plan = plan_run(registry, first, nobody)
    assert (plan.refused, plan.folders, len(plan.versions)) == ("", (folder,), 8)
    seen: list[EntryKind] = []
    remove = registry.delete_version

    def watched(version: object) -> int:
        seen.append(list(registry.entries("m"))[-2].kind)
        return remove(version)  # type: ignore[arg-type]

    registry.delete_version = watched  # type: ignore[assignment]
    delete(registry, plan, actor="ann", clock=clock)
    assert seen[0] is EntryKind.DELETED
    assert registry.numbers("m") == list(range(9, 17))
    assert (first in registry.runs, second in registry.runs) == (False, True)
    assert not folder.exists()


def test_what_an_alias_names_is_not_deleted_with_its_run() -> None:
    registry, first, second = two_runs()
    plan = plan_run(registry, second, nobody)
    assert "v16 is baseline and champion of 'm'" in plan.refused
    free = plan_run(registry, first, nobody)
    move_alias(registry, Move("m", CHAMPION, 3, "bob", AT, "back"))  # after the plan
    with pytest.raises(RegistryError, match="v3 of 'm' stays"):
        delete(registry, free, actor="ann", clock=clock)
    assert 3 in registry.numbers("m")
    assert first in registry.runs


def test_a_model_goes_with_its_runs_and_its_journal() -> None:
    registry, first, second = two_runs()
    plan = plan_model(registry, "m", nobody)
    assert (set(plan.runs), plan.serving, len(plan.versions)) == ({first, second}, 16, 16)
    delete(registry, plan, actor="ann", clock=clock)
    assert "m" not in registry.models()
    assert not {first, second} & registry.runs.keys()


def test_the_command_shows_its_plan_and_refuses_what_serves_unless_it_is_told(
    short_copy: Path, invoke: Invoke
) -> None:
    shown = json.loads(invoke("delete", "fraud", "--dry-run", "--json").stdout)
    assert (len(shown["versions"]), shown["deleted"], shown["serving"]) == (9, False, 9)
    run = shown["runs"][0]
    assert "Nothing was deleted" not in invoke("delete", run[:8]).stdout
    refused = invoke("delete", "fraud", "--yes", expect=4)
    assert "v9 of 'fraud' serves" in refused.stderr
    assert len(MlflowRegistry().numbers("fraud")) == 9
    said = invoke("delete", "fraud", "--yes", "--serving").stdout
    assert "Deleted: model 'fraud' with its journal, 1 run, 9 versions" in said
    assert MlflowRegistry().models() == []
    assert not Path("mlruns/selfheal/runs", run).exists()
    assert not list(Path("mlruns").rglob("adapter.safetensors"))
