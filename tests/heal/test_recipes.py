"""Every recipe x every check: pure, on the adapter alone, the same in another process."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from selfheal_cli.config import HealSettings, LabelSettings
from selfheal_cli.errors import ConfigurationError
from selfheal_cli.heal import wire
from selfheal_cli.heal.anchor import AnchorRows
from selfheal_cli.heal.experts.random_features import draw_features
from selfheal_cli.heal.recipe import KINDS, Recipes, check_recipe
from selfheal_cli.heal.task import AdapterState, HealOutcome, HealRows, HealTask
from selfheal_cli.heal.worker import decode_recipes, encode_recipes
from selfheal_cli.kinds import RECIPES
from selfheal_cli.model.architecture import Architecture
from selfheal_cli.model.network import SelfHealingNetwork, Weights
from selfheal_cli.model.training import seeded

INPUTS, HIDDEN = 4, 8
ROWS, BATCH = 240, 40
LABELS = ("full", "delayed", "timed", "none")
CASES = [
    pytest.param(name, classes, id=f"{name}-{classes}")
    for name, kind in KINDS.items()
    for classes in (2, 3)
    if classes <= (kind.classes or classes)
]
GUARDED = [case for case in CASES if KINDS[str(case.values[0])].guarded]
LABELLED = [case for case in CASES if KINDS[str(case.values[0])].rows == "labelled"]
ASSUME = {"assumed": "positives-stable", "aligned": "inputs-shifted"}


def drawn(seed: int, rows: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs, and labels that the first of them tells."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(rows, INPUTS)).astype(np.float32)
    noisy = x[:, 0] + 0.5 * draw.normal(size=rows)
    return x, np.digitize(noisy, (1.0, 2.0)[: classes - 1]).astype(np.int8)


def recipes_of(name: str, classes: int) -> Recipes:
    """A small network with what a recipe must know of its training rows."""
    size = Architecture(INPUTS, HIDDEN, outputs=1 if classes == 2 else classes)
    with seeded(0):
        network = SelfHealingNetwork.build(size)
    network.freeze()
    if KINDS[name].adapter == "affine":
        network = network.anchored(beside=True)
    x, y = drawn(99, 400, classes)
    if KINDS[name].adapter == "mixture":
        network = network.anchored(beside=True).mixed(*draw_features(x))
    seen = AnchorRows(network, classes)
    seen.add(x, network.features(x), y)
    recipe = "anchored" if name in ASSUME else name
    settings = HealSettings.model_validate({"recipe": recipe, "assume": ASSUME.get(name)})
    return Recipes(network, seen.anchor(), settings)


def task_of(recipes: Recipes, name: str, classes: int, seed: int = 1) -> HealTask:
    """Rows of six arrivals, as this recipe gets them; rules speak of some rows only."""
    draw = np.random.default_rng((seed, 5))
    x, y = drawn(seed, ROWS, classes)
    kind = KINDS[name]
    rows = HealRows(
        features=recipes.network.features(x),
        y=np.full_like(y, -1) if kind.rows == "unlabelled" else y,
        rule_label=draw.integers(-1, classes, ROWS).astype(np.int8),
        arrival=np.repeat(np.arange(ROWS // BATCH, dtype=np.int32) + seed, BATCH),
        held_out=draw.random(ROWS) < (0.2 if kind.rows == "labelled" else 0.0),
    )
    return HealTask(f"run-h{seed}", seed, "drift", name, rows, 0.25)


def start(recipes: Recipes) -> AdapterState:
    """The adapter as it was before any heal."""
    return AdapterState(recipes.network.adapter.state_dict(), {})


def with_rows(task: HealTask, **changed: Any) -> HealTask:
    """The task with some columns of its rows replaced."""
    return dataclasses.replace(task, rows=dataclasses.replace(task.rows, **changed))


def bytes_of(weights: Weights) -> dict[str, bytes]:
    """Tensors as bytes, by name."""
    return {name: value.detach().numpy().tobytes() for name, value in weights.items()}


def state_bytes(state: AdapterState) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Weights and memory as bytes."""
    return bytes_of(state.weights), bytes_of(state.memory)


def row_bytes(rows: HealRows) -> list[bytes]:
    """Every column of the rows as bytes."""
    columns = (getattr(rows, name) for name in HealRows.__slots__)
    return [column.tobytes() for column in columns if column is not None]


