"""Packs of segments' adapters: those that no version needs go with a prune, and no others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from selfheal_cli.errors import RegistryUnreachable
from selfheal_cli.model.checkpoint import Packed, make_base
from selfheal_cli.records import Phase
from selfheal_cli.registry.aliases import Move, move_alias
from selfheal_cli.registry.base import CHAMPION, Lineage
from selfheal_cli.registry.mlflow import packs
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from selfheal_cli.sources.encoding import Encoding
from tests.heal import small
from tests.heal.test_segmented import RECIPES, begun, heal, rows_of
from tests.registry.test_contract import snapshot
from tests.rollback.test_prune import AT, pruned

NAMES = [f"c{place}" for place in range(small.INPUTS)]


def filled(registry: MlflowRegistry) -> Lineage:
    """Versions in which one segment after another gets another adapter; the last but one serves."""
    encoding = Encoding.identity(NAMES).model_dump(mode="json")
    base = make_base(RECIPES.network, {}, {"encoding": encoding, "labels": ["no", "yes"]})
    run_id = registry.begin_run("trial", {}, {"selfheal.model": "m"})
    lineage = Lineage("m", run_id, registry.store_base(run_id, base), "anchored", "full", "1")
    state = begun()
    for number, shops in enumerate([(), ("a", "b"), ("a",), ("a",), ("a",), ("b",), ("a",)], 1):
        if shops:
            state = heal(state, rows_of(number, shops)[1]).after
        packed = Packed.of(state.weights)
        phase = Phase.POST_HEAL if shops else Phase.BASELINE
        made = replace(snapshot(number, phase, f1=number / 100), sha256=packed.sha256)
        registry.add_version(lineage, made, packed.data, None)
    for target in (1, 6):
        move_alias(registry, Move("m", CHAMPION, target, "ann", AT, "heal"))
    return lineage


def stored(registry: MlflowRegistry) -> int:
    return len(packs.packs_of(registry._client, registry._all_experiments(), "m"))


def test_a_prune_leaves_the_packs_of_what_it_keeps_and_goes_on_where_one_was_interrupted(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = MlflowRegistry(create=True)
    filled(registry)
    assert stored(registry) == 6
    assert pruned(registry).removed == (2, 3, 4, 5)  # 1 trained, 6 serves, 7 is the best
    assert stored(registry) == 6, "so young, each may be of a version that is being registered"
    monkeypatch.setattr(packs, "UNREGISTERED_MS", -60_000)
    deleted = registry._client.delete_logged_model

    def interrupted(_: str) -> None:
        raise RegistryUnreachable("away")

    monkeypatch.setattr(registry._client, "delete_logged_model", interrupted)
    with pytest.raises(RegistryUnreachable):
        pruned(registry)
    monkeypatch.setattr(registry._client, "delete_logged_model", deleted)
    assert pruned(registry).freed > 0
    left = stored(registry)
    assert left < 6
    assert pruned(registry).freed == 0
    assert stored(registry) == left
    for number in (1, 6, 7):
        registry.adapter(registry.version("m", number))  # raises where a part is gone
    registry.delete_model("m")
    assert stored(registry) == 0
