"""Every adapter x every check."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import pytest
import torch
from torch import Tensor

from selfheal_cli.errors import ConfigurationError
from selfheal_cli.model.adapter import Adapter, Room
from selfheal_cli.model.adapters import KINDS, AdapterKind, parse_adapter
from selfheal_cli.model.checkpoint import pack, unpack
from selfheal_cli.model.training import seeded
from selfheal_cli.records import digest

ROWS = 12
# what an adapter is given: one row, tokens, pixels; one logit and several
BEFORE = {"row": ((8,), -1), "tokens": ((3, 8), -1), "pixels": ((4, 3, 3), 0)}
ON = {"row": (8,), "tokens": (3, 8)}


def rooms(kind: AdapterKind, outputs: int) -> Iterator[tuple[str, Room]]:
    if kind.on:
        for shape, sizes in ON.items():
            yield shape, Room(5, outputs, sizes, prod(sizes) * 6 // 8, taken=2)
        return
    for shape, (sizes, axis) in BEFORE.items():
        if shape == "row" or not kind.at_the_end:
            yield shape, Room(5, outputs, sizes, prod(sizes), axis)


CASES = [
    pytest.param(name, room, id=f"{name}-{shape}-{outputs}")
    for name, kind in KINDS.items()
    if kind.wraps
    for outputs in (1, 2, 5)
    for shape, room in rooms(kind, outputs)
]


def built(name: str, room: Room, seed: int = 0) -> Adapter:
    with seeded(seed):
        adapter = parse_adapter(name).build(room)
    if name == "affine":  # who knows the head fills the direction in
        direction = torch.linspace(-1, 1, room.hidden * room.outputs)
        adapter.direction.data = direction.reshape(room.hidden, room.outputs)  # type: ignore[union-attr, operator]
    return adapter


def features(room: Room) -> Tensor:
    return torch.randn(ROWS, prod(room.sizes), generator=torch.Generator().manual_seed(1))


def unchanged(room: Room, given: Tensor) -> Tensor:
    """What goes on while nothing was learned: all of it, or what the layer gave."""
    if not room.taken:
        return given
    return given.reshape(ROWS, *room.sizes)[..., room.taken :].reshape(ROWS, -1)


def learned(adapter: Adapter, room: Room, steps: int = 3) -> dict[str, Tensor]:
    """After some gradient steps."""
    own = adapter.around({name: value.clone() for name, value in adapter.state_dict().items()})
    learning = own.learning()
    for parameter in learning.values():
        parameter.requires_grad = True
    for _ in range(steps):
        loss = (own(features(room)) - 1).square().mean()
        gradients = torch.autograd.grad(loss, list(learning.values()))
        with torch.no_grad():
            for parameter, gradient in zip(learning.values(), gradients, strict=True):
                parameter.sub_(0.1 * gradient)
    return {name: value.detach() for name, value in own.state_dict().items()}


@pytest.mark.parametrize(("name", "room"), CASES)
def test_it_starts_as_identity_and_keeps_the_shape(name: str, room: Room) -> None:
    given = features(room)
    adapted = built(name, room)(given)
    assert adapted.shape == (ROWS, room.hidden)
    assert torch.equal(adapted, unchanged(room, given))


@pytest.mark.parametrize(("name", "room"), CASES)
def test_it_learns_from_its_first_steps_and_lessens_what_it_descends(name: str, room: Room) -> None:
    adapter = built(name, room)
    after = adapter.around(learned(adapter, room))
    with torch.inference_mode():
        before, now = (float((one(features(room)) - 1).square().mean()) for one in (adapter, after))
    assert now < before
    left = set(adapter.state_dict()) - set(adapter.learning())
    assert all(torch.equal(after.state_dict()[n], adapter.state_dict()[n]) for n in left)


@pytest.mark.parametrize(("name", "room"), CASES)
def test_the_same_seed_and_steps_give_the_same_bytes(name: str, room: Room) -> None:
    packed = [pack(learned(built(name, room), room)) for _ in range(2)]
    assert packed[0] == packed[1]


@pytest.mark.parametrize(("name", "room"), CASES)
def test_its_weights_come_back_from_safetensors_and_it_with_them(name: str, room: Room) -> None:
    adapter = built(name, room)
    weights = learned(adapter, room)
    data = pack(weights)
    back = unpack(data, sha256=digest(data), where="here")
    assert back.keys() == dict(adapter.named_parameters()).keys()
    with torch.inference_mode():
        assert torch.equal(
            adapter.around(back)(features(room)), adapter.around(weights)(features(room))
        )


@pytest.mark.parametrize(("name", "room"), CASES)
def test_a_copy_takes_tensors_over_and_leaves_the_first_as_it_was(name: str, room: Room) -> None:
    adapter = built(name, room)
    before = pack(adapter.state_dict())
    weights = learned(adapter, room)
    twin = adapter.around(weights)
    assert all(p.data_ptr() == weights[n].data_ptr() for n, p in twin.named_parameters())
    assert not any(parameter.requires_grad for parameter in twin.parameters())
    assert pack(adapter.state_dict()) == before


@pytest.mark.parametrize(("name", "room"), CASES)
def test_a_row_is_changed_by_itself_alone(name: str, room: Room) -> None:
    adapter = built(name, room)
    twin = adapter.around(learned(adapter, room))
    given = features(room)
    whole = twin(given)
    torch.testing.assert_close(torch.cat([twin(given[:5]), twin(given[5:])]), whole)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prefix", "unknown adapter 'prefix'; built in: reflexive, affine, lora; installed: none"),
        ("reflexive:3", "reflexive has no rank; give 'reflexive' alone"),
        ("lora:", "from 1 to 4,096, as in lora:8"),
        ("lora:0", "from 1 to 4,096"),
        ("lora:4097", "from 1 to 4,096"),
        ("lora:²", "from 1 to 4,096"),
    ],
)
def test_a_name_that_is_none_is_refused_with_what_is_allowed(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        parse_adapter(text)


@pytest.mark.parametrize("text", ["reflexive", "affine", "lora:1", "lora:4096"])
def test_a_name_reads_back_as_it_was_written(text: str) -> None:
    assert str(parse_adapter(text)) == text
    assert str(parse_adapter("lora")) == "lora:4"


def test_pixels_are_corrected_along_channels_and_put_back_in_place() -> None:
    room = Room(0, 1, (4, 3, 2), 24, axis=0)
    given: Any = torch.arange(48.0).reshape(2, 24)
    apart = room.apart(given)
    assert apart.shape == (12, 4)
    assert torch.equal(apart[0], torch.tensor([0.0, 6.0, 12.0, 18.0]))
    assert torch.equal(room.together(apart, 2), given)
