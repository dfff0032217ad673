"""What a value means, whichever way it came: a number, a text, or missing.

The table is in docs/sources.md. It is row contract 2; versions and runs of selfheal 0.1.0 keep
contract 1, which each way had for itself (`first_contract.as_text`, pandas' reading of numbers).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from math import inf, isfinite, nan
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Mask = NDArray[np.bool_]

RowContract = Literal[1, 2]
LARGEST = float(np.finfo(np.float32).max)  # of a network's inputs
ABSENT = (
    "", "NA", "N/A", "n/a", "<NA>", "#N/A", "#NA", "#N/A N/A", "NaN", "nan", "-NaN", "-nan",
    "NaT", "NULL", "null", "None", "1.#IND", "1.#QNAN", "-1.#IND", "-1.#QNAN",
)  # fmt: skip
FLAGS = {"true": 1.0, "false": 0.0}
DECIMAL = re.compile(r"[+-]?\d+\.\d*")
MOMENT = re.compile(
    r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?\s?(Z|[+-]\d\d(:?\d\d)?)?)?", re.ASCII
)
_WORDS = pa.array(ABSENT)


def parsed(values: pd.Series[Any]) -> tuple[Floats, Mask]:
    """Numbers (n,), NaN where there is none; and where (n,) a value is there and is no number."""
    nothing = np.zeros(len(values), dtype=np.bool_)
    kinds = pd.api.types
    if kinds.is_numeric_dtype(values) or kinds.is_bool_dtype(values):
        return values.to_numpy(dtype=np.float64, na_value=nan), nothing
    if isinstance(values.dtype, pd.StringDtype):
        floats = _by_arrow(values)
        if floats is not None:
            return floats, nothing
    numbers = np.full(len(values), nan)
    texts = np.zeros(len(values), dtype=np.bool_)
    for place, number in enumerate(_each(values, one_number)):
        if number is None:
            texts[place] = True
        else:
            numbers[place] = number
    return numbers, texts


def numbers(values: pd.Series[Any]) -> Floats:
    """Numbers (n,), NaN where a value is missing; raises ValueError for a text that is none."""
    floats, texts = parsed(values)
    if texts.any():
        raise ValueError(f"{values.iloc[int(np.argmax(texts))]!r} is not a number")
    return floats


def as_numbers(values: pd.Series[Any]) -> Floats:
    """Numbers as float64; NaN where a value is missing or no number."""
    return pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)


def texts(values: pd.Series[Any]) -> NDArray[Any]:
    """Texts (n,), None where a value is missing; the same value is one text, however it came."""
    strings = np.empty(len(values), dtype=object)
    strings[:] = list(_each(values, one_text))
    return strings


def finite(values: Floats, largest: float = LARGEST) -> Floats:
    """The same numbers, those that no network's input holds missing."""
    beyond = np.abs(values) > largest
    return np.where(beyond, nan, values) if beyond.any() else values


def flags(values: pd.Series[Any]) -> Mask:
    """Where (n,) a value is true or false: a number where numbers are, and none by itself."""
    if pd.api.types.is_bool_dtype(values):
        return values.notna().to_numpy()
    if pd.api.types.is_numeric_dtype(values):
        return np.zeros(len(values), dtype=np.bool_)
    return np.fromiter(_each(values, _is_flag), dtype=np.bool_, count=len(values))


def one_number(value: Any) -> float | None:
    """A value as a number, NaN where it is missing; None for what is no number.

    >>> one_number(" 1e3 "), one_number(True), one_number("NA"), one_number("1,5")
    (1000.0, 1.0, nan, None)
    """
    if isinstance(value, str):
        return _read_number(value.strip())
    if _is_missing(value):
        return nan
    if not isinstance(value, bool | int | float | Decimal | np.number | np.bool_):
        return None
    try:
        return float(value)
    except OverflowError:  # a whole number that no float holds
        return inf if value > 0 else -inf


def one_text(value: Any) -> str | None:
    """A value as text; None where it is missing.

    >>> one_text(1.0), one_text(" 1.50"), one_text(True), one_text("NA"), one_text("")
    ('1', '1.5', 'True', 'NA', None)
    >>> one_text("2026-01-31T00:00:00"), one_text("2026-01-31 08:30:00+01:00")
    ('2026-01-31', '2026-01-31T07:30:00Z')
    """
    if _is_missing(value):
        return None
    for kind, read in _TEXTS:
        if isinstance(value, kind):
            return read(value) or None
    return _plain_text(str(value)) or None


