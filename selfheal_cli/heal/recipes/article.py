"""``article``: exactly what the article does, its shortcomings included.

A few Adam steps of the three-part loss on the batch at hand; Adam's moments go on from heal to
heal. Source: the article "Self-healing neural networks" (see README).
"""

from __future__ import annotations

import torch

from selfheal_cli.config import HealSettings
from selfheal_cli.heal.anchor import Anchor
from selfheal_cli.heal.loss import positive_weight, three_part_loss
from selfheal_cli.heal.task import AdapterState, HealOutcome, HealTask, require_finite
from selfheal_cli.model.adam import Adam
from selfheal_cli.model.network import SelfHealingNetwork

ADVICE = "try a smaller --heal-lr"


class Article:
    """See `Recipe`."""

    def __init__(self, network: SelfHealingNetwork, anchor: Anchor, settings: HealSettings) -> None:
        self._network = network
        self._settings = settings

    def heal(self, before: AdapterState, task: HealTask) -> HealOutcome:
        """See `Recipe`. Measures ``label_loss`` and ``rule_loss`` as means over the steps."""
        rows, settings = task.rows, self._settings
        y = torch.from_numpy(rows.y).float()
        rule_label = torch.from_numpy(rows.rule_label).float()
        weight = positive_weight(task.positive_share)
        own = self._network.with_adapter({k: v.clone() for k, v in before.weights.items()})
        own.adapter.requires_grad_(requires_grad=True)
        features = torch.from_numpy(rows.features)
        with torch.no_grad():
            probabilities_before = own.decide(own.adapter(features)).numpy()
        optimiser = Adam(
            dict(own.adapter.named_parameters()),
            learning_rate=settings.learning_rate,
            moments=before.memory,
        )
        label_loss = rule_loss = 0.0
        for _ in range(settings.steps):
            optimiser.zero_grad()
            probabilities = own.decide(own.adapter(features))
            require_finite({"a probability": probabilities}, task, ADVICE)
            loss = three_part_loss(probabilities, y, rule_label, weight, settings)
            loss.total.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            label_loss += loss.label.item() / settings.steps
            rule_loss += loss.rule.item() / settings.steps
        weights = {name: value.detach() for name, value in own.adapter.state_dict().items()}
        require_finite(weights, task, ADVICE)
        with torch.no_grad():
            probabilities_after = own.decide(own.adapter(features)).numpy()
        measured = {"label_loss": label_loss, "rule_loss": rule_loss, "positive_weight": weight}
        after = AdapterState(weights, optimiser.moments())
        return HealOutcome(task, after, probabilities_before, probabilities_after, measured)
