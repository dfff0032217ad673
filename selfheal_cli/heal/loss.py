"""The article's three-part loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from selfheal_cli.config import HealSettings

TINY = 1e-8
SMALLEST = torch.finfo(torch.float32).tiny
GATE, CAP = 0.10, 4.0  # share of positives among conflicts; largest weight


@dataclass(frozen=True, slots=True)
class LossParts:
    """``total`` to descend; ``label`` and ``rule`` are its first two terms, unweighted."""

    total: Tensor
    label: Tensor
    rule: Tensor


def positive_weight(positive_share: float) -> float:
    """Weight of positives: 1 below a share of 0.10 among the conflicts, then 2, rising to 4.

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
    labelled = rule_label >= 0
    rule = (
        functional.binary_cross_entropy(probabilities[labelled], rule_label[labelled])
        if bool(labelled.any())
        else probabilities.sum() * 0.0
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
