"""Rule health: a rule whose firing rate has left the range of its calibration is stale.

A rule's threshold stands for a quantile ("the lowest fifth of V14"). When the feature moves, the
same figure means another quantile, and a rule that fires on most rows gives wrong labels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from selfheal_cli.errors import RuleError
from selfheal_cli.rules.conditions import Between, Comparison, Leaf, RuleTable, mapped
from selfheal_cli.rules.ruleset import Rule

if TYPE_CHECKING:
    from selfheal_cli.records import Columns

STRICT = ("<", ">=")  # a value equal to the threshold lies above the cut; for <= and > below it
INEQUALITIES = (*STRICT, "<=", ">")
POINTS = 0.02  # a rate that is this far from training's matters,
FACTOR = 1.5  # and so does one that is larger or smaller by this factor
FEWEST = 3  # batches before a rule can be stale


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A rule with its firing rate on the training rows.

    ``rate`` is the share of training rows that it fired on and ``sd`` the standard deviation of
    that share from batch to batch of ``batch_size`` rows, over ``batches`` of them. ``quantiles``
    holds for each threshold, in the order in which they are written, the share of training values
    below it; None where there was no value.
    """

    rule: Rule
    rate: float
    sd: float
    batches: int
    batch_size: int
    quantiles: tuple[float | None, ...]

    @property
    def between(self) -> float:
        """Variance of the rate between batches beyond sampling."""
        return max(0.0, self.sd**2 - self.rate * (1 - self.rate) / self.batch_size)


@dataclass(frozen=True, slots=True)
class StaleRule:
    """A rule that fires on ``rate`` of the last ``rows`` rows, ``z`` standard errors away."""

    rule: Rule
    trained_rate: float
    rate: float
    rows: int
    z: float

    def __str__(self) -> str:
        return (
            f"rule '{self.rule}' fires on {self.rate:.1%} of the last {self.rows:,} rows, "
            f"on {self.trained_rate:.1%} in training ({self.z:+.1f} standard errors): it is stale"
        )


class _RuleTally:
    """A rule's counts over training blocks; keeps less than a batch of rows."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self._rows = self._fired = 0
        self._pending = np.empty(0, dtype=bool)
        self._rates: list[float] = []
        self._thresholds = [
            (part.feature, *threshold) for part in rule.leaves for threshold in _thresholds(part)
        ]
        self._below = np.zeros((len(self._thresholds), 2), dtype=np.int64)  # below, present

    def add(self, table: RuleTable, columns: Columns, batch_size: int) -> None:
        fired = self.rule.fires(table)
        self._rows += len(fired)
        self._fired += int(fired.sum())
        self._pending = np.concatenate([self._pending, fired])
        whole = len(self._pending) // batch_size * batch_size
        self._rates += self._pending[:whole].reshape(-1, batch_size).mean(axis=1).tolist()
        self._pending = self._pending[whole:]
        for place, (feature, operator, threshold) in enumerate(self._thresholds):
            values = _present(columns[feature])
            below = values < threshold if operator in STRICT else values <= threshold
            self._below[place] += int(below.sum()), len(values)

    def calibrated(self, batch_size: int) -> Calibrated:
        rate = self._fired / max(self._rows, 1)
        # half a firing more: a rule that never fired in training still has a variance
        smooth = (self._fired + 0.5) / (self._rows + 1)
        sd = sqrt(smooth * (1 - smooth) / batch_size)
        if len(self._rates) > 1:
            sd = max(sd, float(np.std(self._rates, ddof=1)))
        quantiles = tuple(
            int(below) / int(present) if present else None for below, present in self._below
        )
        batches = max(len(self._rates), 1)
        return Calibrated(self.rule, rate, sd, batches, batch_size, quantiles)


def calibrate_rules(
    rules: Sequence[Rule], blocks: Iterable[Columns], batch_size: int
) -> list[Calibrated]:
    """Each rule's firing rate over the training columns, block after block in their order."""
    tallies = [_RuleTally(rule) for rule in rules]
    for columns in blocks:
        table = RuleTable.of(columns)
        for tally in tallies:
            tally.add(table, columns, batch_size)
    return [tally.calibrated(batch_size) for tally in tallies]


