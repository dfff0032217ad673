"""``article``: exactly what the article does, its shortcomings included.

A few Adam steps of the three-part loss on the batch at hand; Adam's moments are kept from heal to
heal. Source: the article "Self-healing neural networks" (see docs/article.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from selfheal_cli.config import HealSettings
from selfheal_cli.heal.anchor import Anchor
from selfheal_cli.heal.task import AdapterState, HealOutcome, HealTask, not_finite, require_finite
from selfheal_cli.model.network import SelfHealingNetwork
from selfheal_cli.model.training import Adam

TINY = 1e-8
SMALLEST = torch.finfo(torch.float32).tiny
GATE, CAP = 0.10, 4.0  # share of positives among conflicts; largest weight
ADVICE = "try a smaller --heal-lr"


@dataclass(frozen=True, slots=True)
class LossParts:
    """The loss ``total``; ``label`` and ``rule`` are its first two terms, unweighted."""

    total: Tensor
    label: Tensor
    rule: Tensor


def positive_weight(positive_share: float) -> float:
    """Weight of positives by their share among the conflicts: 1 below 0.10, then 2, rising to 4.

    >>> [round(positive_weight(share), 6) for share in (0.0, 0.1, 0.2, 0.5)]
    [1.0, 2.0, 3.0, 4.0]
    """
    return 1.0 if positive_share < GATE else min(2.0 + 10.0 * (positive_share - GATE), CAP)


def three_part_loss(
    probabilities: Tensor, y: Tensor, rule_label: Tensor, weight: float, settings: HealSettings
) -> LossParts:
    """0.70 BCE(labels, positives weighted) + 0.24 BCE(rules) + 0.03 mean entropy.

    All (n,); ``rule_label`` is -1 where the rules abstain, and such rows leave the second term.
    Logits are recovered as log(p / (1 - p + 1e-8)), as the article does.
    """
    probabilities = probabilities.clamp_min(SMALLEST)  # one that underflowed to 0 has no logit
    logits = torch.log(probabilities / (1 - probabilities + TINY))
    label = functional.binary_cross_entropy_with_logits(logits, y, pos_weight=torch.tensor(weight))
    ruled = rule_label >= 0
    rule = (
        functional.binary_cross_entropy(probabilities[ruled], rule_label[ruled])
        if bool(ruled.any())
        else probabilities.sum() * 0.0  # zero with a gradient of zeros
    )
    entropy = -(
        probabilities * torch.log(probabilities + TINY)
        + (1 - probabilities) * torch.log(1 - probabilities + TINY)
    ).mean()
    total = (
        settings.label_weight * label
        + settings.rule_weight * rule
        + settings.entropy_weight * entropy
    )
    return LossParts(total, label, rule)


class Article:
    """A `Recipe`: Adam on every parameter of the adapter, as the article trains it."""

    def __init__(self, network: SelfHealingNetwork, anchor: Anchor, settings: HealSettings) -> None:
        self._network = network
        self._settings = settings

    def heal(self, before: AdapterState, task: HealTask) -> HealOutcome:
        """As `Recipe.heal`. Measures ``label_loss`` and ``rule_loss`` as means over the steps."""
        rows, settings = task.rows, self._settings
        y = torch.from_numpy(rows.y).float()
        rule_label = torch.from_numpy(rows.rule_label).float()
        weight = positive_weight(task.positive_share)
        healed = self._network.with_adapter({k: v.clone() for k, v in before.weights.items()})
        healed.adapter.requires_grad_(requires_grad=True)
        features = torch.from_numpy(rows.features)
        optimiser = Adam(
            dict(healed.adapter.named_parameters()),
            learning_rate=settings.learning_rate,
            moments=before.memory,
        )
        label_loss = rule_loss = 0.0
        given: list[Tensor] = []  # probabilities before the first step
        for _ in range(settings.steps):
            optimiser.zero_grad()
            probabilities = healed.decide(healed.adapter(features))
            if not bool(torch.isfinite(probabilities).all()):
                raise not_finite("a probability", task, ADVICE)
            given = given or [probabilities.detach()]
            loss = three_part_loss(probabilities, y, rule_label, weight, settings)
            loss.total.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            label_loss += loss.label.item() / settings.steps
            rule_loss += loss.rule.item() / settings.steps
        weights = {name: value.detach() for name, value in healed.adapter.state_dict().items()}
        require_finite(weights, task, ADVICE)
        with torch.no_grad():
            probabilities_after = healed.decide(healed.adapter(features)).numpy()
        measured = {"label_loss": label_loss, "rule_loss": rule_loss, "positive_weight": weight}
        after = AdapterState(weights, optimiser.moments())
        return HealOutcome(task, after, given[0].numpy(), probabilities_after, measured)
