"""A network that somebody else trained: how it is described and built again.

The description names classes by import path and what their constructors were given, so that no
pickle is needed to build it; the weights are safetensors. Where it is cut is described as well;
`cutting` does it.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from selfheal_cli.errors import ModelError
from selfheal_cli.model.allowed import require_allowed

AUTO = "auto"
PLAIN = (bool, int, float, str, type(None))


class ModuleSpec(BaseModel):
    """How a module is built again.

    ``target`` is ``package.module:Class``; ``init`` are its constructor's arguments, and
    ``children`` the modules that one of torch's containers is made of, by name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    target: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")
    init: dict[str, Any] = Field(default_factory=dict)
    children: dict[str, ModuleSpec] = Field(default_factory=dict)


class Place(BaseModel):
    """Where an adapter sits, if not directly before the linear layer that gives the logits.

    ``sizes``, ``axis`` and ``taken`` are those of its `Room`. ``before`` and ``after`` name the
    parts that run only before, or only after it: the others, such as an activation that is used
    throughout, are on both sides. ``end`` is the layer that gives the logits; None: the module
    itself does.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    sizes: tuple[int, ...]
    axis: int = -1
    taken: int = Field(default=0, ge=0)
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    end: str | None = None


class Foreign(BaseModel):
    """A foreign network cut at a layer.

    ``at`` is the layer's dotted name; ``shape`` of one row and ``dtype`` are what the module takes;
    ``outputs`` is the width of its logits, 1 or the number of classes. Without a ``place`` the
    adapter goes before ``at``, the linear layer that gives the logits. ``computes``: its
    constructor makes values that are not among the weights, so that it is not built without any.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    module: ModuleSpec
    at: str
    shape: tuple[int, ...]
    dtype: str = Field(default="float32", pattern="^(float32|int64)$")
    outputs: int = Field(ge=1)
    place: Place | None = None
    computes: bool = False

    def as_dict(self) -> dict[str, Any]:
        """As it stands in the base's document."""
        found = self.model_dump(mode="json")
        if self.place is None:
            del found["place"]
        if not self.computes:
            del found["computes"]
        return found


def build_module(spec: ModuleSpec) -> nn.Module:
    """A module as described; raises `ModelError` where the class cannot be found or built."""
    kind = find_class(spec.target)
    try:
        if spec.children:
            container = kind(**spec.init)
            for name, child in spec.children.items():
                container.add_module(name, build_module(child))
            return container
        return kind(**spec.init)
    except ModelError:
        raise
    except (Exception, SystemExit) as exc:  # the author's code, which may raise anything
        reason = " ".join(str(exc).split()) or type(exc).__name__
        raise ModelError(
            f"{spec.target} cannot be built with {spec.init or 'no arguments'}: {reason}; give its "
            "constructor's arguments with --init '{\"name\": value}'"
        ) from exc


def find_class(target: str) -> type[nn.Module]:
    """The class that ``package.module:Class`` names; the working folder is looked in last.

    Raises `ModelError` where it is none, or its module may not run here.
    """
    place, _, name = target.partition(":")
    try:
        with _looking_here():
            require_allowed(place)
            found: Any = importlib.import_module(place)
        for part in name.split("."):
            found = getattr(found, part)
    except ModelError:
        raise
    except (ImportError, AttributeError) as exc:
        raise ModelError(
            f"{target} cannot be imported here ({exc}); install its package, or stand in the "
            "folder that it is in"
        ) from exc
    except (Exception, SystemExit) as exc:  # the module's own code
        raise ModelError(f"{target} cannot be imported here ({type(exc).__name__}: {exc})") from exc
    if not (inspect.isclass(found) and issubclass(found, nn.Module)):
        raise ModelError(f"{target} is not a class of torch.nn.Module")
    return found


@contextmanager
def _looking_here() -> Iterator[None]:
    """The working folder is looked in last for a moment; the program's path stays as it was."""
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.append(here)
    try:
        yield
    finally:
        if added and here in sys.path:
            sys.path.remove(here)


def modules_of(spec: ModuleSpec) -> set[str]:
    """The Python modules that a network's classes are in."""
    own = {spec.target.partition(":")[0]}
    return own.union(*(modules_of(child) for child in spec.children.values()))


def describe(module: nn.Module, init: Mapping[str, Any] | None = None) -> ModuleSpec:
    """How ``module`` is built again: by ``init``, else by what it remembers of its arguments.

    Raises `ModelError` where its class cannot be imported by name.
    """
    kind = type(module)
    target = f"{kind.__module__}:{kind.__qualname__}"
    if kind.__module__ == "__main__" or "<locals>" in kind.__qualname__:
        raise ModelError(
            f"class {kind.__qualname__} is in {kind.__module__}, which nobody can import: put it "
            "into a module of its own"
        )
    if kind in (nn.Sequential, nn.ModuleList, nn.ModuleDict):
        parts = {name: describe(child) for name, child in module.named_children()}
        return ModuleSpec(target=target, children=parts)
    return ModuleSpec(target=target, init=dict(init) if init else _remembered(module))


def _remembered(module: nn.Module) -> dict[str, Any]:
    """Constructor arguments that the module keeps under the same names."""
    found = {}
    for name, parameter in inspect.signature(type(module).__init__).parameters.items():
        if name in ("self", "device", "dtype") or parameter.kind in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        ):
            continue
        value = getattr(module, name, parameter.default)
        if name == "bias" and isinstance(value, Tensor | type(None)):
            value = value is not None
        if isinstance(value, tuple | list) and all(isinstance(one, PLAIN) for one in value):
            value = list(value)
        elif not isinstance(value, PLAIN):
            continue
        if value is not parameter.default:
            found[name] = value
    return found
