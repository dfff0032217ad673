"""What a column says of the target by itself: learned from earlier rows, judged on later ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from selfheal_cli.metrics import roc_auc
from selfheal_cli.records import Rows

FEWEST = 2  # rows of each side
TRUSTED = 10  # rows of a value that weigh as much as what is known without it


def tell(rows: Rows, numeric: Sequence[str]) -> Mapping[str, float]:
    """Column to ROC AUC of its values alone, most telling first; 0.5 where nothing can be said.

    The first half of the rows says whether a number tells by being large or small, and which share
    of positives each text has; the figure is that of the second half, so that a column of many
    texts is not flattered, and may be below 0.5. Of K classes the best told against the others
    counts.
    """
    known = rows.y >= 0
    y = rows.y[known]
    half = len(y) // 2
    areas = {}
    for name, values in rows.columns.items():
        held = values[known]
        read = _sizes if name in numeric else _shares
        areas[name] = max(
            (
                area(read(held, y == label, half)[half:], (y == label)[half:])
                for label in np.unique(y)
            ),
            default=0.5,
        )
    return dict(sorted(areas.items(), key=lambda pair: -pair[1]))


def _sizes(
    values: NDArray[np.generic], positive: NDArray[np.bool_], half: int
) -> NDArray[np.float64]:
    """Numbers (n,), turned round where small ones are positive in the first half."""
    sizes = values.astype(np.float64)
    missing = np.isnan(sizes)
    early = sizes[:half][~missing[:half]]
    filled = np.where(missing, early.mean() if len(early) else 0.0, sizes)
    return filled if area(filled[:half], positive[:half]) >= 0.5 else -filled


def _shares(
    values: NDArray[np.generic], positive: NDArray[np.bool_], half: int
) -> NDArray[np.float64]:
    """The share (n,) of positives that a text has in the first half, drawn to that of all."""
    _, codes = np.unique(values.astype(str), return_inverse=True)
    base = positive[:half].mean() if half else 0.0
    size = codes.max(initial=0) + 1
    ones = np.bincount(codes[:half], positive[:half], minlength=size)
    shares: NDArray[np.float64] = (ones + TRUSTED * base) / (
        np.bincount(codes[:half], minlength=size) + TRUSTED
    )
    return shares[codes]


def area(sizes: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """The chance that a positive lies above a negative, ties half; 0.5 for too few rows."""
    ones = int(positive.sum())
    return 0.5 if min(ones, len(positive) - ones) < FEWEST else roc_auc(positive, sizes)
