"""Short rules learned from labelled rows: the paths of a decision tree that hold on later rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
    best, choice = 0.0, ("", "", 0)
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
                best, choice = apart, (name, str(category), label)
    feature, category, label = choice
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


FEWEST = 30  # rows that a rule must fire on, in either part
ODDS = 2.0  # its odds of being right are at least so many times those of firing anywhere
SURE = 1.96  # and its precision lies above the base rate with this many standard errors
MOST_CATEGORIES, LONGEST_CATEGORY = 30, 40
SMOOTHING = 10  # rows of the base rate that each category starts with
OVERLAP = 0.5  # a rule that mostly fires where chosen ones do is left out
MISSING_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A rule and how it did: on the rows it was learned from, and on later ones."""

    rule: Rule
    learned: Counts
    held_out: Counts


@dataclass(frozen=True, slots=True)
class _Feature:
    """A column as a tree takes it (n,) and what its splits mean.

    ``categories`` of a text in the order of their rate; ``values`` are then positions in it.
    """

    name: str
    values: NDArray[Any]
    kind: str  # number, text or missing
    categories: tuple[str, ...] = ()

    def question(self, low: float, high: float) -> list[Condition]:
        """``low < value <= high`` in the language."""
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

    The last ``held_out`` of the rows, which are in time order, only judge: a rule is left out
    unless it holds there too. Its confidence is its precision on them. Raises `RuleError` where
    there are too few rows or only one label.
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
    ranked = sorted(candidates.values(), key=lambda one: (-_gain(one.learned), str(one.rule)))
    chosen = _apart([one for one in ranked if _holds(one.held_out)], tables[0], max_rules)
    return tuple(_confident(one) for one in chosen)


def lower_bound(right: int, of: int, z: float = SURE) -> float:
    """Wilson's lower bound of a share.

    >>> round(lower_bound(9, 10), 3)
    0.596
    """
    share = right / of
    spread = z * np.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return float((share + z * z / (2 * of) - spread) / (1 + z * z / of))


def _holds(counts: Counts) -> bool:
    base, precision = counts.base_rate, counts.precision
    if counts.judged < FEWEST or base is None or precision is None or not 0 < base < 1:
        return False
    better = precision * (1 - base) >= ODDS * base * (1 - precision)
    return better and lower_bound(counts.right, counts.judged) > base


def _gain(counts: Counts) -> float:
    """Rows of its label that it finds beyond what firing anywhere as often would, per row."""
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
    """The frequent categories in the order of their rate of positives, so that a split is a set."""
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
    """The questions on the way to each node of the tree, but the root."""
    from sklearn.tree import DecisionTreeClassifier

    if not features:
        return
    tree = DecisionTreeClassifier(
        max_depth=depth,
        class_weight="balanced",
        min_samples_leaf=max(FEWEST, int(MIN_LEAF_SHARE * len(positive))),
        random_state=0,
    )
    nodes = tree.fit(np.column_stack([one.values for one in features]), positive).tree_
    waiting: list[tuple[int, dict[int, tuple[float, float]]]] = [(0, {})]
    while waiting:
        node, bounds = waiting.pop()
        if bounds:
            asked = [features[place].question(*limits) for place, limits in bounds.items()]
            if all(asked):
                yield [part for parts in asked for part in parts]
        if nodes.children_left[node] < 0:
            continue
        place, at = int(nodes.feature[node]), float(nodes.threshold[node])
        low, high = bounds.get(place, (-np.inf, np.inf))
        waiting.append((nodes.children_left[node], bounds | {place: (low, min(high, at))}))
        waiting.append((nodes.children_right[node], bounds | {place: (max(low, at), high)}))


def _shortened(rule: Rule, path: list[Condition], table: RuleTable, y: LabelArray) -> Rule:
    """Without the questions that gain nothing on the rows that it was learned from."""
    parts = list(path)
    best = _gain(count(rule.fires(table), y, rule.label))
    for part in path:
        rest = [other for other in parts if other is not part]
        if not rest:
            break
        shorter = Rule(_joined(rest), rule.label)
        gain = _gain(count(shorter.fires(table), y, rule.label))
        if gain >= best and _holds(count(shorter.fires(table), y, rule.label)):
            parts, rule, best = rest, shorter, gain
    return rule


def _joined(parts: list[Condition]) -> Condition:
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def _apart(ranked: list[Suggestion], table: RuleTable, most: int) -> list[Suggestion]:
    """The first ones that each fire mostly where none before does."""
    chosen: list[Suggestion] = []
    covered = np.zeros(table.rows, dtype=bool)
    for one in ranked:
        fired = one.rule.fires(table)
        if len(chosen) < most and (fired & covered).sum() <= OVERLAP * fired.sum():
            chosen.append(one)
            covered |= fired
    return chosen


def _confident(one: Suggestion) -> Suggestion:
    confidence = max(0.01, round(one.held_out.precision or 0.0, 2))
    return Suggestion(
        Rule(one.rule.condition, one.rule.label, confidence), one.learned, one.held_out
    )
