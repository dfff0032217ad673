"""A file of named rules: a YAML list of ``name``, ``rule``, ``owner``, ``note``, ``confidence``.

Read node by node, so that each complaint can name its line, and no tag can make an object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from selfheal_cli.errors import RuleError
from selfheal_cli.monitor.rule_parser import MAX_LENGTH, SHARES
from selfheal_cli.monitor.rules import MAX_RULES, Rule, parse_rule

MAX_BYTES = 1 << 20
LONGEST_NAME = 80
KEYS = ("name", "rule", "owner", "note", "confidence")
NEEDED = ("name", "rule")
EXAMPLE = "write it like: - {name: late, rule: 'hours > 24 => 1', owner: ops, note: why}"


@dataclass(frozen=True, slots=True)
class NamedRule:
    """A rule that somebody answers for; ``owner`` and ``note`` may be empty."""

    name: str
    rule: Rule
    owner: str = ""
    note: str = ""


def read_rules(path: Path) -> tuple[NamedRule, ...]:
    """The rules of a file in their order.

    Raises `RuleError` naming file, line, and the key or the column that is wrong.
    """
    text = _text(path)
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise RuleError(f"{path}{place}: not YAML ({exc.problem or exc.context})") from exc
    except (yaml.YAMLError, RecursionError) as exc:
        raise RuleError(f"{path}: not YAML ({' '.join(str(exc).split())})") from exc
    if not isinstance(root, SequenceNode) or not root.value:
        raise RuleError(f"{path}: expected a list of rules; {EXAMPLE}")
    if len(root.value) > MAX_RULES:
        raise RuleError(f"{path}: {len(root.value)} rules; at most {MAX_RULES} are allowed")
    reader = _Reader(path, text.splitlines())
    found: dict[str, NamedRule] = {}
    for node in root.value:
        named = reader.rule(node)
        if named.name in found:
            raise RuleError(f"{reader.at(node)}: name '{named.name}' was used before")
        found[named.name] = named
    return tuple(found.values())


def write_rules(rules: Sequence[NamedRule]) -> str:
    """The rules as the text of a file, which reads back as the same rules."""
    entries = []
    for named in rules:
        entry = {"name": named.name, "rule": str(named.rule)}
        entry |= {"owner": named.owner} if named.owner else {}
        entries.append(entry | ({"note": named.note} if named.note else {}))
    return yaml.safe_dump(entries, sort_keys=False, allow_unicode=True, width=MAX_LENGTH)


class _Reader:
    """One file's nodes to rules."""

    def __init__(self, path: Path, lines: list[str]) -> None:
        self._path, self._lines = path, lines

    def at(self, node: Node) -> str:
        """``file, line N``."""
        return f"{self._path}, line {node.start_mark.line + 1}"

    def rule(self, node: Node) -> NamedRule:
        values = self._entries(node)
        for key in NEEDED:
            if key not in values:
                raise RuleError(f"{self.at(node)}: key '{key}' is missing; {EXAMPLE}")
        texts = {key: one.value.strip() for key, one in values.items()}
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
        found: dict[str, ScalarNode] = {}
        for key, value in node.value:
            name = str(key.value)
            if not isinstance(key, ScalarNode) or name not in KEYS:
                near = get_close_matches(name, KEYS, n=1)
                hint = f"did you mean '{near[0]}'? " if near else ""
                raise RuleError(
                    f"{self.at(key)}: unknown key '{name[:LONGEST_NAME]}'; {hint}"
                    f"known: {', '.join(KEYS)}"
                )
            if name in found:
                raise RuleError(f"{self.at(key)}: key '{name}' is given twice")
            if not isinstance(value, ScalarNode) or value.tag == "tag:yaml.org,2002:null":
                what = "a number" if name == "confidence" else "text"
                raise RuleError(f"{self.at(value)}: key '{name}': expected {what}")
            found[name] = value
        return found

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
        """Line and column in the file of a place in the rule, as exactly as YAML allows."""
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
