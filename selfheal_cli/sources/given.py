"""Rows that a program gives: arrays by position, tables by the names of their columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from selfheal_cli.errors import DataError, MissingColumn, one_line

if TYPE_CHECKING:
    from numpy.typing import NDArray


def named_columns(given: Any) -> tuple[str, ...] | None:
    """What a table's columns are called; None for an array, and for a table that only counts them.

    >>> named_columns(pd.DataFrame([[1, 2]], columns=["a", "b"]))
    ('a', 'b')
    """
    if not isinstance(given, pd.DataFrame) or given.columns.equals(pd.RangeIndex(given.shape[1])):
        return None
    return tuple(str(name) for name in given.columns)


def as_array(given: Any, names: Sequence[str] = ()) -> NDArray[Any]:
    """Numbers; of a table the columns ``names``, in this order.

    Raises `DataError` for what is not numbers, and for a table without these columns.
    """
    if hasattr(given, "detach"):  # a tensor, which may want gradients
        given = given.detach().cpu().numpy()
    columns = named_columns(given)
    if columns is not None and isinstance(given, pd.DataFrame):
        given = _ordered(given, columns, names or columns)
    if isinstance(given, pd.DataFrame | pd.Series) and given.isna().to_numpy().any():
        raise DataError("a value is missing; the model takes numbers")
    try:
        array = np.asarray(given)
        # of a table with more than one kind of column numpy makes objects
        array = array.astype(np.float64) if array.dtype == object else array
    except (ValueError, TypeError) as exc:
        raise DataError(f"rows are no numbers of one shape: {one_line(exc)}") from exc
    if array.dtype.kind not in "biuf" or array.ndim == 0:
        raise DataError(f"{array.dtype} of shape {array.shape}: rows of numbers are needed")
    return array


def _ordered(given: pd.DataFrame, columns: Sequence[str], names: Sequence[str]) -> pd.DataFrame:
    missing = [name for name in names if name not in columns]
    twice = [name for name in names if list(columns).count(name) > 1]
    if missing or twice:
        what = f"no column '{missing[0]}'" if missing else f"two columns '{twice[0]}'"
        raise MissingColumn(
            f"the table has {what}; the model takes {', '.join(names)} (columns= names what an "
            "array's are called)"
        )
    return given.set_axis(list(columns), axis=1)[list(names)]
