"""What a user says that a model takes: columns, one tensor, tokens, or several of them by name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from selfheal_cli.errors import DataError, OptionError
from selfheal_cli.model.interface import ModelInput

TOKENS, COLUMNS = "tokens", "columns"
SIZES = re.compile(r"[0-9]+([x,][0-9]+)*")
MOST = 1 << 24  # values of a row
ALLOWED = "columns, tokens, tokens:12, 3x224x224, or NAME=age,amount NAME=tokens:job for several"


@dataclass(frozen=True, slots=True)
class AskedInput:
    """One tensor: its ``name`` in the model, whether of ``whole`` numbers, and its ``columns`` by
    name or the ``shape`` of one row; neither: all columns that are left.
    """

    name: str | None
    whole: bool
    columns: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()


def parse_inputs(texts: Sequence[str]) -> tuple[AskedInput, ...]:
    """What ``--input`` says, each time that it is given; raises `OptionError`.

    >>> parse_inputs(["3x8x8"])[0].shape
    (3, 8, 8)
    >>> parse_inputs(["x_num=age,amount", "x_cat=tokens:job"])[1].columns
    ('job',)
    """
    asked = tuple(_parsed(text) for text in texts)
    names = [one.name for one in asked]
    if len(asked) > 1 and (None in names or len(set(names)) < len(names)):
        raise OptionError(f"--input {' --input '.join(texts)}: each needs a name of its own")
    return asked


def _parsed(text: str) -> AskedInput:
    name, equals, rest = text.rpartition("=")
    whole = rest == TOKENS or rest.startswith(f"{TOKENS}:")
    rest = rest.removeprefix(TOKENS).removeprefix(":") if whole else rest
    if rest in ("", COLUMNS) and (whole or not equals):
        return AskedInput(name or None, whole)
    if SIZES.fullmatch(rest):
        shape = tuple(map(int, re.split("[x,]", rest)))
        if min(shape) >= 1 and prod(shape) <= MOST:
            return AskedInput(name or None, whole, shape=shape)
    elif equals and name.isidentifier():
        columns = tuple(part.strip() for part in rest.split(","))
        if all(columns):
            return AskedInput(name, whole, columns)
    raise OptionError(f"--input {text}: allowed: {ALLOWED}")


def place_inputs(
    asked: Sequence[AskedInput], given: Sequence[str], where: str
) -> tuple[tuple[ModelInput, ...], tuple[str, ...]]:
    """The tensors, and the columns in the order in which they fill them; raises `DataError`."""
    named = {name for one in asked for name in one.columns}
    missing = sorted(named - set(given))
    if missing:
        raise DataError(f"{where}: no column '{missing[0]}'; columns: {', '.join(given)}")
    left = [name for name in given if name not in named]
    inputs: list[ModelInput] = []
    order: list[str] = []
    for one in asked:
        count = prod(one.shape) if one.shape else len(left)
        taken = one.columns or tuple(left[:count])
        if one.shape and len(taken) < count:
            raise DataError(
                f"{where}: {len(given)} columns; the model takes {count} for "
                f"{one.name or 'its input'} ({' x '.join(map(str, one.shape))})"
            )
        if not one.columns:
            left = left[count:]
        dtype = "int64" if one.whole else "float32"
        inputs.append(ModelInput(name=one.name, shape=one.shape or (len(taken),), dtype=dtype))
        order += taken
    if left:
        raise DataError(
            f"{where}: {len(given)} columns are left, the model takes {len(order)} ("
            f"{', '.join(map(str, inputs))}); leave the target and others out with --drop"
        )
    return tuple(inputs), tuple(order)
