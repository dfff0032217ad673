"""Conditions of other packages, which a rule asks by name: ``late() and amount > 100 => 1``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from selfheal_cli.errors import PartError
from selfheal_cli.installed import made, part_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


class RulePart(Protocol):
    """A condition over rows: a function, or a class without arguments that is called like one.

    A pure function of the columns, each (n,) numbers with NaN, or texts with None.
    """

    def __call__(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
        """(n,) bool: the rows where it is true."""


def ask(name: str, columns: Mapping[str, NDArray[Any]], rows: int) -> NDArray[np.bool_]:
    """Where a condition is true; raises `PartError` where it raises, or says anything else."""
    part = part_of("rule", name)
    locked = {column: values.view() for column, values in columns.items()}
    for values in locked.values():
        values.flags.writeable = False
    try:
        said = np.asarray(made("rule", name)(locked))
    except Exception as exc:
        raise part.failed(str(exc) if isinstance(exc, PartError) else exc) from exc
    if said.dtype != np.bool_ or said.shape != (rows,):
        raise part.failed(f"gave {said.dtype} of shape {said.shape}: ({rows},) bool is needed")
    return said
