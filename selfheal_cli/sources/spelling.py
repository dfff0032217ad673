"""Numbers, dates and missing values as people write them, read as `values` has them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from selfheal_cli.config_sources import BoundedSettings
from selfheal_cli.sources.sorted_table import SortedTable
from selfheal_cli.sources.table_file import Broken, TableFile, require_column
from selfheal_cli.sources.values import ABSENT, numbers, objects

SPACES = " \u00a0\u202f"  # in Swiss, French and Polish numbers any of the three
APART = {" ": f"[{SPACES}]", "'": "['\u2019]", ".": r"\.", ",": ","}
MONEY = r"(?:[$€£¥₹₽₩฿₺₴₪₫₱]|(?:EUR|USD|GBP|CHF|JPY|CAD|AUD|SEK|NOK|DKK|PLN|CZK|kr|zł)\.?)"
NUMBER = (
    rf"(?P<sign>[-+\u2212]?)(?:{MONEY}[{SPACES}]?)?(?P<inner>[-+\u2212]?)(?P<digits>%s)"
    rf"(?:[{SPACES}]?(?:%%|{MONEY}))?"
)


@dataclass(frozen=True, slots=True)
class Spelling:
    """How the texts of a table are written.

    With ``decimal``, a text that is a number in a person's hand becomes that number: signs of
    currency and per cent are left out, so that 12 % is 12, and so is what separates ``thousands``.
    A text in one of ``dates`` (as `strptime` has formats; the first that fits) becomes ISO 8601. A
    text in ``missing`` is a missing value. Everything else stays as it is.
    """

    decimal: str | None = None
    thousands: str | None = None
    dates: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.decimal or self.dates or self.missing)

    def read(self, values: pd.Series[Any]) -> pd.Series[Any]:
        """A column (n,) with its texts as `values` reads them.

        >>> written = pd.Series(["1.234,50 €", "-", "x"])
        >>> Spelling(",", ".", missing=("-",)).read(written).dropna().tolist()
        ['1234.50', 'x']
        """
        kinds = pd.api.types
        if not (kinds.is_object_dtype(values) or isinstance(values.dtype, pd.StringDtype)):
            return values
        held = objects(values)
        written = {value for value in held if isinstance(value, str)}
        dates = self._dates(written) if self.dates else {}
        plain = {text: dates.get(text) or self.one(text) for text in written}
        if all(text == other for text, other in plain.items()):
            return values
        again = [plain[one] if isinstance(one, str) else one for one in held]
        return pd.Series(again, index=values.index, name=values.name, dtype=values.dtype)

    def one(self, text: str) -> str | None:
        """A text but for dates; None for a missing value."""
        bare = text.strip()
        if bare in self.missing:
            return None
        if self.decimal is None or bare in ABSENT:
            return text
        return plain_number(bare, self.decimal, self.thousands) or text

    def _dates(self, written: set[str]) -> dict[str, str]:
        """Of texts that are dates, how ISO 8601 writes them."""
        read: dict[str, str] = {}
        for form in self.dates:
            left = pd.Series([text for text in written if text not in read], dtype="object")
            moments = as_moments(left, form)
            for text, moment in zip(left, moments, strict=True):
                if moment is not pd.NaT:
                    read[text] = (
                        moment.isoformat() if "%H" in form or "%I" in form else str(moment.date())
                    )
        return read


def as_moments(texts: pd.Series[Any], form: str) -> pd.Series[Any]:
    """Texts (n,) that have a format as moments; NaT for those that have another."""
    zoned = "%z" in form
    return pd.to_datetime(texts.str.strip(), format=form, errors="coerce", utc=zoned)


def plain_number(text: str, decimal: str, thousands: str | None) -> str | None:
    """A number as Python reads it; None for a text that is none.

    >>> plain_number("€ 1,234.56", ".", ","), plain_number("12,5 %", ",", None)
    ('1234.56', '12.5')
    >>> plain_number("(1 200,00)", ",", " "), plain_number("1,23,4", ".", ",")
    ('-1200.00', None)
    """
    owed = text.startswith("(") and text.endswith(")")  # as accountants write what is below zero
    match = _pattern(decimal, thousands).fullmatch(text[1:-1].strip() if owed else text)
    if match is None:
        return None
    digits = re.sub(APART[thousands], "", match["digits"]) if thousands else match["digits"]
    below = owed or bool({"-", "\u2212"} & {match["sign"], match["inner"]})
    return f"{'-' if below else ''}{digits.replace(decimal, '.')}"


def _pattern(decimal: str, thousands: str | None) -> re.Pattern[str]:
    key = (decimal, thousands)
    if key not in _PATTERNS:
        grouped = rf"\d{{1,3}}(?:{APART[thousands]}\d{{3}})+|" if thousands else ""
        digits = rf"(?:{grouped}\d+)(?:{re.escape(decimal)}\d+)?"
        _PATTERNS[key] = re.compile(NUMBER % digits, re.ASCII)
    return _PATTERNS[key]


_PATTERNS: dict[tuple[str, str | None], re.Pattern[str]] = {}


def as_told(table: TableFile, settings: BoundedSettings) -> TableFile:
    """A table in the order, and its texts in the spelling, that its settings name."""
    spelling = Spelling(
        settings.decimal, settings.thousands, settings.date_format, settings.missing_values
    )
    read = SpelledTable(table, spelling) if spelling else table
    if settings.sort_by is None:
        return read
    require_column(table, settings.sort_by)
    return SortedTable(read, settings.sort_by)


class SpelledTable:
    """A `TableFile` whose texts are read by a `Spelling`."""

    def __init__(self, table: TableFile, spelling: Spelling) -> None:
        self._table, self._spelling = table, spelling
        self.where, self.columns, self.contract = table.where, table.columns, table.contract

    def place(self, row: int) -> str:
        """Where the row is found, for messages."""
        return self._table.place(row)

    def keep(self, path: Path) -> None:
        """Write all of it to a file, as it is written."""
        self._table.keep(path)

    def chunks(self, numeric: Sequence[str] | None, skip: int = 0) -> Iterator[pd.DataFrame]:
        """Frames of rows, as in `TableFile.chunks`."""
        for frame in self._table.chunks(None, skip):
            read = {name: self._spelling.read(frame[name]) for name in frame.columns}
            as_numbers = {name: numbers(read[name]) for name in numeric or ()}
            yield pd.DataFrame(read | as_numbers, index=frame.index)

    def notes(self) -> dict[str, int]:
        """Counts of rows that are left out, by reason."""
        return self._table.notes()

    def broken(self) -> Mapping[int, Broken]:
        """As `TableFile.broken`."""
        return self._table.broken()
