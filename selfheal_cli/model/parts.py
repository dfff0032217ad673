"""A module described by its parts: layers, weights and plain attributes, without its constructor.

It takes what a constructor does not give back: a model of a library's factory, a head that was
replaced, a tensor that is no buffer. Stored are names of classes and functions, and plain values;
loading looks names up and calls nothing but ``__new__`` of modules and of objects that keep
settings. Weights that a hook or a parametrisation computes are stored as computed. What
cannot be stored (a lock, a function within a function) is left out and remembered: the model
decides as before without it, or it is refused with its name.
"""

from __future__ import annotations

import argparse
import base64
import enum
import functools
import math
import sys
import types
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from selfheal_cli.errors import ModelError
from selfheal_cli.model.allowed import TORCH, is_allowed
from selfheal_cli.model.description import ModuleSpec, find_class, find_named, name_of

ORDINARY = frozenset(vars(nn.Module()))  # attributes that torch keeps of every module
MOST_EMBEDDED = 1 << 20  # bytes of a tensor that lies in a list or an object
MOST_VALUES = 20_000  # in the attributes of one module: an object that holds more is no setting
DEEPEST = 12
# from the standard library only these are named: what others may write is looked up here
HARMLESS: tuple[Any, ...] = (
    bool, int, float, str, list, tuple, dict, set, frozenset, slice, range, len, sum, min, max, abs,
    types.SimpleNamespace, argparse.Namespace, OrderedDict, defaultdict,
)  # fmt: skip

COMPUTING = (
    "torch.nn", "torch._C", "torch.special", "torch.functional", "torch._tensor", "torch.linalg",
    "torch.fft", "torch.distributions", "torch.utils.checkpoint",
)  # fmt: skip
TOUCHING_FILES = ("from_file",)


@dataclass(slots=True)
class DescribedModule:
    """An instance: its ``spec``, its ``weights`` by name, and what was ``lost``: the kind of each
    attribute that cannot be stored, by its path.
    """

    spec: ModuleSpec
    weights: dict[str, Tensor]
    lost: dict[str, str]


class _Lost(Exception):
    """A value that cannot be stored; says what it is."""


def described(module: nn.Module) -> DescribedModule:
    """Describe an instance; raises `ModelError` where one of its classes has no name to import."""
    reader = _Reader(module)
    spec = reader.module(module, "")
    return DescribedModule(spec, {**reader.weights, **reader.repeated()}, reader.lost)


