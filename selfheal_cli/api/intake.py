"""What a program gives, read and checked: rows by the names of their columns, labels, ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, prod
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from selfheal_cli.errors import (
    DataError,
    MissingColumn,
    NoRows,
    RepeatedId,
    UnknownClass,
    WrongShape,
)
from selfheal_cli.model.live import unwrapped
from selfheal_cli.model.wrapping import wrap
from selfheal_cli.pipeline.prepare.foreign import SAMPLE, Sample, base_of, several_of
from selfheal_cli.pipeline.prepare.inputs import AskedInput, place_inputs
from selfheal_cli.serve.http.tables import as_key
from selfheal_cli.sources.first_contract import one_text
from selfheal_cli.sources.given import as_array, named_columns

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from selfheal_cli.model.network import SelfHealingNetwork
    from selfheal_cli.records import Base, Columns, FloatArray, LabelArray
    from selfheal_cli.sources.encoding import QuickEncoding
    from selfheal_cli.sources.pushed import Vocabulary

MOST_KEY = 512  # characters of an id
UNKNOWN = -1
FLOAT32 = np.dtype(np.float32)


@dataclass(frozen=True, slots=True)
class Intake:
    """The columns' ``names``, a row's own ``shape``, and the classes' words in their order.

    Errors begin with the name of the argument.
    """

    names: tuple[str, ...]
    shape: tuple[int, ...]
    labels: tuple[str, ...]

    def rows(self, given: Any, argument: str = "x") -> FloatArray:
        """Rows (n, ...) as a table, an array or a list of dictionaries, to float32 (n, d).

        Raises `MissingColumn`, `WrongShape`, and `DataError` for what is no finite number.
        """
        if self._is_ready(given):
            return self._finite(given, argument)
        if isinstance(given, Mapping):
            given = [given]
        if isinstance(given, list) and given and isinstance(given[0], Mapping):
            given = np.stack([self._in_order(row, argument) for row in given])
        try:
            array = as_array(given, self.names)
        except DataError as exc:
            raise type(exc)(f"{argument}: {exc}") from exc
        if array.shape[1:] != self.shape:
            raise WrongShape(
                f"{argument}: rows have shape {array.shape[1:]}, the model takes {self.shape}"
            )
        with np.errstate(over="ignore"):  # what is too large is infinite, and said to be below
            wide = array.reshape(len(array), prod(self.shape))
            # torch warns of memory that nobody may write to, such as that of a table
            rows = np.require(wide, np.float32, ["C", "W"])
        return self._finite(rows, argument)

    def _is_ready(self, given: Any) -> bool:
        """Whether it needs nothing done: for one row that would cost a tenth of a small model."""
        return (
            type(given) is np.ndarray
            and given.dtype is FLOAT32
            and given.ndim == 2
            and given.shape[1:] == self.shape
            and given.flags.carray
        )

    def _finite(self, rows: FloatArray, argument: str) -> FloatArray:
        # one call tells for most rows; a missing value, and a square that is too large, look alike
        if not isfinite(np.vdot(rows, rows)) and np.isinf(rows).any():
            row, place = np.argwhere(np.isinf(rows))[0]
            raise DataError(
                f"{argument}: row {row}, value {place}: {rows[row, place]} is not a finite number"
            )
        return rows

    def inputs(self, rows: FloatArray, quick: QuickEncoding) -> FloatArray:
        """Rows (n, d) as the network takes them."""
        return quick.encoding.filled(rows)

    def columns(self, rows: FloatArray) -> Columns:
        """Rows (n, d) as columns (n,), copied."""
        wide = rows.astype(np.float64)
        return {name: wide[:, place] for place, name in enumerate(self.names)}

    def classes(self, given: Any, rows: int, argument: str = "labels") -> LabelArray:
        """Labels (n,) as positions in the classes, or as their words; -1, None or NaN: unknown.

        Raises `UnknownClass`, and `WrongShape` where there is not one for each row.
        """
        if hasattr(given, "detach"):
            given = given.detach().cpu().numpy()
        y = np.asarray(given)
        if y.shape != (rows,):
            many = y.ndim == 2 and len(y) == rows and y.shape[1] > 1
            why = "; multi-label is not supported, one class a row is needed" if many else ""
            raise WrongShape(
                f"{argument}: labels have shape {y.shape}, {rows} rows need ({rows},){why}"
            )
        if y.dtype.kind in "OUST":
            return self._by_words(y.tolist(), argument)
        if y.dtype.kind == "f":
            y = np.where(np.isnan(y), UNKNOWN, y)
        if y.dtype.kind not in "biuf" or not np.isin(y, np.arange(-1, len(self.labels))).all():
            is_regression = y.dtype.kind == "f" and bool((y != np.floor(y)).any())
            raise self._unknown(sorted(set(y.tolist()))[:5], argument, is_regression)
        return y.astype(np.int8)

    def ids(self, given: ArrayLike, rows: int) -> tuple[str, ...]:
        """One id a row, as text; raises `RepeatedId` and `WrongShape`."""
        listed = np.asarray(given, dtype=object).reshape(-1).tolist()
        if len(listed) != rows:
            raise WrongShape(f"ids: {len(listed)} are given for {rows} rows")
        nothing = next((one for one in listed if pd.isna(one)), "")
        if nothing != "":
            raise DataError(f"ids: {nothing} names no row; give each an id, or leave ids out")
        ids = tuple(map(as_key, listed))
        long = next((one for one in ids if not 0 < len(one) <= MOST_KEY), None)
        if long is not None:
            raise DataError(f"ids: {long[:20]!r} has {len(long)} characters; 1 to {MOST_KEY}")
        if len(set(ids)) < len(ids):
            twice = next(one for one, count in Counter(ids).items() if count > 1)
            raise RepeatedId(f"ids: '{twice}' stands for two rows; each needs its own")
        return ids

    def _in_order(self, row: Mapping[str, Any], argument: str) -> FloatArray:
        missing = next((name for name in self.names if name not in row), None)
        if missing is not None:
            raise MissingColumn(
                f"{argument}: no column '{missing}'; the model takes {', '.join(self.names)}"
            )
        values = [np.nan if row[name] is None else row[name] for name in self.names]
        try:
            return as_array(values).reshape(self.shape)
        except DataError as exc:
            raise DataError(f"{argument}: {exc}") from exc

    def _by_words(self, given: Sequence[Any], argument: str) -> LabelArray:
        words = {name.casefold(): place for place, name in enumerate(self.labels)}
        y = np.full(len(given), UNKNOWN, dtype=np.int8)
        for place, one in enumerate(given):
            if isinstance(one, str):
                if one_text(one).casefold() not in words:
                    raise self._unknown([one], argument)
                y[place] = words[one_text(one).casefold()]
            elif not pd.isna(one):
                if one not in range(-1, len(self.labels)):  # also what fits no integer of numpy's
                    raise self._unknown([one], argument)
                y[place] = int(one)
        return y

    def _unknown(
        self, given: Sequence[Any], argument: str, is_regression: bool = False
    ) -> UnknownClass:
        words = ", ".join(map(repr, self.labels))
        shown = ", ".join(f"{one:.6g}" if isinstance(one, float) else repr(one) for one in given)
        why = "; a target that is a number (regression) is not supported" * is_regression
        return UnknownClass(
            f"{argument}: labels are classes from 0 to {len(self.labels) - 1}, -1 where unknown, "
            f"or the words {words}; given: {shown}{why}"
        )


@dataclass(frozen=True, slots=True)
class ProgramModel:
    """A model that a program hands over, with a network around it, and the rows ``x`` (n, d) that
    say what is normal, of texts the places in the ``vocabulary``.
    """

    network: SelfHealingNetwork
    base: Base
    intake: Intake
    x: NDArray[Any]
    vocabulary: Vocabulary


def live_module(
    module: Any, x: Any, columns: Sequence[str] | None, labels: Sequence[str] | None,
    asked: Sequence[AskedInput], **how: Any,
) -> ProgramModel:  # fmt: skip
    """A torch module; ``how`` it is wrapped, as `wrap` takes it. Where it is ``asked`` for, the
    columns fill several tensors, in their order. Raises `SelfhealError` kinds.
    """
    module = unwrapped(module)  # what is none is told before what is wrong with its rows
    flat, sample = shown(x, columns) if not asked else _placed(x, columns, asked)
    network = wrap(module, sample.rows, inputs=sample.inputs, **how)
    base = base_of(network, sample, labels)
    intake = Intake(sample.names, sample.shape, tuple(base.describe()["labels"]))
    return ProgramModel(network, base, intake, flat, {})


def _placed(
    x: Any, columns: Sequence[str] | None, asked: Sequence[AskedInput]
) -> tuple[FloatArray, Sample]:
    """As `shown`; an array's columns must be in the order of the inputs already."""
    _, sample = shown(x, columns)
    inputs, order = place_inputs(asked, sample.names, "x")
    if order != sample.names and named_columns(x) is None:
        raise DataError(
            f"inputs: an array is taken by position, and its columns are {_few(sample.names)}; "
            f"they fill the inputs in the order {_few(order)}: give x as a table, or its columns so"
        )
    flat, sample = shown(x, order)
    return flat, replace(sample, shape=(len(order),), several=several_of(inputs))


