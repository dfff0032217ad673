"""The best rule with one split, for a user who names none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from selfheal_cli.errors import RuleError
from selfheal_cli.monitor.conditions import Comparison
from selfheal_cli.monitor.rules import Rule
from selfheal_cli.records import Rows

MIN_LEAF_SHARE = 0.01
LARGEST = 1e30  # scikit-learn's trees hold float32


def suggest_rule(rows: Rows, numeric: Sequence[str], text: Sequence[str] = ()) -> Rule:
    """The single comparison that best separates positives, as ``feature <= t => 1`` or ``> t``.

    A decision tree of depth one, classes balanced, on labelled training rows; missing values
    count as the column's mean. Where there are no numbers, the category that the shares of the
    classes differ most in, as ``feature == 'category' => 1``. Raises `RuleError` where no feature
    splits the rows.
    """
    from sklearn.tree import DecisionTreeClassifier

    if not numeric:
        return _by_category(rows, text)
    values = np.column_stack([filled(rows.columns[name]) for name in numeric])
    tree = DecisionTreeClassifier(
        max_depth=1, class_weight="balanced", min_samples_leaf=MIN_LEAF_SHARE, random_state=0
    ).fit(values, rows.y)
    split = tree.tree_
    if split.node_count < 3:
        raise RuleError("no single split tells the classes apart; give a rule with --rule")
    left, right = split.value[1][0], split.value[2][0]
    label, below = 1, bool(left[1] > right[1])
    if len(left) > 2:  # the class that one side has most of, for its size among all rows
        below = bool(left.max() > right.max())
        label = int((left if below else right).argmax())
    place = split.feature[0]
    threshold = shortest(float(split.threshold[0]), values[:, place])
    return Rule(Comparison(numeric[place], "<=" if below else ">", threshold), label)


def _by_category(rows: Rows, text: Sequence[str]) -> Rule:
    sizes = np.maximum(np.bincount(rows.y), 1)
    best, found = 0.0, ("", "", 0)
    for name in text:
        codes, categories = pd.factorize(rows.columns[name], sort=True)
        for code, category in enumerate(categories):
            holding = codes == code
            if not MIN_LEAF_SHARE <= holding.mean() <= 1 - MIN_LEAF_SHARE:
                continue
            shares = np.bincount(rows.y[holding], minlength=len(sizes)) / sizes
            apart = float(shares.max() - shares.min())
            if apart > best:
                label = int(shares.argmax())
                best, found = apart, (name, str(category), label)
    feature, category, label = found
    if not feature:
        raise RuleError("no single category tells the classes apart; give a rule with --rule")
    if len(sizes) == 2 and label == 0:  # rules of two classes speak of the positive
        return Rule(Comparison(feature, "!=", category), 1)
    return Rule(Comparison(feature, "==", category), label)


def shortest(threshold: float, values: np.ndarray[Any, Any]) -> float:
    """The threshold in the fewest digits, four at least, that part the values as it does."""
    parted = values <= threshold
    for digits in range(4, 17):
        short = float(f"{threshold:.{digits}g}")
        if np.array_equal(values <= short, parted):
            return short
    return threshold


def filled(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Numbers (n,) as scikit-learn's trees take them: the mean where one is missing."""
    missing = np.isnan(values)
    filled = np.where(missing, values[~missing].mean() if not missing.all() else 0.0, values)
    return np.clip(filled, -LARGEST, LARGEST)
