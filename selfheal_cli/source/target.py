"""The target of a table: its values, their order as classes, and rows whose label is not there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from math import inf, isfinite
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from selfheal_cli.errors import DataError
from selfheal_cli.source.table_file import as_text
from selfheal_cli.source.values import ABSENT, RowContract, one_text, texts

TRUE_WORDS = ("1", "1.0", "true", "yes", "y", "t", "positive", "pos", "fraud", "up")
MOST_CLASSES = 64
MOST_COUNTED = 1_000  # more values are not told apart: a target of numbers could have millions
MOST_LISTED = 5
ALLOWED = f"2 to {MOST_CLASSES} are allowed, such as 0 and 1 or no and yes"
UNKNOWN = -1  # in `Rows.y`


class Target:
    """What a whole target column held; rows count from 1, below the header."""

    def __init__(
        self,
        where: str,
        name: str,
        *,
        missing_allowed: bool = False,
        place: Callable[[int], str] | None = None,
        contract: RowContract = 2,
    ) -> None:
        self.contract = contract
        self.counts: Counter[str] = Counter()
        self._where, self._name = where, name
        self._place = place or (lambda row: f"{where}: row {row}")
        self._missing_allowed = missing_allowed
        self._first_row: dict[str, int] = {}
        self._first_missing: int | None = None

    def add(self, values: pd.Series[Any], offset: int) -> None:
        """Take the values after the first ``offset`` rows; blanks are missing values too."""
        held = as_labels(values, self.contract)
        missing = held.isna().to_numpy()
        if missing.any():
            self._miss(offset + int(np.flatnonzero(missing)[0]) + 1)
        codes, found = pd.factorize(held)
        counts = np.bincount(codes[codes >= 0], minlength=len(found)).tolist()
        for code, (value, count) in enumerate(zip(found, counts, strict=True)):
            self.counts[value] += count
            if value not in self._first_row:
                self._first_row[value] = offset + int(np.argmax(codes == code)) + 1
        if len(self.counts) > MOST_COUNTED:
            raise self._refused(f"more than {MOST_COUNTED:,}")

    def _miss(self, row: int) -> None:
        if self._first_missing is None or row < self._first_missing:
            self._first_missing = row
        if not self._missing_allowed:
            raise self._missing("every row needs one, unless labels may come later (--labels)")

    def require_classes(self) -> None:
        """Raise `DataError` where there are too few or too many values for classes."""
        words = [value for value in self.counts if value in ABSENT]
        if self.contract == 2 and all(_size(v) < inf for v in self.counts if v not in words):
            for word in words:  # among numbers NA is no class of its own
                del self.counts[word]
                self._miss(self._first_row.pop(word))
        if not 2 <= len(self.counts) <= MOST_CLASSES:
            raise self._refused(str(len(self.counts)))

    def require_trained(self, train_rows: int) -> None:
        """Raise `DataError` unless the first ``train_rows`` rows have labels, and every value."""
        if self._first_missing is not None and self._first_missing <= train_rows:
            raise self._missing(
                f"the first {train_rows} rows train the network and need one: "
                "leave the row out or give a smaller --train-fraction"
            )
        trained = [value for value, row in self._first_row.items() if row <= train_rows]
        if len(trained) < 2:
            raise DataError(
                f"{self._where}: the first {train_rows} rows hold only {listed(trained)} in "
                f"'{self._name}'; training needs every value: give a larger --train-fraction"
            )
        for value, row in self._first_row.items():
            if row > train_rows and self.contract == 2:
                del self.counts[value]  # in the stream it is a label that nobody knows
            elif row > train_rows:
                raise DataError(
                    f"{self._place(row)}, column '{self._name}': {value!r} first occurs here; "
                    f"the {train_rows} rows that train the network hold {listed(trained)}: "
                    "give a larger --train-fraction or leave such rows out"
                )

    def labels(self, positive: str | None) -> tuple[str, ...]:
        """See `order_labels`."""
        if self.contract == 2 and positive is not None:
            positive = one_text(positive)
        return order_labels(self.counts, positive, where=self._where)

    def _missing(self, then: str) -> DataError:
        return DataError(
            f"{self._place(self._first_missing or 1)}, column '{self._name}': "
            f"the target is missing; {then}"
        )

    def _refused(self, count: str) -> DataError:
        names = f" ({listed(self.counts)})" if self.counts else ""
        return DataError(
            f"{self._where}: target '{self._name}' has {count} "
            f"value{'' if count == '1' else 's'}{names}; {ALLOWED}"
        )


def order_labels(values: Counter[str], positive: str | None, *, where: str) -> tuple[str, ...]:
    """The values in the order of the classes; of two, the second is the positive.

    That is the named one, else a word for true, else the rarer value. More than two are sorted,
    numbers by size and texts by alphabet.

    >>> order_labels(Counter({"no": 9, "yes": 1}), None, where="t.csv")
    ('no', 'yes')
    >>> order_labels(Counter({"10": 3, "9": 3, "8": 3}), None, where="t.csv")
    ('8', '9', '10')
    """
    if len(values) > 2:
        if positive is not None:
            raise DataError(
                f"{where}: --positive {positive} is for a target of two values; it has "
                f"{len(values)} ({listed(values)}): leave --positive out"
            )
        return tuple(in_order(values))
    if positive is not None and positive not in values:
        raise DataError(
            f"{where}: '{positive}' is not a value of the target; it has {listed(values)}"
        )
    if positive is None:
        spoken = [value for value in values if value.lower() in TRUE_WORDS]
        positive = spoken[0] if len(spoken) == 1 else min(values, key=lambda v: (values[v], v))
    negative = next(value for value in values if value != positive)
    return negative, positive


def as_labels(values: pd.Series[Any], contract: RowContract = 2) -> pd.Series[str]:
    """Targets (n,) as texts; blanks are missing values too."""
    if contract == 2:
        return pd.Series(texts(values), index=values.index, dtype="str")
    held = as_text(values)
    return held.mask(held == "")


def as_classes(
    values: pd.Series[Any], labels: tuple[str, ...], contract: RowContract = 2
) -> NDArray[np.int8]:
    """Targets (n,) as positions in ``labels``, `UNKNOWN` where a value is missing or not there."""
    places = pd.Index(labels, dtype="str").get_indexer(pd.Index(as_labels(values, contract)))
    return places.astype(np.int8)


def in_order(values: Iterable[str]) -> list[str]:
    """Values by size where all are numbers, else by text."""
    texts = sorted(values)
    sizes = {value: _size(value) for value in texts}
    return sorted(texts, key=sizes.__getitem__) if all(map(isfinite, sizes.values())) else texts


def listed(values: Iterable[str]) -> str:
    """The first few values, and how many more there are."""
    names = in_order(values)
    more = f", and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return ", ".join(repr(name) for name in names[:MOST_LISTED]) + more


def _size(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return inf
