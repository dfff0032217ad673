"""A look at a whole table before anything is written: its size, its kinds, its violations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from math import inf, isfinite
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from selfheal_cli.config_sources import BoundedSettings, RowSettings
from selfheal_cli.errors import DataError
from selfheal_cli.sources.encoding import LARGEST_OF_OLD
from selfheal_cli.sources.first_contract import as_text
from selfheal_cli.sources.identifiers import clocks_of, without_identifiers
from selfheal_cli.sources.inspection import MOST_CLASSES
from selfheal_cli.sources.part_table import PartTable, number_in_file, texts_of
from selfheal_cli.sources.rejects import Rejects
from selfheal_cli.sources.table_file import TableFile, require_column
from selfheal_cli.sources.times import Times
from selfheal_cli.sources.values import (
    ABSENT,
    RowContract,
    as_numbers,
    flags,
    is_plain,
    one_text,
    parsed,
    texts,
)
from selfheal_cli.sources.violation import SchemaViolation, first_of_each, no_label, no_number

TRUE_WORDS = ("1", "1.0", "true", "yes", "y", "t", "positive", "pos", "fraud", "up")
# which rows as selfheal 0.1.0 read them do not know
TRUE_ELSEWHERE = (
    "ja", "j", "wahr", "oui", "vrai", "sí", "si", "sì", "vero", "sim", "tak", "ano", "igen", "да",
    "evet", "是", "はい",
)  # fmt: skip
MOST_COUNTED = 1_000  # more values are not told apart: a target of numbers could have millions
MOST_LISTED = 5
ALLOWED = f"2 to {MOST_CLASSES} are allowed, such as 0 and 1 or no and yes"
UNKNOWN = -1  # in `Rows.y`
NEEDED = "every row needs one, unless labels may come later (--labels)"


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
        most: int = 1,
    ) -> None:
        self.contract = contract
        self._most = most  # rows without a label that are remembered
        self._missing_rows: list[int] = []
        self._rows_of_words: dict[str, list[int]] = {}  # such as NA
        self.counts: Counter[str] = Counter()
        self._where, self._name = where, name
        self._place = place or (lambda row: f"{where}: row {row}")
        self._missing_allowed = missing_allowed
        self._first_row: dict[str, int] = {}

    def add(self, values: pd.Series[Any], offset: int) -> None:
        """Take the values after the first ``offset`` rows; blanks are missing values too."""
        held = as_labels(values, self.contract)
        missing = held.isna().to_numpy()
        self._missing_rows += self._rows(missing, offset, self._missing_rows)
        codes, distinct = pd.factorize(held)
        counts = np.bincount(codes[codes >= 0], minlength=len(distinct)).tolist()
        for code, (value, count) in enumerate(zip(distinct, counts, strict=True)):
            self.counts[value] += count
            if value not in self._first_row:
                self._first_row[value] = offset + int(np.argmax(codes == code)) + 1
            if value in ABSENT:
                rows = self._rows_of_words.setdefault(value, [])
                rows += self._rows(codes == code, offset, rows)
        if len(self.counts) > MOST_COUNTED:
            raise self._refused(f"more than {MOST_COUNTED:,}")

    def _rows(self, chosen: NDArray[np.bool_], offset: int, before: list[int]) -> list[int]:
        """Numbers of the chosen rows, with those ``before`` no more than are remembered."""
        return [offset + int(place) + 1 for place in np.flatnonzero(chosen)][
            : self._most - len(before)
        ]

    def violations(self) -> list[SchemaViolation]:
        """Rows without a label, where each needs one; the first of them."""
        self._take_words_as_missing()
        if self._missing_allowed:
            return []
        reason = f"column '{self._name}': the target is missing; {NEEDED}"
        return [
            SchemaViolation(row, reason, no_label(self._name)) for row in sorted(self._missing_rows)
        ]

    def _take_words_as_missing(self) -> None:
        """Among numbers NA is no class of its own."""
        words = [value for value in self.counts if value in ABSENT]
        if self.contract == 2 and all(_size(v) < inf for v in self.counts if v not in words):
            for word in words:
                del self.counts[word], self._first_row[word]
                self._missing_rows += self._rows_of_words.pop(word)

    def require_classes(self) -> None:
        """Raise `DataError` where there are too few or too many values for classes."""
        self._take_words_as_missing()
        if not 2 <= len(self.counts) <= MOST_CLASSES:
            raise self._refused(str(len(self.counts)))

    def require_trained(self, train_rows: int) -> None:
        """Raise `DataError` unless the first ``train_rows`` rows hold two values, and by contract 1
        a label each.
        """
        first = min(self._missing_rows, default=inf)
        if first <= train_rows and self.contract == 1:
            raise DataError(
                f"{self._place(int(first))}, column '{self._name}': the target is missing; the "
                f"first {train_rows} rows train the network and need one: leave the row out or "
                "give a smaller source.train_fraction"
            )
        trained = [value for value, row in self._first_row.items() if row <= train_rows]
        if len(trained) < 2:
            raise DataError(
                f"{self._where}: the first {train_rows} rows hold only {listed(trained)} in "
                f"'{self._name}'; training needs every value: give a larger source.train_fraction"
            )
        for value, row in self._first_row.items():
            if row > train_rows and self.contract == 2:
                del self.counts[value]  # in the stream it is a label that nobody knows
            elif row > train_rows:
                raise DataError(
                    f"{self._place(row)}, column '{self._name}': {value!r} first occurs here; "
                    f"the {train_rows} rows that train the network hold {listed(trained)}: "
                    "give a larger source.train_fraction or leave such rows out"
                )

    def labels(self, positive: str | None) -> tuple[str, ...]:
        """See `order_labels`."""
        if self.contract == 2 and positive is not None:
            positive = one_text(positive)
        return order_labels(self.counts, positive, where=self._where, contract=self.contract)

    def _refused(self, count: str) -> DataError:
        names = f" ({listed(self.counts)})" if self.counts else ""
        return DataError(
            f"{self._where}: target '{self._name}' has {count} "
            f"value{'' if count == '1' else 's'}{names}; {ALLOWED}"
        )


def order_labels(
    values: Counter[str], positive: str | None, *, where: str, contract: RowContract = 2
) -> tuple[str, ...]:
    """The values in the order of the classes; of two, the second is the positive.

    That is the named one, else a word for true, else the rarer value. More than two are sorted,
    numbers by size and texts by alphabet.

    >>> order_labels(Counter({"no": 9, "yes": 1}), None, where="t.csv")
    ('no', 'yes')
    >>> order_labels(Counter({"ja": 9, "nein": 1}), None, where="t.csv")
    ('nein', 'ja')
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
        words = TRUE_WORDS if contract == 1 else (*TRUE_WORDS, *TRUE_ELSEWHERE)
        spoken = [value for value in values if value.lower() in words]
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


