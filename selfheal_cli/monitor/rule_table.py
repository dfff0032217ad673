"""Rows as rules read them: whole columns, each looked through once however many rules ask."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from selfheal_cli.errors import RuleError

if TYPE_CHECKING:
    from selfheal_cli.records import Columns

    BoolArray = NDArray[np.bool_]

NUMBERS = "fiub"  # numpy's kinds of dtype
LISTED = 20


class RuleTable:
    """Columns (n,) by name: numbers with NaN, or texts with None or NaN where one is missing."""

    def __init__(self, columns: Columns | pd.DataFrame) -> None:
        self._columns = columns
        self._texts: dict[str, tuple[NDArray[np.intp], list[Any]]] = {}
        if isinstance(columns, pd.DataFrame):
            self.rows = len(columns)
        else:
            self.rows = len(next(iter(columns.values()))) if columns else 0

    @classmethod
    def of(cls, columns: Columns | pd.DataFrame | RuleTable) -> RuleTable:
        """``columns`` as a table; one that is a table already keeps what it has found out."""
        return columns if isinstance(columns, RuleTable) else cls(columns)

    def numbers(self, name: str) -> NDArray[Any]:
        """The (n,) numbers of a column as they are stored; raises `RuleError` for a text column."""
        values = self._values(name)
        if values.dtype.kind not in NUMBERS:
            raise RuleError(f"'{name}' is text; compare it with quoted text, such as {name} == 'a'")
        return values

    def where_text(self, name: str, wanted: Callable[[Any], bool]) -> BoolArray:
        """(n,) bool: rows whose text is ``wanted``; False where it is missing.

        Raises `RuleError` for a column of numbers. Each different text is asked for once.
        """
        if self._values(name).dtype.kind in NUMBERS:
            raise RuleError(f"'{name}' is a number; compare it with numbers, such as {name} > 1")
        codes, texts = self._coded(name)
        asked: BoolArray = np.array([*map(wanted, texts), False])
        found: BoolArray = asked[codes]  # the code of a missing text is -1
        return found

    def missing(self, name: str) -> BoolArray:
        """(n,) bool: rows without a value."""
        values = self._values(name)
        if values.dtype.kind == "f":
            absent: BoolArray = np.isnan(values)
            return absent
        if values.dtype.kind in NUMBERS:
            return np.zeros(len(values), dtype=bool)
        return self._coded(name)[0] < 0

    def _coded(self, name: str) -> tuple[NDArray[np.intp], list[Any]]:
        if name not in self._texts:
            codes, texts = pd.factorize(self._values(name))
            self._texts[name] = codes, list(texts)
        return self._texts[name]

    def _values(self, name: str) -> NDArray[Any]:
        if name not in self._columns:
            raise RuleError(unknown(name, [str(known) for known in self._columns]))
        column: Any = self._columns[name]
        if not isinstance(column, pd.Series):
            return np.asarray(column)
        if pd.api.types.is_extension_array_dtype(column.dtype) and (
            pd.api.types.is_numeric_dtype(column.dtype)
        ):
            return column.to_numpy(dtype=np.float64, na_value=np.nan)
        return column.to_numpy()


def unknown(name: str, known: list[str]) -> str:
    """``unknown feature 'x'; did you mean 'y'? known: ...``."""
    near = get_close_matches(name, known, n=1, cutoff=0.0)
    hint = f"did you mean '{near[0]}'? " if near else ""
    more = f", and {len(known) - LISTED} more" if len(known) > LISTED else ""
    return f"unknown feature '{name}'; {hint}known: {', '.join(known[:LISTED]) or 'none'}{more}"
