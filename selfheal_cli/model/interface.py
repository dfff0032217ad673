"""How a foreign network is called: the tensors that rows become, and which output counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from math import prod
from typing import Any

import torch
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)
from torch import Tensor, nn

from selfheal_cli.errors import ModelError, one_line

LOGITS_KEY = "logits"
DTYPES = "^(float32|float64|float16|bfloat16|int64|int32|bool)$"
WHOLE = ("int64", "int32", "bool")


class ModelInput(BaseModel):
    """A tensor that a model takes, of one row: its next ``prod(shape)`` values."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str | None = None
    shape: tuple[int, ...]
    dtype: str = Field(default="float32", pattern=DTYPES)

    @property
    def size(self) -> int:
        """Values of one row."""
        return prod(self.shape)

    def __str__(self) -> str:
        kind = "tokens" if self.dtype in WHOLE else self.dtype
        words = f"{kind} (n, {', '.join(map(str, self.shape))})"
        return f"{self.name}: {words}" if self.name else words


class Interface(BaseModel):
    """``inputs`` are given one after the other: a single nameless one by position, others by name,
    or as one dictionary (``as_mapping``); ``absent`` are given None. ``key`` says which part of the
    output counts: a name, a position, or a path of them with dots; None: it is one tensor.
    ``overwrites``: the module changes what it is given, and so gets a copy.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    inputs: tuple[ModelInput, ...]
    as_mapping: bool = False
    absent: tuple[str, ...] = ()
    key: str | None = None
    overwrites: bool = False

    @model_serializer(mode="wrap")
    def _as_it_was(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what was not said before."""
        values: dict[str, Any] = dump(self)
        return {name: one for name, one in values.items() if one or name != "overwrites"}

    @property
    def width(self) -> int:
        """Values of one row."""
        return sum(one.size for one in self.inputs)

    @property
    def whole(self) -> bool:
        """Whether all that goes in are whole numbers."""
        return all(one.dtype in WHOLE for one in self.inputs)

    def output(self, module: nn.Module, rows: Tensor) -> Any:
        """All that the module gives for rows (n, width)."""
        first = self.inputs[0]
        rows = rows.clone() if self.overwrites else rows
        if len(self.inputs) == 1 and first.name is None and first.dtype == "float32":
            one = rows if len(first.shape) == 1 else rows.reshape(len(rows), *first.shape)
            return module(one, **dict.fromkeys(self.absent))
        pieces = torch.split(rows, [one.size for one in self.inputs], dim=1)
        return self.called(
            module,
            [
                piece.reshape(len(rows), *one.shape).to(getattr(torch, one.dtype))
                for piece, one in zip(pieces, self.inputs, strict=True)
            ],
        )

    def called(self, module: nn.Module, tensors: Iterable[Tensor]) -> Any:
        """The module's output for these tensors, one for each input."""
        given = list(tensors)
        nothing = dict.fromkeys(self.absent)
        if len(self.inputs) == 1 and self.inputs[0].name is None:
            return module(given[0], **nothing)
        names = [str(one.name) for one in self.inputs]
        named = dict(zip(names, given, strict=True))
        return module(named) if self.as_mapping else module(**named, **nothing)

    def empty(self, count: int) -> list[Tensor]:
        """Tensors for so many rows that have a shape and no values."""
        return [
            torch.empty(count, *one.shape, dtype=getattr(torch, one.dtype), device="meta")
            for one in self.inputs
        ]

    def picked(self, output: Any) -> Any:
        """The part of an output that counts; raises `ModelError` where it is not there."""
        return output if self.key is None else _at(output, self.key)

    def __str__(self) -> str:
        return ", ".join(map(str, self.inputs))


def choose_key(output: Any, rows: int) -> str | None:
    """Which part of an output is the answer: its logits, else the only one that can be.

    Raises `ModelError` with what there is.
    """
    if isinstance(output, Tensor):
        return None
    known = _parts(output)
    if known is None:
        raise ModelError(f"the model gives {_article(output)}; a tensor is needed")
    fit = [name for name, one in known.items() if _may_answer(one, rows)]
    if isinstance(known.get(LOGITS_KEY), Tensor):
        return LOGITS_KEY  # also where they are those of tokens, which is refused by that
    if len(fit) == 1:
        return fit[0]
    listed = ", ".join(f"{name} {_shape(one)}" for name, one in list(known.items())[:8])
    raise ModelError(
        f"the model gives {_article(output)} with {listed}; say which is one answer a row with "
        "--gives KEY (gives=KEY in Python)"
    )


def output_keys(output: Any) -> list[str]:
    """The keys of an output that is no tensor."""
    return list(_parts(output) or ())


def _at(output: Any, key: str) -> Any:
    for name in key.split("."):
        known = _parts(output) or {}
        if name not in known:
            there = (
                f"it has {', '.join(known)}" if known else "logits, probabilities or auto fit it"
            )
            raise ModelError(f"the model gives {_article(output)}, which has no '{name}': {there}")
        output = known[name]
    return output


def _parts(output: Any) -> dict[str, Any] | None:
    if isinstance(output, Tensor):
        return None
    if isinstance(output, Mapping):
        return {str(name): one for name, one in output.items()}
    if is_dataclass(output) and not isinstance(output, type):
        return {one.name: getattr(output, one.name) for one in fields(output)}
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return dict(zip(output._fields, output, strict=True))
    if isinstance(output, tuple | list):
        return {str(place): one for place, one in enumerate(output)}
    attributes = vars(output) if hasattr(output, "__dict__") else {}
    return {name: one for name, one in attributes.items() if isinstance(one, Tensor)} or None


def _may_answer(value: Any, rows: int) -> bool:
    return (
        isinstance(value, Tensor)
        and value.ndim in (1, 2)
        and len(value) == rows
        and value.is_floating_point()
    )


def _article(output: Any) -> str:
    return f"a {type(output).__name__}"


def _shape(value: Any) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"({', '.join(['n', *map(str, value.shape[1:])])})" if value.ndim else "(one number)"


def call(module: nn.Module, interface: Interface, rows: Tensor) -> Any:
    """All that the module gives for rows; raises `ModelError` for whatever it raises."""
    try:
        with torch.inference_mode():
            return interface.output(module, rows)
    except Exception as exc:  # the author's code, which may raise anything
        raise ModelError(
            f"the model does not take {interface} ({one_line(exc)[:300]}); say what it takes with "
            "--input (inputs= in Python)"
        ) from exc


def answered(module: nn.Module, interface: Interface, rows: Tensor) -> Tensor:
    """The answer for rows (n, width), a tensor on the CPU; raises `ModelError`."""
    output = interface.picked(call(module, interface, rows))
    if not isinstance(output, Tensor):
        raise ModelError(f"the model gives {_article(output)}; a tensor is needed")
    if output.layout != torch.strided:
        raise ModelError(f"the model gives a tensor of {output.layout}; give it .to_dense()")
    return output
