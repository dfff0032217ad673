"""Short runs over the in-memory registry, streams that go wrong, and figures worked out by hand."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selfheal_cli.config import (
    HealSettings,
    LabelSettings,
    NetworkSettings,
    RunConfig,
    SyntheticSettings,
)
from selfheal_cli.events.event import Event
from selfheal_cli.events.log import read
from selfheal_cli.heal.recipe import Recipes
from selfheal_cli.heal.task import AdapterState, HealOutcome, HealTask
from selfheal_cli.model.checkpoint import assemble, unpack
from selfheal_cli.model.network import SelfHealingNetwork
from selfheal_cli.pipeline.runs.run import Finished, RunContext, run
from selfheal_cli.records import Batch, VersionRecord
from selfheal_cli.registry.memory import MemoryRegistry
from selfheal_cli.sources.synthetic import SyntheticSource

RULE = "V14 < -1.5 => 1"
ANCHORED = HealSettings(recipe="anchored")
DELAYED = LabelSettings(regime="delayed", delay=3)
NONE = LabelSettings(regime="none")
FRESH = SyntheticSettings(fresh=True, drift_strength=1.0)
Change = Callable[[Batch], Batch]


def config(**changes: Any) -> RunConfig:
    """A run of a third of a second: recipe anchored on new rows whose normals moved by one sd."""
    values: dict[str, Any] = {
        "source": FRESH,
        "network": NetworkSettings(epochs=1),
        "heal": ANCHORED,
        "rules": (RULE,),
        "batches": 8,
        "plots": False,
    }
    return RunConfig(**(values | changes))


class Altered:
    """A source whose batches are changed on their way, judged by its stream alone."""

    def __init__(self, source: Any, change: Change) -> None:
        self._source, self._change = source, change

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def batches(self, start: int = 1) -> Iterator[Batch]:
        return map(self._change, self._source.batches(start))

    def held_out(self) -> dict[str, Any]:
        return {}


def as_they_are(batch: Batch) -> Batch:
    return batch


def flipped(which: Collection[int] | None = None) -> Change:
    """Labels exchanged in these batches, or in all."""

    def change(batch: Batch) -> Batch:
        if which is not None and batch.index not in which:
            return batch
        return replace(batch, rows=replace(batch.rows, y=(1 - batch.rows.y).astype(np.int8)))

    return change


@dataclass(frozen=True)
class Ran:
    """A run with what it left behind."""

    config: RunConfig
    finished: Finished
    events: list[Event]
    registry: MemoryRegistry
    source: Any

    def of(self, *kinds: str) -> list[Event]:
        return [event for event in self.events if event.kind in kinds]

    def batches(self, *kinds: str) -> list[int]:
        return [event.batch for event in self.of(*kinds)]

    def versions(self, phase: str | None = None) -> list[VersionRecord]:
        """In the order in which they were registered."""
        versions = self.registry.versions("fraud", limit=1000)[::-1]
        return [version for version in versions if phase in (None, version.phase.value)]

    def by_snapshot(self, snapshot: str) -> VersionRecord:
        return next(v for v in self.versions() if v.tags["selfheal.snapshot"] == snapshot)

    def stage(self, key: str) -> dict[str, Any]:
        return next(line for line in self.finished.view.finished.stages if line["key"] == key)

    @property
    def serving(self) -> str:
        return str(self.finished.view.finished.serving_sha256)

    def network(self, version: VersionRecord) -> SelfHealingNetwork:
        """From the bytes that are stored, as anyone else would load it."""
        adapter = unpack(self.registry.adapter(version), sha256=version.sha256, where="stored")
        return assemble(self.registry.base(version.base), adapter, where="stored")

    def served_in(self, batch: int) -> VersionRecord:
        """Of a stream without rollbacks."""
        earlier = [v for v in self.versions("post-heal") if v.batch < batch]
        return earlier[-1] if earlier else self.versions("baseline")[0]

    def rows(self, batch: int) -> Any:
        return next(self.source.batches(batch)).rows


def stream_of(settings: RunConfig) -> SyntheticSource:
    assert isinstance(settings.source, SyntheticSettings)
    return SyntheticSource(
        settings.source, seed=settings.seed, batch_size=100, batches=settings.batches
    )


def ran(settings: RunConfig, source: Any = None, **around: Any) -> Ran:
    registry = around.pop("registry", None) or MemoryRegistry()
    source = source or stream_of(settings)
    # every registry in memory begins with run 1
    workspace = Path(f"workspace-{len(list(Path().glob('workspace-*')))}")
    surroundings = RunContext(
        registry, lambda: datetime.now(UTC), "ann", workspace=workspace, **around
    )
    finished = run(settings, source, surroundings)
    events = list(read(finished.folder / "events.jsonl"))
    return Ran(settings, finished, events, registry, source)


def by_hand(probabilities: Any, y: Any, threshold: float) -> dict[str, float]:
    """Counts, accuracy and F1 in plain arithmetic."""
    flagged, positive = probabilities >= np.float32(threshold), y == 1
    tp, fp = int((flagged & positive).sum()), int((flagged & ~positive).sum())
    fn, tn = int((~flagged & positive).sum()), int((~flagged & ~positive).sum())
    f1 = 2 * tp / (2 * tp + fp + fn) if tp else 0.0
    return {"tp": tp, "fp": fp, "fn": fn, "tn": tn, "accuracy": (tp + tn) / len(y), "f1": f1}


@dataclass
class Heals:
    """Every heal that was done, with the state before it; some can be spoiled."""

    tasks: list[HealTask]
    before: list[AdapterState]
    outcomes: list[HealOutcome]

    def at(self, batch: int) -> int:
        return [task.batch for task in self.tasks].index(batch)


def watch_heals(patch: pytest.MonkeyPatch, spoil: Collection[int] = ()) -> Heals:
    """Look over the recipes' shoulders; heals of the batches in ``spoil`` get noise on top."""
    heal, seen = Recipes.heal, Heals([], [], [])

    def watched(recipes: Recipes, before: AdapterState, task: HealTask) -> HealOutcome:
        outcome = heal(recipes, before, task)
        if task.batch in spoil:
            outcome = _spoiled(recipes, outcome)
        seen.tasks.append(task)
        seen.before.append(before)
        seen.outcomes.append(outcome)
        return outcome

    patch.setattr(Recipes, "heal", watched)
    return seen


def _spoiled(recipes: Recipes, outcome: HealOutcome) -> HealOutcome:
    import torch

    noise = torch.Generator().manual_seed(1)
    weights = dict(outcome.after.weights)
    weights["weight"] = weights["weight"] + torch.randn(weights["weight"].shape, generator=noise)
    network = recipes.network.with_adapter(weights)
    return replace(
        outcome,
        after=replace(outcome.after, weights=weights),
        probabilities_after=network.predict_features(outcome.task.rows.features),
    )
