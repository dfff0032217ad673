"""What a run trains before it streams, once for the same beginning: most tests are not about it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from selfheal_cli.config import NetworkSettings
from selfheal_cli.model.selection import Selected, train_selected
from selfheal_cli.model.training import SpooledRows, train

State = dict[str, torch.Tensor]


class Trained:
    """`train`, that gives again what came of the same network, rows, settings and generator."""

    def __init__(self) -> None:
        self._ends: dict[str, tuple[State, torch.Tensor]] = {}

    def __call__(
        self,
        network: nn.Module,
        rows: SpooledRows,
        settings: NetworkSettings,
        on_epoch: Callable[[], None],
    ) -> None:
        """Exactly what training would leave: weights, frozen, and the generator behind them."""
        key = beginning(network, rows, settings)
        if key not in self._ends:
            train(network, rows, settings, on_epoch)
            weights = {name: value.clone() for name, value in network.state_dict().items()}
            self._ends[key] = weights, torch.get_rng_state()
            return
        weights, generator = self._ends[key]
        network.load_state_dict(weights)
        network.eval()
        network.requires_grad_(requires_grad=False)
        torch.set_rng_state(generator)
        for _ in range(settings.epochs):
            on_epoch()


class SelectedOnce:
    """`train_selected`, that gives again what came of the same beginning, as `Trained` does."""

    def __init__(self) -> None:
        self._ends: dict[str, tuple[Selected, State, torch.Tensor]] = {}

    def __call__(
        self,
        network: nn.Module,
        rows: SpooledRows,
        settings: NetworkSettings,
        on_epoch: Callable[[], None],
    ) -> Selected:
        """Exactly what training would leave."""
        key = beginning(network, rows, settings)
        if key not in self._ends:
            selected = train_selected(network, rows, settings, on_epoch)
            weights = {name: value.clone() for name, value in network.state_dict().items()}
            self._ends[key] = replace(selected, network=None), weights, torch.get_rng_state()
            return selected
        selected, weights, generator = self._ends[key]
        network.load_state_dict(weights)
        network.eval()
        network.requires_grad_(requires_grad=False)
        torch.set_rng_state(generator)
        return replace(selected, network=network)


TRAINED, SELECTED = Trained(), SelectedOnce()


def beginning(network: nn.Module, rows: SpooledRows, settings: NetworkSettings) -> str:
    """All that training depends on, to the bit."""
    digest = hashlib.sha256(f"{network!r} {settings.model_dump_json()}".encode())
    arrays: list[Any] = [torch.get_rng_state().numpy()]
    arrays += [value.numpy(force=True) for value in network.state_dict().values()]
    arrays += [part for block in rows for part in block]
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()
