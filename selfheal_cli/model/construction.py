"""Modules built from their descriptions, and described by what their constructors took."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from selfheal_cli.errors import ModelError, one_line
from selfheal_cli.model import parts
from selfheal_cli.model.description import ModuleSpec, find_maker, name_of
from selfheal_cli.model.live import unwrapped

PLAIN = (bool, int, float, str, type(None))


def build_module(spec: ModuleSpec) -> nn.Module:
    """A module as described; raises `ModelError` where the class cannot be found or built."""
    if spec.parts is not None:
        return parts.built(spec)
    make = find_maker(spec.target)
    try:
        if spec.children:
            container: nn.Module = make(**spec.init)
            for name in spec.in_order:
                container.add_module(name, build_module(spec.children[name]))
            return container
        return unwrapped(make(**spec.init))
    except ModelError:
        raise
    except (Exception, SystemExit) as exc:  # the author's code, which may raise anything
        reason = one_line(exc)
        raise ModelError(
            f"{spec.target} cannot be built with {spec.init or 'no arguments'}: {reason}; give its "
            "constructor's arguments with --init '{\"name\": value}'"
        ) from exc


def describe(
    module: nn.Module, init: Mapping[str, Any] | None = None, factory: str | None = None
) -> ModuleSpec:
    """How ``module`` is built again: with ``init``, else with the arguments that it keeps; or by
    the function that ``factory`` names.

    Raises `ModelError` where its class cannot be imported by name.
    """
    if factory is not None:
        return ModuleSpec(target=factory, init=dict(init or {}))
    kind = type(module)
    target = name_of(kind)
    if kind in (nn.Sequential, nn.ModuleList, nn.ModuleDict):
        children = {name: describe(child) for name, child in module.named_children()}
        order = () if all(map(str.isdigit, children)) else tuple(children)
        return ModuleSpec(target=target, children=children, order=order)
    return ModuleSpec(target=target, init=dict(init) if init else _kept_arguments(module))


def _kept_arguments(module: nn.Module) -> dict[str, Any]:
    """Constructor arguments that the module keeps as attributes of the same names."""
    arguments = {}
    for name, parameter in inspect.signature(type(module).__init__).parameters.items():
        if name in ("self", "device", "dtype") or parameter.kind in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        ):
            continue
        value = getattr(module, name, parameter.default)
        if name == "bias" and isinstance(value, Tensor | type(None)):
            value = value is not None
        if isinstance(value, tuple | list) and all(isinstance(part, PLAIN) for part in value):
            value = list(value)
        elif not isinstance(value, PLAIN):
            continue
        if value is not parameter.default:
            arguments[name] = value
    return arguments
