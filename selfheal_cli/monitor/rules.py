"""Domain rules: ``V14 < -1.5 and amount >= 100 => 1``, parsed, evaluated, held against the network.

A rule is one or more comparisons joined by ``and``, then ``=>`` and the label: 0 or 1, or with K
classes the position of one of them, as the run prints them. Numbers
compare with ``< <= > >= == !=``; quoted text with ``==`` and ``!=``. A name with other characters
than letters, digits, ``_``, ``.`` and ``-`` goes between backticks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import pandas as pd

from selfheal_cli.errors import RuleError
from selfheal_cli.records import Conflicts

if TYPE_CHECKING:
    from selfheal_cli.records import Columns, FloatArray, LabelArray

MAX_LENGTH = 2_000
COMPARE = {
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
    "==": np.equal,
    "!=": np.not_equal,
}
LABEL = re.compile(r"\d{1,2}")
PLAIN_NAME = re.compile(r"[A-Za-z_][\w.\-]*")
TOKEN = re.compile(
    r"\s*(?:(?P<arrow>=>)|(?P<op><=|>=|==|!=|<|>)"
    r"|(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))"
    r"|(?P<text>'[^']*'|\"[^\"]*\")|(?P<quoted>`[^`]+`)|(?P<name>[A-Za-z_][\w.\-]*))"
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """``feature operator value``."""

    feature: str
    operator: str
    value: float | str

    def holds(self, columns: Columns) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """(n,) bool; False where the value is missing."""
        values = columns[self.feature]
        missing = pd.isna(values)
        return np.asarray(COMPARE[self.operator](values, self.value), dtype=bool) & ~missing

    def __str__(self) -> str:
        plain = PLAIN_NAME.fullmatch(self.feature) and self.feature.lower() != "and"
        name = self.feature if plain else f"`{self.feature}`"
        value = _quote(self.value) if isinstance(self.value, str) else repr(self.value)
        return f"{name} {self.operator} {value}"


@dataclass(frozen=True, slots=True)
class Rule:
    """All of ``comparisons``, then ``label``."""

    comparisons: tuple[Comparison, ...]
    label: int

    def fires(self, columns: Columns) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """(n,) bool: the rows that the rule labels."""
        fired: np.ndarray[Any, np.dtype[np.bool_]] = np.logical_and.reduce(
            [comparison.holds(columns) for comparison in self.comparisons]
        )
        return fired

    def __str__(self) -> str:
        return f"{' and '.join(map(str, self.comparisons))} => {self.label}"


@dataclass(frozen=True, slots=True)
class RuleVerdict:
    """What the rules say of rows: ``fired`` (n,) bool and ``label`` (n,), -1 where they abstain.

    Where no rule fires, rules that all give one label imply the other (the article's reading:
    V14 not below -1.5 is normal); rules for both labels abstain.
    """

    fired: np.ndarray[Any, np.dtype[np.bool_]]
    label: LabelArray

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
    """Several rules that vote; a tie goes to the rule named first.

    ``classes`` is how many the target has. ``allow_none``: with no rule left, all rows abstain.
    """

    def __init__(
        self, rules: Sequence[Rule], *, classes: int = 2, allow_none: bool = False
    ) -> None:
        if not rules and not allow_none:
            raise RuleError("no rule given; selfheal needs at least one")
        for rule in rules:
            if rule.label >= classes:
                raise RuleError(
                    f"rule '{rule}': the label {rule.label} is not one of 0 to {classes - 1}"
                )
        self.rules = tuple(rules)
        self.classes = classes
        labels = {rule.label for rule in rules}
        self._implied = 1 - labels.pop() if len(labels) == 1 and classes == 2 else -1

    def judge(self, columns: Columns) -> RuleVerdict:
        """Evaluate every rule on the columns (n,) each."""
        rows = len(next(iter(columns.values())))
        count = len(self.rules)
        votes = np.zeros((rows, self.classes), dtype=np.int64)
        earliest = np.full((rows, self.classes), count)  # place of a label's first rule
        for place, rule in enumerate(self.rules):
            hit = rule.fires(columns)
            earliest[hit & (votes[:, rule.label] == 0), rule.label] = place
            votes[hit, rule.label] += 1
        fired = votes.sum(axis=1) > 0
        ranked = votes * (count + 1) - earliest
        label = np.where(fired, ranked.argmax(axis=1), self._implied)
        return RuleVerdict(fired, label.astype(np.int8))

    def __str__(self) -> str:
        return "; ".join(map(str, self.rules))


def parse_rule(text: str) -> Rule:
    """Parse one rule; raises `RuleError` with the position of the first thing that is wrong.

    >>> print(parse_rule("V14 < -1.5 and kind == 'web' => 1"))
    V14 < -1.5 and kind == 'web' => 1
    """
    if len(text) > MAX_LENGTH:
        raise RuleError(f"rule of {len(text)} characters; at most {MAX_LENGTH} are allowed")
    return _Parser(text).rule()


def check_features(rules: Iterable[Rule], numeric: Sequence[str], text: Sequence[str]) -> None:
    """Raise `RuleError` where a rule names an unknown feature or compares it with another kind."""
    from difflib import get_close_matches

    known = [*numeric, *text]
    for rule in rules:
        for part in rule.comparisons:
            if part.feature not in known:
                near = get_close_matches(part.feature, known, n=1, cutoff=0.0)
                hint = f"did you mean '{near[0]}'? " if near else ""
                raise RuleError(
                    f"rule '{rule}': unknown feature '{part.feature}'; "
                    f"{hint}known: {', '.join(known) or 'none'}"
                )
            if isinstance(part.value, str) != (part.feature in text):
                kind = "text" if part.feature in text else "a number"
                raise RuleError(f"rule '{rule}': '{part.feature}' is {kind}, {part.value!r} is not")


class _Parser:
    """Recursive descent over one line."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def rule(self) -> Rule:
        comparisons = [self._comparison()]
        while True:
            kind, token = self._take("'and' or '=>'")
            if kind == "arrow":
                break
            if (kind, token.lower()) != ("name", "and"):
                self._fail("'and' or '=>'", token)
            comparisons.append(self._comparison())
        kind, label = self._take("the label, such as 0 or 1")
        if kind != "number" or not LABEL.fullmatch(label):
            self._fail("the label, such as 0 or 1", label)
        if self._text[self._at :].strip():
            self._at += len(self._text[self._at :]) - len(self._text[self._at :].lstrip())
            self._fail("the end of the rule", self._text[self._at :], taken=False)
        return Rule(tuple(comparisons), int(label))

    def _comparison(self) -> Comparison:
        kind, name = self._take("a feature name")
        if kind not in ("name", "quoted") or name.lower() == "and":
            self._fail("a feature name", name)
        feature = name[1:-1] if kind == "quoted" else name
        kind, operator = self._take("one of < <= > >= == !=")
        if kind != "op":
            self._fail("one of < <= > >= == !=", operator)
        kind, value = self._take("a number or a quoted text")
        if kind == "number" and np.isfinite(float(value)):
            return Comparison(feature, operator, float(value))
        if kind != "text":
            self._fail("a finite number or a quoted text", value)
        if operator not in ("==", "!="):
            self._fail("a number (text compares with == and != only)", value)
        return Comparison(feature, operator, value[1:-1])

    def _take(self, expected: str) -> tuple[str, str]:
        found = TOKEN.match(self._text, self._at)
        if found is None or found.lastgroup is None:
            rest = self._text[self._at :].strip()
            self._at = len(self._text) - len(self._text[self._at :].lstrip())
            self._fail(expected, rest.split()[0] if rest else "", taken=False)
        self._at = found.end()
        return found.lastgroup, found[found.lastgroup]

    def _fail(self, expected: str, token: str, *, taken: bool = True) -> NoReturn:
        column = self._at - len(token) + 1 if taken else self._at + 1
        found = f"'{token}'" if token else "the end"
        raise RuleError(
            f"rule '{self._text}', position {column}: expected {expected}, found {found}; "
            "write it like: V14 < -1.5 and amount >= 100 => 1"
        )


def _quote(value: str) -> str:
    return f'"{value}"' if "'" in value else f"'{value}'"
