"""Our Adam against torch's own, bit by bit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from selfheal_cli.model.training import Adam, seeded


def layers() -> nn.Sequential:
    """A small network."""
    with seeded(0):
        return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 1))


def loss_of(module: nn.Module, step: int) -> Tensor:
    """The loss of a step's own rows."""
    draw = torch.Generator().manual_seed(step)
    x, y = torch.randn(30, 5, generator=draw), torch.randn(30, 1, generator=draw)
    return functional.mse_loss(module(x), y)


def ours(module: nn.Module, steps: range, *, rate: float, moments: dict[str, Tensor]) -> Adam:
    """Steps of our Adam, and what it ends with."""
    optimiser = Adam(dict(module.named_parameters()), learning_rate=rate, moments=moments)
    for step in steps:
        optimiser.zero_grad()
        loss_of(module, step).backward()
        optimiser.step()
    return optimiser


def theirs(module: nn.Module, steps: range, *, rate: float) -> torch.optim.Adam:
    """Steps of torch's Adam."""
    optimiser = torch.optim.Adam(module.parameters(), lr=rate)
    for step in steps:
        optimiser.zero_grad()
        loss_of(module, step).backward()
        optimiser.step()
    return optimiser


def same(first: nn.Module, second: nn.Module) -> bool:
    """All weights are equal to the bit."""
    return all(
        torch.equal(one, other)
        for one, other in zip(first.parameters(), second.parameters(), strict=True)
    )


@pytest.mark.parametrize("rate", [0.001, 0.003, 0.3])
def test_steps_are_those_of_torch_to_the_bit(rate: float) -> None:
    for steps in (1, 5, 60):
        first, second = layers(), layers()
        ours(first, range(steps), rate=rate, moments={})
        theirs(second, range(steps), rate=rate)
        assert same(first, second)
        assert not same(first, layers())


def test_moments_are_those_of_torch_by_name() -> None:
    first, second = layers(), layers()
    moments = ours(first, range(7), rate=0.01, moments={}).moments()
    state = theirs(second, range(7), rate=0.01).state
    names = dict(second.named_parameters())
    kinds = ("step", "exp_avg", "exp_avg_sq")
    assert set(moments) == {f"{kind}.{name}" for kind in kinds for name in names}
    for name, parameter in names.items():
        for kind in kinds:
            assert torch.equal(moments[f"{kind}.{name}"], state[parameter][kind])


def test_a_later_adam_goes_on_from_the_moments() -> None:
    whole, parts, forgetful = layers(), layers(), layers()
    ours(whole, range(10), rate=0.01, moments={})
    moments = ours(parts, range(4), rate=0.01, moments={}).moments()
    ours(parts, range(4, 10), rate=0.01, moments=moments)
    assert same(parts, whole)
    ours(forgetful, range(4), rate=0.01, moments={})
    ours(forgetful, range(4, 10), rate=0.01, moments={})
    assert not same(forgetful, whole)


def test_the_moments_that_were_handed_in_stay_as_they_are() -> None:
    module = layers()
    moments = ours(module, range(3), rate=0.01, moments={}).moments()
    before = {name: value.clone() for name, value in moments.items()}
    ours(module, range(3), rate=0.01, moments=moments)
    assert all(torch.equal(moments[name], before[name]) for name in before)


def test_gradients_are_forgotten_between_steps() -> None:
    module = layers()
    optimiser = Adam(dict(module.named_parameters()), learning_rate=0.01)
    loss_of(module, 0).backward()
    optimiser.zero_grad()
    assert all(parameter.grad is None for parameter in module.parameters())
