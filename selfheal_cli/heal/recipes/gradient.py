"""``gradient``: the article's three-part loss, corrected, for any adapter at any layer.

Logits instead of log(p / (1 - p)), positives not weighted (so that probabilities stay
calibrated), a window of labelled batches instead of the last one, and rows held out for the gate.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from selfheal_cli.config import HealSettings
from selfheal_cli.heal.anchor import Anchor
from selfheal_cli.heal.task import AdapterState, HealOutcome, HealTask, require_finite
from selfheal_cli.model.network import SelfHealingNetwork
from selfheal_cli.model.training import Adam

ADVICE = "try a smaller --heal-lr"


class Gradient:
    """A `Recipe`: Adam on the parameters that the adapter lets learn."""

    def __init__(self, network: SelfHealingNetwork, anchor: Anchor, settings: HealSettings) -> None:
        self._network = network
        self._settings = settings

    def heal(self, before: AdapterState, task: HealTask) -> HealOutcome:
        """As `Recipe.heal`. Measures ``label_loss`` and ``rule_loss`` as means over the steps."""
        settings = self._settings
        healed = self._network.with_adapter({k: v.clone() for k, v in before.weights.items()})
        features = torch.from_numpy(task.rows.features)
        with torch.no_grad():
            probabilities_before = healed.decide(healed.adapter(features)).numpy()
        learning = healed.adapter.learning()
        for parameter in learning.values():
            parameter.requires_grad = True
        optimiser = Adam(
            learning,
            learning_rate=settings.learning_rate,
            moments=before.memory,
        )
        learned = task.rows.learnable
        inputs = torch.from_numpy(learned.features)
        y, rule_label = torch.from_numpy(learned.y), torch.from_numpy(learned.rule_label)
        measured = {"label_loss": 0.0, "rule_loss": 0.0}
        # without a labelled row the mean loss would be 0 / 0: the adapter stays as it is
        for _ in range(settings.steps if len(learned) else 0):
            optimiser.zero_grad()
            label, rule, entropy = _terms(healed.head(healed.adapter(inputs)), y, rule_label)
            require_finite({"the loss": label}, task, ADVICE)
            total = settings.label_weight * label + settings.rule_weight * rule
            total = total + settings.entropy_weight * entropy
            total.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            measured["label_loss"] += label.item() / settings.steps
            measured["rule_loss"] += rule.item() / settings.steps
        weights = {name: value.detach() for name, value in healed.adapter.state_dict().items()}
        require_finite(weights, task, ADVICE)
        with torch.no_grad():
            probabilities_after = healed.decide(healed.adapter(features)).numpy()
        after = AdapterState(weights, optimiser.moments())
        return HealOutcome(task, after, probabilities_before, probabilities_after, measured)


def _terms(logits: Tensor, y: Tensor, rule_label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean log loss against labels (n,), and against rules where they label; mean entropy."""
    ruled = rule_label >= 0
    if logits.shape[1] == 1:  # the same as two logits, one of them fixed at zero
        logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
    log_p = functional.log_softmax(logits, dim=1)
    label = functional.nll_loss(log_p, y.long())
    rule = (
        functional.nll_loss(log_p[ruled], rule_label[ruled].long())
        if bool(ruled.any())
        else log_p.sum() * 0.0
    )
    return label, rule, -(log_p.exp() * log_p).sum(dim=1).mean()
