"""Recipes of other packages: what they are given, what they give back, and what holds of that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional

from selfheal_cli.config import HealSettings
from selfheal_cli.errors import HealError, PartError
from selfheal_cli.heal.task import AdapterState, HealOutcome, HealTask, not_finite, require_finite
from selfheal_cli.installed import made, part_of
from selfheal_cli.model.network import SelfHealingNetwork, Weights
from selfheal_cli.model.training import seeded


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """What a heal learns from, as tensors that may be changed: nobody else has them.

    ``features`` (n, features) float32 of the frozen backbone, ``y`` (n,) int64 the labels,
    ``rule_label`` (n,) int64 the rules', -1 where they abstain, ``arrival`` (n,) int64 the step at
    which the labels came, rising. Rows that the heal is judged by are not among them. ``weights``
    are the adapter's by name, ``learning`` those that gradient steps move; ``memory`` is what the
    last heal kept, empty before the first one and after a rollback.
    """

    features: Tensor
    y: Tensor
    rule_label: Tensor
    arrival: Tensor
    weights: dict[str, Tensor]
    learning: tuple[str, ...]
    memory: dict[str, Tensor]
    settings: HealSettings
    batch: int
    _network: SelfHealingNetwork = field(repr=False)

    def logits(self, weights: Mapping[str, Tensor], features: Tensor | None = None) -> Tensor:
        """What the network gives with these weights in the adapter: (n, 1) for two classes, else
        (n, K). Gradients go through ``weights``.
        """
        given = (self.features if features is None else features,)
        adapted = functional_call(self._network.adapter, dict(weights), given)
        logits: Tensor = self._network.head(adapted)
        return logits

    def loss(self, weights: Mapping[str, Tensor]) -> Tensor:
        """Mean log loss of the labels with these weights in the adapter; 0 without a row."""
        logits = self.logits(weights)
        if not len(self.y):
            return logits.sum()
        if logits.shape[1] == 1:  # the same as two logits, one of them fixed at zero
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        return functional.cross_entropy(logits, self.y)


@dataclass(frozen=True, slots=True)
class NewWeights:
    """What a heal gives: weights by name (those that are left out stay), tensors that the next heal
    is given as ``memory``, and figures for the log.
    """

    weights: Mapping[str, Tensor]
    memory: Mapping[str, Tensor] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)


class RecipePart(Protocol):
    """How an adapter learns: a class without arguments, or an object; a function is its ``heal``.

    A pure function of the lesson, since a run may be gone through again; torch's generator is
    seeded by the batch. ``adapter`` is what a network that a run trains gets, ``reflexive`` where
    it is not there; ``takes`` the adapters of wrapped models that it heals, all where it is not
    there: names, or classes.
    """

    def heal(self, lesson: Lesson) -> Mapping[str, Tensor] | NewWeights:
        """The adapter's weights after learning; what it raises refuses the heal."""


Heal = Callable[[Lesson], Mapping[str, Tensor] | NewWeights]


class OwnRecipe:
    """A recipe of another package as one of ours."""

    def __init__(self, name: str, network: SelfHealingNetwork, settings: HealSettings) -> None:
        self._part = part_of("recipe", name)
        self._heal = heal_of(name)
        self._network = network
        self._settings = settings

    def heal(self, before: AdapterState, task: HealTask) -> HealOutcome:
        """As its own; raises `HealError` for whatever it raises, and for weights that do not fit
        or are not finite.
        """
        features = task.rows.features
        lesson = self._lesson(before, task)
        try:
            with seeded(task.batch):
                given = self._heal(lesson)
            healed = given if isinstance(given, NewWeights) else NewWeights(given)
            weights = {**before.weights, **_plain(healed.weights, "weight")}
            memory = _plain(healed.memory, "memory")
            figures = {f"recipe.{name}": _finite(name, one) for name, one in healed.figures.items()}
            network = self._network.with_adapter(weights)
        except Exception as exc:
            said = str(exc) if isinstance(exc, PartError) else exc
            raise HealError(f"{self._part.failed(said)}; the old weights stay") from exc
        require_finite(weights, task, f"{self._part} gave it")
        require_finite(memory, task, f"{self._part} gave it")
        after = network.predict_features(features)
        if not np.isfinite(after).all():
            raise not_finite("a probability", task, f"{self._part} gave the weights")
        was = self._network.with_adapter(before.weights).predict_features(features)
        return HealOutcome(task, AdapterState(weights, memory), was, after, figures)

    def _lesson(self, before: AdapterState, task: HealTask) -> Lesson:
        rows = task.rows.learnable
        return Lesson(
            features=torch.tensor(rows.features),
            y=torch.tensor(rows.y.astype(np.int64)),
            rule_label=torch.tensor(rows.rule_label.astype(np.int64)),
            arrival=torch.tensor(rows.arrival.astype(np.int64)),
            weights={name: value.detach().clone() for name, value in before.weights.items()},
            learning=tuple(self._network.adapter.learning()),
            memory={name: value.detach().clone() for name, value in before.memory.items()},
            settings=self._settings,
            batch=task.batch,
            _network=self._network,
        )


def heal_of(name: str) -> Heal:
    """What a recipe is asked by; raises `PartError` for what is no recipe."""
    recipe = made("recipe", name)
    heal = getattr(recipe, "heal", recipe)
    if not callable(heal):
        raise part_of("recipe", name).failed("is no recipe: it has no method 'heal'")
    return heal  # type: ignore[no-any-return]


def _plain(tensors: Mapping[str, Tensor], what: str) -> Weights:
    """Float32 tensors of their own; raises `PartError` for what is none."""
    if not isinstance(tensors, Mapping):
        raise PartError(f"gave {type(tensors).__name__}, and tensors by name are needed")
    for name, value in tensors.items():
        if not isinstance(value, Tensor):
            raise PartError(f"{what} '{name}' is {type(value).__name__}, and a tensor is needed")
    return {name: value.detach().float().clone() for name, value in tensors.items()}


def _finite(name: str, figure: float) -> float:
    if not isfinite(figure):
        raise PartError(f"figure '{name}' is {figure}")
    return float(figure)
