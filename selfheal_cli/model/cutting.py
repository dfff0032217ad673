"""A foreign network, described so that it can be built again, and cut in two halves.

The description names classes by import path with their constructors' arguments, so that no pickle
is needed; the weights are safetensors. Both halves run the author's own code. The backbone is the
module with a stop at the cut. Where the cut is not directly before the last linear layer, the head
is the module once more, run from its beginning with stand-ins for the rows: tensors that have a
shape and no values, so that nothing before the cut is computed. At the cut the adapted features
take their place. If anything else from before the cut is used after it (a residual connection
around it, a mask made of the rows), that shows at once: its values are not there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from selfheal_cli.errors import ModelError
from selfheal_cli.model.brought import bring
from selfheal_cli.model.construction import build_module
from selfheal_cli.model.description import ModuleSpec
from selfheal_cli.model.device import CPU, OnDevice
from selfheal_cli.model.interface import DTYPES, Interface, ModelInput

AUTO = "auto"
OUTPUT = "output"  # in place of a layer's name: the adapter goes after the last of them
LEAST = 1e-9  # probabilities of 0 and 1 have no logit


class Place(BaseModel):
    """Where an adapter sits, if not directly before the linear layer that gives the logits.

    ``sizes``, ``axis`` and ``taken`` are those of its `Room`. ``before`` and ``after`` name the
    parts that run only before, or only after it; others, such as an activation that is used
    throughout, run on both sides. ``end`` is the layer that gives the logits; None: the module
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

    ``at`` is the layer's dotted name; ``shape`` is that of one row and ``dtype`` the type that the
    module takes; ``outputs`` is the width of its logits, 1 or the number of classes. Without a
    ``place`` the adapter goes before ``at``, the linear layer that gives the logits. ``computes``:
    the constructor makes values that are not among the weights, so it must run to build it.
    ``computed_in`` is the type of the features at the cut where it is not float32; ``interface``
    how the module is called where that is not with one tensor, for one tensor. ``gives``: it is not
    cut at all, and the features are the logits that it gives, or those of its probabilities.
    ``assumed``: nobody said that its one number a row is a logit. ``requirements`` are the packages
    that the original named, ``code`` the Python files that came with it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    module: ModuleSpec
    at: str
    shape: tuple[int, ...]
    dtype: str = Field(default="float32", pattern=DTYPES)
    outputs: int = Field(ge=1)
    place: Place | None = None
    computes: bool = False
    computed_in: str | None = None
    interface: Interface | None = None
    gives: Literal["logits", "probabilities"] | None = None
    assumed: bool = False
    requirements: tuple[str, ...] = ()
    code: dict[str, str] = Field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The JSON that the base's document keeps of it."""
        document = self.model_dump(mode="json")
        plain = ("module", "at", "shape", "dtype", "outputs")
        return {name: one for name, one in document.items() if one or name in plain}

    @property
    def called(self) -> Interface:
        """How the module is called."""
        return self.interface or Interface(inputs=(ModelInput(shape=self.shape, dtype=self.dtype),))


_ADAPTED: ContextVar[Tensor] = ContextVar("the adapted features of the tail that is being run")
MOST_SHAPES = 64  # whose stand-ins a skipped part keeps


class Reached(Exception):
    """Raised at the layer up to which a network is run; carries the features there."""

    def __init__(self, features: Tensor) -> None:
        self.features = features


class StandIn(nn.Module):
    """In place of a part of the author's network, with the part's attributes.

    ``layer`` is the part where it is still computed; else None, and its weights are not kept.
    """

    def __init__(self, part: nn.Module, *, computed: bool) -> None:
        super().__init__()
        self.layer = part if computed else None
        # in a tuple it is no submodule: it has no weights to load, and `train` does not reach it
        self._part = (part.eval(),)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_part"][0], name)


class Stop(StandIn):
    """At the cut, in the backbone: nothing after it is computed.

    With a ``layer`` the features are that layer's input and output, beside one another.
    """

    def forward(self, features: Tensor, *others: Any, **named: Any) -> Tensor:
        """Raises `Reached`."""
        if self.layer is None:
            raise Reached(features)
        raise Reached(torch.cat([features, self.layer(features, *others, **named)], dim=-1))


