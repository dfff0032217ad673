"""The same stream through the same rooms: a replay, a second run, and a heal worker beside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load

from selfheal_cli.config import HealSettings, NetworkSettings, Objective, Policy, RunConfig
from selfheal_cli.model.checkpoint import pack
from selfheal_cli.pipeline.prepare.baseline import prepare
from selfheal_cli.pipeline.stream.memory import Replay
from selfheal_cli.records import digest
from tests.pipeline.small import ANCHORED, DELAYED, NONE, config, ran, stream_of

KINDS = (
    "heal",
    "heal-rejected",
    "heal-refused",
    "batch",
    "rule-stale",
    "rollback",
    "rollback-declined",
)


def replayed(settings: RunConfig) -> Replay:
    source = stream_of(settings)
    replay = Replay(settings, source, prepare(settings, source, lambda done, total: None))
    for batch in source.batches():
        replay.step(batch)
    return replay


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"heal": HealSettings(recipe="gradient")},
        {
            "heal": HealSettings(recipe="article"),
            "network": NetworkSettings(epochs=1, shadow="plain"),
        },
        {"labels": DELAYED},
        {"labels": NONE, "heal": HealSettings(recipe="anchored", assume="positives-stable")},
        {"objective": Objective(kind="f1")},
        {
            "heal": HealSettings(recipe="article"),
            "policy": Policy(conflict_min=1, rollback_f1_drop=0, rollback_acc_drop=0),
            "batches": 14,
        },
    ],
)
def test_a_replay_serves_the_bytes_that_a_run_serves(
    empty_dir: Path, changes: dict[str, Any]
) -> None:
    settings = config(**changes)
    done, replay = ran(settings), replayed(settings)
    assert digest(pack(replay.live.serving.adapter.weights)) == done.serving
    counts = replay.counts()
    assert {kind: counts.get(kind, 0) for kind in KINDS} == {
        kind: len(done.of(kind)) for kind in KINDS
    }
    last = done.versions()[-1]
    if not done.of("rollback"):
        assert replay.live.serving.threshold == last.threshold


def test_a_replay_writes_nothing(empty_dir: Path) -> None:
    replayed(config(batches=3))
    assert list(empty_dir.iterdir()) == []


def test_a_run_again_gives_the_same_weights_and_the_same_results(empty_dir: Path) -> None:
    first, second = ran(config()), ran(config())
    assert first.serving == second.serving
    assert first.finished.view.finished == second.finished.view.finished
    assert [v.sha256 for v in first.versions()] == [v.sha256 for v in second.versions()]
    assert [v.metrics for v in first.versions()] == [v.metrics for v in second.versions()]


def test_heals_beside_scoring_end_with_finite_weights(empty_dir: Path) -> None:
    heal = ANCHORED.model_copy(update={"mode": "async"})
    done = ran(config(heal=heal, batches=10))
    assert done.finished.outcome == "FINISHED"
    assert len(done.of("batch")) == 10
    assert done.of("heal")
    assert done.batches("heal-failed") == []
    for version in done.versions():
        stored = load(done.registry.adapter(version))
        assert all(np.isfinite(values).all() for values in stored.values())
    champion = done.registry.version("fraud", done.registry.alias("fraud", "champion") or 0)
    assert champion.sha256 == done.serving
    # each heal that was asked for is told of once
    asked = [e.batch for e in done.of("batch") if e.heal_requested]
    told = done.batches("heal", "heal-coalesced", "heal-rejected", "heal-failed")
    assert sorted(told) == asked
