"""Training on clean data, before anything is frozen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from selfheal_cli.config import NetworkSettings
from selfheal_cli.model.adam import Adam
from selfheal_cli.model.spool import SpooledRows

SMALLEST = torch.finfo(torch.float32).tiny


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Initialisation and training draw from this seed; the caller's generator is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def train(
    network: nn.Module,
    rows: SpooledRows,
    settings: NetworkSettings,
    on_epoch: Callable[[], None],
) -> None:
    """Adam on cross-entropy; one permutation a block and epoch; freezes at the end.

    Draws from torch's global generator: call it inside `seeded`.
    """
    optimiser = Adam(dict(network.named_parameters()), learning_rate=settings.learning_rate)
    for _ in range(settings.epochs):
        for x_block, y_block in rows:
            x, y = torch.from_numpy(x_block), torch.from_numpy(y_block)
            for chosen in torch.split(torch.randperm(len(y)), settings.train_batch_size):
                optimiser.zero_grad()
                loss = cross_entropy(network(x[chosen]), y[chosen])
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
        on_epoch()
    network.eval()
    network.requires_grad_(requires_grad=False)


def cross_entropy(probabilities: Tensor, y: Tensor) -> Tensor:
    """Mean loss of probabilities (n,) or (n, K) against labels (n,)."""
    if probabilities.ndim == 1:
        return functional.binary_cross_entropy(probabilities, y)
    return functional.nll_loss(torch.log(probabilities.clamp_min(SMALLEST)), y.long())
