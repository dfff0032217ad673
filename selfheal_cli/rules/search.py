"""Suggests short rules from labelled rows: paths of a decision tree that hold on later rows too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from selfheal_cli.errors import RuleError
from selfheal_cli.records import Rows
from selfheal_cli.rules.check import Counts, count
from selfheal_cli.rules.conditions import And, Comparison, Condition, In, IsMissing, Not, RuleTable
from selfheal_cli.rules.ruleset import Rule

if TYPE_CHECKING:
    from selfheal_cli.records import Columns, LabelArray
    from selfheal_cli.rules.conditions import BoolArray


MIN_LEAF_SHARE = 0.01
LARGEST = 1e30  # scikit-learn's trees compute in float32
FEWEST = 30  # rows that a rule must fire on, of those to learn from and of those held out
ODDS = 2.0  # its odds of being right are at least so many times those of firing anywhere
CONFIDENCE_Z = 1.96  # and the 95 % lower bound of its precision lies above the base rate
MOST_CATEGORIES, LONGEST_CATEGORY = 30, 40
SMOOTHING = 10  # rows of the base rate that each category starts with
OVERLAP = 0.5  # a rule that fires mostly where better ones do is left out
MISSING_SHARE = 0.01


def suggest_rule(rows: Rows, numeric: Sequence[str], text: Sequence[str] = ()) -> Rule:
    """The single comparison that best separates positives, as ``feature <= t => 1`` or ``> t``.

    A decision tree of depth one, classes balanced, on labelled training rows; missing values
    count as the column's mean. Without numeric features, the category in whose share the classes
    differ most, as ``feature == 'category' => 1``. Raises `RuleError` where no feature splits the
    rows.
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
    if len(left) > 2:  # the class with the largest balanced share on one side
        below = bool(left.max() > right.max())
        label = int((left if below else right).argmax())
    place = split.feature[0]
    threshold = shortest(float(split.threshold[0]), values[:, place])
    return Rule(Comparison(numeric[place], "<=" if below else ">", threshold), label)


def _by_category(rows: Rows, text: Sequence[str]) -> Rule:
    sizes = np.maximum(np.bincount(rows.y), 1)
    best, choice = 0.0, ("", "", 0)
    for name in text:
        codes, categories = pd.factorize(rows.columns[name], sort=True)
        for code, category in enumerate(categories):
            matching = codes == code
            if not MIN_LEAF_SHARE <= matching.mean() <= 1 - MIN_LEAF_SHARE:
                continue
            shares = np.bincount(rows.y[matching], minlength=len(sizes)) / sizes
            difference = float(shares.max() - shares.min())
            if difference > best:
                label = int(shares.argmax())
                best, choice = difference, (name, str(category), label)
    feature, category, label = choice
    if not feature:
        raise RuleError("no single category tells the classes apart; give a rule with --rule")
    if len(sizes) == 2 and label == 0:  # of two classes, rules label the positive
        return Rule(Comparison(feature, "!=", category), 1)
    return Rule(Comparison(feature, "==", category), label)


def shortest(threshold: float, values: np.ndarray[Any, Any]) -> float:
    """The threshold in the fewest digits, four at least, that split the values in the same way."""
    below = values <= threshold
    for digits in range(4, 17):
        short = float(f"{threshold:.{digits}g}")
        if np.array_equal(values <= short, below):
            return short
    return threshold


