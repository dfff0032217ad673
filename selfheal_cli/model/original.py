"""The module that is wrapped: taken apart from its owner's, described, and asked what it gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from inspect import Parameter, signature
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from selfheal_cli.errors import ModelError, one_line
from selfheal_cli.model import parts
from selfheal_cli.model.answer import AUTO as ANY_OUTPUT
from selfheal_cli.model.answer import LastLayer, ModelOutput, one_a_row, parse_gives, read_answer
from selfheal_cli.model.construction import build_module, describe
from selfheal_cli.model.description import ModuleSpec
from selfheal_cli.model.insertion import Calls, is_linear_output, is_plain, last_linear, watch
from selfheal_cli.model.interface import (
    Interface,
    ModelInput,
    answered,
    call,
    choose_key,
    output_keys,
)
from selfheal_cli.model.live import unwrapped

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray

FEW = 7  # rows whose answers are compared with those among others
BESIDE = 1e-3  # of an answer: batches of another size round otherwise, and no more
BESIDE_HALF = 0.05  # the same in half precision
SLOW = 1.0  # seconds a row that a person should know of
LONGEST = 2.0  # seconds of one call with the rows that are compared; a slow model gets fewer
FEWEST = 16


@dataclass(frozen=True, slots=True)
class Original:
    """A copy of the module that is wrapped, with its answer and the calls of its layers on rows.

    ``computes``: the constructor makes values that are not in the state dictionary. ``lost`` are
    attributes that could not be stored, by path; ``seconds`` is what one row takes.
    ``requirements`` are the packages that its owner wrote down for it, ``code`` the Python files
    that came with it.
    """

    spec: ModuleSpec
    module: nn.Module
    rows: FloatArray
    interface: Interface
    answer: ModelOutput
    calls: Mapping[str, Calls]
    computes: bool
    lost: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    requirements: tuple[str, ...] = ()
    code: Mapping[str, str] = field(default_factory=dict)

    @property
    def slow(self) -> str:
        """What to know of a model that takes longer than a second a row; nothing of others."""
        if self.seconds <= SLOW:
            return ""
        return f"It takes {self.seconds:.2g} s a row: compared on {len(self.rows)} rows alone."

    def rebuilt(self) -> nn.Module:
        """Another copy of the module that shares the memory of its weights."""
        if not self.computes:
            with torch.device("meta"):
                return _with_weights(build_module(self.spec), self.module.state_dict())
        shared: dict[int, Any] = {id(buffer): buffer for buffer in self.module.buffers()}
        for parameter in self.module.parameters():
            shared[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
        return deepcopy(self.module, shared)


def take(
    module: Any,
    rows: FloatArray,
    *,
    shape: tuple[int, ...] = (),
    dtype: str = "float32",
    inputs: Sequence[ModelInput] = (),
    init: Mapping[str, Any] | None = None,
    factory: str | None = None,
    output: str = ANY_OUTPUT,
) -> Original:
    """A copy of a module that gives the same output on the rows, and how that output is read.

    Arguments as in `wrapping.wrap`; raises `ModelError` where there is no such copy.
    """
    module = on_cpu(unwrapped(module))
    if factory is None:
        parts.require_class(module)
    if not module._modules:
        module, init, factory = nn.Sequential(module), None, None  # layers have names in another
    asked = tuple(inputs) or (ModelInput(shape=shape, dtype=dtype),)
    width = sum(one.size for one in asked)
    if rows.shape[1] != width:
        raise ModelError(
            f"rows have {rows.shape[1]} values; {Interface(inputs=asked)} needs {width}"
        )
    if len(rows) == 0:
        raise ModelError("no rows: at least one is needed to see what the model gives")
    for name, value in module.state_dict().items():
        parts.require_values(name, value)
    kind, key = parse_gives(output)
    with _evaluating(module):
        rows, interface, expected, seconds = _asked(module, rows, asked, kind, key)
        how = (init, factory)
        copy = _copy(module, how, interface, torch.from_numpy(rows), expected)
    calls = watch(copy.module, interface, torch.from_numpy(rows))
    direct = is_linear_output(calls, expected)
    answer = read_answer(expected, len(rows), kind, direct=direct, last=_last(calls, expected))
    return Original(
        copy.spec, copy.module, rows, interface, answer, calls, copy.computes, copy.lost, seconds
    )


def _last(calls: Mapping[str, Calls], output: Tensor) -> LastLayer | None:
    """The last linear layer, if it gives as many values as the whole model."""
    name = last_linear(calls)
    given = None if name is None else calls[name].given
    if given is None or name is None or not is_plain(given) or given.numel() != output.numel():
        return None
    return LastLayer(name, given.float())


def on_cpu(module: nn.Module) -> nn.Module:
    """The module, or a copy on the CPU of one that is on another device; raises `ModelError`."""
    where = {one.device for one in (*module.parameters(), *module.buffers())}
    elsewhere = sorted(str(one) for one in where if one.type not in ("cpu", "meta"))
    if not elsewhere:
        return module
    try:
        return deepcopy(module).cpu()
    except Exception as exc:
        raise ModelError(
            f"the model is on {elsewhere[0]} and cannot be copied ({one_line(exc)[:100]}): give it "
            "as model.cpu()"
        ) from exc


def _asked(
    module: nn.Module, rows: FloatArray, asked: tuple[ModelInput, ...], kind: str, key: str | None
) -> tuple[FloatArray, Interface, Tensor, float]:
    """How the module is called, and its answer; fewer rows of a slow one."""
    few = torch.from_numpy(rows[:FEW].copy())
    interface, whole = _interface(module, asked, few)
    if key is None and not isinstance(whole, Tensor):
        key = kind if kind in output_keys(whole) else choose_key(whole, len(few))
    overwrites = not torch.equal(few, torch.from_numpy(rows[: len(few)]))
    interface = interface.model_copy(update={"key": key, "overwrites": overwrites})
    few = torch.from_numpy(rows[: len(few)].copy())
    began = perf_counter()
    first = answered(module, interface, few)
    seconds = (perf_counter() - began) / len(few)
    if first.ndim and len(first) != len(few):
        raise ModelError(
            f"the model gives {len(first)} answers for {len(few)} rows: one answer a row is "
            "needed, however many rows come"
        )
    most = max(FEWEST, int(LONGEST / max(seconds, 1e-9)))
    rows = np.ascontiguousarray(rows[:most])
    expected = answered(module, interface, torch.from_numpy(rows))
    one_a_row(expected, len(rows))
    _require_steady(module, interface, few, first)
    _require_alone(first, expected[: len(few)])
    _require_one_row(module, interface, few, first)
    return rows, interface, expected, seconds


def _interface(
    module: nn.Module, asked: tuple[ModelInput, ...], few: Tensor
) -> tuple[Interface, Any]:
    """The first way of calling the module that it takes; raises `ModelError` of the first one."""
    failed: ModelError | None = None
    for interface in _ways(module, asked, few):
        try:
            return interface, call(module, interface, few)
        except ModelError as exc:
            failed = failed or exc
    wanted = _required(module)
    if len(asked) == 1 and len(wanted) > 1:
        pairs = " ".join(f"--input {name}=COLUMNS" for name in wanted)
        raise ModelError(
            f"the model takes {len(wanted)} inputs ({', '.join(wanted)}) and was given one: say "
            f"which columns go where, as in {pairs} (inputs= in Python)"
        )
    raise failed or ModelError("the model was not called")


def _ways(module: nn.Module, asked: tuple[ModelInput, ...], few: Tensor) -> Iterator[Interface]:
    """As asked for; in the type of its weights; as tokens; with nothing for other inputs."""
    plain = Interface(inputs=asked)
    wanted = _required(module)
    if len(asked) > 1 or asked[0].name is not None:
        as_mapping = Interface(inputs=asked, as_mapping=True)
        names = {one.name for one in asked}
        yield from (plain, as_mapping) if names & set(_named(module)) else (as_mapping, plain)
        return
    yield plain
    others = [_type_of_weights(module)]
    if bool((few == few.round()).all()) and few.numel() and float(few.min()) >= 0:
        others.append("int64")
    for dtype in others:
        if asked[0].dtype == "float32" and dtype not in (None, "float32"):
            yield Interface(inputs=(asked[0].model_copy(update={"dtype": dtype}),))
    if len(wanted) > 1:
        named = asked[0].model_copy(update={"name": wanted[0]})
        yield Interface(inputs=(named,), absent=tuple(wanted[1:]))


def _type_of_weights(module: nn.Module) -> str | None:
    floats = (one.dtype for one in module.parameters() if one.is_floating_point())
    return next((str(one).removeprefix("torch.") for one in floats), None)


def _required(module: nn.Module) -> list[str]:
    """Names of what ``forward`` must be given."""
    return [
        one.name
        for one in signature(module.forward).parameters.values()
        if one.default is Parameter.empty
        and one.kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    ]


def _named(module: nn.Module) -> list[str]:
    return list(signature(module.forward).parameters)


def _require_one_row(module: nn.Module, interface: Interface, few: Tensor, first: Tensor) -> None:
    """Raise `ModelError` for a model that fails on one row, or gives it another shape."""
    try:
        alone = answered(module, interface, few[:1])
    except ModelError as exc:
        raise ModelError(f"the model fails on one row alone: {exc}") from exc
    if alone.numel() * len(few) != first.numel():
        raise ModelError(
            f"the model gives {alone.numel()} values for one row and {first.numel()} for "
            f"{len(few)}: one answer of the same shape a row is needed"
        )


def _require_steady(module: nn.Module, interface: Interface, few: Tensor, first: Tensor) -> None:
    """Raise `ModelError` for a model that answers otherwise when it is asked again."""
    before = {name: value.clone() for name, value in module.named_buffers()}
    again = answered(module, interface, few)
    if again.shape != first.shape or not torch.equal(again, first):
        gap = f", by up to {_gap(again, first):.2g}" if again.shape == first.shape else ""
        moved = [
            repr(name)
            for name, value in module.named_buffers()
            if name in before and not torch.equal(value, before[name])
        ]
        why = (
            f"buffer {', '.join(moved)} changes whenever it answers; let it change in training "
            "mode alone (if self.training)"
            if moved
            else "something in it is drawn by chance, as dropout that stays on in evaluation mode; "
            "give F.dropout training=self.training"
        )
        raise ModelError(
            f"the model gives something else when it is asked again about the same rows{gap}: {why}"
        )


def _require_alone(alone: Tensor, among: Tensor) -> None:
    """Raise `ModelError` where a row's answer depends on the rows that come with it."""
    if alone.shape[1:] != among.shape[1:] and alone.numel() != among.numel():
        raise ModelError(
            f"the model gives {tuple(alone.shape[1:])} a row for {len(alone)} rows and "
            f"{tuple(among.shape[1:])} for more: one answer of the same shape a row is needed"
        )
    half = alone.dtype in (torch.float16, torch.bfloat16)
    room = (BESIDE_HALF if half else BESIDE) * (1 + float(among.float().abs().max()))
    gap = _gap(alone.reshape(among.shape), among)
    if gap > room:
        raise ModelError(
            f"the model's answer to a row depends on the other rows of its batch (by up to "
            f"{gap:.2g}): each row must be answered by itself; batch norm needs running statistics"
        )


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients within the block; the user's module is restored then."""
    modes = [(layer, layer.training) for layer in module.modules()]
    learning = [p for p in module.parameters() if p.requires_grad and p.is_leaf]
    # what torch.compile made of a module rounds otherwise
    compiled = {layer: vars(layer).pop("_compiled_call_impl", None) for layer, _ in modes}
    module.eval()
    # some of torch's kernels round differently where a weight has a gradient
    for parameter in learning:
        parameter.requires_grad = False
    try:
        yield
    finally:
        for layer, mode in modes:
            layer.training = mode
            if compiled[layer] is not None:
                vars(layer)["_compiled_call_impl"] = compiled[layer]
        for parameter in learning:
            parameter.requires_grad = True


