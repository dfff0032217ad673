"""A foreign network in two halves, each of which runs the author's own code.

The backbone is the module with a stop at the cut. Where the cut is not directly before the last
linear layer, what comes after it is the module once more, run from its beginning with stand-ins
for the rows: tensors that have a shape and no values, so that nothing before the cut is computed.
At the cut the adapted features take over. Whatever else from before the cut is used after it (a
residual connection around it, a mask made of the rows) shows at once: its values are not there.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from selfheal_cli.errors import ModelError, one_line
from selfheal_cli.model.allowed import require_allowed

# The description names classes by import path and what their constructors were given, so that no
# pickle is needed to build it; the weights are safetensors. Where it is cut is described as well;
# `cutting` does it.


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
        document = self.model_dump(mode="json")
        if self.place is None:
            del document["place"]
        if not self.computes:
            del document["computes"]
        return document


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
        reason = one_line(exc)
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
    if not (inspect.isclass(named) and issubclass(named, nn.Module)):
        raise ModelError(f"{target} is not a class of torch.nn.Module")
    return named


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
        if isinstance(value, tuple | list) and all(isinstance(one, PLAIN) for one in value):
            value = list(value)
        elif not isinstance(value, PLAIN):
            continue
        if value is not parameter.default:
            arguments[name] = value
    return arguments


_GIVEN: ContextVar[Tensor] = ContextVar("what the adapter gives to the tail that is being run")
REMEMBERED = 64  # shapes that a part's stand-ins are known for


class Reached(Exception):
    """The layer up to which a network is run was reached."""

    def __init__(self, features: Tensor) -> None:
        self.features = features


class StandIn(nn.Module):
    """Stands for a part of the author's network, which may look at the part's attributes.

    ``layer`` is the part where it is still computed; else None, and its weights are not kept.
    """

    def __init__(self, part: nn.Module, *, computed: bool) -> None:
        super().__init__()
        self.layer = part if computed else None
        # in a tuple it is no submodule: no weights to load, and no surroundings put it into a mode
        self._part = (part.eval(),)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_part"][0], name)


class Stop(StandIn):
    """Stands where the network is cut: nothing after it is computed.

    With a ``layer`` it hands out what that takes and gives, beside one another.
    """

    def forward(self, given: Tensor, *others: Any, **named: Any) -> Tensor:
        """Never returns."""
        if self.layer is None:
            raise Reached(given)
        raise Reached(torch.cat([given, self.layer(given, *others, **named)], dim=-1))


class Resume(StandIn):
    """Takes the adapted features where the network was cut: into ``layer``, or as what it gave."""

    def forward(self, _absent: Tensor, *others: Any, **named: Any) -> Any:
        """What the layer makes of them."""
        given = _GIVEN.get()
        return given if self.layer is None else self.layer(given, *others, **named)


class End(StandIn):
    """The layer that gives the logits; what comes after it is not computed."""

    def forward(self, *given: Any, **named: Any) -> Tensor:
        """Never returns."""
        raise Reached(self._part[0](*given, **named))


class Unreached(StandIn):
    """A part that runs only after the cut."""

    def forward(self, *_given: Any, **_named: Any) -> Any:
        """Raises RuntimeError."""
        raise RuntimeError("a part that was last run after the cut now runs before it")


class Absent(Tensor):
    """A stand-in for a tensor from before the cut: a shape, a type and no values.

    What is computed with one is one.
    """

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """See `torch.Tensor`: plain tensors that are mixed in lose their values as well."""
        plain, named = without_values(args), without_values(dict(kwargs or {}))
        return super().__torch_function__(func, types, plain, named)  # type: ignore[no-untyped-call]

    def __deepcopy__(self, memo: Any) -> Absent:
        return self


class Skipped(StandIn):
    """A part that runs only before the cut: shapes in, shapes out, no weights in memory."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__(part.to("meta"), computed=False)
        self._known: dict[Any, Any] = {}

    def forward(self, *given: Any, **named: Any) -> Any:
        """Stand-ins for what the part would give."""
        key = (_shapes(given), _shapes(named))
        stand_in = self._known.get(key)
        if stand_in is None:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            # it is kept, and the next who comes may compute gradients
            with torch.inference_mode(mode=False), torch.no_grad():
                stand_in = self._part[0](*without_values(given), **without_values(named))
            self._known[key] = stand_in
        return stand_in


class _Frozen(nn.Module):
    """Stays in evaluation mode, whatever its surroundings are put into."""

    def train(self, mode: bool = True) -> _Frozen:
        """Dropout stays off, and batch norm keeps its statistics."""
        super().train(mode=False)
        return self


