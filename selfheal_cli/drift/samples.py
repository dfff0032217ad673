"""Two samples of values and how far they are apart: numbers, texts, or what is true of a row."""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.special import kolmogorov

from selfheal_cli.drift.monitor import apart, homogeneity
from selfheal_cli.drift.monitors import effect_size

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Values = NDArray[Any]  # float64, object (texts) or bool, none of them missing


def apart_by(first: Values, second: Values) -> tuple[float, float]:
    """Effect and p-value of two samples (n,) and (m,) of a kind; (0, 1) where one is empty.

    The effect is Cohen's h of shares, else the share of rows that would have to move.
    """
    if not (len(first) and len(second)):
        return 0.0, 1.0
    if first.dtype == np.bool_:
        pair = [np.array([int(part.sum()), int((~part).sum())]) for part in (first, second)]
        return effect_size(float(first.mean()), float(second.mean())), homogeneity(*pair)
    if first.dtype == np.object_:
        names, places = np.unique(np.concatenate([first, second]).astype(str), return_inverse=True)
        counts = [
            np.bincount(part, minlength=len(names))
            for part in (places[: len(first)], places[len(first) :])
        ]
        return apart(*counts), homogeneity(*counts)
    return ks_of_values(first, second)


def ks_of_values(first: Floats, second: Floats) -> tuple[float, float]:
    """Kolmogorov-Smirnov distance of numbers (n,) and (m,), and its asymptotic p-value."""
    places = np.concatenate([first, second])
    curves = [np.searchsorted(np.sort(part), places, side="right") / len(part)
              for part in (first, second)]  # fmt: skip
    distance = float(np.abs(curves[0] - curves[1]).max())
    return distance, float(kolmogorov(distance * sqrt(rows_between(len(first), len(second)))))


def rows_between(first: int, second: int) -> float:
    """The rows that a difference of two samples of these sizes is worth."""
    return first * second / max(first + second, 1)


def without_missing(values: NDArray[Any]) -> Values:
    """A column's values (n,) that are there: numbers as float64, texts as they are."""
    present: Values = values[~pd.isna(values)]
    return present if present.dtype == np.object_ else present.astype(np.float64)