def outcome_bytes(outcome: HealOutcome) -> tuple[object, ...]:
    """Everything that a heal gives, as bytes."""
    return (
        state_bytes(outcome.after),
        outcome.probabilities_before.tobytes(),
        outcome.probabilities_after.tobytes(),
        dict(outcome.measured),
    )


@pytest.mark.parametrize(("name", "classes"), CASES)
def test_the_same_arguments_give_the_same_bytes(name: str, classes: int) -> None:
    recipes = recipes_of(name, classes)
    task, before = task_of(recipes, name, classes), start(recipes)
    first, second = recipes.heal(before, task), recipes.heal(before, task)
    assert outcome_bytes(first) == outcome_bytes(second)
    third, fourth = (recipes.heal(first.after, task) for _ in range(2))
    assert outcome_bytes(third) == outcome_bytes(fourth)


@pytest.mark.parametrize(("name", "classes"), CASES)
def test_a_heal_changes_none_of_its_arguments_and_nothing_of_the_network(
    name: str, classes: int
) -> None:
    recipes = recipes_of(name, classes)
    first = recipes.heal(start(recipes), task_of(recipes, name, classes))
    task, before = task_of(recipes, name, classes, seed=2), first.after
    kept = state_bytes(before), row_bytes(task.rows), bytes_of(recipes.network.state_dict())
    recipes.heal(before, task)
    assert state_bytes(before) == kept[0]
    assert row_bytes(task.rows) == kept[1]
    assert bytes_of(recipes.network.state_dict()) == kept[2]


@pytest.mark.parametrize(("name", "classes"), CASES)
def test_weights_are_finite_and_of_the_adapter_s_names_types_and_shapes(
    name: str, classes: int
) -> None:
    recipes = recipes_of(name, classes)
    expected = recipes.network.adapter.state_dict()
    weights = recipes.heal(start(recipes), task_of(recipes, name, classes)).after.weights
    assert {key: value.shape for key, value in weights.items()} == {
        key: value.shape for key, value in expected.items()
    }
    assert all(value.dtype is expected[key].dtype for key, value in weights.items())
    assert all(bool(torch.isfinite(value).all()) for value in weights.values())
    assert bytes_of(weights) != bytes_of(expected)


@pytest.mark.parametrize(("name", "classes"), CASES)
def test_probabilities_are_those_of_the_network_before_and_after(name: str, classes: int) -> None:
    recipes = recipes_of(name, classes)
    state = recipes.heal(start(recipes), task_of(recipes, name, classes)).after
    task = task_of(recipes, name, classes, seed=2)
    outcome = recipes.heal(state, task)
    x, _ = drawn(2, ROWS, classes)
    for weights, probabilities in (
        (state.weights, outcome.probabilities_before),
        (outcome.after.weights, outcome.probabilities_after),
    ):
        network = recipes.network.with_adapter(weights)
        assert probabilities.dtype == np.float32
        assert probabilities.shape == ((ROWS,) if classes == 2 else (ROWS, classes))
        np.testing.assert_array_equal(probabilities, network.predict_features(task.rows.features))
        np.testing.assert_array_equal(probabilities, network.predict(x))


@pytest.mark.parametrize(("name", "classes"), CASES)
def test_a_heal_in_a_worker_gives_the_same_bytes(name: str, classes: int) -> None:
    here = recipes_of(name, classes)
    there = decode_recipes(encode_recipes(here))
    before = start(here)
    for seed in (1, 2):  # the second with a memory
        task = task_of(here, name, classes, seed)
        expected = here.heal(before, task)
        decoded, state = wire.decode_task(wire.encode_task(task, before))
        assert state_bytes(state) == state_bytes(before)
        assert row_bytes(decoded.rows) == row_bytes(task.rows)
        answer = wire.decode_outcome(wire.encode_outcome(there.heal(state, decoded)), task)
        assert isinstance(answer, HealOutcome)
        assert answer.task is task
        assert outcome_bytes(answer) == outcome_bytes(expected)
        before = expected.after