class Resume(StandIn):
    """At the cut, in the head: the adapted features are ``layer``'s input, or its output."""

    def forward(self, _absent: Tensor, *others: Any, **named: Any) -> Any:
        """The layer's output for the adapted features."""
        adapted = _ADAPTED.get()
        return adapted if self.layer is None else self.layer(adapted, *others, **named)


class End(StandIn):
    """The layer that gives the logits; nothing after it is computed."""

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        """Raises `Reached`."""
        raise Reached(self._part[0](*inputs, **named))


class Unreached(StandIn):
    """A part that runs only after the cut."""

    def forward(self, *_inputs: Any, **_named: Any) -> Any:
        """Raises `RuntimeError`."""
        raise RuntimeError("a part that was last run after the cut now runs before it")


class Absent(Tensor):
    """A stand-in for a tensor from before the cut: a shape, a type and no values.

    The result of a computation with one is one.
    """

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """As torch calls it for every operation: plain tensors in it lose their values as well."""
        plain, named = without_values(args), without_values(dict(kwargs or {}))
        return super().__torch_function__(func, types, plain, named)  # type: ignore[no-untyped-call]

    def __deepcopy__(self, memo: Any) -> Absent:
        return self


class Skipped(StandIn):
    """A part that runs only before the cut: computes shapes, and has no weights in memory."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__(part.to("meta"), computed=False)
        self._by_shapes: dict[Any, Any] = {}

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Stand-ins for the part's output."""
        key = (_shapes(inputs), _shapes(named))
        stand_in = self._by_shapes.get(key)
        if stand_in is None:
            if len(self._by_shapes) >= MOST_SHAPES:
                self._by_shapes.clear()
            # it is kept, and a later caller may compute gradients
            with torch.inference_mode(mode=False), torch.no_grad():
                stand_in = self._part[0](*without_values(inputs), **without_values(named))
            self._by_shapes[key] = stand_in
        return stand_in


class _Frozen(OnDevice):
    """Stays in evaluation mode when the network around it is put into training mode."""

    def train(self, mode: bool = True) -> _Frozen:
        """Change nothing: dropout stays off, and batch norm keeps its statistics."""
        super().train(mode=False)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """As `of_rows`, for any number of rows: not every author's code takes none."""
        return self.of_rows(x) if len(x) else self.of_rows(x.new_ones((1, *x.shape[1:])))[:0]

    def of_rows(self, x: Tensor) -> Tensor:
        """What it gives of one row or more."""
        raise NotImplementedError


class ForeignBackbone(_Frozen):
    """Rows (n, inputs), each flattened, to their features at the cut, (n, features) float32."""

    def __init__(self, module: nn.Module, foreign: Foreign) -> None:
        super().__init__(module)
        self.interface = foreign.called

    def of_rows(self, x: Tensor) -> Tensor:
        """Features (n, features)."""
        try:
            self.interface.output(self.module, *self.there(x))
        except Reached as reached:
            features = reached.features
            # each of the three is a call of torch's, also where it changes nothing
            is_plain = features.ndim == 2 and features.dtype == torch.float32
            features = features if is_plain else features.flatten(start_dim=1).float()
            return features if features.is_cpu else features.to(CPU)
        raise RuntimeError("the layer at which the network is cut was not reached")


class ForeignOutput(_Frozen):
    """The whole module: rows (n, inputs) to its logits (n, outputs), which are the features."""

    def __init__(self, module: nn.Module, foreign: Foreign) -> None:
        super().__init__(module)
        self.interface = foreign.called
        self.outputs = foreign.outputs
        self.probable = foreign.gives == "probabilities"

    def of_rows(self, x: Tensor) -> Tensor:
        """Logits; of probabilities those that sigmoid or softmax takes back to them."""
        output: Tensor = self.interface.picked(self.interface.output(self.module, *self.there(x)))
        table = output.reshape(len(x), -1).float().to(CPU)
        if not self.probable:
            return table
        if self.outputs == 1:
            return torch.logit(table[:, -1:].double(), eps=LEAST).float()
        return torch.log(table.double().clamp(min=LEAST)).float()


