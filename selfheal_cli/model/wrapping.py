"""Wrapping: an adapter is put into a foreign network, which decides as before, bit for bit."""

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

from selfheal_cli.errors import ModelError, one_line
from selfheal_cli.model import cutting
from selfheal_cli.model.adapters import AFFINE, KINDS, REFLEXIVE, Chosen, parse_adapter
from selfheal_cli.model.answer import AUTO as ANY_OUTPUT
from selfheal_cli.model.answer import PROBABILITIES, ModelOutput, one_a_row, read_answer
from selfheal_cli.model.cutting import AUTO, Foreign, ModuleSpec, Place, build_module, describe
from selfheal_cli.model.insertion import (
    Calls,
    is_linear_output,
    last_linear,
    outputs_of,
    place_at,
    watch,
)
from selfheal_cli.model.network import Architecture, SelfHealingNetwork
from selfheal_cli.model.training import seeded

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray

SEED = 0  # of the adapter's first matrix; the last one is zero


@dataclass(frozen=True, slots=True)
class NetworkLayer:
    """A layer of a network: the shapes of its input and output for some rows, its parameters
    (those of its children included), the ``adapters`` that can go there, or ``why`` none can.
    """

    name: str
    kind: str
    takes: tuple[int, ...]
    gives: tuple[int, ...]
    parameters: int
    adapters: tuple[str, ...]
    why: str = ""


@dataclass(frozen=True, slots=True)
class Original:
    """A copy of the module that is wrapped, with its answer and the calls of its layers on rows.

    ``computes``: the constructor makes values that are not in the state dictionary.
    """

    spec: ModuleSpec
    module: nn.Module
    rows: FloatArray
    shape: tuple[int, ...]
    dtype: str
    answer: ModelOutput
    calls: Mapping[str, Calls]
    computes: bool

    def rebuilt(self) -> nn.Module:
        """Another copy of the module that shares the memory of its weights."""
        shared: dict[int, Any] = {id(buffer): buffer for buffer in self.module.buffers()}
        for parameter in self.module.parameters():
            shared[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
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
    output: str = ANY_OUTPUT,
) -> SelfHealingNetwork:
    """A frozen network around a copy of ``module``, with an adapter that is still identity.

    On ``rows`` (n, prod(shape)) its probabilities must be those of the module's own output, bit
    for bit; ``output`` is the kind of that, as in `read_answer`. Raises `ModelError` where they
    differ, where the module cannot be built again by its class, or where the adapter cannot go to
    the layer ``at``; `ConfigurationError` for an unknown adapter.
    """
    original = take(module, rows, shape=shape, dtype=dtype, init=init, output=output)
    return put_in(original, at=at, adapter=adapter)


def take(
    module: nn.Module,
    rows: FloatArray,
    *,
    shape: tuple[int, ...],
    dtype: str = "float32",
    init: Mapping[str, Any] | None = None,
    output: str = ANY_OUTPUT,
) -> Original:
    """A copy of a module that gives the same output on the rows, and how that output is read.

    Arguments as in `wrap`; raises `ModelError` where there is no such copy.
    """
    if not isinstance(module, nn.Module):
        raise ModelError(
            f"a {type(module).__name__} is no torch.nn.Module; only PyTorch models can be wrapped"
        )
    if rows.shape[1] != prod(shape):
        raise ModelError(f"rows have {rows.shape[1]} values; shape {shape} needs {prod(shape)}")
    if len(rows) == 0:
        raise ModelError("no rows: at least one is needed to see what the model gives")
    _require_weights_of_its_own(module)
    spec = describe(module, init)
    inputs = as_tensor(rows, shape, dtype)
    with _evaluating(module):
        expected = outputs_of(module, inputs)
    one_a_row(expected, len(rows))
    weights = {name: _weight(name, value).clone() for name, value in module.state_dict().items()}
    copy, computes = _copy(spec, weights, inputs, expected)
    calls = watch(copy, inputs)
    direct = is_linear_output(calls, expected)
    answer = read_answer(expected, len(rows), output, direct=direct)
    return Original(spec, copy, rows, shape, dtype, answer, calls, computes)