class RuleHealth:
    """The rules' firing rates over the last ``window`` batches; keeps no older rows.

    A rule is stale when its rate is more than ``z`` standard errors of the window's mean from
    training's, and 2 percentage points or a factor of 1.5 away.
    """

    def __init__(
        self, calibrated: Sequence[Calibrated], *, window: int = 10, z: float = 4.0
    ) -> None:
        self._calibrated = tuple(calibrated)
        self._z = z
        self._fired: deque[tuple[int, ...]] = deque(maxlen=window)  # rows, then firings a rule
        parts = [part for known in self._calibrated for part in known.rule.leaves]
        names = {part.feature for part in parts if _thresholds(part)}
        self._values: dict[str, deque[NDArray[np.float64]]] = {
            name: deque(maxlen=window) for name in sorted(names)
        }

    def observe(self, columns: Columns | RuleTable) -> None:
        """Take a batch's columns (n,) each; an empty batch changes nothing."""
        table = RuleTable.of(columns)
        if not self._calibrated or not table.rows:
            return
        counted = [table.rows]
        for known in self._calibrated:
            counted.append(int(known.rule.fires(table).sum()))
        self._fired.append(tuple(counted))
        for name, values in self._values.items():
            values.append(_present(table.numbers(name)))

    def stale(self) -> tuple[StaleRule, ...]:
        """The rules whose firing rate has left the range of their calibration."""
        if len(self._fired) < min(FEWEST, self._fired.maxlen or FEWEST):
            return ()
        rows, *fired = np.sum(self._fired, axis=0).tolist()
        stale = []
        for known, hits in zip(self._calibrated, fired, strict=True):
            rule = self._judge(known, hits / rows, rows)
            if rule is not None:
                stale.append(rule)
        return tuple(stale)

    def reanchored(self, rule: Rule) -> Rule:
        """The rule with each threshold moved to the same quantile of the window as in training.

        Equalities and sets keep their values, and so does a threshold beyond all training values,
        which marks no quantile. With one comparison the rule fires as often as in training; with
        several, each of them does. Raises `RuleError` for a rule that was not calibrated.
        """
        known = next((known for known in self._calibrated if known.rule == rule), None)
        if known is None:
            raise RuleError(
                f"rule '{rule}' was not calibrated; calibrated: "
                f"{'; '.join(str(known.rule) for known in self._calibrated) or 'none'}"
            )
        quantiles = iter(known.quantiles)
        return replace(
            rule, condition=mapped(rule.condition, lambda part: self._moved(part, quantiles))
        )

    def _judge(self, known: Calibrated, rate: float, rows: int) -> StaleRule | None:
        batches = len(self._fired)
        # sampling variance at both rates: at training's alone, a rare rule's second hit is a sign
        sampling = (known.rate * (1 - known.rate) + rate * (1 - rate)) / 2
        variance = sampling / rows + known.between / batches + known.sd**2 / known.batches
        z = (rate - known.rate) / sqrt(variance) if variance else 0.0
        low, high = sorted((rate, known.rate))
        matters = high - low >= POINTS or high >= FACTOR * low
        if not matters or abs(z) <= self._z:
            return None
        return StaleRule(known.rule, known.rate, rate, rows, z)

    def _moved(self, part: Leaf, quantiles: Iterator[float | None]) -> Leaf:
        """A leaf with its thresholds moved; takes as many quantiles as it has thresholds."""
        moved = [
            self._threshold(part.feature, operator, value, next(quantiles))
            for operator, value in _thresholds(part)
        ]
        if isinstance(part, Between):
            low, high = moved
            return replace(part, low=low, high=high) if low <= high else part
        if isinstance(part, Comparison) and moved:
            return replace(part, value=moved[0])
        return part

    def _threshold(
        self, feature: str, operator: str, value: float, quantile: float | None
    ) -> float:
        if quantile is None or quantile in (0.0, 1.0):
            return value
        values = np.sort(np.concatenate([*self._values[feature], np.empty(0)]))
        if not len(values):
            return value
        return _cut(values, quantile, strict=operator in STRICT)


def _thresholds(part: Leaf) -> tuple[tuple[str, float], ...]:
    """The inequalities of a leaf, as operator and value."""
    if isinstance(part, Between):
        return (">=", part.low), ("<=", part.high)
    if isinstance(part, Comparison) and part.operator in INEQUALITIES:
        return ((part.operator, float(part.value)),)
    return ()


def _present(values: NDArray[Any]) -> NDArray[np.float64]:
    numbers = values.astype(np.float64)
    return numbers[~np.isnan(numbers)]


def _cut(values: NDArray[np.float64], quantile: float, *, strict: bool) -> float:
    """A value with a share ``quantile`` of the sorted ``values`` (n,) below it.

    Only between two different values can a threshold cut; the nearest such place is taken.
    """
    cuts = np.concatenate([[0], np.flatnonzero(np.diff(values) > 0) + 1, [len(values)]])
    cut = int(cuts[np.abs(cuts - quantile * len(values)).argmin()])
    first, last = float(values[0]), float(values[-1])
    # a cut beyond all values is a step away from them that float32 can still represent
    margin = max(1e-3 * last - 1e-3 * first, 1e-6 * max(abs(first), abs(last)), 1e-30)
    low = float(values[cut - 1]) if cut else first - margin
    high = float(values[cut]) if cut < len(values) else last + margin
    middle = low / 2 + high / 2  # halves first: the sum may overflow
    for digits in range(3, 17):  # as few as a person would write
        short = float(f"{middle:.{digits}g}")
        with np.errstate(over="ignore"):
            single = float(np.float32(short))  # columns may be float32, and compare as such
        if low < single < high and low < short < high:
            return short
    return high if strict else low
