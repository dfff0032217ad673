"""An adapter put into a network that somebody else trained, which decides as before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from selfheal_cli.errors import ModelError
from selfheal_cli.model.adapter import ReflexiveLayer
from selfheal_cli.model.foreign import AUTO, Foreign, build_module, cut, describe, last_linear
from selfheal_cli.model.network import Architecture, SelfHealingNetwork, as_probabilities
from selfheal_cli.model.training import seeded

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray

SEED = 0  # of the adapter's first matrix; the last one is zero


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of a network: what it takes and gives for some rows, and its parameters.

    ``fits`` where the adapter can go before it.
    """

    name: str
    kind: str
    takes: tuple[int, ...]
    gives: tuple[int, ...]
    parameters: int
    fits: bool


def wrap(
    module: nn.Module,
    rows: FloatArray,
    *,
    shape: tuple[int, ...],
    dtype: str = "float32",
    at: str = AUTO,
    init: Mapping[str, Any] | None = None,
) -> SelfHealingNetwork:
    """A frozen network around a copy of ``module``, with an adapter that is still identity.

    ``rows`` (n, prod(shape)) show that its probabilities are the module's own, bit for bit.
    Raises `ModelError` where they are not, or where the module cannot be built again by its class.
    """
    if rows.shape[1] != prod(shape):
        raise ModelError(f"rows have {rows.shape[1]} values; shape {shape} needs {prod(shape)}")
    spec = describe(module, init)
    copy = build_module(spec)
    _load(copy, module.state_dict())
    for one in (copy, module):
        one.eval()
        one.requires_grad_(requires_grad=False)
    given = as_tensor(rows, shape, dtype)
    expected = _outputs(module, given)
    if not torch.equal(_outputs(copy, given), expected):
        raise ModelError(
            f"{spec.target} built with {spec.init or 'no arguments'} decides otherwise than the "
            "model; give its constructor's arguments with --init '{\"name\": value}'"
        )
    place = last_linear(copy, given) if at == AUTO else at
    backbone, head = cut(copy, place, shape, dtype)
    foreign = Foreign(module=spec, at=place, shape=shape, dtype=dtype, outputs=head.out_features)
    architecture = Architecture(
        prod(shape), head.in_features, head.out_features, foreign=foreign.model_dump(mode="json")
    )
    with seeded(SEED):
        adapter = ReflexiveLayer.identity(head.in_features)
    network = SelfHealingNetwork(architecture, backbone, adapter, head)
    network.freeze()
    _require_same(network, rows, expected, place)
    return network


def layers(module: nn.Module, rows: Tensor) -> list[Layer]:
    """The layers that hold parameters or none of their own, in the order of computation."""
    found: dict[str, Layer] = {}

    def note(name: str, layer: nn.Module, given: Any, result: Any) -> None:
        takes = tuple(given[0].shape) if given and isinstance(given[0], Tensor) else ()
        gives = tuple(result.shape) if isinstance(result, Tensor) else ()
        count = sum(one.numel() for one in layer.parameters())
        fits = isinstance(layer, nn.Linear) and len(takes) == 2
        found[name] = Layer(name, type(layer).__name__, takes, gives, count, fits)

    hooks = list(_hooked(module, note))
    try:
        module.eval()
        _outputs(module, rows)
    finally:
        for hook in hooks:
            hook.remove()
    return list(found.values())


def as_tensor(rows: FloatArray, shape: tuple[int, ...], dtype: str) -> Tensor:
    """Rows (n, prod(shape)) as the module takes them."""
    kind: torch.dtype = getattr(torch, dtype)
    return torch.from_numpy(np.ascontiguousarray(rows)).reshape(len(rows), *shape).to(kind)


def first_width(module: nn.Module) -> int:
    """Values of a row, by the first layer; raises `ModelError` where that does not tell."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            return layer.in_features
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Embedding):
            break
    raise ModelError("the shape of one row is not known: give --shape, as in --shape 1,8,8")


def _hooked(module: nn.Module, note: Any) -> Iterator[Any]:
    for name, layer in module.named_modules():
        if name and not list(layer.children()):
            yield layer.register_forward_hook(
                lambda layer, given, result, name=name: note(name, layer, given, result)
            )


def _load(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    try:
        module.load_state_dict({name: value.clone() for name, value in weights.items()})
    except RuntimeError as exc:
        raise ModelError(f"the weights do not fit the class: {' '.join(str(exc).split())}") from exc


def _outputs(module: nn.Module, given: Tensor) -> Tensor:
    try:
        with torch.inference_mode():
            found = module(given)
    except (RuntimeError, TypeError, ValueError, IndexError) as exc:
        raise ModelError(
            f"the model does not take rows of shape {tuple(given.shape[1:])}, {given.dtype} "
            f"({' '.join(str(exc).split())[:300]}); say what it takes with --shape and --integers"
        ) from exc
    if not isinstance(found, Tensor):
        raise ModelError(f"the model gives a {type(found).__name__}; one tensor is needed")
    return found


def _require_same(
    network: SelfHealingNetwork, rows: FloatArray, expected: Tensor, place: str
) -> None:
    """The model may give logits or probabilities, one column or one a class."""
    ours = torch.from_numpy(network.predict(rows))
    table = expected if expected.ndim > 1 else expected[:, None]
    theirs = [as_probabilities(table)]
    theirs.append({1: table[:, 0], 2: table[:, -1]}.get(table.shape[1], table))
    if not any(torch.equal(ours, one) for one in theirs):
        gaps = [float((ours - one).abs().max()) for one in theirs if one.shape == ours.shape]
        raise ModelError(
            f"with the adapter before '{place}' the model decides otherwise, by up to "
            f"{min(gaps, default=float('nan')):.2g}: its output must be that layer's, or a sigmoid "
            "or softmax of it; choose the last linear layer (--at auto)"
        )