MOST_VIOLATIONS = 0.1  # of a table's rows; where more are, the table is not what it is taken for


@dataclass(frozen=True, slots=True)
class Profile:
    """What the whole ``table`` is: rows, numeric and text features, its target, its times."""

    table: TableFile
    rows: int
    numeric: tuple[str, ...]
    text: tuple[str, ...]
    target: Target
    times: Times | None
    remarks: tuple[str, ...] = ()


@dataclass(slots=True)
class _ColumnTally:
    """What one column held so far; rows count from 1, below the header.

    Of its texts the first ``most`` are remembered.
    """

    most: int
    numbers: int = 0
    texts: int = 0
    words: list[tuple[int, str]] = field(default_factory=list)
    first_infinite: int | None = None

    def read(self, values: pd.Series[Any], offset: int) -> None:
        """Contract 2: a truth value alone makes no column of numbers, and is one among them."""
        numbers, texts = parsed(values)
        truths = flags(values)
        self.numbers += int((~np.isnan(numbers) & ~truths).sum())
        self.texts += int((texts | truths).sum())
        self._remember(values, texts, offset)

    def add(self, values: pd.Series[Any], offset: int) -> None:
        numbers = as_numbers(values)
        present = values.notna().to_numpy()
        text = present & np.isnan(numbers)
        self.numbers += int(present.sum() - text.sum())
        self.texts += int(text.sum())
        self._remember(values, text, offset)
        infinite = np.abs(numbers) > LARGEST_OF_OLD
        if self.first_infinite is None and infinite.any():
            self.first_infinite = offset + int(np.flatnonzero(infinite)[0]) + 1

    def _remember(self, values: pd.Series[Any], texts: NDArray[np.bool_], offset: int) -> None:
        for place in np.flatnonzero(texts)[: self.most - len(self.words)]:
            self.words.append((offset + int(place) + 1, str(values.iloc[place])))