def without_halves(text: str) -> str:
    """A text that is Unicode: half of a surrogate pair becomes U+FFFD.

    >>> without_halves("u\\ud83d") == "u\\ufffd"
    True
    """
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _plain_text(value: str) -> str:
    text = without_halves(value.strip())
    if not text:
        return ""
    if text.lower() in FLAGS:
        return text.capitalize()
    if text[0].isdigit() or text[0] in "+-":
        if MOMENT.fullmatch(text):
            return _read_moment(text)
        if DECIMAL.fullmatch(text):
            text = text.rstrip("0").rstrip(".")
        return "0" if text in ("-0", "+0") else text
    return text


def _read_number(text: str) -> float | None:
    if text in ABSENT:
        return nan
    if "_" in text:  # Python reads it as a separator of thousands
        return None
    try:
        return float(text)
    except ValueError:
        return FLAGS.get(text.lower())


def _of_float(value: float) -> str:
    if not isfinite(value):
        return ""
    return str(int(value)) if value.is_integer() else repr(float(value))


def _of_decimal(value: Decimal) -> str:
    return _plain_text(format(value, "f")) if value.is_finite() else ""


def _read_moment(text: str) -> str:
    try:
        return _moment(datetime.fromisoformat(text))
    except ValueError:  # no such day, or no such hour
        return text


def _moment(value: datetime) -> str:
    """ISO 8601 to the microsecond; with a zone it is UTC, and midnight without one is the day."""
    plain = value.to_pydatetime(warn=False) if isinstance(value, pd.Timestamp) else value
    if plain.tzinfo is not None:
        return plain.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"
    return plain.date().isoformat() if plain.time() == time() else plain.isoformat()


def _is_missing(value: Any) -> bool:
    if value is None or value is pd.NA or value is pd.NaT:
        return True
    if isinstance(value, Decimal):
        return value.is_nan()
    return isinstance(value, float | np.generic) and bool(value != value)  # noqa: PLR0124


def _is_flag(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().lower() in FLAGS
    return isinstance(value, bool | np.bool_)


def _each(values: pd.Series[Any], read: Callable[[Any], Any]) -> Iterable[Any]:
    """What is read of each value; a value that comes again is read once."""
    known: dict[tuple[type, Any], Any] = {}
    for value in objects(values):
        try:
            key = (type(value), value)
            if key not in known:
                known[key] = read(value)
            yield known[key]
        except TypeError:  # a list, or another value that is no key
            yield read(value)


def objects(values: pd.Series[Any]) -> Sequence[Any]:
    """The values (n,) as Python's own."""
    if isinstance(values.dtype, pd.ArrowDtype):
        return list(pa.array(values).to_pylist())
    return list(values.astype("object"))


def _by_arrow(values: pd.Series[Any]) -> Floats | None:
    """Texts as numbers in one step; None where one of them is none at first sight."""
    given = pc.utf8_trim_whitespace(pa.array(values, from_pandas=True))
    words = _WORDS.cast(given.type)
    given = pc.if_else(pc.is_in(given, value_set=words), pa.scalar(None, given.type), given)
    try:
        floats = pc.cast(given, pa.float64())
    except pa.ArrowInvalid:
        return None
    return np.asarray(floats.to_numpy(zero_copy_only=False), dtype=np.float64)


def is_plain(values: pd.Series[Any]) -> bool:
    """Whether a column holds numbers, texts, truth values or dates, and nothing nested."""
    kinds = pd.api.types
    if isinstance(values.dtype, pd.CategoricalDtype):
        return is_plain(values.cat.categories.to_series())
    if kinds.is_numeric_dtype(values):
        return not kinds.is_complex_dtype(values)
    if kinds.is_bool_dtype(values) or kinds.is_datetime64_any_dtype(values):
        return True
    if isinstance(values.dtype, pd.StringDtype):
        return True
    allowed = str | bool | int | float | Decimal | date | time | np.number | np.bool_
    return all(isinstance(value, allowed) or _is_missing(value) for value in objects(values))


# a truth value is a whole number too, and a moment a date: the narrower kind comes first
_TEXTS: tuple[tuple[Any, Callable[[Any], str]], ...] = (
    (str, _plain_text),
    (bool | np.bool_, lambda value: str(bool(value))),
    (int | np.integer, lambda value: str(int(value))),
    (float | np.floating, _of_float),
    (Decimal, _of_decimal),
    (datetime, _moment),
    (np.datetime64, lambda value: _moment(pd.Timestamp(value))),
    (date | time, lambda value: value.isoformat()),
    (bytes, lambda value: _plain_text(value.decode("utf-8", "replace"))),
)