@dataclass(frozen=True, slots=True)
class _Copy:
    spec: ModuleSpec
    module: nn.Module
    computes: bool = False
    lost: Mapping[str, str] = field(default_factory=dict)


def _copy(
    module: nn.Module,
    how: tuple[Mapping[str, Any] | None, str | None],
    interface: Interface,
    inputs: Tensor,
    expected: Tensor,
) -> _Copy:
    """A frozen module of the same weights whose output is the expected one.

    It is built by its constructor without values, which takes no time and no memory; else of its
    parts; else by its constructor with values, which it then computes; and ``how`` may name a
    function that makes it, which is asked last, and is what the arguments are for. Raises
    `ModelError` with the reason of the last way that said more than another.
    """

    def same(copy: nn.Module) -> None:
        try:
            with torch.inference_mode():
                actual: Tensor = interface.picked(interface.output(copy, inputs))
        except Exception as exc:  # the author's code, which may miss what could not be stored
            raise ModelError(f"it fails ({one_line(exc)[:200]})") from exc
        if actual.shape != expected.shape or not torch.equal(actual, expected):
            gap = (
                f" by up to {_gap(actual, expected):.2g}" if actual.shape == expected.shape else ""
            )
            raise ModelError(f"it decides otherwise{gap}")

    init, factory = how
    own = partial(describe, module, init if factory is None else None)
    ways: list[Callable[[], _Copy]] = [partial(_without_values, own, module)]
    if factory is not None or not init:
        ways.append(partial(_by_parts, module))
    ways.append(partial(_with_values, own, module))
    if factory is not None:
        made = partial(describe, module, init, factory)
        ways += [partial(_without_values, made, module), partial(_with_values, made, module)]
    failed: list[ModelError] = []
    for way in ways:
        try:
            copy = way()
            same(copy.module)
            return copy
        except ModelError as exc:
            failed.append(exc)
    if factory is not None:
        raise ModelError(f"{factory} makes another model: {failed[-1]}") from failed[-1]
    raise _refused(module, init, failed) from failed[-1]