class CastLinear(nn.Linear):
    """A linear layer that computes in another type than float32, which it takes and gives."""

    def __init__(self, layer: nn.Linear, dtype: str) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self._parameters, self._buffers = layer._parameters, layer._buffers
        self.dtype: torch.dtype = getattr(torch, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output."""
        bias = None if self.bias is None else self.bias.to(self.dtype)
        given = nn.functional.linear(x.to(self.dtype), self.weight.to(self.dtype), bias)
        return given.float()


class Tail(_Frozen):
    """Adapted features (n, hidden) to logits (n, outputs), by the author's code after the cut."""

    def __init__(self, module: nn.Module, foreign: Foreign, sizes: tuple[int, ...]) -> None:
        super().__init__(module)
        self.interface = foreign.called
        self.dtype: torch.dtype = getattr(torch, foreign.computed_in or "float32")
        self.sizes = sizes

    def of_rows(self, x: Tensor) -> Tensor:
        """Logits; raises `RuntimeError` where something else from before the cut is needed."""
        empty = [one.as_subclass(Absent) for one in self.interface.empty(len(x))]
        (adapted,) = self.there(x)
        token = _ADAPTED.set(adapted.reshape(len(adapted), *self.sizes).to(self.dtype))
        try:
            logits = self.interface.picked(self.interface.called(self.module, empty))
        except Reached as reached:
            logits = reached.features
        finally:
            _ADAPTED.reset(token)
        if not isinstance(logits, Tensor) or logits.is_meta:
            raise RuntimeError("what comes after it uses more than this layer is given")
        return (logits if logits.ndim > 1 else logits[:, None]).float().to(CPU)


def build(foreign: Foreign) -> tuple[nn.Module, nn.Module]:
    """Backbone and head with weights that are still to be loaded; raises `ModelError`."""
    bring(foreign.code)
    return cut(lambda: build_module(foreign.module), foreign)


def cut(make: Callable[[], nn.Module], foreign: Foreign) -> tuple[nn.Module, nn.Module]:
    """The two halves of the module that ``make`` builds; raises `ModelError` without the layer."""
    module, place = make(), foreign.place
    if foreign.gives is not None:
        return ForeignOutput(module, foreign), unit_head(foreign.outputs)
    layer = layer_of(module, foreign.at)
    if place is None:
        head: nn.Module = _last(module, foreign)
    else:
        head = _tail(make(), foreign, place)
        for name in place.after:
            if name != foreign.at:
                put(module, name, Unreached(layer_of(module, name).to("meta"), computed=False))
    put(module, foreign.at, Stop(layer, computed=place is not None and place.taken > 0))
    return ForeignBackbone(module, foreign), head


def unit_head(outputs: int) -> nn.Linear:
    """A head for features that are logits already."""
    head = nn.Linear(outputs, outputs, bias=False)
    head.weight = nn.Parameter(torch.eye(outputs), requires_grad=False)
    return head


def layer_of(module: nn.Module, name: str) -> nn.Module:
    """The layer of that name; raises `ModelError` naming the linear ones where there is none."""
    layers: dict[str, nn.Module] = dict(module.named_modules())
    if not name or name not in layers:
        known = ", ".join(n for n, layer in layers.items() if isinstance(layer, nn.Linear))
        raise ModelError(
            f"the model has no layer '{name}'; its linear layers: {known or 'none'}; "
            "--list shows all"
        )
    return layers[name]


def put(module: nn.Module, name: str, layer: nn.Module) -> None:
    """Replace the layer of that name."""
    parent, _, last = name.rpartition(".")
    setattr(module.get_submodule(parent), last, layer)


def _last(module: nn.Module, foreign: Foreign) -> nn.Linear:
    """The linear layer that gives the logits."""
    layer = layer_of(module, foreign.at)
    if not isinstance(layer, nn.Linear):
        raise ModelError(f"layer '{foreign.at}' is a {type(layer).__name__}, not a linear layer")
    return layer if foreign.computed_in is None else CastLinear(layer, foreign.computed_in)


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
    """The same structure of tuples, lists and dicts, with stand-ins for its tensors."""
    if isinstance(value, Absent):
        return value
    if isinstance(value, Tensor):
        return value.detach().to("meta").as_subclass(Absent)
    if isinstance(value, tuple | list):
        return type(value)(without_values(part) for part in value)
    if isinstance(value, dict):
        return {name: without_values(part) for name, part in value.items()}
    return value


def _shapes(value: Any) -> Any:
    """A key of everything that a part's output without values depends on."""
    if isinstance(value, Tensor):
        return (tuple(value.shape), value.dtype)
    if isinstance(value, tuple | list):
        return tuple(map(_shapes, value))
    if isinstance(value, dict):
        return tuple((name, _shapes(part)) for name, part in value.items())
    return repr(value)