@dataclass
class _Reader:
    """Goes through an instance, once."""

    root: nn.Module
    weights: dict[str, Tensor] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)
    told: dict[int, str] = field(default_factory=dict)  # modules, by where they were first
    again: dict[str, str] = field(default_factory=dict)  # other places, with the first

    def __post_init__(self) -> None:
        self.paths = {id(part): name for name, part in self.root.named_modules()}
        self.tensors = {
            id(value): f"{path}.{name}".removeprefix(".")
            for path, part in self.root.named_modules()
            for name, value in {**part._parameters, **part._buffers}.items()
            if value is not None
        }
        self.count = 0

    def module(self, part: nn.Module, path: str) -> ModuleSpec:
        require_class(part, path)
        kind = parametrize.type_before_parametrizations(part)
        self.told[id(part)] = path
        plain, tensors = self._own(part)
        self.count = 0
        state = {}
        for name, value in plain.items():
            try:
                state[name] = self.value(value)
            except _Lost as exc:
                self.lost[f"{path}.{name}".removeprefix(".")] = str(exc)
        children, shared, absent = {}, {}, []
        for name, child in part._modules.items():
            if name == "parametrizations" and parametrize.is_parametrized(part):
                continue
            if child is None:
                absent.append(name)
            elif id(child) in self.told:
                shared[name] = self.told[id(child)]
                self.again[f"{path}.{name}".removeprefix(".")] = shared[name]
            else:
                children[name] = self.module(child, f"{path}.{name}".removeprefix("."))
        own = {"tensors": self._kept(tensors, part, path), "state": state, "shared": shared,
               "absent": absent}  # fmt: skip
        return ModuleSpec(
            target=name_of(kind), children=children, order=tuple(part._modules), parts=own
        )

    def repeated(self) -> dict[str, Tensor]:
        """Weights of modules that stand in several places, under their other names."""
        return {
            place + name.removeprefix(first): value
            for place, first in self.again.items()
            for name, value in self.weights.items()
            if name.startswith(f"{first}.")
        }

    def _own(self, part: nn.Module) -> tuple[dict[str, Any], dict[str, Tensor | None]]:
        """Plain attributes, and tensors: whether parameter, buffer, attribute or computed."""
        plain = {name: value for name, value in vars(part).items() if name not in ORDINARY}
        tensors: dict[str, Tensor | None] = {**part._parameters, **part._buffers}
        for name, value in list(plain.items()):
            if isinstance(value, Tensor):
                tensors[name] = plain.pop(name)
            elif isinstance(part, nn.RNNBase) and name in ("_flat_weights", "_flat_weight_refs"):
                del plain[name]  # made again of the weights
        if parametrize.is_parametrized(part):
            for name in part.parametrizations:  # type: ignore[union-attr]
                tensors[name] = getattr(part, name)
        return plain, tensors

    def _kept(
        self, tensors: Mapping[str, Tensor | None], part: nn.Module, path: str
    ) -> dict[str, Any]:
        """Shape, type, and whether it is a parameter, of each."""
        described: dict[str, Any] = {}
        for name, value in tensors.items():
            whole = f"{path}.{name}".removeprefix(".")
            if value is None:
                described[name] = None
                continue
            require_values(whole, value)
            self.weights[whole] = value.detach().cpu().clone()
            learned = name in part._parameters
            described[name] = [list(value.shape), _dtype(value.dtype), learned]
        return described

    def value(self, value: Any, depth: int = 0) -> Any:
        """A value as JSON; raises `_Lost`."""
        self.count += 1
        if depth > DEEPEST or self.count > MOST_VALUES:
            raise _Lost(f"an object that holds much: {type(value).__name__}")
        if value is None or isinstance(value, bool | int | str):
            return value if type(value) in PLAIN else self._special(value, depth)
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else {"float": str(float(value))}
        for kind, tag in ((list, None), (tuple, "tuple"), (set, "set"), (frozenset, "frozenset")):
            if type(value) is kind:
                parts = [self.value(one, depth + 1) for one in value]
                return {tag: parts} if tag else parts
        if type(value) is dict:
            return {"dict": self._pairs(value, depth)}
        return self._special(value, depth)

    def _pairs(self, values: Mapping[Any, Any], depth: int) -> list[Any]:
        return [
            [self.value(name, depth + 1), self.value(one, depth + 1)]
            for name, one in values.items()
        ]

    def _special(self, value: Any, depth: int) -> Any:
        """A value that is no container of plain ones."""
        for kinds, encode in WRITERS:
            if isinstance(value, kinds):
                return encode(self, value, depth + 1)
        if callable(value) and not _has_state(value):
            return {"named": self._name(value)}
        return self._object(value, depth)

    def _module(self, value: nn.Module, _depth: int) -> Any:
        if id(value) not in self.paths:
            raise _Lost("a module that is no part of the model")
        return {"module": self.paths[id(value)]}

    def _partial(self, value: functools.partial[Any], depth: int) -> Any:
        whole = [self.value(value.func, depth), self.value(list(value.args), depth)]
        return {"partial": [*whole, self._pairs(value.keywords, depth)]}

    def _method(self, value: types.MethodType, depth: int) -> Any:
        if not isinstance(value.__self__, nn.Module):
            raise _Lost(f"a method of a {type(value.__self__).__name__}")
        return {"method": value.__name__, "of": self.value(value.__self__, depth)}

    def _array(self, value: Any, _depth: int) -> Any:
        if id(value) in self.tensors:
            return {"weight": self.tensors[id(value)]}
        try:
            tensor = value.detach().cpu() if isinstance(value, Tensor) else torch.from_numpy(value)
        except TypeError as exc:
            raise _Lost(f"an array of {value.dtype}") from exc
        if tensor.numel() * tensor.element_size() > MOST_EMBEDDED or tensor.is_meta:
            raise _Lost("a large tensor that is no buffer")
        data = base64.b64encode(save({"value": tensor.contiguous().clone()})).decode()
        return {"array" if isinstance(value, np.ndarray) else "tensor": data}

    def _object(self, value: Any, depth: int) -> Any:
        """An object that keeps settings, such as a model's configuration."""
        kind = type(value)
        if not _has_state(value) or isinstance(value, type | types.ModuleType):
            raise _Lost(f"a {kind.__module__}.{kind.__qualname__}".replace("builtins.", ""))
        encoded: dict[str, Any] = {"object": self._name(kind)}
        if isinstance(value, tuple | dict | list):
            content = dict(value) if isinstance(value, dict) else list(value)
            encoded["content"] = self.value(content, depth + 1)
        if isinstance(value, str | int):
            raise _Lost(f"a {kind.__qualname__}")
        encoded["state"] = self._pairs(getattr(value, "__dict__", {}), depth)
        return encoded

    def _name(self, value: Any) -> str:
        for candidate in _names(value):
            try:
                if _same(named(candidate), value):
                    return candidate
            except ModelError:
                continue
        kind = "a class" if isinstance(value, type) else "a function"
        where = getattr(value, "__qualname__", type(value).__name__)
        raise _Lost(f"{kind} that nobody can import ({where})")