def put_in(original: Original, *, at: str = AUTO, adapter: str = REFLEXIVE) -> SelfHealingNetwork:
    """A network around a copied module with an adapter that is still identity; raises as `wrap`."""
    chosen = parse_adapter(adapter)
    last = last_linear(original.calls)
    place = at if at != AUTO else last
    if place is None:
        raise ModelError("the model computes no linear layer that the adapter could go before")
    return _wrapped_at(original, place, last, chosen)


def layers(original: Original) -> list[NetworkLayer]:
    """The layers of a network in the order in which they run; each adapter is tried at each."""
    last = last_linear(original.calls)
    listing = []
    for name, calls in original.calls.items():
        fit, why = [], ""
        for kind in KINDS:
            try:
                _wrapped_at(original, name, last, parse_adapter(kind))
                fit.append(kind)
            except ModelError as exc:
                why = why or str(exc)
        listing.append(
            NetworkLayer(
                name=name,
                kind=type(calls.layer).__name__,
                takes=_size(calls.taken),
                gives=_size(calls.given),
                parameters=sum(parameter.numel() for parameter in calls.layer.parameters()),
                adapters=tuple(fit),
                why="" if fit else why,
            )
        )
    return listing


def as_tensor(rows: FloatArray, shape: tuple[int, ...], dtype: str) -> Tensor:
    """Rows (n, prod(shape)) as the module's input (n, *shape)."""
    kind: torch.dtype = getattr(torch, dtype)
    return torch.from_numpy(np.ascontiguousarray(rows)).reshape(len(rows), *shape).to(kind)


def first_width(module: nn.Module) -> int:
    """Values of a row, by the first linear layer; raises `ModelError` where another comes first."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            return layer.in_features
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Embedding):
            break
    raise ModelError("the shape of one row is not known: give --shape, as in --shape 1,8,8")


def _weight(name: str, value: Any) -> Tensor:
    """A weight that can be stored; raises `ModelError` for what quantised layers keep instead."""
    if not isinstance(value, Tensor) or value.is_quantized:
        raise ModelError(
            f"weight '{name}' is no plain tensor ({type(value).__name__}): quantised models are "
            "not supported"
        )
    return value


def _require_weights_of_its_own(module: nn.Module) -> None:
    """Raise `ModelError` where a hook computes a layer's weight each time that it runs."""
    for name, layer in module.named_modules():
        weight = vars(layer).get("weight")  # a parameter, or a parametrisation, is not among these
        if isinstance(layer, nn.Linear) and isinstance(weight, Tensor):
            raise ModelError(
                f"layer '{name}' has a weight that a hook computes, as torch.nn.utils.weight_norm "
                "does: take it off with torch.nn.utils.remove_weight_norm, or use "
                "torch.nn.utils.parametrizations.weight_norm"
            )


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients within the block; the user's module is restored then."""
    modes = [(layer, layer.training) for layer in module.modules()]
    learning = [p for p in module.parameters() if p.requires_grad and p.is_leaf]
    module.eval()
    # some of torch's kernels round differently where a weight has a gradient
    for parameter in learning:
        parameter.requires_grad = False
    try:
        yield
    finally:
        for layer, mode in modes:
            layer.training = mode
        for parameter in learning:
            parameter.requires_grad = True


def _copy(
    spec: ModuleSpec, weights: Mapping[str, Tensor], inputs: Tensor, expected: Tensor
) -> tuple[nn.Module, bool]:
    """A frozen module around these tensors whose output is the expected one.

    It is built without values first, which takes no time and no memory. Where that gives another
    output, its constructor computes values: then it is built with them, and True is returned too.
    """
    try:
        with torch.device("meta"):
            copy = _with_weights(build_module(spec), weights)
        whole = not any(buffer.is_meta for buffer in copy.buffers())
        if whole and torch.equal(outputs_of(copy, inputs), expected):
            return copy, False
    except ModelError:
        pass  # the second attempt says what is wrong
    copy = _with_weights(build_module(spec), weights)
    actual = outputs_of(copy, inputs)
    if not torch.equal(actual, expected):
        gap = f" by up to {_gap(actual, expected):.2g}" if actual.shape == expected.shape else ""
        raise ModelError(
            f"{spec.target} built with {spec.init or 'no arguments'} decides otherwise than the "
            f"model{gap}; give its constructor's arguments with --init '{{\"name\": value}}' "
            "(init= in Python)"
        )
    return copy, True


