"""How much each column tells of the target by itself: one that tells all may be a leak."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from selfheal_cli.records import Rows

LEAK = 0.98  # ROC AUC of a single column from which on it is hardly a coincidence
SUSPECT = 0.8  # from which on a person should look
FEWEST = 2  # rows of each side


def tell(rows: Rows, numeric: Sequence[str]) -> Mapping[str, float]:
    """Column to ROC AUC of its values alone, 0.5 to 1, most telling first.

    Texts count by the share of positives that their value has; of K classes the best told against
    the others counts. All on the rows given, so that a column of many texts is flattered.
    """
    known = rows.y >= 0
    y = rows.y[known]
    found = {}
    for name, values in rows.columns.items():
        found[name] = max(
            (
                _auc(_sizes(values[known], y == label, number=name in numeric), y == label)
                for label in np.unique(y)
            ),
            default=0.5,
        )
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def _sizes(
    values: NDArray[np.generic], positive: NDArray[np.bool_], *, number: bool
) -> NDArray[np.float64]:
    if number:
        sizes = values.astype(np.float64)
        missing = np.isnan(sizes)
        return np.where(missing, sizes[~missing].mean() if not missing.all() else 0.0, sizes)
    _, codes = np.unique(values.astype(str), return_inverse=True)
    return (np.bincount(codes, positive) / np.bincount(codes))[codes]


def _auc(sizes: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """The chance that a positive lies above a negative, ties half; the better direction."""
    ones, zeros = int(positive.sum()), int((~positive).sum())
    if min(ones, zeros) < FEWEST:
        return 0.5
    _, codes, counts = np.unique(sizes, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[codes]
    auc = float((ranks[positive].sum() - ones * (ones + 1) / 2) / (ones * zeros))
    return max(auc, 1 - auc)
