"""A wrapped network decides as the original, bit for bit, until its adapter has learned."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from selfheal_cli.errors import ModelError
from selfheal_cli.model.adapter import Room
from selfheal_cli.model.adapters import ReflexiveLayer
from selfheal_cli.model.checkpoint import assemble, make_base
from selfheal_cli.model.network import as_probabilities
from selfheal_cli.model.original import take
from selfheal_cli.model.wrapping import layers, wrap

ROWS = np.random.default_rng(7).standard_normal((200, 64)).astype(np.float32)
TOKENS = np.random.default_rng(7).integers(0, 20, (200, 12)).astype(np.float32)


class Sequence(nn.Module):
    """A transformer over tokens, with a buffer that no state dictionary holds."""

    def __init__(self, width: int = 16, kinds: int = 20) -> None:
        super().__init__()
        self.embedding = nn.Embedding(kinds, width)
        self.register_buffer("places", torch.arange(12) / 12.0, persistent=False)
        layer = nn.TransformerEncoderLayer(width, 2, 32, batch_first=True, dropout=0.1)
        self.encoder = nn.TransformerEncoder(layer, 1)
        self.out = nn.Linear(width, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        """(n, 12) tokens to (n,) logits."""
        x = self.embedding(tokens) + self.places[:, None]
        logits: Tensor = self.out(self.encoder(x).mean(dim=1)).squeeze(-1)
        return logits


class Sure(nn.Module):
    """Gives probabilities of two classes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 8), nn.ReLU())
        self.out = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Probabilities."""
        return torch.softmax(self.out(self.body(x)), dim=1)


def multilayer(outputs: int, *last: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.4), nn.Linear(32, outputs),
        *last,
    )  # fmt: skip


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10),
    )  # fmt: skip


CASES: dict[str, tuple[Any, dict[str, Any], np.ndarray[Any, Any]]] = {
    "one logit": (lambda: multilayer(1), {"shape": (64,)}, ROWS),
    "one probability": (lambda: multilayer(1, nn.Sigmoid()), {"shape": (64,)}, ROWS),
    "two logits": (lambda: multilayer(2), {"shape": (64,)}, ROWS),
    "two probabilities": (Sure, {"shape": (64,)}, ROWS),
    "five logits": (lambda: multilayer(5), {"shape": (64,)}, ROWS),
    "five probabilities": (lambda: multilayer(5, nn.Softmax(dim=-1)), {"shape": (64,)}, ROWS),
    "convolutions": (convolutional, {"shape": (1, 8, 8)}, ROWS),
    "transformer": (Sequence, {"shape": (12,), "dtype": "int64"}, TOKENS),
}


def made(make: Any) -> nn.Module:
    torch.manual_seed(3)
    module: nn.Module = make()
    module.train()
    if any(isinstance(one, nn.BatchNorm1d) for one in module.modules()):
        module(torch.from_numpy(ROWS * 2 + 1))  # running statistics that are not the start's
    return module


@pytest.mark.parametrize("case", CASES)
def test_it_decides_as_the_original_and_so_does_what_is_stored(case: str) -> None:
    make, takes, rows = CASES[case]
    module = made(make)
    network = wrap(module, rows, **takes)
    kind = getattr(torch, takes.get("dtype", "float32"))
    with torch.inference_mode():
        out = module.eval()(torch.from_numpy(rows).reshape(len(rows), *takes["shape"]).to(kind))
    table = out if out.ndim > 1 else out[:, None]
    if "probabilit" in case:
        expected = table[:, -1] if table.shape[1] <= 2 else table
    else:
        expected = as_probabilities(table)
    assert np.array_equal(network.predict(rows), expected.numpy())
    for twin in (network, network.anchored(beside=False)):
        stored = assemble(make_base(twin, {}, {}, rows), twin.adapter.state_dict(), where="v1")
        assert np.array_equal(stored.predict(rows), network.predict(rows))
        assert np.array_equal(stored.predict_features(stored.features(rows)), network.predict(rows))


@pytest.mark.parametrize("case", CASES)
def test_wrapping_leaves_the_module_as_it_was_and_holds_no_second_head(case: str) -> None:
    make, takes, rows = CASES[case]
    module = made(make)
    names = list(module.state_dict())
    network = wrap(module, rows, **takes)
    assert list(module.state_dict()) == names
    weights = sum(v.numel() for k, v in network.base_weights().items())
    assert weights == sum(v.numel() for v in (*module.parameters(), *module.buffers()))
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not network.training


def test_an_identity_adapter_learns_from_its_first_step() -> None:
    layer = ReflexiveLayer.identity(Room.flat(4))
    x = torch.randn(8, 4)
    assert torch.equal(layer(x), x)
    layer(x).square().sum().backward()
    gradients = [p.grad for p in layer.adapter[2].parameters()]
    assert all(g is not None and bool(g.abs().sum() > 0) for g in gradients)


def test_a_class_that_cannot_be_imported_is_refused() -> None:
    class Local(nn.Linear):
        pass

    with pytest.raises(ModelError, match="nobody can import"):
        wrap(Local(64, 1), ROWS, shape=(64,))


def test_rows_of_another_shape_are_refused_with_what_to_give() -> None:
    with pytest.raises(ModelError, match=r"does not take float32 \(n, 64\)"):
        wrap(made(convolutional), ROWS, shape=(64,))


def test_layers_are_listed_in_the_order_of_computation_with_shapes() -> None:
    listing = layers(take(made(convolutional), ROWS[:2], shape=(1, 8, 8)))
    assert [layer.kind for layer in listing][:2] == ["Conv2d", "BatchNorm2d"]
    assert (listing[-1].takes, listing[-1].gives, listing[-1].parameters) == ((2, 16), (2, 10), 170)
    assert [layer.name for layer in listing if "lora" in layer.adapters] == ["5", "7"]


def test_the_users_module_keeps_its_modes_and_its_gradients() -> None:
    module = made(lambda: multilayer(1))
    module[0].eval()
    wrap(module, ROWS, shape=(64,), at="1")
    assert [one.training for one in module] == [False, True, True, True, True]
    assert all(parameter.requires_grad for parameter in module.parameters())
