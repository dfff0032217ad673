"""Domain rules: ``V14 < -1.5 and kind in {'web', 'app'} => 1 @ 0.8``, and how several vote.

The language is in docs/rules.md; `rule_parser` reads it and `conditions` evaluates it. A label is 0
or 1, or with K classes the position of one of them, as the run prints them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from selfheal_cli.errors import RuleError
from selfheal_cli.monitor.conditions import Between, Comparison, Condition, Leaf, Missing, leaves
from selfheal_cli.monitor.rule_parser import SHARES, Where, parse
from selfheal_cli.monitor.rule_table import RuleTable, unknown
from selfheal_cli.records import Conflicts

if TYPE_CHECKING:
    import pandas as pd

    from selfheal_cli.monitor.rule_table import BoolArray
    from selfheal_cli.records import Columns, FloatArray, LabelArray

MAX_RULES = 200


@dataclass(frozen=True, slots=True)
class Rule:
    """Where ``condition`` is true, ``label``; ``confidence`` (0 to 1) is its weight in a vote."""

    condition: Condition
    label: int
    confidence: float = 1.0

    @property
    def leaves(self) -> tuple[Leaf, ...]:
        """Its questions about one feature each, as they are written."""
        return tuple(leaves(self.condition))

    def fires(self, columns: Columns | pd.DataFrame | RuleTable) -> BoolArray:
        """(n,) bool: the rows that the rule labels; never one whose answer is missing.

        Raises `RuleError` for a column that is not there or of the other kind.
        """
        try:
            return self.condition.holds(RuleTable.of(columns))
        except RuleError as exc:
            raise RuleError(f"rule '{self}': {exc}") from exc

    def __str__(self) -> str:
        confidence = "" if self.confidence == 1 else f" @ {self.confidence:g}"
        return f"{self.condition} => {self.label}{confidence}"


@dataclass(frozen=True, slots=True)
class RuleVerdict:
    """What the rules say of rows: ``fired`` (n,) bool where the vote has a winner, and ``label``
    (n,), -1 where they abstain.

    Where a rule that stands alone does not fire, it implies the other of two labels (the article's
    reading: V14 not below -1.5 is normal).
    """

    fired: BoolArray
    label: LabelArray

    @property
    def abstained(self) -> int:
        """Rows that the rules say nothing of: none fires, or the vote is a tie."""
        return int((self.label < 0).sum())

    def conflicts_with(
        self, probabilities: FloatArray, y: LabelArray, probability: float
    ) -> Conflicts:
        """Rows that a rule labels and the network finds improbable (less than ``probability``).

        ``y`` (n,) as far as it is known; -1 counts for nothing.
        """
        if probabilities.ndim == 1:
            given = np.where(self.label == 1, probabilities, 1 - probabilities)
        else:
            given = probabilities[np.arange(len(y)), np.maximum(self.label, 0)]
        rows = self.fired & (given < probability)
        known = y[rows & (y >= 0)]
        return Conflicts(int(rows.sum()), float((known == 1).mean()) if len(known) else 0.0)


class RuleSet:
    """Several rules that vote by confidence; a row that none fires on, or a tie, is abstained on.

    ``classes`` is how many the target has.
    """

    def __init__(self, rules: Sequence[Rule], *, classes: int = 2) -> None:
        if not rules:
            raise RuleError("no rule given; selfheal needs at least one")
        if len(rules) > MAX_RULES:
            raise RuleError(f"{len(rules)} rules; at most {MAX_RULES} are allowed")
        for rule in rules:
            if rule.label >= classes:
                raise RuleError(
                    f"rule '{rule}': the label {rule.label} is not one of 0 to {classes - 1}"
                )
        self.rules = tuple(rules)
        self.classes = classes
        self._implied = 1 - rules[0].label if len(rules) == 1 and classes == 2 else -1

    def with_rules(self, rules: Sequence[Rule]) -> RuleSet:
        """The same set with some rules moved or left out, even all.

        A rule that is the last of several stays one that implies nothing.
        """
        found = copy(self)
        found.rules = tuple(rules)
        found._implied = self._implied if rules else -1
        return found

    def judge(self, columns: Columns | pd.DataFrame) -> RuleVerdict:
        """Evaluate every rule on the columns (n,) each."""
        table = RuleTable(columns)
        votes = np.zeros((self.classes, table.rows), dtype=np.int64)
        for rule in self.rules:
            votes[rule.label, rule.fires(table)] += round(rule.confidence * SHARES)
        most = votes.max(axis=0)
        fired = (most > 0) & ((votes == most).sum(axis=0) == 1)
        abstained = np.where(most > 0, -1, self._implied)
        label = np.where(fired, votes.argmax(axis=0), abstained)
        return RuleVerdict(fired, label.astype(np.int8))

    def __str__(self) -> str:
        return "; ".join(map(str, self.rules))


def parse_rule(text: str, where: Where | None = None) -> Rule:
    """Parse one rule; raises `RuleError` with the position of the first thing that is wrong.

    ``where`` turns an offset into the beginning of that message, for a rule that is in a file.

    >>> print(parse_rule("V14 < -1.5 and kind in {'web', 'app'} => 1 @ 0.8"))
    V14 < -1.5 and kind in {'web', 'app'} => 1 @ 0.8
    """
    return Rule(*parse(text, where))


def check_features(rules: Iterable[Rule], numeric: Sequence[str], text: Sequence[str]) -> None:
    """Raise `RuleError` where a rule names an unknown feature or compares it with another kind."""
    for rule in rules:
        for part in rule.leaves:
            if part.feature not in numeric and part.feature not in text:
                raise RuleError(f"rule '{rule}': {unknown(part.feature, [*numeric, *text])}")
            if isinstance(part, Missing):
                continue
            value = _first_value(part)
            if isinstance(value, str) != (part.feature in text):
                kind = "text" if part.feature in text else "a number"
                raise RuleError(f"rule '{rule}': '{part.feature}' is {kind}, {value!r} is not")


def _first_value(part: Leaf) -> float | str:
    if isinstance(part, Comparison):
        return part.value
    return part.low if isinstance(part, Between) else part.values[0]  # type: ignore[union-attr]