def filled(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Numbers (n,) for scikit-learn's trees: finite, with the mean where one is missing."""
    missing = np.isnan(values)
    filled = np.where(missing, values[~missing].mean() if not missing.all() else 0.0, values)
    return np.clip(filled, -LARGEST, LARGEST)


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A rule with its counts on the rows that it was learned from, and on later ones."""

    rule: Rule
    learned: Counts
    held_out: Counts


@dataclass(frozen=True, slots=True)
class _Feature:
    """A column as numbers ``values`` (n,) for a tree, and what its splits mean.

    ``categories`` of a text in the order of their rate; ``values`` are then positions in it.
    """

    name: str
    values: NDArray[Any]
    kind: str  # number, text or missing
    categories: tuple[str, ...] = ()

    def conditions(self, low: float, high: float) -> list[Condition]:
        """``low < value <= high`` as conditions; none where that holds no category."""
        if self.kind == "missing":
            absent = IsMissing(self.name)
            return [absent if low > -np.inf else Not(absent)]
        if self.kind == "text":
            chosen = [c for place, c in enumerate(self.categories) if low < place <= high]
            if len(chosen) == 1:
                return [Comparison(self.name, "==", chosen[0])]
            return [In(self.name, tuple(sorted(chosen)))] if chosen else []
        bounds: list[Condition] = []
        if low > -np.inf:
            bounds.append(Comparison(self.name, ">", shortest(low, self.values)))
        if high < np.inf:
            bounds.append(Comparison(self.name, "<=", shortest(high, self.values)))
        return bounds


def suggest_rules(
    columns: Columns,
    numeric: Sequence[str],
    text: Sequence[str],
    y: LabelArray,
    *,
    max_rules: int = 5,
    depth: int = 3,
    held_out: float = 0.3,
) -> tuple[Suggestion, ...]:
    """Rules of up to ``depth`` splits, the most useful first; ``y`` (n,), -1 where unknown.

    The rows are in time order. The last ``held_out`` share of them is not learned from: a rule is
    left out unless it holds there too, and its confidence is its precision there. Raises
    `RuleError` where there are too few rows or only one label.
    """
    cut = len(y) - int(held_out * len(y))
    known = y[:cut] >= 0
    if known.sum() < 2 * FEWEST or (y[cut:] >= 0).sum() < FEWEST:
        raise RuleError(
            f"{int((y >= 0).sum())} labelled rows are too few to suggest rules from: at least "
            f"{2 * FEWEST} to learn from and {FEWEST} held out are needed"
        )
    early = {name: columns[name][:cut][known] for name in (*numeric, *text)}
    tables = RuleTable(early), RuleTable({name: columns[name][cut:] for name in early})
    labels = y[:cut][known], y[cut:]
    if len(np.unique(labels[0])) < 2:
        raise RuleError("the rows to learn from hold one label only; give more rows")
    candidates: dict[str, Suggestion] = {}
    for label in np.unique(labels[0]).tolist():
        features = _features(early, numeric, text, labels[0] == label)
        for path in _paths(features, labels[0] == label, depth):
            rule = _shortened(Rule(_joined(path), label), path, tables[0], labels[0])
            learned = count(rule.fires(tables[0]), labels[0], label)
            if str(rule) not in candidates and _holds(learned):
                judged = count(rule.fires(tables[1]), labels[1], label)
                candidates[str(rule)] = Suggestion(rule, learned, judged)
    holding = [suggestion for suggestion in candidates.values() if _holds(suggestion.held_out)]
    # equal gains are ordered by text, so that the same rows give the same rules
    holding.sort(key=lambda suggestion: (-_gain(suggestion.learned), str(suggestion.rule)))
    return tuple(map(_with_confidence, _distinct(holding, tables[0], max_rules)))


def lower_bound(right: int, of: int, z: float = CONFIDENCE_Z) -> float:
    """Lower bound of the share ``right / of`` (Wilson 1927).

    >>> round(lower_bound(9, 10), 3)
    0.596
    """
    share = right / of
    spread = z * np.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return float((share + z * z / (2 * of) - spread) / (1 + z * z / of))


def _holds(counts: Counts) -> bool:
    """Whether a rule is better than chance, by much and beyond doubt."""
    base, precision = counts.base_rate, counts.precision
    if counts.judged < FEWEST or base is None or precision is None or not 0 < base < 1:
        return False
    better = precision * (1 - base) >= ODDS * base * (1 - precision)
    return better and lower_bound(counts.right, counts.judged) > base


def _gain(counts: Counts) -> float:
    """Rows of its label that it fires on, less those of firing as often at random, per row."""
    return counts.coverage * ((counts.precision or 0.0) - (counts.base_rate or 0.0))


def _features(
    columns: Columns, numeric: Sequence[str], text: Sequence[str], positive: BoolArray
) -> list[_Feature]:
    table = RuleTable(columns)
    features = [_Feature(name, filled(columns[name]), "number") for name in numeric]
    for name in text:
        categories = _by_rate(columns[name], positive)
        places = {category: place for place, category in enumerate(categories)}
        values = np.array([places.get(value, np.nan) for value in columns[name]])
        features.append(_Feature(name, filled(values), "text", categories))
    for name in (*numeric, *text):
        missing = table.missing(name)
        if missing.mean() >= MISSING_SHARE:
            features.append(_Feature(name, missing.astype(np.float64), "missing"))
    return features


def _by_rate(values: NDArray[Any], positive: BoolArray) -> tuple[str, ...]:
    """The frequent categories, by rate of positives.

    In this order the best split into two sets of categories is one threshold (Breiman et al. 1984).
    """
    present = [value for value in values if isinstance(value, str)]
    counts = Counter(value for value in present if len(value) <= LONGEST_CATEGORY)
    frequent = [c for c, rows in counts.most_common(MOST_CATEGORIES) if rows >= FEWEST]
    base = float(positive.mean())
    hits = Counter(values[positive].tolist())
    rates = {c: (hits[c] + SMOOTHING * base) / (counts[c] + SMOOTHING) for c in frequent}
    return tuple(sorted(frequent, key=lambda c: (rates[c], c)))


def _paths(
    features: Sequence[_Feature], positive: BoolArray, depth: int
) -> Iterator[list[Condition]]:
    """The conditions on the way to each node of a decision tree, except the root."""
    from sklearn.tree import DecisionTreeClassifier

    if not features:
        return
    tree = DecisionTreeClassifier(
        max_depth=depth,
        class_weight="balanced",
        min_samples_leaf=max(FEWEST, int(MIN_LEAF_SHARE * len(positive))),
        random_state=0,
    )
    nodes = tree.fit(np.column_stack([feature.values for feature in features]), positive).tree_
    # several splits on one feature are kept as one interval, which reads as one condition
    waiting: list[tuple[int, dict[int, tuple[float, float]]]] = [(0, {})]
    while waiting:
        node, bounds = waiting.pop()
        if bounds:
            path = [features[place].conditions(*limits) for place, limits in bounds.items()]
            if all(path):
                yield [condition for conditions in path for condition in conditions]
        if nodes.children_left[node] < 0:
            continue
        place, at = int(nodes.feature[node]), float(nodes.threshold[node])
        low, high = bounds.get(place, (-np.inf, np.inf))
        waiting.append((nodes.children_left[node], bounds | {place: (low, min(high, at))}))
        waiting.append((nodes.children_right[node], bounds | {place: (max(low, at), high)}))


def _shortened(rule: Rule, path: list[Condition], table: RuleTable, y: LabelArray) -> Rule:
    """The rule without the conditions that gain nothing on the rows that it was learned from."""
    kept = list(path)
    best = _gain(count(rule.fires(table), y, rule.label))
    for condition in path:
        rest = [other for other in kept if other is not condition]
        if not rest:
            break
        shorter = Rule(_joined(rest), rule.label)
        counts = count(shorter.fires(table), y, rule.label)
        if _gain(counts) >= best and _holds(counts):
            kept, rule, best = rest, shorter, _gain(counts)
    return rule


def _joined(conditions: list[Condition]) -> Condition:
    return conditions[0] if len(conditions) == 1 else And(tuple(conditions))


def _distinct(ranked: list[Suggestion], table: RuleTable, most: int) -> list[Suggestion]:
    """The first ``most`` that each fire mostly where none before does."""
    chosen: list[Suggestion] = []
    covered = np.zeros(table.rows, dtype=bool)
    for suggestion in ranked:
        fired = suggestion.rule.fires(table)
        if len(chosen) < most and (fired & covered).sum() <= OVERLAP * fired.sum():
            chosen.append(suggestion)
            covered |= fired
    return chosen


def _with_confidence(suggestion: Suggestion) -> Suggestion:
    confidence = max(0.01, round(suggestion.held_out.precision or 0.0, 2))
    return replace(suggestion, rule=replace(suggestion.rule, confidence=confidence))
