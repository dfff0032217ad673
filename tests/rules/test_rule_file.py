"""Files of named rules: what is read, and which line is blamed for what is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from selfheal_cli.errors import RuleError
from selfheal_cli.rules.conditions import IsMissing
from selfheal_cli.rules.ruleset import (
    KEYS,
    MAX_RULES,
    NamedRule,
    Rule,
    parse_rule,
    read_rules,
    write_rules,
)
from tests.rules.test_rules import RULES

GOOD = """\
# who: risk
- name: late
  rule: hours > 24 and kind in {'web', 'app'} => 1
  owner: ops
  note: from the incident in May
  confidence: 0.8
- name: small
  rule: |
    amount < 10
    and country == 'AT' => 0 @ 0.5
"""
PRINTABLE = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), max_size=20)


def written(folder: Path, text: str) -> Path:
    """A file of rules with this text."""
    path = folder / "rules.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_names_owners_notes_and_confidences_are_read(tmp_path: Path) -> None:
    late, small = read_rules(written(tmp_path, GOOD))
    assert late == NamedRule(
        "late",
        parse_rule("hours > 24 and kind in {'web', 'app'} => 1 @ 0.8"),
        "ops",
        "from the incident in May",
    )
    assert small == NamedRule("small", parse_rule("amount < 10 and country == 'AT' => 0 @ 0.5"))


@given(
    rules=st.lists(
        st.builds(NamedRule, PRINTABLE.filter(bool), RULES, PRINTABLE, PRINTABLE),
        min_size=1,
        max_size=4,
        unique_by=lambda named: named.name,
    )
)
@example(rules=[NamedRule("next line", Rule(IsMissing("\x85"), 1))])
def test_rules_written_to_a_file_read_back_the_same(
    tmp_path_factory: pytest.TempPathFactory, rules: list[NamedRule]
) -> None:
    path = written(tmp_path_factory.mktemp("rules"), write_rules(rules))
    assert read_rules(path) == tuple(rules)


@given(text=st.text() | st.lists(st.sampled_from([GOOD, "- ", "a: ", *KEYS, "\n", "{", "!!x", "&a",
                                                  "*a", "'", ": "])).map("".join))  # fmt: skip
def test_any_text_is_read_or_is_an_error_that_names_the_file(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = written(tmp_path_factory.getbasetemp(), text)
    try:
        read_rules(path)
    except RuleError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("> 24 and", "> 24 und", r", line 3, column 20: expected 'and', 'or' or '=>', found 'und'"),
        ("> 24", "> '24'", r", line 3, column 17: expected a number \(text"),
        ("    and", "    und", r", line 10, column 5: expected .*, found 'und'"),
        (
            "  owner",
            "  onwer",
            r", line 4: unknown key 'onwer'; did you mean 'owner'\? known: name",
        ),
        ("  note", "  owner", r", line 5: key 'owner' is given twice"),
        ("0.8", "80%", r", line 6: key 'confidence' = '80%': above 0 and up to 1"),
        ("0.8", "1.5", r", line 6: key 'confidence' = '1.5'"),
        ("=> 1", "=> 1 @ 0.4", r", line 6: key 'confidence': the rule itself says @ 0.4"),
        ("name: small", "name: late", r", line 7: name 'late' was used before"),
        ("name: small", "owner: me", r", line 7: key 'name' is missing"),
        ("name: small", "name:", r", line 7: key 'name': expected text"),
        ("name: small", "name: ''", r", line 7: key 'name': 1 to 80 characters"),
        ("owner: ops", "owner: [ops]", r", line 4: key 'owner': expected text"),
        ("- name: small", "- small", r", line \d+(, column \d+: not YAML|: expected keys)"),
        ("owner: ops", "owner: 'ops", r", line \d+, column \d+: not YAML"),
        (GOOD, "late: x > 1 => 1", "expected a list of rules; write it like"),
        (GOOD, "[]", "expected a list of rules"),
        (GOOD, "- {name: a, rule: x > 1 => 1}\n" * (MAX_RULES + 1), f"at most {MAX_RULES}"),
        (GOOD, "- !!python/object:os.system {name: a}", "key 'rule' is missing"),
        (GOOD, "[" * 5000, "not YAML"),
    ],
)
def test_what_is_wrong_is_named_by_file_and_line(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in GOOD
    path = written(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(RuleError, match=message) as caught:
        read_rules(path)
    assert str(caught.value).startswith(str(path))


def test_a_quoted_rule_is_blamed_by_its_column_in_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, '- name: a\n  rule: "x > 1 xor y > 2 => 1"\n')
    with pytest.raises(RuleError, match=r"line 2, column 16: expected .*, found 'xor'"):
        read_rules(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(RuleError, match=r"none\.yaml: no such file"):
        read_rules(tmp_path / "none.yaml")
    (tmp_path / "odd.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RuleError, match=r"odd\.yaml: cannot be read"):
        read_rules(tmp_path / "odd.yaml")
    with pytest.raises(RuleError, match="cannot be read"):
        read_rules(tmp_path)
