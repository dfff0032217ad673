"""Insertion points: where in a foreign network an adapter can go, by the calls of one run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from selfheal_cli.errors import ModelError
from selfheal_cli.model.adapters import Chosen
from selfheal_cli.model.cutting import Place, layer_of
from selfheal_cli.model.interface import Interface, call

MAX_VALUES = 1 << 17  # of one row at the cut: a heal keeps thousands of rows
# layers that take (n, channels, ...); for others of two sizes the last one describes a token
CHANNELS_FIRST = (
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AvgPoolNd,
    nn.modules.pooling._AdaptiveMaxPoolNd,
    nn.modules.pooling._AdaptiveAvgPoolNd,
    nn.GroupNorm,
)
CHANNELS_LAST = (nn.Linear, nn.LayerNorm, nn.MultiheadAttention, nn.TransformerEncoderLayer)


@dataclass(slots=True)
class Calls:
    """The calls of a layer: ``started`` and ``ended`` number the calls of all layers in order.

    ``taken`` and ``given`` are the input and the output of its last call.
    """

    layer: nn.Module
    started: list[int] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
    taken: Any = None
    given: Any = None


def watch(module: nn.Module, interface: Interface, rows: Tensor) -> dict[str, Calls]:
    """The calls of every layer that runs on some rows, by name, in the order of their start."""
    by_name: dict[str, Calls] = {}
    clock = 0

    def start(layer: nn.Module, taken: tuple[Any, ...], name: str) -> None:
        nonlocal clock
        clock += 1
        calls = by_name.setdefault(name, Calls(layer))
        calls.started.append(clock)
        calls.taken = taken[0] if taken else None

    def end(_layer: nn.Module, _taken: Any, result: Any, name: str) -> None:
        nonlocal clock
        clock += 1
        by_name[name].ended.append(clock)
        by_name[name].given = result

    with ExitStack() as stack:
        for name, layer in module.named_modules():
            if name:
                hook = layer.register_forward_pre_hook(
                    lambda layer, taken, name=name: start(layer, taken, name)
                )
                stack.callback(hook.remove)
                hook = layer.register_forward_hook(
                    lambda layer, taken, result, name=name: end(layer, taken, result, name)
                )
                stack.callback(hook.remove)
        call(module, interface, rows)
    return by_name


def is_linear_output(calls: Mapping[str, Calls], output: Tensor) -> bool:
    """Whether an output is that of a linear layer or a convolution, with nothing after it."""
    return any(
        is_plain(call.given) and torch.equal(call.given.flatten(), output.flatten())
        for call in calls.values()
        if isinstance(call.layer, nn.Linear | nn.Bilinear | nn.modules.conv._ConvNd)
    )


def is_plain(value: Any) -> bool:
    """Whether a value is a tensor of one shape: attention packs masked tokens into another."""
    return isinstance(value, Tensor) and not value.is_nested


def last_linear(calls: Mapping[str, Calls]) -> str | None:
    """The linear layer that runs last."""
    linear = [name for name, call in calls.items() if isinstance(call.layer, nn.Linear)]
    return max(linear, key=lambda name: calls[name].started[-1], default=None)


def place_at(
    module: nn.Module, by_name: Mapping[str, Calls], at: str, adapter: Chosen, end: str | None
) -> Place:
    """How a network is cut for an adapter at a layer; raises `ModelError` where it cannot be.

    ``by_name`` are the `watch`ed calls; ``end`` is the layer that gives the logits.
    """
    layer, calls = layer_of(module, at), by_name.get(at)
    if calls is None or len(calls.started) != 1:
        times = "never runs by itself" if calls is None else f"runs {len(calls.started)} times"
        raise ModelError(f"layer '{at}' {times}; the adapter needs a layer that runs once")
    sizes = _sizes(calls.taken, at, "takes")
    taken = 0
    if adapter.kind.on:
        if not isinstance(layer, nn.Linear):
            linear = ", ".join(n for n, c in by_name.items() if isinstance(c.layer, nn.Linear))
            raise ModelError(
                f"adapter {adapter.name} goes on a linear layer and '{at}' is a "
                f"{type(layer).__name__}; linear: {linear or 'none'}"
            )
        taken = layer.in_features
        sizes = (*sizes[:-1], taken + layer.out_features)
    if prod(sizes) > MAX_VALUES:
        raise ModelError(
            f"layer '{at}' takes {prod(sizes):,} values a row; at most {MAX_VALUES:,} are kept of "
            "one: choose a later layer"
        )
    sides: dict[str, list[str]] = {"before": [], "after": []}
    for name, side in _parts(module, by_name, at):
        sides[side].append(name)
    ended = end is not None and (end == at or by_name[end].started[0] > calls.started[0])
    return Place(
        sizes=sizes,
        axis=_axis(layer, sizes),
        taken=taken,
        before=tuple(sides["before"]),
        after=tuple(sides["after"]),
        end=end if ended else None,
    )


def _parts(
    module: nn.Module, by_name: Mapping[str, Calls], at: str, prefix: str = ""
) -> Iterator[tuple[str, str]]:
    """The largest parts that run only before, or only after, the layer ``at``, without itself."""
    cut = by_name[at].started[0]
    for child, part in module.named_children():
        name = f"{prefix}{child}"
        calls = by_name.get(name)
        if name == at:
            continue
        if calls is not None and max(calls.ended) < cut:
            yield name, "before"
        elif calls is not None and min(calls.started) > cut:
            yield name, "after"
        else:  # it holds the layer, runs on both sides, or is only a list of others
            yield from _parts(part, by_name, at, f"{name}.")


def _sizes(value: Any, at: str, verb: str) -> tuple[int, ...]:
    if not is_plain(value) or value.ndim < 2 or not value.is_floating_point():
        what = f"{value.dtype}" if is_plain(value) else type(value).__name__
        shape = f" of shape {tuple(value.shape)}" if is_plain(value) else ""
        raise ModelError(
            f"layer '{at}' {verb} {what}{shape}; the adapter needs one that {verb} floats "
            "(n, d), (n, tokens, d) or (n, channels, h, w)"
        )
    return tuple(value.shape[1:])


def _axis(layer: nn.Module, sizes: tuple[int, ...]) -> int:
    """The axis of ``sizes`` that describes one token or pixel."""
    if len(sizes) == 1:
        return -1
    # a container's convention is that of the first layer in it
    first = next((part for part in layer.modules() if not list(part.children())), layer)
    if isinstance(layer, CHANNELS_LAST) or isinstance(first, CHANNELS_LAST):
        return -1
    if isinstance(first, CHANNELS_FIRST):
        return 0
    return -1 if len(sizes) == 2 else 0