class ForeignBackbone(_Frozen):
    """Rows (n, inputs), each flattened, to what is known of them at the cut, (n, features)."""

    def __init__(self, module: nn.Module, shape: tuple[int, ...], dtype: str) -> None:
        super().__init__()
        self.module = module
        self.shape = shape
        self.dtype: torch.dtype = getattr(torch, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Features (n, features)."""
        try:
            self.module(x.reshape(len(x), *self.shape).to(self.dtype))
        except Reached as reached:
            return reached.features.flatten(start_dim=1)
        raise RuntimeError("the layer at which the network is cut was not reached")


class Tail(_Frozen):
    """Adapted features (n, hidden) to logits (n, outputs): the author's code from the cut on."""

    def __init__(self, module: nn.Module, foreign: Foreign, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.module = module
        self.shape = foreign.shape
        self.dtype: torch.dtype = getattr(torch, foreign.dtype)
        self.sizes = sizes

    def forward(self, adapted: Tensor) -> Tensor:
        """Logits; raises RuntimeError where something from before the cut is needed."""
        empty = torch.empty(len(adapted), *self.shape, dtype=self.dtype, device="meta")
        token = _GIVEN.set(adapted.reshape(len(adapted), *self.sizes))
        try:
            logits = self.module(empty.as_subclass(Absent))
        except Reached as reached:
            logits = reached.features
        finally:
            _GIVEN.reset(token)
        if not isinstance(logits, Tensor) or logits.is_meta:
            raise RuntimeError("what comes after it uses more than this layer is given")
        return logits if logits.ndim > 1 else logits[:, None]


def build(foreign: Foreign) -> tuple[ForeignBackbone, nn.Module]:
    """Backbone and head with weights that are still to be loaded; raises `ModelError`."""
    return cut(lambda: build_module(foreign.module), foreign)


def build_head(foreign: Foreign) -> nn.Module:
    """The head alone, without weights."""
    module = build_module(foreign.module)
    if foreign.place is None:
        return _linear(module, foreign.at)
    return _tail(module, foreign, foreign.place)


def cut(make: Callable[[], nn.Module], foreign: Foreign) -> tuple[ForeignBackbone, nn.Module]:
    """The two halves of what ``make`` builds; raises `ModelError` where it has no such layer."""
    module, place = make(), foreign.place
    layer = layer_of(module, foreign.at)
    if place is None:
        head: nn.Module = _linear(module, foreign.at)
    else:
        head = _tail(make(), foreign, place)
        for name in place.after:
            if name != foreign.at:
                put(module, name, Unreached(layer_of(module, name).to("meta"), computed=False))
    put(module, foreign.at, Stop(layer, computed=place is not None and place.taken > 0))
    return ForeignBackbone(module, foreign.shape, foreign.dtype), head


def layer_of(module: nn.Module, name: str) -> nn.Module:
    """The layer of that name; raises `ModelError` naming the linear ones where there is none."""
    layers: dict[str, nn.Module] = dict(module.named_modules())
    if not name or name not in layers:
        known = ", ".join(one for one, layer in layers.items() if isinstance(layer, nn.Linear))
        raise ModelError(
            f"the model has no layer '{name}'; its linear layers: {known or 'none'}; "
            "--list shows all"
        )
    return layers[name]


def put(module: nn.Module, name: str, layer: nn.Module) -> None:
    """Replace the layer of that name."""
    parent, _, last = name.rpartition(".")
    setattr(module.get_submodule(parent), last, layer)


def _linear(module: nn.Module, name: str) -> nn.Linear:
    layer = layer_of(module, name)
    if not isinstance(layer, nn.Linear):
        raise ModelError(f"layer '{name}' is a {type(layer).__name__}, not a linear layer")
    return layer


def _tail(module: nn.Module, foreign: Foreign, place: Place) -> nn.Module:
    layer = layer_of(module, foreign.at)
    sizes = place.sizes
    if place.taken:
        sizes = (*sizes[:-1], sizes[-1] - place.taken)
        if place.end == foreign.at:
            return nn.Identity()
    if place.end is not None and place.end != foreign.at:
        put(module, place.end, End(layer_of(module, place.end), computed=True))
    for name in place.before:
        put(module, name, Skipped(layer_of(module, name)))
    put(module, foreign.at, Resume(layer, computed=not place.taken))
    return Tail(module, foreign, sizes)


def without_values(value: Any) -> Any:
    """The same structure with stand-ins for its tensors."""
    if isinstance(value, Absent):
        return value
    if isinstance(value, Tensor):
        return value.detach().to("meta").as_subclass(Absent)
    if isinstance(value, tuple | list):
        return type(value)(without_values(one) for one in value)
    if isinstance(value, dict):
        return {name: without_values(one) for name, one in value.items()}
    return value


def _shapes(value: Any) -> Any:
    """What a part's answer hangs on when no values are known."""
    if isinstance(value, Tensor):
        return (tuple(value.shape), value.dtype)
    if isinstance(value, tuple | list):
        return tuple(map(_shapes, value))
    if isinstance(value, dict):
        return tuple((name, _shapes(one)) for name, one in value.items())
    return repr(value)