PLAIN = (bool, int, str, type(None))
Writer = Callable[[_Reader, Any, int], Any]
# what is written with a tag, by its type; the first that fits counts
WRITERS: tuple[tuple[Any, Writer], ...] = (
    (nn.Module, _Reader._module),
    ((Tensor, np.ndarray), _Reader._array),
    (np.generic, lambda reader, value, depth: reader.value(value.item(), depth)),
    (torch.dtype, lambda _reader, value, _depth: {"dtype": _dtype(value)}),
    (torch.device, lambda _reader, _value, _depth: {"device": "cpu"}),
    (torch.Size, lambda _reader, value, _depth: {"size": list(value)}),
    (
        (slice, range),
        lambda _reader, value, _depth: {
            type(value).__name__: [value.start, value.stop, value.step]
        },
    ),
    (
        enum.Enum,
        lambda reader, value, _depth: {"enum": value.name, "named": reader._name(type(value))},
    ),
    (functools.partial, _Reader._partial),
    (types.MethodType, _Reader._method),
)


def require_class(part: nn.Module, path: str = "") -> None:
    """Raise `ModelError` for what torch.jit, torch.fx or torch.export made of a module."""
    kind = parametrize.type_before_parametrizations(part)
    if isinstance(part, torch.jit.ScriptModule) or issubclass(kind, torch.fx.GraphModule):
        raise ModelError(
            f"{'layer ' + repr(path) if path else 'the model'} is a {kind.__name__}, which has "
            "no class of its own: give the module that it was made from"
        )


def require_values(name: str, value: Any) -> None:
    """Raise `ModelError` for a weight that cannot be stored."""
    if not isinstance(value, Tensor) or value.is_quantized:
        raise ModelError(
            f"weight '{name}' is no plain tensor ({type(value).__name__}): quantised models are "
            "not supported"
        )
    if is_lazy(value):
        raise ModelError(
            f"weight '{name}' has no shape yet, as lazy layers have none before they ran: give the "
            "model some rows once"
        )
    if value.is_meta:
        raise ModelError(f"weight '{name}' is on the device meta, which keeps no values: load them")


def _has_state(value: Any) -> bool:
    """Whether it is more than its name: an instance with attributes, and no class or function."""
    functions = (type, types.FunctionType, types.BuiltinFunctionType, types.MethodDescriptorType,
                 types.WrapperDescriptorType, np.ufunc, types.MethodType)  # fmt: skip
    return not isinstance(value, functions) and (
        hasattr(value, "__dict__") or isinstance(value, tuple | dict | list)
    )


def _names(value: Any) -> list[str]:
    """Names that may lead to a function or class."""
    place, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    short = getattr(value, "__name__", name)
    named = [f"{place}:{name}"] if place and name else []
    others = ("torch", "torch.nn.functional", "torch._C._nn", "torch.special", "math", "operator")
    return [*named, *(f"{other}:{short}" for other in others), f"torch:Tensor.{short}"]


