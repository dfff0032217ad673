"""An adapter put into a network that somebody else trained, which decides as before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from selfheal_cli.errors import ModelError
from selfheal_cli.model import cutting
from selfheal_cli.model.adapters.kinds import AFFINE, KINDS, REFLEXIVE, Chosen, parse_adapter
from selfheal_cli.model.foreign import AUTO, Foreign, ModuleSpec, Place, build_module, describe
from selfheal_cli.model.network import Architecture, SelfHealingNetwork, as_probabilities
from selfheal_cli.model.places import Calls, last_linear, outputs_of, place_at, watch
from selfheal_cli.model.training import seeded

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray

SEED = 0  # of the adapter's first matrix; the last one is zero


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of a network: what it takes and gives for some rows, and its parameters with those
    of what is inside it.

    ``adapters`` can go there; ``why`` says why none can.
    """

    name: str
    kind: str
    takes: tuple[int, ...]
    gives: tuple[int, ...]
    parameters: int
    adapters: tuple[str, ...]
    why: str = ""


@dataclass(frozen=True, slots=True)
class _Original:
    """A copy of the module that is wrapped, and what it makes of some rows."""

    spec: ModuleSpec
    module: nn.Module
    rows: FloatArray
    shape: tuple[int, ...]
    dtype: str
    expected: Tensor
    seen: Mapping[str, Calls]

    def rebuilt(self) -> nn.Module:
        """Once more, around the same memory for weights."""
        shared: dict[int, Any] = {id(one): one for one in self.module.buffers()}
        for one in self.module.parameters():
            shared[id(one)] = nn.Parameter(one.detach(), requires_grad=False)
        return deepcopy(self.module, shared)


def wrap(
    module: nn.Module,
    rows: FloatArray,
    *,
    shape: tuple[int, ...],
    dtype: str = "float32",
    at: str = AUTO,
    adapter: str = REFLEXIVE,
    init: Mapping[str, Any] | None = None,
) -> SelfHealingNetwork:
    """A frozen network around a copy of ``module``, with an adapter that is still identity.

    ``rows`` (n, prod(shape)) show that its probabilities are the module's own, bit for bit.
    Raises `ModelError` where they are not, where the module cannot be built again by its class, or
    where the adapter cannot go to the layer ``at``; `ConfigurationError` for an unknown adapter.
    """
    chosen = parse_adapter(adapter)
    if rows.shape[1] != prod(shape):
        raise ModelError(f"rows have {rows.shape[1]} values; shape {shape} needs {prod(shape)}")
    weights = {name: value.clone() for name, value in module.state_dict().items()}
    original = _original(module, weights, rows, shape, dtype, init)
    last = last_linear(original.seen)
    place = at if at != AUTO else last
    if place is None:
        raise ModelError("the model computes no linear layer that the adapter could go before")
    return _wrapped_at(original, place, last, chosen)


def layers(
    module: nn.Module,
    rows: FloatArray,
    *,
    shape: tuple[int, ...],
    dtype: str = "float32",
    init: Mapping[str, Any] | None = None,
) -> list[Layer]:
    """What runs in a network, in order, and where each adapter can go: each is tried."""
    original = _original(module, module.state_dict(), rows, shape, dtype, init)
    last = last_linear(original.seen)
    found = []
    for name, calls in original.seen.items():
        fit, why = [], ""
        for kind in KINDS:
            try:
                _wrapped_at(original, name, last, parse_adapter(kind))
                fit.append(kind)
            except ModelError as exc:
                why = why or str(exc)
        count = sum(one.numel() for one in calls.layer.parameters())
        found.append(
            Layer(
                name=name,
                kind=type(calls.layer).__name__,
                takes=_size(calls.taken),
                gives=_size(calls.given),
                parameters=count,
                adapters=tuple(fit),
                why="" if fit else why,
            )
        )
    return found


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


