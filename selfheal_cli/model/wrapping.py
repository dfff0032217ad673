"""Wrapping: an adapter is put into a foreign network, which decides as before, bit for bit."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from selfheal_cli.errors import ConfigurationError, ModelError, PartError, one_line
from selfheal_cli.installed import choices
from selfheal_cli.model import cutting
from selfheal_cli.model.adapters import AFFINE, REFLEXIVE, Chosen, parse_adapter
from selfheal_cli.model.answer import AUTO as ANY_OUTPUT
from selfheal_cli.model.answer import DOUBLE, PROBABILITIES
from selfheal_cli.model.architecture import Architecture
from selfheal_cli.model.cutting import AUTO, OUTPUT, Foreign, Place
from selfheal_cli.model.insertion import Calls, last_linear, place_at
from selfheal_cli.model.interface import ModelInput
from selfheal_cli.model.network import SelfHealingNetwork
from selfheal_cli.model.original import Original, take
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


def wrap(
    module: Any,
    rows: FloatArray,
    *,
    shape: tuple[int, ...] = (),
    dtype: str = "float32",
    inputs: Sequence[ModelInput] = (),
    at: str = AUTO,
    adapter: str = REFLEXIVE,
    init: Mapping[str, Any] | None = None,
    factory: str | None = None,
    output: str = ANY_OUTPUT,
) -> SelfHealingNetwork:
    """A frozen network around a copy of ``module``, with an adapter that is still identity.

    ``rows`` (n, width) hold what one row has: one tensor of this ``shape`` and ``dtype``, or the
    ``inputs`` one after the other. On them its probabilities must be those of the module's own
    output, bit for bit; ``output`` says what that is, as `parse_gives` reads it. A module that
    cannot be built again from its class or layers is by the ``factory``,
    ``package.module:function`` with the arguments ``init``. Raises `ModelError` where they differ,
    where the module cannot be built again, or where the adapter cannot go to the layer ``at``;
    `ConfigurationError` for an unknown adapter. Warns of a module that takes a second a row.
    """
    original = take(
        module, rows, shape=shape, dtype=dtype, inputs=inputs, init=init, factory=factory,
        output=output,
    )  # fmt: skip
    if original.slow:
        warnings.warn(original.slow, stacklevel=2)
    return put_in(original, at=at, adapter=adapter)


def put_in(original: Original, *, at: str = AUTO, adapter: str = REFLEXIVE) -> SelfHealingNetwork:
    """A network around a copied module with an adapter that is still identity; raises as `wrap`.

    Without a place it goes before the last linear layer, else after the model's own output.
    """
    chosen = parse_adapter(adapter)
    if not chosen.kind.wraps:
        raise ConfigurationError(
            f"adapter '{adapter}' comes with a recipe: wrap with reflexive or affine, then heal "
            "with --recipe ensemble"
        )
    last = last_linear(original.calls)
    if at == OUTPUT and at not in original.calls:
        return _at_the_output(original, chosen)
    if at != AUTO:
        return _wrapped_at(original, at, last, chosen)
    failed: ModelError | None = None
    if last is not None:
        try:
            return _wrapped_at(original, last, last, chosen)
        except ModelError as exc:
            failed = exc
    if chosen.kind.on:
        raise failed or ModelError(f"adapter {chosen.name} goes on a linear layer; there is none")
    return _at_the_output(original, chosen)


def _at_the_output(original: Original, chosen: Chosen) -> SelfHealingNetwork:
    """The network not cut at all: what it gives are the adapter's features."""
    if chosen.kind.on:
        raise ModelError(f"adapter {chosen.name} goes on a linear layer, and not to the output")
    answer = original.answer
    outputs = 1 if answer.kind == PROBABILITIES and answer.columns == 2 else answer.columns
    return _network(original, OUTPUT, None, chosen, outputs=outputs, gives=answer.kind)


def layers(original: Original) -> list[NetworkLayer]:
    """The layers of a network in the order in which they run; each adapter is tried at each."""
    last = last_linear(original.calls)
    listing = []
    for name, calls in original.calls.items():
        fit, why = [], ""
        for kind in choices("adapter"):
            try:
                _wrapped_at(original, name, last, parse_adapter(kind))
                fit.append(kind)
            except (ModelError, PartError) as exc:
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
    original: Original,
    at: str,
    place: Place | None,
    chosen: Chosen,
    *,
    outputs: int = 0,
    gives: Any = None,
) -> SelfHealingNetwork:
    """The network cut at a place; raises `ModelError` unless it decides as the original."""
    end = at if place is None else place.end
    called = original.interface
    (first, *more) = called.inputs
    plain = not more and first.name is None and called.key is None and not called.overwrites
    foreign = Foreign(
        module=original.spec, at=at, outputs=outputs or _outputs(original, end), place=place,
        shape=(called.width,) if more else first.shape, dtype="float32" if more else first.dtype,
        computes=original.computes, interface=None if plain else called, gives=gives,
        computed_in=None if gives else _computed_in(original.calls[at], place),
        assumed=original.answer.assumed, requirements=original.requirements,
        code=dict(original.code),
    )  # fmt: skip
    backbone, head = cutting.cut(original.rebuilt, foreign)
    hidden = head.in_features if isinstance(head, nn.Linear) else prod(place.sizes if place else ())
    affine = chosen.name == AFFINE
    identity = parse_adapter(REFLEXIVE) if affine else chosen
    architecture = Architecture(
        called.width, hidden, foreign.outputs, str(identity), foreign=foreign.as_dict()
    )
    with seeded(SEED):
        adapter = identity.build(architecture.room)
    network = SelfHealingNetwork(architecture, backbone, adapter, head)
    network.freeze()
    if affine:
        network = network.anchored(beside=network.may_look_beside)
    _require_same(network, original, at)
    return network


def _computed_in(calls: Calls, place: Place | None) -> str | None:
    """The type of the features at the cut, and for a layer that is cut off of its output."""
    value = calls.given if place is None or place.taken else calls.taken
    dtype = str(value.dtype).removeprefix("torch.") if isinstance(value, Tensor) else "float32"
    return None if dtype == "float32" else dtype


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
    except ModelError:
        raise
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
    computed = network.architecture.other
    double = computed is not None and computed.computed_in == "float64"
    inexact = double or (computed is not None and computed.gives == PROBABILITIES)
    tolerance = max(original.answer.tolerance, DOUBLE if inexact else 0.0)
    gap = float((ours.double() - theirs.double()).abs().max())
    if gap > tolerance:
        raise ModelError(
            f"the model gives {original.answer.words}; with the adapter at '{at}' it decides "
            f"otherwise, by up to {gap:.2g}: its output must be that of its last "
            "linear layer, or a sigmoid or softmax of it, and nothing else from before the cut may "
            "be used after it; choose another layer (--list shows which) or --at auto"
        )


def _columns(probabilities: Tensor) -> str:
    return f"{2 if probabilities.ndim == 1 else probabilities.shape[1]} classes"


def _size(value: Any) -> tuple[int, ...]:
    return tuple(value.shape) if isinstance(value, Tensor) else ()
