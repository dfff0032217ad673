"""One heal: a pure function of the adapter before, the rows and the settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from selfheal_cli.config import HealSettings
from selfheal_cli.errors import HealError
from selfheal_cli.heal.loss import positive_weight, three_part_loss
from selfheal_cli.model.adam import Adam
from selfheal_cli.model.network import SelfHealingNetwork, Weights

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray, LabelArray


@dataclass(frozen=True, slots=True)
class AdapterState:
    """An adapter's weights, and Adam's moments where the recipe carries them from heal to heal.

    ``optimiser`` holds ``step.NAME``, ``exp_avg.NAME`` and ``exp_avg_sq.NAME`` tensors, or nothing
    before the first heal. Nobody changes these tensors in place.
    """

    weights: Weights
    optimiser: Weights


@dataclass(frozen=True, slots=True)
class HealTask:
    """Rows to heal on: x (n, inputs), y and rule_label (n,), the share of true positives among
    the conflicts, and the batch that they came from.
    """

    heal_id: str
    batch: int
    reason: str
    x: FloatArray
    y: LabelArray
    rule_label: LabelArray
    positive_share: float


@dataclass(frozen=True, slots=True)
class HealOutcome:
    """The adapter after a heal; probabilities (n,) of the task's rows before and after it;
    losses as means over the steps.
    """

    task: HealTask
    after: AdapterState
    probabilities_before: FloatArray
    probabilities_after: FloatArray
    label_loss: float
    rule_loss: float


def heal(
    network: SelfHealingNetwork, before: AdapterState, task: HealTask, settings: HealSettings
) -> HealOutcome:
    """The article's recipe: a few Adam steps on the adapter alone.

    The backbone is frozen, so its features of the rows are computed once. The same arguments give
    the same bytes. Raises `HealError` when the result is not finite.
    """
    y = torch.from_numpy(task.y).float()
    rule_label = torch.from_numpy(task.rule_label).float()
    weight = positive_weight(task.positive_share)
    own = network.with_adapter({name: value.clone() for name, value in before.weights.items()})
    own.adapter.requires_grad_(requires_grad=True)
    with torch.no_grad():
        features = own.backbone(torch.from_numpy(task.x))
        probabilities_before = own.decide(own.adapter(features)).numpy()
    optimiser = Adam(
        dict(own.adapter.named_parameters()),
        learning_rate=settings.learning_rate,
        moments=before.optimiser,
    )
    label_loss = rule_loss = 0.0
    for _ in range(settings.steps):
        optimiser.zero_grad()
        probabilities = own.decide(own.adapter(features))
        _require_finite({"a probability": probabilities}, task)
        loss = three_part_loss(probabilities, y, rule_label, weight, settings)
        loss.total.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        label_loss += loss.label.item() / settings.steps
        rule_loss += loss.rule.item() / settings.steps
    after = AdapterState(_detached(own.adapter.state_dict()), optimiser.moments())
    _require_finite(after.weights, task)
    with torch.no_grad():
        probabilities_after = own.decide(own.adapter(features)).numpy()
    return HealOutcome(
        task, after, probabilities_before, probabilities_after, label_loss, rule_loss
    )


def _detached(weights: Weights) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in weights.items()}


def _require_finite(weights: Weights, task: HealTask) -> None:
    broken = [name for name, value in weights.items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise HealError(
            f"heal {task.heal_id} of batch {task.batch}: {broken[0]} is not finite; "
            "the old weights stay; try a smaller --heal-lr"
        )
