"""Texts by row contract 1, which versions and runs of selfheal 0.1.0 keep."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

WHOLE = re.compile(r"^([+-]?\d+)\.0+$")


def as_text(values: pd.Series[Any]) -> pd.Series[str]:
    """Values as stripped text, whole numbers without a fraction: 1.0 and 1 are one category."""
    codes, unique = pd.factorize(values)  # a category is read once, not in each row
    names = pd.Series([one_text(value) for value in unique], dtype="str")
    return pd.Series(names.reindex(codes).to_numpy(), index=values.index, dtype="str")


def one_text(value: object) -> str:
    """What `as_text` makes of one value.

    >>> one_text(1.0), one_text(" 1 ")
    ('1', '1')
    """
    return WHOLE.sub(r"\1", str(value).strip())