def _with_weights(module: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    _load(module, weights)
    module.eval()
    module.requires_grad_(requires_grad=False)
    return module


def _gap(ours: Tensor, theirs: Tensor) -> float:
    return float((ours.double() - theirs.double()).abs().max())


def _load(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    try:
        module.load_state_dict(dict(weights), assign=True)
    except RuntimeError as exc:
        raise ModelError(f"the weights do not fit the class: {one_line(exc)}") from exc


def _wrapped_at(
    original: Original, at: str, last: str | None, chosen: Chosen
) -> SelfHealingNetwork:
    """The network cut at a layer, in the first way that decides as the original does."""
    if at not in original.calls:
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
        for end in dict.fromkeys((last if kind.on or at != last else None, None)):
            ways.append(partial(place_at, original.module, original.calls, at, chosen, end))
    failed: list[ModelError] = []
    for way in ways:
        try:
            return _network(original, at, way(), chosen)
        except ModelError as exc:
            failed.append(exc)
    raise failed[0]


def _network(
    original: Original, at: str, place: Place | None, chosen: Chosen
) -> SelfHealingNetwork:
    end = at if place is None else place.end
    foreign = Foreign(
        module=original.spec, at=at, shape=original.shape, dtype=original.dtype,
        outputs=_outputs(original, end), place=place, computes=original.computes,
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
    _require_same(network, original, at)
    return network


def _outputs(original: Original, end: str | None) -> int:
    """Columns of the logits, which the layer ``end`` or the module itself gives."""
    if end is not None:
        layer = cutting.layer_of(original.module, end)
        if not isinstance(layer, nn.Linear):
            raise ModelError(f"layer '{end}' is a {type(layer).__name__}, not a linear layer")
        return layer.out_features
    if original.answer.kind == PROBABILITIES:
        raise ModelError(
            f"the model gives {original.answer.words}, that are not a sigmoid or softmax of what "
            "its last linear layer gives after the cut; cut it at that layer or before (--at "
            "auto), or let it give logits"
        )
    return original.answer.columns


def _require_same(network: SelfHealingNetwork, original: Original, at: str) -> None:
    """Raise `ModelError` unless its probabilities are those of the original's output."""
    try:
        ours = torch.from_numpy(network.predict(original.rows))
    except Exception as exc:  # the author's code runs, which may raise anything
        raise ModelError(
            f"the network cannot be cut at '{at}': {one_line(exc)[:200]}; choose "
            "another layer (--list shows which) or --at auto"
        ) from exc
    theirs = original.answer.probabilities
    if ours.shape != theirs.shape:
        raise ModelError(
            f"with the adapter at '{at}' {_columns(ours)} are told apart and by the model "
            f"{_columns(theirs)}: the layer that gives its output is no linear layer of its own"
        )
    if not torch.equal(ours, theirs):
        raise ModelError(
            f"the model gives {original.answer.words}; with the adapter at '{at}' it decides "
            f"otherwise, by up to {_gap(ours, theirs):.2g}: its output must be that of its last "
            "linear layer, or a sigmoid or softmax of it, and nothing else from before the cut may "
            "be used after it; choose another layer (--list shows which) or --at auto"
        )


def _columns(probabilities: Tensor) -> str:
    return f"{2 if probabilities.ndim == 1 else probabilities.shape[1]} classes"


def _size(value: Any) -> tuple[int, ...]:
    return tuple(value.shape) if isinstance(value, Tensor) else ()