def _original(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    rows: FloatArray,
    shape: tuple[int, ...],
    dtype: str,
    init: Mapping[str, Any] | None,
) -> _Original:
    spec = describe(module, init)
    copy = _with_weights(spec, weights)
    given = as_tensor(rows, shape, dtype)
    with _evaluating(module):
        expected = outputs_of(module, given)
    if not torch.equal(outputs_of(copy, given), expected):
        raise ModelError(
            f"{spec.target} built with {spec.init or 'no arguments'} decides otherwise than the "
            "model; give its constructor's arguments with --init '{\"name\": value}'"
        )
    if expected.ndim > 2 or len(expected) != len(rows):
        raise ModelError(
            f"the model gives {tuple(expected.shape)} for {len(rows)} rows; one answer a row is "
            "needed: (n,), (n, 1) or a column a class"
        )
    return _Original(spec, copy, rows, shape, dtype, expected, watch(copy, given))


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for a moment; the user's module is left as it was."""
    modes = [(one, one.training) for one in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for one, mode in modes:
            one.training = mode


def _with_weights(spec: ModuleSpec, weights: Mapping[str, Tensor]) -> nn.Module:
    """A frozen module around these very tensors."""
    with torch.device("meta"):
        module = build_module(spec)
    _load(module, weights)
    if any(buffer.is_meta for buffer in module.buffers()):  # computed by a constructor, not stored
        module = build_module(spec)
        _load(module, weights)
    module.eval()
    module.requires_grad_(requires_grad=False)
    return module


def _load(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    try:
        module.load_state_dict(dict(weights), assign=True)
    except RuntimeError as exc:
        raise ModelError(f"the weights do not fit the class: {' '.join(str(exc).split())}") from exc


def _wrapped_at(
    original: _Original, at: str, last: str | None, chosen: Chosen
) -> SelfHealingNetwork:
    """The first way of cutting it there that decides as the original does."""
    if at not in original.seen:
        cutting.layer_of(original.module, at)
    kind = chosen.kind
    ways: list[Callable[[], Place | None]] = []
    if at == last and not kind.on:
        ways.append(lambda: None)
    elif kind.at_the_end:
        raise ModelError(
            f"adapter {chosen.name} goes before the linear layer that gives the logits, "
            f"'{last}', and not to '{at}'; use reflexive or lora there"
        )
    if not kind.at_the_end:
        for end in dict.fromkeys((last, None)):
            ways.append(partial(place_at, original.module, original.seen, at, chosen, end))
    failed: list[ModelError] = []
    for way in ways:
        try:
            return _network(original, at, way(), chosen)
        except ModelError as exc:
            failed.append(exc)
    raise failed[0]


def _network(
    original: _Original, at: str, place: Place | None, chosen: Chosen
) -> SelfHealingNetwork:
    end = at if place is None else place.end
    foreign = Foreign(
        module=original.spec, at=at, shape=original.shape, dtype=original.dtype,
        outputs=_outputs(original, end), place=place,
    )  # fmt: skip
    backbone, head = cutting.cut(original.rebuilt, foreign)
    hidden = head.in_features if isinstance(head, nn.Linear) else prod(place.sizes if place else ())
    affine = chosen.name == AFFINE
    first = parse_adapter(REFLEXIVE) if affine else chosen
    architecture = Architecture(
        prod(original.shape), hidden, foreign.outputs, str(first), foreign=foreign.as_dict()
    )
    with seeded(SEED):
        adapter = first.build(architecture.room)
    network = SelfHealingNetwork(architecture, backbone, adapter, head)
    network.freeze()
    if affine:
        network = network.anchored(beside=network.may_look_beside)
    _require_same(network, original.rows, original.expected, at)
    return network


def _outputs(original: _Original, end: str | None) -> int:
    """Columns of the logits that the layer ``end``, or the module itself, gives."""
    if end is not None:
        layer = cutting.layer_of(original.module, end)
        if not isinstance(layer, nn.Linear):
            raise ModelError(f"layer '{end}' is a {type(layer).__name__}, not a linear layer")
        return layer.out_features
    expected = original.expected
    table = expected if expected.ndim > 1 else expected[:, None]
    inside = bool(((table >= 0) & (table <= 1)).all())
    if inside and (table.shape[1] == 1 or torch.allclose(table.sum(dim=1), torch.ones(len(table)))):
        raise ModelError(
            "the model gives probabilities that are not a sigmoid or softmax of what its last "
            "linear layer gives after the cut; cut it at that layer or before (--at auto), or let "
            "it give logits"
        )
    return table.shape[1]


def _require_same(network: SelfHealingNetwork, rows: FloatArray, expected: Tensor, at: str) -> None:
    """The model may give logits or probabilities, one column or one a class."""
    try:
        ours = torch.from_numpy(network.predict(rows))
    except (RuntimeError, TypeError, AttributeError, NotImplementedError) as exc:
        reason = " ".join(str(exc).split())[:200]
        raise ModelError(
            f"the network cannot be cut at '{at}': {reason}; choose another layer (--list shows "
            "which) or --at auto"
        ) from exc
    table = expected if expected.ndim > 1 else expected[:, None]
    theirs = [as_probabilities(table)]
    theirs.append({1: table[:, 0], 2: table[:, -1]}.get(table.shape[1], table))
    if not any(torch.equal(ours, one) for one in theirs):
        gaps = [float((ours - one).abs().max()) for one in theirs if one.shape == ours.shape]
        raise ModelError(
            f"with the adapter at '{at}' the model decides otherwise, by up to "
            f"{min(gaps, default=float('nan')):.2g}: its output must be that of its last linear "
            "layer, or a sigmoid or softmax of it, and nothing else from before the cut may be "
            "used after it; choose another layer (--list shows which) or --at auto"
        )


def _size(value: Any) -> tuple[int, ...]:
    return tuple(value.shape) if isinstance(value, Tensor) else ()