@pytest.mark.parametrize(("name", "classes"), GUARDED)
def test_labels_of_rows_held_out_have_no_say(name: str, classes: int) -> None:
    recipes = recipes_of(name, classes)
    task = task_of(recipes, name, classes)
    rows = task.rows
    if KINDS[name].rows == "labelled":
        assert rows.held_out.any()
    else:
        task = with_rows(task, held_out=np.arange(ROWS) % 5 == 0)
        rows = task.rows
    other_y, other_rule = rows.y.copy(), rows.rule_label.copy()
    other_y[rows.held_out] = (other_y[rows.held_out] + 1) % classes
    other_rule[rows.held_out] = (other_rule[rows.held_out] + 2) % classes
    changed = with_rows(task, y=other_y, rule_label=other_rule)
    expected, outcome = (recipes.heal(start(recipes), one) for one in (task, changed))
    assert outcome_bytes(outcome) == outcome_bytes(expected)


@pytest.mark.parametrize(("name", "classes"), LABELLED)
def test_labels_of_rows_that_are_learned_have_a_say(name: str, classes: int) -> None:
    recipes = recipes_of(name, classes)
    task = task_of(recipes, name, classes)
    flipped = (task.rows.y + 1) % classes
    changed = with_rows(task, y=np.where(task.rows.held_out, task.rows.y, flipped).astype(np.int8))
    expected, outcome = (recipes.heal(start(recipes), one) for one in (task, changed))
    assert bytes_of(outcome.after.weights) != bytes_of(expected.after.weights)


@pytest.mark.parametrize("rows", ["unknown", "held-out", "none"])
@pytest.mark.parametrize(("name", "classes"), LABELLED)
def test_a_heal_without_a_labelled_row_leaves_the_model_as_it_is(
    name: str, classes: int, rows: str
) -> None:
    recipes = recipes_of(name, classes)
    before = recipes.heal(start(recipes), task_of(recipes, name, classes)).after
    task = task_of(recipes, name, classes, seed=2)
    if rows == "unknown":
        task = with_rows(task, y=np.full(ROWS, -1, dtype=np.int8))
    elif rows == "held-out":
        task = with_rows(task, held_out=np.ones(ROWS, dtype=bool))
    else:
        task = dataclasses.replace(task, rows=task.rows.where(np.zeros(ROWS, dtype=bool)))
    outcome = recipes.heal(before, task)
    assert state_bytes(outcome.after) == state_bytes(before)
    np.testing.assert_array_equal(outcome.probabilities_after, outcome.probabilities_before)


@pytest.mark.parametrize("recipe", ["gradient", "anchored"])
def test_recipes_for_any_number_of_classes_take_three(recipe: Any) -> None:
    check_recipe(HealSettings(recipe=recipe), LabelSettings(), 3)


def test_the_article_s_recipe_refuses_three_classes() -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_recipe(HealSettings(recipe="article"), LabelSettings(), 3)
    assert str(caught.value) == (
        "recipe 'article' is binary and the target has 3 values; use --recipe anchored or gradient"
    )


@pytest.mark.parametrize("recipe", ["article", "gradient"])
def test_an_assumption_is_for_the_anchored_recipe(recipe: Any) -> None:
    heal = HealSettings(recipe=recipe, assume="positives-stable")
    with pytest.raises(ConfigurationError, match=f"--recipe anchored or ensemble, not '{recipe}'"):
        check_recipe(heal, LabelSettings(regime="none"), 2)


@pytest.mark.parametrize("regime", LABELS)
def test_an_assumption_is_for_labels_that_are_late_or_missing(regime: Any) -> None:
    heal, labels = (
        HealSettings(recipe="anchored", assume="positives-stable"),
        LabelSettings(regime=regime),
    )
    if regime == "full":
        with pytest.raises(ConfigurationError, match="give --labels none or delayed:K"):
            check_recipe(heal, labels, 2)
    else:
        check_recipe(heal, labels, 2)


@pytest.mark.parametrize("assume", ["positives-stable", "negatives-stable"])
def test_a_class_that_is_stable_is_one_of_two(assume: Any) -> None:
    heal = HealSettings(recipe="anchored", assume=assume)
    with pytest.raises(ConfigurationError, match=r"heal\.assume inputs-shifted takes any number"):
        check_recipe(heal, LabelSettings(regime="none"), 3)


def test_shifted_inputs_may_have_any_number_of_classes() -> None:
    heal = HealSettings(recipe="anchored", assume="inputs-shifted")
    check_recipe(heal, LabelSettings(regime="none"), 3)


def test_users_may_choose_the_recipes_that_the_configuration_knows() -> None:
    allowed = HealSettings.model_json_schema()["properties"]["recipe"]["anyOf"][0]["enum"]
    assert tuple(allowed) == RECIPES
    assert set(allowed) <= set(KINDS)
