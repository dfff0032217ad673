"""The best rule with one split, for a user who names none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from selfheal_cli.errors import RuleError
from selfheal_cli.monitor.conditions import Comparison
from selfheal_cli.monitor.rules import Rule
from selfheal_cli.records import Rows

MIN_LEAF_SHARE = 0.01
LARGEST = 1e30  # scikit-learn's trees hold float32


def suggest_rule(rows: Rows, numeric: Sequence[str]) -> Rule:
    """The single comparison that best separates positives, as ``feature <= t => 1`` or ``> t``.

    A decision tree of depth one, classes balanced, on labelled training rows; missing values
    count as the column's mean. Raises `RuleError` where no numeric feature splits the rows.
    """
    from sklearn.tree import DecisionTreeClassifier

    if not numeric:
        raise RuleError("no numeric feature to suggest a rule from; give one with --rule")
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