class Kinds:
    """Which features are numbers and which are text; those in ``categorical`` are text."""

    def __init__(
        self,
        table: TableFile,
        features: Sequence[str],
        categorical: Sequence[str],
        most: int = 1,
    ) -> None:
        self._table, self._features = table, features
        self._tallies = {name: _ColumnTally(most) for name in features if name not in categorical}

    def add(self, frame: pd.DataFrame, offset: int) -> None:
        """Take the rows after the first ``offset``; raises `DataError` for an odd type."""
        for name, tally in self._tallies.items():
            _refuse_odd_type(self._table, name, frame[name])
            if self._table.contract == 1:
                tally.add(frame[name], offset)
            else:
                tally.read(frame[name], offset)

    def kinds(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Numeric and text features; a column is numeric when most of its values are numbers."""
        tallies = self._tallies
        numeric = tuple(name for name, tally in tallies.items() if tally.numbers >= tally.texts)
        return numeric, tuple(name for name in self._features if name not in numeric)

    def violations(self) -> list[SchemaViolation]:
        """The texts among numbers; raises `DataError` for an infinity by contract 1."""
        violations = []
        for name in self.kinds()[0]:
            hint = f"correct it, leave it empty, or give --categorical {name} or --drop {name}"
            for row, value in self._tallies[name].words:
                reason = f"column '{name}': {value!r} is not a number"
                violations.append(SchemaViolation(row, reason, no_number(name), hint))
            infinite = self._tallies[name].first_infinite
            if infinite is not None and not self._tallies[name].words:
                raise DataError(
                    f"{self._table.place(infinite)}, column '{name}': an infinite value, or "
                    f"one beyond {LARGEST_OF_OLD:g}; leave it empty or correct it"
                )
        return violations


def profile(table: TableFile, settings: RowSettings, rejects: Rejects) -> Profile:
    """Read the table once, and again without the rows that are not what the others are.

    A column is numeric when most of its values are numbers; then a text in it is a violation, as is
    a row without a target, without a time, or that cannot be read. Few are put aside among
    ``rejects``. Raises `DataError` naming file, row, column and value of the first where they
    are many, or where none may be.
    """
    remarks: tuple[str, ...] = ()
    if settings.drop_identifiers:
        settings, remarks = without_identifiers(table, settings)
    while True:
        profile, violations = _read(table, settings, rejects.most + 1)
        if not violations:
            return replace(profile, remarks=remarks)
        first, may = violations[0], settings.reject_misfits and table.contract == 2
        if not may or len(violations) > MOST_VIOLATIONS * profile.rows:
            raise DataError(first.message(table.place(first.row)))
        table = _without(table, violations, rejects)


def _read(
    table: TableFile, settings: RowSettings, most: int
) -> tuple[Profile, list[SchemaViolation]]:
    """What the table is, and the first thing wrong with each row, of about ``most`` rows."""
    kinds = Kinds(table, _features(table, settings), settings.categorical, most)
    target = Target(
        table.where, settings.target, missing_allowed=settings.unlabelled, place=table.place,
        contract=table.contract, most=most,
    )  # fmt: skip
    times = None
    if isinstance(settings, BoundedSettings) and settings.time is not None:
        times = Times(settings.time, settings.label_time)
    rows, violations = 0, list[SchemaViolation]()
    for frame in table.chunks(None):
        target.add(frame[settings.target], rows)
        if times is not None and len(violations) < most:
            violations += times.check(frame, rows)
        kinds.add(frame, rows)
        rows += len(frame)
    if rows == 0:
        raise DataError(f"{table.where}: no rows below the header{_left_out(table)}")
    broken = [
        SchemaViolation(row, unread.reason, unread.kind, text=unread.text)
        for row, unread in table.broken().items()
    ]
    wrong = first_of_each([*broken, *kinds.violations(), *target.violations(), *violations])
    if not wrong:
        target.require_classes()
    return Profile(table, rows, *kinds.kinds(), target, times), wrong


def _without(
    table: TableFile, violations: Sequence[SchemaViolation], rejects: Rejects
) -> TableFile:
    """The rows of a table but for some, which are put aside; raises where they are too many."""
    rows = [violation.row for violation in violations[: rejects.most + 1]]
    for violation, text in zip(violations, texts_of(table, rows), strict=False):
        number, place = number_in_file(table, violation.row), table.place(violation.row)
        shown = violation.text or text
        rejects.add(place, number, violation.reason, violation.kind, shown)
    return PartTable(table, rows)


def _left_out(table: TableFile) -> str:
    return "".join(f"; {count:,} {reason}" for reason, count in table.notes().items())


def _features(table: TableFile, settings: RowSettings) -> list[str]:
    target = settings.target
    clocks = clocks_of(settings)
    for name in (target, *settings.drop, *settings.categorical, *clocks):
        require_column(table, name)
    if target in settings.drop:
        raise DataError(f"{table.where}: '{target}' is both the target and dropped")
    if target in clocks:
        raise DataError(f"{table.where}: '{target}' is both the target and a time; name another")
    apart = {target, *settings.drop, *clocks}
    features = [name for name in table.columns if name not in apart]
    if not features:
        raise DataError(f"{table.where}: no feature column is left beside the target '{target}'")
    return features


def _refuse_odd_type(table: TableFile, name: str, values: pd.Series[Any]) -> None:
    kinds = pd.api.types
    plain = kinds.is_numeric_dtype(values) or kinds.is_string_dtype(values)
    if not (plain if table.contract == 1 else is_plain(values)):
        held = "nested values" if kinds.is_object_dtype(values) else values.dtype
        raise DataError(
            f"{table.where}: column '{name}' holds {held}; numbers and text are "
            f"supported: give --drop {name} or convert it"
        )
