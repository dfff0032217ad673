"""Training that ends by the latest training rows, with some held out.

The network begins as a logistic regression of the earlier rows, so that it is hardly ever worse,
and learns from them until its loss on the next rows has not fallen for a few epochs; then it is
taken back to where that was least. The rows after these neither taught nor chose anything: the
network's figures on them are what it can do on rows that it never saw.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from selfheal_cli import logistic
from selfheal_cli.config import NetworkSettings
from selfheal_cli.model.adapters import ReflexiveLayer
from selfheal_cli.model.network import Classifier, SelfHealingNetwork
from selfheal_cli.model.training import Adam, SpooledRows, train, train_epoch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfheal_cli.records import FloatArray, LabelArray

    Held = tuple[FloatArray, LabelArray]  # inputs (n, d) and classes (n,)

LOGISTIC = "logistic regression"
FEWEST = 50  # rows to choose on; fewer say little
FEWEST_OTHERS = 5  # of them outside of the commonest class
MOST_JUDGED = 20_000  # rows to choose on, and to hold out
MOST_CELLS = 20_000_000  # of the logistic regression's matrix, which is float64
WIDEST = 2_000  # inputs of a logistic regression: each step takes their cube
RIDGE = 1.0  # as scikit-learn's C = 1
GAIN = 1e-5  # of the loss, below which an epoch brought nothing
SURE = 1e-7  # probabilities are kept this far from 0 and 1


@dataclass(frozen=True, slots=True)
class Selected:
    """A trained network, how it came about, and the rows that it is judged on.

    ``held_out`` is None where all rows were learned from.
    """

    network: Any
    how: str
    held_out: Held | None = None


@dataclass(frozen=True, slots=True)
class _Stand:
    """A network after some epochs: its weights, and its loss (n,) on the rows to choose on."""

    epochs: int
    weights: dict[str, torch.Tensor]
    losses: NDArray[np.float64]

    def beats(self, other: _Stand) -> bool:
        """By more than one standard error of the difference on the same rows."""
        gain = other.losses - self.losses
        return bool(gain.mean() > gain.std() / np.sqrt(len(gain)))


def train_selected(
    network: nn.Module,
    rows: SpooledRows,
    settings: NetworkSettings,
    on_epoch: Callable[[], None],
) -> Selected:
    """Choose the number of epochs on ``settings.validation`` of the rows, the latest; and freeze.

    Half of these choose, half are held out. Where they are too few for that, the network stays a
    logistic regression of all rows. Draws from torch's global generator: call it inside `seeded`.
    """
    half = min(int(len(rows) * settings.validation / 2), MOST_JUDGED)
    taught = len(rows) - 2 * half
    chosen_on = _judged(rows, taught, taught + half)
    held_out = _judged(rows, taught + half, len(rows))
    reason = _unfit(rows, taught, chosen_on, held_out)
    begun = begin_as_logistic(network, rows, len(rows) if reason else taught)
    if reason and not begun:
        train(network, rows, settings, on_epoch)
        return Selected(network, f"{settings.epochs} epochs on all {len(rows):,} rows: {reason}")
    if reason:
        _freeze(network)
        return Selected(network, f"{LOGISTIC} of all {len(rows):,} rows: {reason}")
    best = _train_until(network, rows, taught, chosen_on, settings, on_epoch, stay=begun)
    network.load_state_dict(best.weights)
    _freeze(network)
    how = f"{best.epochs} {'epoch' if best.epochs == 1 else 'epochs'} on {taught:,} rows"
    if begun:
        how = f"begun as {LOGISTIC}, {how}" if best.epochs else f"{LOGISTIC} of {taught:,} rows"
    how += f", by the loss on the next {half:,}; the latest {half:,} are held out"
    return Selected(network, how, held_out)


def _freeze(network: nn.Module) -> None:
    network.eval()
    network.requires_grad_(requires_grad=False)


def _judged(rows: SpooledRows, start: int, stop: int) -> Held:
    x, y = rows.between(start, stop)
    return x, y.astype(np.int8)


def _unfit(rows: SpooledRows, taught: int, *parts: Held) -> str:
    """Why nothing can be chosen, or empty."""
    fewest = min(len(y) for _, y in parts)
    if fewest < FEWEST:
        return f"{fewest} rows to choose epochs by are too few"
    others = min(len(y) - int(np.unique(y, return_counts=True)[1].max()) for _, y in parts)
    if others < FEWEST_OTHERS:
        return f"{others} of the latest are outside of the commonest class, too few to choose by"
    early = {label for _, y in rows.upto(taught) for label in np.unique(y)}
    if early < {label for _, y in rows for label in np.unique(y)}:
        return "a class comes among the latest alone"
    return ""


def _train_until(
    network: nn.Module,
    rows: SpooledRows,
    taught: int,
    chosen_on: Held,
    settings: NetworkSettings,
    on_epoch: Callable[[], None],
    *,
    stay: bool,
) -> _Stand:
    """The best epoch. With ``stay`` the beginning, unless that is clearly worse."""
    optimiser = Adam(dict(network.named_parameters()), learning_rate=settings.learning_rate)
    start = best = _Stand(0, deepcopy(network.state_dict()), _losses(network, chosen_on))
    for epoch in range(1, settings.epochs + 1):
        train_epoch(network, rows.upto(taught), optimiser, settings.train_batch_size)
        on_epoch()
        losses = _losses(network, chosen_on)
        if losses.mean() < best.losses.mean() - GAIN:
            best = _Stand(epoch, deepcopy(network.state_dict()), losses)
        elif epoch - best.epochs >= settings.patience:
            for _ in range(settings.epochs - epoch):
                on_epoch()
            break
    return start if stay and not best.beats(start) else best


def _losses(network: Any, held: Held) -> NDArray[np.float64]:
    """Log loss (n,) of each row."""
    classifier: Classifier = network
    p = classifier.predict(held[0]).astype(np.float64)
    y = held[1].astype(np.int64)
    of_truth = np.where(y == 1, p, 1 - p) if p.ndim == 1 else p[np.arange(len(y)), y]
    losses: NDArray[np.float64] = -np.log(np.clip(of_truth, SURE, 1 - SURE))
    return losses


def begin_as_logistic(network: Any, rows: SpooledRows, taught: int) -> bool:
    """Give an untrained network the weights with which it decides as a logistic regression.

    Each logit takes two units of each hidden layer, ``relu(z) - relu(-z) = z``; the others are left
    as they are, and the head does not listen to them yet. Returns False, and changes nothing,
    where units or inputs are not of a number for that.
    """
    first, second, head = network.backbone[0], network.backbone[2], network.head
    outputs, width = head.out_features, first.in_features
    if 2 * outputs > first.out_features or width > WIDEST:
        return False
    x, y = rows.spread(taught, MOST_CELLS // (width + 1))
    theta = torch.from_numpy(_regress(x[:, :width], y, outputs)).float()
    with torch.no_grad():
        for weight in (second.weight[: 2 * outputs], second.bias[: 2 * outputs]):
            weight.zero_()
        head.weight.zero_()
        head.bias.zero_()
        for logit in range(outputs):
            for unit, sign in ((2 * logit, 1.0), (2 * logit + 1, -1.0)):
                first.weight[unit] = sign * theta[:-1, logit]
                first.bias[unit] = sign * theta[-1, logit]
                second.weight[unit, unit] = 1.0
                head.weight[logit, unit] = sign
        if isinstance(network, SelfHealingNetwork):
            network.adapter = ReflexiveLayer.identity(network.architecture.room)
    return True


def _regress(x: FloatArray, y: FloatArray, outputs: int) -> NDArray[np.float64]:
    """Coefficients (inputs + 1, outputs), the intercepts last."""
    a = np.column_stack([x.astype(np.float64), np.ones(len(x))])
    ridge = np.full(a.shape[1], RIDGE)
    ridge[-1] = 1e-3
    start, offset = np.zeros((a.shape[1], outputs)), np.zeros((len(a), outputs))
    return logistic.fit(a, offset, logistic.targets(a, y, outputs), ridge, start)