def _without_values(described: Callable[[], ModuleSpec], module: nn.Module) -> _Copy:
    spec = described()
    with torch.device("meta"):
        copy = _with_weights(build_module(spec), _weights(module))
    if any(buffer.is_meta for buffer in copy.buffers()):
        raise ModelError("its constructor computes values")
    return _Copy(spec, copy)


def _by_parts(module: nn.Module) -> _Copy:
    described = parts.described(module)
    copy = _with_weights(parts.built(described.spec), described.weights)
    return _Copy(described.spec, copy, lost=described.lost)


def _with_values(described: Callable[[], ModuleSpec], module: nn.Module) -> _Copy:
    spec = described()
    return _Copy(spec, _with_weights(build_module(spec), _weights(module)), computes=True)


def _refused(
    module: nn.Module,
    init: Mapping[str, Any] | None,
    failed: Sequence[ModelError],
) -> ModelError:
    """Why no copy decides as the module does, and what to do."""
    name = type(module).__qualname__
    if init:
        return ModelError(f"{name} built with {dict(init)}: {failed[-1]}; see --init")
    try:
        lost = parts.described(module).lost
    except ModelError as exc:
        return exc
    hooks = [
        path or name
        for path, part in module.named_modules()
        if part._forward_hooks or part._forward_pre_hooks
    ]
    why = [f"{path} is {kind}" for path, kind in list(lost.items())[:3]]
    why += [f"layer '{path}' has a hook" for path in hooks[:3]]
    kept = f"; it cannot be stored that {'; '.join(why)}" if why else ""
    return ModelError(
        f"{name} cannot be built again from its layers and attributes: {failed[1]}{kept}"
    )


def _weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}


def _with_weights(module: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    try:
        module.load_state_dict(dict(weights), assign=True)
    except RuntimeError as exc:
        raise ModelError(f"the weights do not fit the class: {one_line(exc)}") from exc
    module.eval()
    module.requires_grad_(requires_grad=False)
    return module


def _gap(ours: Tensor, theirs: Tensor) -> float:
    return float((ours.double() - theirs.double()).abs().max()) if ours.numel() else 0.0


def takes_tokens(module: nn.Module) -> bool:
    """Whether the first layer with weights is an embedding."""
    for layer in module.modules():
        if isinstance(layer, nn.Embedding | nn.EmbeddingBag):
            return True
        if layer._parameters and not layer._modules:
            return False
    return False


def first_width(module: nn.Module) -> int:
    """Values of a row, by the first linear layer; raises `ModelError` where another comes first."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            return layer.in_features
        if isinstance(layer, nn.BatchNorm1d):
            return layer.num_features
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Embedding):
            break
    raise ModelError("the shape of one row is not known: give --input, as in --input 1x8x8")
