"""A module's description, from which it is built again without a pickle."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)
from torch import nn

from selfheal_cli.errors import ModelError
from selfheal_cli.model.allowed import require_allowed
from selfheal_cli.model.extent import named_modules


class ModuleSpec(BaseModel):
    """How a module is built again.

    ``target`` is ``package.module:Class``, or a function that makes the module; ``init`` are its
    arguments, and ``children`` the modules that one of torch's containers is made of, by name.
    ``order`` is theirs, where it is not that of sorted names. With ``parts`` no constructor runs:
    they are what `parts.described` saw in an instance.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    target: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")
    init: dict[str, Any] = Field(default_factory=dict)
    children: dict[str, ModuleSpec] = Field(default_factory=dict)
    order: tuple[str, ...] = ()
    parts: dict[str, Any] | None = None

    @model_serializer(mode="wrap")
    def _as_short_as_can_be(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what selfheal 0.1.0 did not write, so that its bases keep their bytes."""
        values: dict[str, Any] = dump(self)
        return {k: v for k, v in values.items() if v or k not in ("order", "parts")}

    @property
    def in_order(self) -> list[str]:
        """Names of the children, as they run: JSON was stored with sorted keys, ten before two."""
        if self.order:
            return list(self.order)
        names = list(self.children)
        return sorted(names, key=int) if all(map(str.isdigit, names)) else names


def find_class(target: str) -> type[nn.Module]:
    """The class that ``package.module:Class`` names; the working folder is searched last.

    Raises `ModelError` where there is no such class, or its module is not allowed.
    """
    named = find_named(target)
    if not (inspect.isclass(named) and issubclass(named, nn.Module)):
        raise ModelError(f"{target} is not a class of torch.nn.Module")
    return named


def find_maker(target: str) -> Callable[..., Any]:
    """The class of a module that ``package.module:name`` names, or a function that makes one.

    Raises `ModelError` as `find_class`.
    """
    named = find_named(target)
    if inspect.isclass(named):
        return find_class(target)
    if not callable(named):
        raise ModelError(f"{target} is a {type(named).__name__}: a class or a function is needed")
    make: Callable[..., Any] = named
    return make


def find_named(target: str) -> Any:
    """What ``package.module:name`` names; raises `ModelError` as `find_class`."""
    place, _, name = target.partition(":")
    try:
        with _looking_here():
            require_allowed(place)
            named: Any = importlib.import_module(place)
        for part in name.split("."):
            named = getattr(named, part)
    except ModelError:
        raise
    except (ImportError, AttributeError) as exc:
        raise ModelError(
            f"{target} cannot be imported here ({exc}); install its package, or stand in the "
            "folder that it is in"
        ) from exc
    except (Exception, SystemExit) as exc:  # the module's own code
        raise ModelError(f"{target} cannot be imported here ({type(exc).__name__}: {exc})") from exc
    return named


def name_of(kind: Callable[..., Any]) -> str:
    """By what a class or function is imported; raises `ModelError` where it cannot be."""
    if kind.__module__ == "__main__" or "<locals>" in kind.__qualname__:
        raise ModelError(
            f"{kind.__qualname__} is in {kind.__module__}, which nobody can import: put it "
            "into a module of its own"
        )
    return f"{kind.__module__}:{kind.__qualname__}"


@contextmanager
def _looking_here() -> Iterator[None]:
    """Search the working folder last within the block; the program's path is restored then."""
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
    return set(named_modules(spec.model_dump(mode="json")))
