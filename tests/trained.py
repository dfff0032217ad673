"""What a run trains before it streams, once for the same beginning: most tests are not about it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from selfheal_cli.config import NetworkSettings
from selfheal_cli.model.selection import train_selected
from selfheal_cli.model.training import SpooledRows, train

State = dict[str, torch.Tensor]


@dataclass
class Once:
    """A way to train, that gives again what came of the same network, rows, settings and generator.

    ``learn`` is `train` or `train_selected`.
    """

    learn: Callable[..., Any]
    _ends: dict[str, tuple[Any, int, State, torch.Tensor]] = field(default_factory=dict)

    def __call__(
        self,
        network: nn.Module,
        rows: SpooledRows,
        settings: NetworkSettings,
        on_epoch: Callable[[], None],
    ) -> Any:
        """Exactly what training would leave: weights, frozen, and the generator behind them."""
        key = beginning(network, rows, settings)
        if key not in self._ends:
            return self._train(key, network, rows, settings, on_epoch)
        result, epochs, weights, generator = self._ends[key]
        network.load_state_dict(weights)
        network.eval()
        network.requires_grad_(requires_grad=False)
        torch.set_rng_state(generator)
        for _ in range(epochs):
            on_epoch()
        return result and replace(result, network=network)

    def _train(
        self,
        key: str,
        network: nn.Module,
        rows: SpooledRows,
        settings: NetworkSettings,
        on_epoch: Callable[[], None],
    ) -> Any:
        epochs = 0

        def count() -> None:
            nonlocal epochs
            epochs += 1
            on_epoch()

        result = self.learn(network, rows, settings, count)
        weights = {name: value.clone() for name, value in network.state_dict().items()}
        kept = result and replace(result, network=None)
        self._ends[key] = kept, epochs, weights, torch.get_rng_state()
        return result


TRAINED, SELECTED = Once(train), Once(train_selected)


def beginning(network: nn.Module, rows: SpooledRows, settings: NetworkSettings) -> str:
    """All that training depends on, to the bit."""
    digest = hashlib.sha256(f"{network!r} {settings.model_dump_json()}".encode())
    arrays: list[Any] = [torch.get_rng_state().numpy()]
    arrays += [value.numpy(force=True) for value in network.state_dict().values()]
    arrays += [part for block in rows for part in block]
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()
