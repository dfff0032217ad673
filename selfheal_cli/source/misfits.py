"""Rows that are not what the row contract says they must be; looked for in bulk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from selfheal_cli.source.contract import Contract
from selfheal_cli.source.profile import LARGEST
from selfheal_cli.source.table_file import as_numbers
from selfheal_cli.source.target import UNKNOWN, as_classes, as_labels, listed
from selfheal_cli.source.values import RowContract, parsed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfheal_cli.source.ndjson import Object


@dataclass(frozen=True, slots=True)
class Misfit:
    """A row (its place in the batch, from 0), and what is wrong with it."""

    row: int
    reason: str


def misfits(
    contract: Contract,
    target: str,
    labels: tuple[str, ...],
    objects: Sequence[Object],
    frame: pd.DataFrame,
    row_contract: RowContract = 2,
    *,
    unlabelled: bool,
) -> list[Misfit]:
    """The first thing wrong with each row that has one, in the order of the rows.

    ``frame`` holds the same rows; of a number column what is no number is text in it.
    """
    found: dict[int, str] = {}
    required = {column.name for column in contract.columns if not column.optional}
    required |= set() if unlabelled else {target}
    for row, one in enumerate(objects):
        if not required <= one.keys():
            name = min(required - one.keys())
            found[row] = f"column '{name}' is missing"
    for column in contract.columns:
        if column.kind == "number":
            for row, reason in _no_numbers(frame[column.name], row_contract):
                found.setdefault(row, f"column '{column.name}': {reason}")
    for row, reason in _no_labels(frame[target], labels, row_contract, unlabelled=unlabelled):
        found.setdefault(row, f"column '{target}': {reason}")
    return [Misfit(row, found[row]) for row in sorted(found)]


def _no_numbers(values: pd.Series[Any], contract: RowContract) -> list[tuple[int, str]]:
    if contract == 2:
        return [
            (row, f"{values.iloc[row]!r} is not a number") for row in _places(parsed(values)[1])
        ]
    numbers = as_numbers(values)
    strange = values.notna().to_numpy() & np.isnan(numbers)
    texts = [(row, f"{values.iloc[row]!r} is not a number") for row in _places(strange)]
    large = [
        (row, f"{values.iloc[row]} is beyond {LARGEST:g}")
        for row in _places(np.abs(numbers) > LARGEST)
    ]
    return texts + large


def _no_labels(
    values: pd.Series[Any], labels: tuple[str, ...], contract: RowContract, *, unlabelled: bool
) -> list[tuple[int, str]]:
    if contract == 2:  # a label that training did not have is one that nobody knows
        missing, unknown = as_labels(values).isna().to_numpy(), np.zeros(len(values), np.bool_)
    else:
        missing = values.isna().to_numpy()
        unknown = (as_classes(values, labels, 1) == UNKNOWN) & ~missing
    found = [
        (row, f"{values.iloc[row]!r} is not a value that training had; it had {listed(labels)}")
        for row in _places(unknown)
    ]
    if not unlabelled:
        then = "every row needs one, unless labels may come later (--labels)"
        found += [(row, f"the target is missing; {then}") for row in _places(missing)]
    return found


def _places(chosen: NDArray[np.bool_]) -> list[int]:
    return [int(row) for row in np.flatnonzero(chosen)]
