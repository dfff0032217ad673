"""How the texts of a table are written, recognised in its first rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from selfheal_cli.sources.files import CsvTable, open_named
from selfheal_cli.sources.spelling import SpelledTable, Spelling, as_moments, plain_number
from selfheal_cli.sources.table_file import TableFile
from selfheal_cli.sources.text_file import find_encoding
from selfheal_cli.sources.times import as_seconds
from selfheal_cli.sources.values import ABSENT, one_number

LOOKED_AT = 20_000  # rows
MOST_TEXTS = 5_000  # different ones of a column that are tried
NEARLY = 0.9  # of a column's texts that are written one way
SIGNS = ((".", ","), (",", "."), (",", " "), (".", " "), (".", "'"))  # decimal, thousands
# how people and programs write that there is nothing, in a column of numbers or dates
NOTHING = frozenset({
    "-", "--", "---", "\u2013", "?", ".", "n.a.", "n/a", "na", "none", "nil", "null", "(null)",
    "unknown", "missing", "not available", "undefined", "#n/v", "k.a.", "k. a.", "keine angabe",
    "nd", "n.d.",
})  # fmt: skip
DAYS = (
    "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%Y.%m.%d",
    "%d.%m.%y", "%d/%m/%y", "%m/%d/%y", "%d %b %Y", "%d-%b-%Y", "%d-%b-%y", "%d %B %Y",
    "%b %d, %Y", "%B %d, %Y",
)  # fmt: skip
HOURS = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p")
FORMATS = tuple("".join(pair) for pair in product(DAYS, HOURS))


@dataclass(frozen=True, slots=True)
class Recognised:
    """A spelling, and what it was recognised by: column to a text that stands in it."""

    spelling: Spelling
    numbers: Mapping[str, str]
    dates: Mapping[str, tuple[str, str]]  # format, and a text
    missing: Mapping[str, str]
    doubts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FoundTable:
    """A file that nobody has described: as it is ``written``, how, and as it ``reads``."""

    written: TableFile
    encoding: str | None
    recognised: Recognised

    @property
    def reads(self) -> TableFile:
        """Its numbers and dates as such."""
        spelling = self.recognised.spelling
        return SpelledTable(self.written, spelling) if spelling else self.written


def open_found(
    path: Path,
    separator: str | None = None,
    encoding: str | None = None,
    told: Spelling | None = None,
) -> FoundTable:
    """Open a file, and find out what was not ``told`` of how it is written."""
    encoding = encoding or (find_encoding(path) if path.is_file() else None)
    table = open_named(path, separator, encoding=encoding)
    separator_there = table.separator if isinstance(table, CsvTable) else None
    return FoundTable(table, encoding, recognise(table, told or Spelling(), separator_there))


def recognise(table: TableFile, told: Spelling, separator: str | None = None) -> Recognised:
    """What the first rows show; what was ``told`` is not asked again.

    Numbers are written one way in the whole table. Where columns contradict each other nothing is
    said of them but a doubt.
    """
    frames = [pd.DataFrame(columns=table.columns), *_first(table)]
    frame = pd.concat(frames[1:] or frames, ignore_index=True)
    columns = {name: texts for name in frame.columns if (texts := _texts(frame[name]))}
    dates, doubts = ({}, ()) if told.dates else _dates(frame, columns)
    left = {name: texts for name, texts in columns.items() if name not in dates}
    spelling, written = told, dict[str, str]()
    if told.decimal is None:
        signs, written, more = _signs(left, separator)
        doubts += more
        if signs is not None:
            spelling = replace(spelling, decimal=signs[0], thousands=signs[1])
    missing = {} if told.missing else _missing(left, dates, spelling)
    return Recognised(
        replace(
            spelling,
            dates=told.dates or tuple(dict.fromkeys(form for form, _ in dates.values())),
            missing=told.missing or tuple(dict.fromkeys(missing.values())),
        ),
        written,
        dates,
        missing,
        doubts,
    )


def _first(table: TableFile) -> Iterator[pd.DataFrame]:
    rows = 0
    for frame in table.chunks(None):
        yield frame
        rows += len(frame)
        if rows >= LOOKED_AT:
            return


def _texts(values: pd.Series[Any]) -> list[str]:
    """The different texts of a column, as they first come; none of a column of no texts."""
    distinct = (one.strip() for one in values.drop_duplicates() if isinstance(one, str))
    return [one for one in dict.fromkeys(distinct) if one not in ABSENT][:MOST_TEXTS]


@dataclass(frozen=True, slots=True)
class _Fit:
    """Columns that are numbers if written with these signs, and one that would be misread."""

    signs: tuple[str, str]
    columns: tuple[str, ...]
    against: str | None

    @classmethod
    def of(cls, signs: tuple[str, str], columns: Mapping[str, Sequence[str]]) -> _Fit:
        plain = [name for name, texts in columns.items() if _share(texts, one_number) >= NEARLY]
        written = (
            name for name, texts in columns.items()
            if name not in plain and _share(texts, lambda one: plain_number(one, *signs)) >= NEARLY
        )  # fmt: skip
        misread = (name for name in plain if _misread(columns[name], signs))
        return cls(signs, tuple(written), next(misread, None))


def _signs(
    columns: Mapping[str, Sequence[str]], separator: str | None
) -> tuple[tuple[str, str | None] | None, dict[str, str], tuple[str, ...]]:
    """Decimal and thousands, the columns that are written with them, and what is in doubt."""
    ranked = sorted(SIGNS, key=lambda pair: pair[0] == ",", reverse=separator == ";")
    fits = [fit for fit in (_Fit.of(signs, columns) for signs in ranked) if fit.columns]
    possible = [fit for fit in fits if fit.against is None]
    if not possible:
        return None, {}, tuple(_contradiction(fit, columns) for fit in fits[:1])
    best = max(possible, key=lambda fit: len(fit.columns))
    texts = [one for name in best.columns for one in columns[name]]
    odd = next((one for one in texts if _ambiguous(one, best, possible)), None)
    doubts = () if odd is None else (
        f"'{odd}' is read as {plain_number(odd, *best.signs)}; where that is wrong, --decimal "
        "says the decimal sign",
    )  # fmt: skip
    decimal, thousands = best.signs
    grouped = any(thousands in one for one in texts)
    shown = {name: _telling(columns[name]) for name in best.columns}
    return (decimal, thousands if grouped else None), shown, doubts


def _contradiction(fit: _Fit, columns: Mapping[str, Sequence[str]]) -> str:
    name = fit.columns[0]
    return (
        f"'{name}' is written '{_telling(columns[name])}' and stays a text: '{fit.against}' would "
        "be misread with it, and one decimal sign holds for all columns"
    )


def _ambiguous(text: str, best: _Fit, possible: Sequence[_Fit]) -> bool:
    """Whether signs that fit as many columns read a text as another number."""
    read = plain_number(text, *best.signs)
    others = (plain_number(text, *one.signs) for one in possible if one.columns == best.columns)
    return any(float(other) != float(read) for other in others if other and read)


def _share(texts: Sequence[str], read: Any) -> float:
    return sum(read(one) is not None for one in texts) / len(texts)


def _misread(texts: Sequence[str], signs: tuple[str, str]) -> bool:
    """Whether a number as programs write it would become another one."""
    for one in texts:
        known, read = one_number(one), plain_number(one, *signs)
        if known is not None and read is not None and float(read) != known:
            return True
    return False


def _telling(texts: Sequence[str]) -> str:
    """A text that shows how numbers are written."""
    return next((one for one in texts if one_number(one) is None), texts[0])


def _dates(
    frame: pd.DataFrame, columns: Mapping[str, Sequence[str]]
) -> tuple[dict[str, tuple[str, str]], tuple[str, ...]]:
    """Columns of dates that are not ISO 8601: format and a text; and what is in doubt.

    Where day and month could be either, the order in which the rows stand decides.
    """
    known: dict[str, tuple[str, str]] = {}
    doubts: tuple[str, ...] = ()
    for name, texts in columns.items():
        if len(texts[0]) < 6 or _share(texts[:50], one_number) > 0:
            continue
        if not np.isnan(as_seconds(pd.Series(texts[:50], dtype="object"))).any():
            continue
        forms = [form for form in FORMATS if _are(texts[:50], form) and _are(texts, form)]
        rising = [form for form in forms if _never_falls(frame[name], form)]
        if not forms:
            continue
        form = (rising or forms)[0]
        known[name] = form, texts[0]
        if len(rising or forms) > 1:
            doubts += (f"'{texts[0]}' in '{name}' is taken for {form}, and could be "
                       f"{(rising or forms)[1]}",)  # fmt: skip
    return known, doubts


def _are(texts: Sequence[str], form: str) -> bool:
    moments = as_moments(pd.Series(texts, dtype="object"), form)
    return bool(moments.notna().mean() >= NEARLY)


def _never_falls(values: pd.Series[Any], form: str) -> bool:
    moments = as_moments(values.astype("object"), form).dropna()
    return bool(moments.is_monotonic_increasing) and moments.nunique() > 1


def _missing(
    columns: Mapping[str, Sequence[str]],
    dates: Mapping[str, tuple[str, str]],
    spelling: Spelling,
) -> dict[str, str]:
    """Columns of numbers in which a word for nothing stands, with that word."""
    words = {}
    for name, texts in columns.items():
        odd = [one for one in texts if one_number(spelling.one(one)) is None]
        if odd and len(odd) <= (1 - NEARLY) * len(texts):
            word = next((one for one in odd if one.lower() in NOTHING), None)
            if word is not None:
                words[name] = word
    return words