def _few(names: Sequence[str]) -> str:
    return ", ".join((*names[:6], "...") if len(names) > 6 else names)


def require_told_apart(columns: Sequence[str]) -> None:
    """Raise `DataError` for a column that is named twice."""
    twice = next((name for name, count in Counter(columns).items() if count > 1), None)
    if twice is not None:
        raise DataError(f"columns: '{twice}' is there twice; each needs a name of its own")


def shown(x: Any, columns: Sequence[str] | None) -> tuple[FloatArray, Sample]:
    """The rows (n, d) that say what is normal, and whole ones to try the module on."""
    named = tuple(columns or named_columns(x) or ())
    require_told_apart(named)
    try:
        given = as_array(x, named)
    except DataError as exc:
        raise type(exc)(f"x: {exc}") from exc
    shape = given.shape[1:]
    width = int(np.prod(shape))
    if not len(given):
        raise NoRows("x: no rows; some that the module was trained on are needed")
    if named and len(named) != width:
        raise DataError(f"columns: {len(named)} are named, a row has {width} values")
    names = named or tuple(f"x{place}" for place in range(width))
    flat = Intake(names, shape, ()).rows(given)
    whole = flat[np.isfinite(flat).all(axis=1)]
    if not len(whole):
        raise DataError("x: every row misses a value; some whole rows are needed")
    dtype = "int64" if np.issubdtype(given.dtype, np.integer) else "float32"
    return flat, Sample(whole[:SAMPLE], names, shape, dtype)
