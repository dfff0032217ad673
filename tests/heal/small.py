"""A small network to heal, its anchor, and rows."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from selfheal_cli.config import HealSettings, NetworkSettings
from selfheal_cli.heal.anchor import Anchor, AnchorRows
from selfheal_cli.heal.recipe import Recipes
from selfheal_cli.heal.task import AdapterState, HealOutcome, HealRows, HealTask
from selfheal_cli.model.architecture import Architecture
from selfheal_cli.model.network import SelfHealingNetwork, Weights
from selfheal_cli.model.training import SpooledRows, seeded, train
from selfheal_cli.sources.synthetic import SyntheticSource

INPUTS, HIDDEN = 4, 8


@dataclasses.dataclass(frozen=True)
class Trained:
    """A network as training left it, its anchored twin, and what the twin saw in training."""

    plain: SelfHealingNetwork
    network: SelfHealingNetwork
    anchor: Anchor


def trained_on(source: SyntheticSource) -> Trained:
    """A network of the article's sizes, trained on a source's clean rows."""
    rows = SpooledRows(source.training())
    with seeded(0):
        plain = SelfHealingNetwork.build(Architecture(10, 64))
        train(plain, rows, NetworkSettings(), lambda: None)
    rows.close()
    network = plain.anchored(beside=True)
    seen = AnchorRows(network, 2)
    for block in source.training():
        seen.add(block.x, network.features(block.x), block.y)
    return Trained(plain, network, seen.anchor())


def small_network(seed: int = 0) -> SelfHealingNetwork:
    """A frozen network with the adapter that it was built with."""
    with seeded(seed):
        built = SelfHealingNetwork.build(Architecture(INPUTS, HIDDEN))
    built.freeze()
    return built


def anchor_of(network: SelfHealingNetwork) -> Anchor:
    """Statistics of rows of two classes."""
    draw = np.random.default_rng(99)
    x = draw.normal(size=(200, INPUTS)).astype(np.float32)
    rows = AnchorRows(network, 2)
    rows.add(x, network.features(x), (x[:, 0] > 0).astype(np.int8))
    return rows.anchor()


def recipes_of(network: SelfHealingNetwork, settings: HealSettings | None = None) -> Recipes:
    """The recipes of a network, as a run builds them."""
    return Recipes(network, anchor_of(network), settings or HealSettings())


def start(network: SelfHealingNetwork) -> AdapterState:
    """The adapter as built, before any heal."""
    return AdapterState(dict(network.adapter.state_dict()), {})


def rows_of(network: SelfHealingNetwork, x: Any, y: Any, rule_label: Any) -> HealRows:
    """Rows of one batch, none held out."""
    arrival, held_out = np.ones(len(y), dtype=np.int32), np.zeros(len(y), dtype=bool)
    return HealRows(network.features(x), y, rule_label, arrival, held_out)


def with_rows(task: HealTask, **changed: Any) -> HealTask:
    """The task with other rows."""
    return dataclasses.replace(task, rows=dataclasses.replace(task.rows, **changed))


def bytes_of(weights: Weights) -> dict[str, bytes]:
    """Weights as bytes, by name."""
    return {name: value.detach().numpy().tobytes() for name, value in weights.items()}


def outcome_bytes(outcome: HealOutcome) -> tuple[object, ...]:
    """Everything that a heal gives, as bytes."""
    return (
        bytes_of(outcome.after.weights),
        bytes_of(outcome.after.memory),
        outcome.probabilities_before.tobytes(),
        outcome.probabilities_after.tobytes(),
        dict(outcome.measured),
    )