def named(target: str) -> Any:
    """What a name that was stored means; of the standard library only what does no harm.

    It counts where a thing is from, and not by which other module it can be reached. Raises
    `ModelError`.
    """
    place = target.partition(":")[0]
    value = find_named(target)
    home = str(getattr(value, "__module__", None) or place).partition(".")[0]
    harmless = any(value is one for one in HARMLESS) or home in ("math", "_operator")
    if isinstance(value, types.ModuleType) or (home in sys.stdlib_module_names and not harmless):
        raise ModelError(f"{target} is not among what a stored model may name")
    return value


def _same(one: Any, other: Any) -> bool:
    return one is other or (
        isinstance(other, types.BuiltinFunctionType | types.MethodDescriptorType) and one == other
    )


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def built(spec: ModuleSpec) -> nn.Module:
    """The instance with weights that are still to be loaded; raises `ModelError`."""
    _require_own(spec)
    later: list[tuple[nn.Module, Mapping[str, Any]]] = []
    root = _skeleton(spec, later)
    _share(spec, root, root)
    _restore(root, later)
    # a list may hold weights, which loading replaces
    if any(_mentions_weights(state) for _, state in later):
        again: Any = root.register_load_state_dict_post_hook
        again(lambda *_: _restore(root, later))
    return root


def _require_own(spec: ModuleSpec) -> None:
    """Raise `ModelError` for a function or class of a package that no layer is from.

    What is written in a registry may be called with arguments that stand there, too: a library that
    happens to be loaded, such as one that reads pickles, is none of the model's.
    """
    specs = list(_every(spec))
    kinds = [base for one in specs for base in find_class(one.target).__mro__]
    own = {kind.__module__.partition(".")[0] for kind in kinds} - {TORCH, "builtins"}
    for target in {name for one in specs for name in _mentioned((one.parts or {}).get("state"))}:
        value = named(target)
        home = str(getattr(value, "__module__", None) or target.partition(":")[0])
        if not (_only_computes(value, home) or home.partition(".")[0] in own or is_allowed(home)):
            raise ModelError(
                f"the model names {target}, of a package that none of its layers is from: if you "
                f"trust it, give --allow-module {home.partition('.')[0]}"
            )


def _only_computes(value: Any, home: str) -> bool:
    """Whether it is a plain type, or a function of numbers and tensors alone."""
    if any(value is one for one in HARMLESS) or home in ("math", "_operator"):
        return True
    if isinstance(value, np.ufunc) or (isinstance(value, type) and issubclass(value, np.generic)):
        return True
    within = any(home == one or home.startswith(f"{one}.") for one in COMPUTING)
    return (home == TORCH or within) and getattr(value, "__name__", "") not in TOUCHING_FILES


def _every(spec: ModuleSpec) -> Iterator[ModuleSpec]:
    yield spec
    for child in spec.children.values():
        yield from _every(child)


def _mentioned(value: Any) -> Iterator[str]:
    """Names of functions and classes in stored attributes."""
    if isinstance(value, dict):
        yield from (value[tag] for tag in ("named", "object") if isinstance(value.get(tag), str))
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for one in parts:
        yield from _mentioned(one)


def _skeleton(spec: ModuleSpec, later: list[tuple[nn.Module, Mapping[str, Any]]]) -> nn.Module:
    """Modules within modules, with tensors that have a shape and no values."""
    kind = find_class(spec.target)
    own = spec.parts or {}
    module: nn.Module = kind.__new__(kind)
    nn.Module.__init__(module)
    module.training = False
    for name, kept in own["tensors"].items():
        if kept is None:
            module._buffers[name] = None
            continue
        shape, dtype, learned = kept
        value = torch.empty(shape, dtype=getattr(torch, dtype), device="meta")
        if learned:
            module._parameters[name] = nn.Parameter(value, requires_grad=False)
        else:
            module._buffers[name] = value
    later.append((module, own["state"]))
    for name in spec.order:
        if name in spec.children:
            module._modules[name] = _skeleton(spec.children[name], later)
        elif name in own["shared"] or name in own["absent"]:
            module._modules[name] = None
    return module


