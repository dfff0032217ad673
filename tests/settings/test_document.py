"""A document's values are YAML's, each with its line; what is odd is named with file and line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from selfheal_cli.errors import ConfigurationError
from selfheal_cli.settings.layers import Origin, leaves
from selfheal_cli.settings.sources import MAX_BYTES, parse_document, parse_value, read_file
from tests.conftest import DEPTH

WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\x85\u2028\u2029"), max_size=12)
SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | WORDS | st.floats(allow_nan=False)
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)


@given(values=st.dictionaries(WORDS, VALUES, max_size=4), flow=st.booleans())
def test_what_is_dumped_comes_back_equal_with_the_line_of_each_key(
    values: dict[str, Any], flow: bool
) -> None:
    text = yaml.safe_dump(values, default_flow_style=flow, allow_unicode=True)
    layer = parse_document(text, "t.yaml")
    assert layer.values == values
    lines = len(text.splitlines())
    for key, _ in leaves(values):
        origin = layer.origins[key]
        assert (origin.kind, origin.name) == ("file", "t.yaml")
        assert origin.line is not None
        assert 1 <= origin.line <= lines


@settings(max_examples=40 * DEPTH)
@given(text=st.text(st.sampled_from("ab:-,[]{}#&*!|>'\"% \n\t0\x00"), max_size=40))
def test_any_text_is_read_or_refused_in_one_line_that_names_the_file(text: str) -> None:
    try:
        parse_document(text, "t.yaml")
    except ConfigurationError as error:
        assert str(error).startswith("t.yaml")
        assert "\n" not in str(error)


@given(text=st.text(max_size=30))
def test_any_text_is_a_value_of_a_variable(text: str) -> None:
    layer = parse_value(text, ("heal", "window"), Origin("env", "SELFHEAL_HEAL__WINDOW"))
    assert list(layer.values) == ["heal"]
    assert layer.origin(("heal", "window")).name == "SELFHEAL_HEAL__WINDOW"


def test_lines_are_those_of_the_keys_and_scalars_keep_their_text() -> None:
    text = "# first\nsource:\n  positive: yes\n  drop:\n    - a\n    - no\nseed: 0x10\n"
    layer = parse_document(text, "f.yaml")
    where = {key: (origin.line, origin.text) for key, origin in layer.origins.items()}
    assert where == {
        ("source",): (2, None),
        ("source", "positive"): (3, "yes"),
        ("source", "drop"): (4, None),
        ("source", "drop", 0): (5, "a"),
        ("source", "drop", 1): (6, "no"),
        ("seed",): (7, "0x10"),
    }


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "\n\n"])
def test_an_empty_document_says_nothing(text: str) -> None:
    assert parse_document(text, "f.yaml").values == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "f.yaml:3: key 'a' is given twice, first in line 1"),
        ("heal:\n  a: 1\n  'a': 3\n", "f.yaml:3: key 'heal.a' is given twice, first in line 2"),
        ("a: &x 1\nb: *x\n", "f.yaml:2: not YAML at column 4 (an alias (*) is not supported"),
        ("a: !!python/object:os.system x\n", "f.yaml:1: key 'a': the tag"),
        ("a: !!binary aGk=\n", "f.yaml:1: key 'a': the tag"),
        ("a: !!int x\n", "f.yaml:1: key 'a' = x"),
        ("? [1, 2]\n: x\n", "f.yaml:1: a key must be a word"),
        ("- a\n", "f.yaml:1: expected keys with values"),
        ("just text\n", "f.yaml:1: expected keys with values"),
        ("a: [1,\n", "f.yaml:2: not YAML at column 1"),
        ("a: 1\n---\nb: 2\n", "f.yaml:2: not YAML"),
        ("a: 1\n\tb: 2\n", "f.yaml:2: not YAML"),
        ("a: \x00\n", "f.yaml: not YAML"),
        ("a: " + "[" * 5_000, "f.yaml"),
    ],
)
def test_what_is_no_plain_configuration_is_named_with_its_line(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_document(text, "f.yaml")
    assert str(caught.value).startswith(message)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"absent.yaml: no such file; 'selfheal init'"):
        read_file(tmp_path / "absent.yaml")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_file(tmp_path)
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(ConfigurationError, match=r"x.yaml: cannot be read \('utf-8'"):
        read_file(path)
    path.write_text("#" * (MAX_BYTES + 1))
    with pytest.raises(ConfigurationError, match="larger than 262,144 bytes"):
        read_file(path)
