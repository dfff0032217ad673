"""Domain rules: ``V14 < -1.5 and kind in {'web', 'app'} => 1 @ 0.8``, their vote, and their file.

The language is in docs/rules.md; `parser` reads it and `conditions` evaluates it. A label is 0 or
1, or with K classes the position of one of them, as the run prints them. A file of rules is YAML
that is read node by node, so that each error names its line, and no tag can make an object.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from selfheal_cli.errors import RuleError, one_line
from selfheal_cli.records import Conflicts
from selfheal_cli.rules.conditions import (
    Between,
    Comparison,
    Condition,
    IsMissing,
    Leaf,
    RuleTable,
    leaves,
    unknown,
)
from selfheal_cli.rules.parser import MAX_LENGTH, SHARES, Where, parse

if TYPE_CHECKING:
    import pandas as pd

    from selfheal_cli.records import Columns, FloatArray, LabelArray
    from selfheal_cli.rules.conditions import BoolArray


MAX_RULES = 200
BREAKS = re.compile("[\x85\u2028\u2029]")  # YAML takes them for ends of a line, and folds them
MAX_BYTES = 1 << 20
LONGEST_NAME = 80
KEYS = ("name", "rule", "owner", "note", "confidence")
REQUIRED = ("name", "rule")
EXAMPLE = "write it like: - {name: late, rule: 'hours > 24 => 1', owner: ops, note: why}"


@dataclass(frozen=True, slots=True)
class Rule:
    """Where ``condition`` is true, ``label``; ``confidence`` (0 to 1) is its weight in a vote."""

    condition: Condition
    label: int
    confidence: float = 1.0

    @property
    def leaves(self) -> tuple[Leaf, ...]:
        """Its comparisons of one feature each, in the order in which they are written."""
        return tuple(leaves(self.condition))

    def fires(self, columns: Columns | pd.DataFrame | RuleTable) -> BoolArray:
        """(n,) bool: the rows that the rule labels; never one where the condition is unknown.

        Raises `RuleError` for a column that is not there or of the other kind.
        """
        try:
            table = columns if isinstance(columns, RuleTable) else RuleTable(columns)
            return self.condition.holds(table)
        except RuleError as exc:
            raise RuleError(f"rule '{self}': {exc}") from exc

    def __str__(self) -> str:
        confidence = "" if self.confidence == 1 else f" @ {self.confidence:g}"
        return f"{self.condition} => {self.label}{confidence}"


@dataclass(frozen=True, slots=True)
class RuleVerdict:
    """The rules' vote on n rows: ``fired`` (n,) bool where it has a winner, and ``label`` (n,), -1
    where they abstain.

    Where a single rule does not fire, it implies the other of two labels (the article's reading:
    V14 not below -1.5 is normal).
    """

    fired: BoolArray
    label: LabelArray

    @property
    def abstained(self) -> int:
        """Number of rows without a label by the rules: none fires, or the vote is a tie."""
        return int((self.label < 0).sum())

    def conflicts_with(
        self, probabilities: FloatArray, y: LabelArray, probability: float
    ) -> Conflicts:
        """Rows whose label by the rules has less than ``probability`` by the network.

        ``probabilities`` (n,) or (n, K); ``y`` (n,), -1 where unknown, gives the share of true
        positives among them.
        """
        if probabilities.ndim == 1:
            of_label = np.where(self.label == 1, probabilities, 1 - probabilities)
        else:
            of_label = probabilities[np.arange(len(y)), np.maximum(self.label, 0)]
        rows = self.fired & (of_label < probability)
        known = y[rows & (y >= 0)]
        return Conflicts(int(rows.sum()), float((known == 1).mean()) if len(known) else 0.0)


class RuleSet:
    """Rules that vote by confidence; they abstain where none fires, and on a tie.

    ``classes`` is how many the target has. Raises `RuleError` without rules, with too many, or
    with a label that is no class.
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
        """The same set with some rules changed or left out, even all.

        A rule that is left of several implies no other label where it does not fire.
        """
        changed = copy(self)
        changed.rules = tuple(rules)
        changed._implied = self._implied if rules else -1
        return changed

    def judge(self, columns: Columns | pd.DataFrame | RuleTable) -> RuleVerdict:
        """The rules' vote on columns of (n,) each."""
        table = RuleTable.of(columns)
        # whole numbers add up exactly, so that a tie is one whatever the order of the rules
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
    """Parse one rule; raises `RuleError` with the position of the first error.

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
            if isinstance(part, IsMissing):
                continue
            value = _first_value(part)
            if isinstance(value, str) != (part.feature in text):
                kind = "text" if part.feature in text else "a number"
                raise RuleError(f"rule '{rule}': '{part.feature}' is {kind}, {value!r} is not")


def _first_value(part: Leaf) -> float | str:
    if isinstance(part, Comparison):
        return part.value
    return part.low if isinstance(part, Between) else part.values[0]  # type: ignore[union-attr]


@dataclass(frozen=True, slots=True)
class NamedRule:
    """A rule with its name in a file; ``owner`` and ``note`` may be empty."""

    name: str
    rule: Rule
    owner: str = ""
    note: str = ""


def read_rules(path: Path) -> tuple[NamedRule, ...]:
    """The rules of a file in their order.

    Raises `RuleError` with file, line, and the wrong key or column.
    """
    text = _text(path)
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise RuleError(f"{path}{place}: not YAML ({exc.problem or exc.context})") from exc
    except (yaml.YAMLError, RecursionError) as exc:
        raise RuleError(f"{path}: not YAML ({one_line(exc)})") from exc
    if not isinstance(root, SequenceNode) or not root.value:
        raise RuleError(f"{path}: expected a list of rules; {EXAMPLE}")
    if len(root.value) > MAX_RULES:
        raise RuleError(f"{path}: {len(root.value)} rules; at most {MAX_RULES} are allowed")
    reader = _RuleReader(path, text.splitlines())
    by_name: dict[str, NamedRule] = {}
    for node in root.value:
        named = reader.rule(node)
        if named.name in by_name:
            raise RuleError(f"{reader.at(node)}: name '{named.name}' was used before")
        by_name[named.name] = named
    return tuple(by_name.values())


def write_rules(rules: Sequence[NamedRule]) -> str:
    """The rules as the text of a file, which reads back as the same rules."""
    entries = []
    for named in rules:
        entry = {"name": named.name, "rule": str(named.rule)}
        entry |= {"owner": named.owner} if named.owner else {}
        entries.append(entry | ({"note": named.note} if named.note else {}))
    text = yaml.safe_dump(entries, sort_keys=False, allow_unicode=True, width=MAX_LENGTH)
    if BREAKS.search(text):
        return yaml.safe_dump(entries, sort_keys=False, width=MAX_LENGTH)
    return text


class _RuleReader:
    """Turns the YAML nodes of one file into rules."""

    def __init__(self, path: Path, lines: list[str]) -> None:
        self._path, self._lines = path, lines

    def at(self, node: Node) -> str:
        """``file, line N``."""
        return f"{self._path}, line {node.start_mark.line + 1}"

    def rule(self, node: Node) -> NamedRule:
        values = self._entries(node)
        for key in REQUIRED:
            if key not in values:
                raise RuleError(f"{self.at(node)}: key '{key}' is missing; {EXAMPLE}")
        texts = {key: value.value.strip() for key, value in values.items()}
        if not 0 < len(texts["name"]) <= LONGEST_NAME:
            raise RuleError(
                f"{self.at(values['name'])}: key 'name': 1 to {LONGEST_NAME} characters are allowed"
            )
        rule = parse_rule(values["rule"].value, lambda at: self._place(values["rule"], at))
        if "confidence" in values:
            rule = self._weighed(rule, values["confidence"])
        if len(str(rule)) > MAX_LENGTH:
            raise RuleError(
                f"{self.at(values['rule'])}: written out, the rule has {len(str(rule))} "
                f"characters; at most {MAX_LENGTH} are allowed"
            )
        return NamedRule(texts["name"], rule, texts.get("owner", ""), texts.get("note", ""))

    def _entries(self, node: Node) -> dict[str, ScalarNode]:
        if not isinstance(node, MappingNode):
            raise RuleError(f"{self.at(node)}: expected keys with values; {EXAMPLE}")
        nodes: dict[str, ScalarNode] = {}
        for key, value in node.value:
            name = str(key.value)
            if not isinstance(key, ScalarNode) or name not in KEYS:
                near = get_close_matches(name, KEYS, n=1)
                hint = f"did you mean '{near[0]}'? " if near else ""
                raise RuleError(
                    f"{self.at(key)}: unknown key '{name[:LONGEST_NAME]}'; {hint}"
                    f"known: {', '.join(KEYS)}"
                )
            if name in nodes:
                raise RuleError(f"{self.at(key)}: key '{name}' is given twice")
            if not isinstance(value, ScalarNode) or value.tag == "tag:yaml.org,2002:null":
                what = "a number" if name == "confidence" else "text"
                raise RuleError(f"{self.at(value)}: key '{name}': expected {what}")
            nodes[name] = value
        return nodes

    def _weighed(self, rule: Rule, node: ScalarNode) -> Rule:
        where = f"{self.at(node)}: key 'confidence'"
        if rule.confidence != 1:
            raise RuleError(f"{where}: the rule itself says @ {rule.confidence:g}; give one")
        try:
            share = float(node.value)
        except ValueError:
            share = 0.0
        if not 0 < share <= 1 or round(share * SHARES) / SHARES != share:
            raise RuleError(
                f"{where} = {node.value!r}: above 0 and up to 1 is allowed, with at most four "
                "decimals"
            )
        return replace(rule, confidence=share)

    def _place(self, node: ScalarNode, at: int) -> str:
        """Line and column in the file of an offset in the rule, as exactly as YAML allows."""
        before = node.value[:at]
        row, start = before.count("\n"), before.rfind("\n") + 1
        written = node.value[start:].split("\n", 1)[0]
        line = node.start_mark.line + row + (node.style in ("|", ">"))
        column = self._lines[line].find(written) if line < len(self._lines) else -1
        if column < 0 or not written:  # folded or escaped: the text is not in the file as it reads
            return f"{self.at(node)}, in the rule at position {at + 1}"
        return f"{self._path}, line {line + 1}, column {column + at - start + 1}"


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise RuleError(f"{path}: larger than {MAX_BYTES:,} bytes; this is no file of rules")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as exc:
        raise RuleError(f"{path}: no such file") from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise RuleError(f"{path}: cannot be read ({exc})") from exc
