"""The topmost layer that says a key has it, and is named for it."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from selfheal_cli.settings.layers import DEFAULT, Key, Layer, Origin, leaves, merge

NAMES = st.sampled_from(["seed", "plots", "network", "hidden", "epochs"])
TREES: st.SearchStrategy[Any] = st.recursive(
    st.integers(0, 9) | st.lists(st.integers(0, 9), max_size=2),
    lambda inner: st.dictionaries(NAMES, inner, min_size=1, max_size=3),
    max_leaves=6,
)


def layer(values: dict[str, Any], name: str) -> Layer:
    """As a reader makes it: an origin for each key, groups included."""
    origins: dict[Key, Origin] = {}

    def walk(inner: dict[str, Any], at: Key) -> None:
        for part, value in inner.items():
            origins[*at, part] = Origin("file", name)
            if isinstance(value, dict):
                walk(value, (*at, part))

    walk(values, ())
    return Layer(values, origins)


def at(values: Any, key: Key) -> Any:
    """The value there; `KeyError` where there is none."""
    for part in key:
        if not isinstance(values, dict):
            raise KeyError(part)
        values = values[part]
    return values


@given(trees=st.lists(st.dictionaries(NAMES, TREES, max_size=3), min_size=1, max_size=4))
def test_every_value_is_that_of_the_topmost_layer_that_has_it(trees: list[dict[str, Any]]) -> None:
    named = [layer(tree, f"layer {place}") for place, tree in enumerate(trees)]
    merged = merge(named)
    for key, value in leaves(merged.values):
        holding = []
        for place, tree in enumerate(trees):
            try:
                holding.append((place, at(tree, key)))
            except KeyError:
                continue
        place, top = holding[-1]
        assert value == top
        assert merged.origin(key) == Origin("file", f"layer {place}")
    for tree in trees[-1:]:  # and nothing of the topmost layer is lost
        for key, value in leaves(tree):
            assert at(merged.values, key) == value


def test_merging_changes_no_layer_and_nothing_stays_nothing() -> None:
    below, above = layer({"heal": {"window": 5}}, "a"), layer({"heal": {"ridge": 1}}, "b")
    assert merge([below, above]).values == {"heal": {"window": 5, "ridge": 1}}
    assert below.values == {"heal": {"window": 5}}
    assert merge([]).values == {}
    assert merge([below]).origin(("seed",)) == DEFAULT


def test_a_layer_that_changes_what_a_group_is_takes_the_group_over() -> None:
    file = layer({"source": {"kind": "synthetic", "drift_strength": 1.0}, "seed": 3}, "file")
    data = layer({"source": {"kind": "table", "path": "t.csv"}}, "option")
    assert merge([file, data]).values == {
        "source": {"kind": "table", "path": "t.csv"},
        "seed": 3,
    }
    same = layer({"source": {"kind": "synthetic", "train_rows": 9}}, "option")
    assert merge([file, same]).get("source", "drift_strength") == 1.0
    costs = layer({"objective": {"kind": "cost", "fn": 5, "fp": 2}}, "file")
    f1 = layer({"objective": {"kind": "f1"}}, "option")
    assert merge([costs, f1]).values == {"objective": {"kind": "f1"}}
    cheaper = layer({"objective": {"fp": 1}}, "env")
    assert merge([costs, cheaper]).get("objective") == {"kind": "cost", "fn": 5, "fp": 1}


def test_rules_and_a_file_of_rules_are_one_list() -> None:
    file = layer({"rules": ["a > 1 => 1"], "rules_file": "r.yaml"}, "file")
    assert merge([file, layer({"rules": ["b > 1 => 1"]}, "x")]).values == {"rules": ["b > 1 => 1"]}
    assert merge([file, layer({"rules_file": "q.yaml"}, "x")]).values == {"rules_file": "q.yaml"}