def _share(spec: ModuleSpec, part: nn.Module, root: nn.Module) -> None:
    """Put modules that stand in several places into the others."""
    for name, path in (spec.parts or {})["shared"].items():
        part._modules[name] = root.get_submodule(path)
    for name, child in spec.children.items():
        whole = part._modules[name]
        if whole is not None:
            _share(child, whole, root)


def _restore(root: nn.Module, later: list[tuple[nn.Module, Mapping[str, Any]]]) -> None:
    """The attributes, which may name modules and weights anywhere."""
    for module, state in later:
        for name, value in state.items():
            vars(module)[name] = _value(value, root)
        if isinstance(module, nn.RNNBase):
            module._init_flat_weights()


def _mentions_weights(value: Any) -> bool:
    if isinstance(value, dict):
        return "weight" in value or any(map(_mentions_weights, value.values()))
    return isinstance(value, list) and any(map(_mentions_weights, value))


def _value(encoded: Any, root: nn.Module) -> Any:
    if isinstance(encoded, list):
        return [_value(one, root) for one in encoded]
    if not isinstance(encoded, dict):
        return encoded
    tag = next(tag for tag in READERS if tag in encoded)
    return READERS[tag](encoded, root)


def _mapping(pairs: list[Any], root: nn.Module) -> dict[Any, Any]:
    return {_value(name, root): _value(value, root) for name, value in pairs}


def _weight(path: str, root: nn.Module) -> Any:
    place, _, name = path.rpartition(".")
    return getattr(root.get_submodule(place), name)


def _partial(encoded: Any, root: nn.Module) -> Any:
    function, positional, keywords = encoded
    return functools.partial(
        _value(function, root), *_value(positional, root), **_mapping(keywords, root)
    )


def _instance(encoded: Mapping[str, Any], root: nn.Module) -> Any:
    """An object without its constructor: its class's ``__new__``, and its attributes."""
    known = named(encoded["object"])
    if not isinstance(known, type):
        raise ModelError(f"{encoded['object']} is no class")
    kind: Any = known
    content: Any = _value(encoded["content"], root) if "content" in encoded else None
    if isinstance(content, list) and issubclass(kind, tuple):
        whole: Any = tuple.__new__(kind, content)
    else:
        whole = object.__new__(kind) if content is None else kind.__new__(kind)
    if isinstance(content, dict):
        dict.update(whole, content)
    elif isinstance(content, list) and not isinstance(whole, tuple):
        list.extend(whole, content)
    for name, value in _mapping(encoded.get("state", []), root).items():
        object.__setattr__(whole, name, value)
    return whole


def _embedded(data: str) -> Tensor:
    return load(base64.b64decode(data))["value"]


# tags of what is no plain value, and what they stand for; the first that is there counts
READERS: dict[str, Callable[[Any, nn.Module], Any]] = {
    "float": lambda e, _: float(e["float"]),
    "tuple": lambda e, root: tuple(_value(e["tuple"], root)),
    "set": lambda e, root: set(_value(e["set"], root)),
    "frozenset": lambda e, root: frozenset(_value(e["frozenset"], root)),
    "dict": lambda e, root: _mapping(e["dict"], root),
    "module": lambda e, root: root.get_submodule(e["module"]),
    "weight": lambda e, root: _weight(e["weight"], root),
    "tensor": lambda e, _: _embedded(e["tensor"]),
    "array": lambda e, _: _embedded(e["array"]).numpy(),
    "dtype": lambda e, _: getattr(torch, e["dtype"]),
    "device": lambda e, _: torch.device(e["device"]),
    "size": lambda e, _: torch.Size(e["size"]),
    "slice": lambda e, _: slice(*e["slice"]),
    "range": lambda e, _: range(*e["range"]),
    "enum": lambda e, _: named(e["named"])[e["enum"]],
    "partial": lambda e, root: _partial(e["partial"], root),
    "method": lambda e, root: getattr(_value(e["of"], root), e["method"]),
    "object": _instance,
    "named": lambda e, _: named(e["named"]),
}
