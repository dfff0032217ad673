"""The recipe ``ensemble``: what its experts learn, how they are mixed, what a version holds."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss as sklearn_loss

from selfheal_cli.config import HealSettings, LabelSettings
from selfheal_cli.errors import ConfigurationError
from selfheal_cli.heal.experts import trees as trees_module
from selfheal_cli.heal.experts.filters import Filters, FilterSpec, class_probabilities
from selfheal_cli.heal.experts.mixing import Mixing
from selfheal_cli.heal.experts.random_features import draw_features
from selfheal_cli.heal.recipe import Recipes, check_recipe, without_trees
from selfheal_cli.heal.task import AdapterState, HealOutcome, HealRows, HealTask
from selfheal_cli.logistic import fit, targets
from selfheal_cli.model.checkpoint import assemble, make_base, pack, unpack
from selfheal_cli.model.network import SelfHealingNetwork
from selfheal_cli.records import digest
from tests.heal import small

Matrix = NDArray[np.float64]
NAMES = ("frozen", "scale", "filter_850", "random_998", "inputs_700")


def mixed_network() -> SelfHealingNetwork:
    """A small frozen network with a mixture that changes nothing yet."""
    x = np.random.default_rng(7).normal(size=(300, small.INPUTS)).astype(np.float32)
    return small.small_network().anchored(beside=True).mixed(*draw_features(x))


NETWORK = mixed_network()


def curved(seed: int, rows: int) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """Inputs, and labels that no line in them tells."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(rows, small.INPUTS)).astype(np.float32)
    return x, (x[:, 0] * x[:, 1] + 0.3 * draw.normal(size=rows) > 0).astype(np.int8)


def rows_of(x: NDArray[np.float32], y: NDArray[np.int8], each: int = 100) -> HealRows:
    """Rows that come in batches, none held out."""
    arrival = (np.arange(len(y)) // each).astype(np.int32)
    none = np.zeros(len(y), dtype=np.bool_)
    return HealRows(NETWORK.features(x), y, np.full_like(y, -1), arrival, none)


def heal(recipes: Recipes, before: AdapterState, rows: HealRows) -> HealOutcome:
    return recipes.heal(before, HealTask("h", 1, "", "ensemble", rows))


def recipes_with(*, trees: bool, charged: int = 0, after: int = 0) -> Recipes:
    settings = HealSettings(recipe="ensemble", trees=trees, charged=charged, trees_after=after)
    return small.recipes_of(NETWORK, settings)


def log_loss(network: SelfHealingNetwork, seed: int = 50) -> float:
    x, y = curved(seed, 1_000)
    p = network.predict(x)
    return float(-np.log(np.where(y == 1, p, 1 - p)).mean())


@pytest.fixture(scope="module")
def learned() -> HealOutcome:
    """After ten batches, with trees."""
    recipes = recipes_with(trees=True)
    return heal(recipes, small.start(NETWORK), rows_of(*curved(1, 1_000)))


def test_a_mixture_as_built_decides_as_the_frozen_network_bit_for_bit() -> None:
    x, _ = curved(2, 50)
    frozen = small.small_network()
    assert NETWORK.predict(x).tobytes() == frozen.predict(x).tobytes()


def test_it_learns_what_no_line_in_the_inputs_tells(learned: HealOutcome) -> None:
    healed = NETWORK.with_adapter(learned.after.weights)
    assert log_loss(healed) < 0.8 * log_loss(NETWORK)
    shares = [learned.measured[f"weight_{name}"] for name in NAMES]
    assert all(share >= 0 for share in shares)
    total = sum(value for name, value in learned.measured.items() if name.startswith("weight_"))
    assert total == pytest.approx(1.0)


def test_a_version_with_trees_decides_the_same_once_it_is_stored(learned: HealOutcome) -> None:
    weights = learned.after.weights
    assert len(weights["trees"])
    data = pack(weights)
    base = make_base(NETWORK, {}, {})
    there = assemble(base, unpack(data, sha256=digest(data), where="v1"), where="v1")
    x, _ = curved(3, 200)
    here = NETWORK.with_adapter(weights)
    assert there.predict(x).tobytes() == here.predict(x).tobytes()
    assert not torch.equal(torch.from_numpy(here.predict(x)), torch.from_numpy(NETWORK.predict(x)))


def test_trees_that_cannot_be_loaded_are_refused_in_one_line(
    learned: HealOutcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    from selfheal_cli.model import boosters

    boosters._read.cache_clear()
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(ConfigurationError, match="holds boosted trees, and LightGBM cannot be"):
        NETWORK.with_adapter(learned.after.weights)
    with pytest.raises(ConfigurationError, match=r"heal\.trees holds boosted trees"):
        check_recipe(HealSettings(recipe="ensemble", trees=True), LabelSettings(), 2)
    assert "learns without boosted trees" in without_trees(HealSettings(recipe="ensemble"))
    assert without_trees(HealSettings(recipe="anchored")) == ""


def test_heals_one_after_the_other_are_as_one_heal_of_all_rows() -> None:
    recipes = recipes_with(trees=True)
    x, y = curved(4, 600)
    rows = rows_of(x, y)
    at_once = heal(recipes, small.start(NETWORK), rows)
    state = small.start(NETWORK)
    for until in range(6):
        state = heal(recipes, state, rows.where(rows.arrival <= until)).after
    assert small.bytes_of(state.weights) == small.bytes_of(at_once.after.weights)
    assert small.bytes_of(state.memory) == small.bytes_of(at_once.after.memory)


def test_many_labels_at_once_are_learned_as_if_they_had_come_bit_by_bit() -> None:
    x, y = curved(12, 300)
    bit_by_bit = heal(recipes_with(trees=False), small.start(NETWORK), rows_of(x, y))
    recipes = recipes_with(trees=False, charged=100)
    at_once = heal(recipes, small.start(NETWORK), rows_of(x, y, 300))
    assert small.bytes_of(at_once.after.weights) == small.bytes_of(bit_by_bit.after.weights)


def test_trees_whose_heal_was_not_published_are_remembered(learned: HealOutcome) -> None:
    before = small.start(NETWORK)
    kept = AdapterState(before.weights, learned.after.memory)
    outcome = heal(recipes_with(trees=True), kept, rows_of(*curved(1, 1_000)))
    assert small.bytes_of(outcome.after.weights) == small.bytes_of(learned.after.weights)


def spec(memory: float, columns: int) -> FilterSpec:
    return FilterSpec("filter", np.arange(columns), np.array([memory]), np.full((1, columns), 5.0))


def drawn(rows: int, columns: int = 4) -> tuple[Matrix, Matrix, NDArray[np.int8]]:
    draw = np.random.default_rng(6)
    a = draw.normal(size=(rows, columns))
    y = (a[:, 0] + draw.logistic(size=rows) > 0).astype(np.int8)
    return a, np.zeros((rows, 1)), y


def learned_in(pieces: int, memory: float, rows: int = 1_000) -> Matrix:
    a, margin, y = drawn(rows)
    filters = Filters(spec(memory, 4), 1, {})
    for part in np.array_split(np.arange(rows), pieces):
        filters.learn(a[part], margin[part], y[part], len(part))
    return filters.theta[0]


def test_a_filter_that_forgets_nothing_finds_what_a_fit_to_all_rows_finds() -> None:
    a, margin, y = drawn(1_000)
    whole = fit(a, margin, targets(a, y, 1), np.full(4, 5.0), np.zeros((4, 1)))
    np.testing.assert_allclose(learned_in(10, 1.0), whole, atol=0.02)


def clusters(seed: int, rows: int, classes: int = 8) -> tuple[Matrix, NDArray[np.intp]]:
    """Rows around a place of their class each, and an intercept."""
    places = 1.5 * np.random.default_rng(3).normal(size=(classes, 8))
    draw = np.random.default_rng(seed)
    y = draw.integers(classes, size=rows)
    return np.column_stack([places[y] + draw.normal(size=(rows, 8)), np.ones(rows)]), y


def test_a_filter_of_eight_classes_predicts_nearly_as_a_fit_to_all_rows() -> None:
    a, y = clusters(1, 600)
    filters = Filters(replace(spec(1.0, 9), steps=25), 7, {})
    for part in np.array_split(np.arange(600), 12):
        filters.learn(a[part], np.zeros((50, 7)), y[part], 50)
    fresh, truth = clusters(2, 2_000)
    p = class_probabilities((fresh @ filters.theta[0])[None])[0]
    fitted = LogisticRegression(C=0.2, fit_intercept=False).fit(a, y)
    least = sklearn_loss(truth, fitted.predict_proba(fresh))
    assert sklearn_loss(truth, p) < 1.2 * least


def test_what_a_filter_forgets_goes_by_rows_however_they_are_cut() -> None:
    by_hundred, by_ten = learned_in(10, 0.96), learned_in(100, 0.96)
    np.testing.assert_allclose(by_ten, by_hundred, atol=0.05)


def test_a_column_in_another_unit_is_learned_at_once_by_as_many_steps_as_it_needs() -> None:
    a, margin, y = drawn(200)
    losses = []
    for steps in (2, 25):
        filters = Filters(replace(spec(0.85, 4), steps=steps), 1, {})
        filters.learn(a[:100], margin[:100], y[:100], 100)
        moved = a * np.array([1.8, 1.0, 1.0, 1.0]) + np.array([32.0, 0.0, 0.0, 0.0])
        moved[:, 3] = 1.0  # the intercept
        filters.learn(moved[:100], margin[:100], y[:100], 100)
        z = moved[100:] @ filters.theta[0, :, 0]
        losses.append(float(np.logaddexp(0.0, np.where(y[100:] == 1, -z, z)).mean()))
    assert losses[1] < 0.75 < losses[0]


def judged(kept: int, parts: int) -> tuple[Filters, list[float]]:
    """Filters after a thousand rows of each relation, which is the other way round in every second
    part; and the least mean loss of any of them in each block.
    """
    memories = np.array([0.7, 0.998])
    filters = Filters(
        FilterSpec("inputs", np.arange(4), memories, np.ones((2, 4)), False, kept), 1, {}
    )
    a, margin, y = drawn(1_000)
    losses = []
    for step in range(10 * parts):
        block = slice(step % 10 * 100, step % 10 * 100 + 100)
        label = y[block] if step // 10 % 2 == 0 else 1 - y[block]
        z = a[block] @ filters.theta[:, :, 0].T
        loss = np.logaddexp(0.0, np.where(label[:, None] == 1, -z, z)).sum(axis=0)
        losses.append(float(loss.min()) / 100)
        filters.judge(loss, 100, step)
        filters.learn(a[block], margin[block], label, 100)
    return filters, losses


def test_after_a_break_a_slow_filter_goes_on_from_what_a_quick_one_knows() -> None:
    filters, _ = judged(0, 2)
    quick, slow = filters.theta[:, 0, 0]
    assert quick < -0.5 and slow < -0.5
    a, margin, y = drawn(1_000)
    alone = Filters(spec(0.998, 4), 1, {})
    for label in (y, 1 - y):
        alone.learn(a, margin, label, 1_000)
    assert abs(alone.theta[0, 0, 0]) < 0.5


def test_a_relation_that_returns_is_known_at_once() -> None:
    _, with_past = judged(1, 3)
    _, without = judged(0, 3)
    assert with_past[20] == pytest.approx(with_past[9], abs=0.1)
    assert without[20] > with_past[20] + 0.2


def test_shares_go_to_who_predicted_better_and_come_back_when_that_ends() -> None:
    mixing = Mixing(2, {})
    good, bad = np.full((1, 100), 0.8), np.full((1, 100), 0.4)
    for _ in range(5):
        mixing.observe(np.concatenate([good, bad]), 100)
    assert mixing.shares()[0] > 0.99
    for _ in range(8):
        mixing.observe(np.concatenate([bad, good]), 100)
    assert mixing.shares()[1] > 0.9


def test_where_all_predict_alike_the_first_answers_and_where_it_falls_behind_it_does_not() -> None:
    mixing = Mixing(3, {}, 8.0)
    alike = np.full((3, 100), 0.7)
    for _ in range(3):
        mixing.observe(alike, 100)
    assert mixing.shares()[0] > 0.6
    mixing.observe(np.array([[0.3], [0.7], [0.7]]) * np.ones(100), 100)
    assert mixing.shares()[0] < 0.1


def test_shares_go_by_rows_however_they_are_cut() -> None:
    draw = np.random.default_rng(3)
    chances = np.stack([draw.uniform(0.4, 0.9, 1_000), draw.uniform(0.35, 0.9, 1_000)])
    shares = []
    for size in (10, 100, 500):
        mixing = Mixing(2, {})
        for start in range(0, 1_000, size):
            mixing.observe(chances[:, start : start + size], size)
        shares.append(mixing.shares()[0])
    assert np.ptp(shares) < 0.15


def test_an_expert_whose_coefficients_are_no_numbers_begins_anew_and_is_told() -> None:
    recipes = recipes_with(trees=False)
    x, y = curved(5, 200)
    state = heal(recipes, small.start(NETWORK), rows_of(x, y)).after
    broken = state.memory["filter.theta"].clone()
    broken[1] = float("nan")
    state = AdapterState(state.weights, {**state.memory, "filter.theta": broken})
    rows = rows_of(x, y)
    later = HealRows(rows.features, rows.y, rows.rule_label, rows.arrival + 2, rows.held_out)
    outcome = heal(recipes, state, later)
    assert outcome.measured["apart_filter_970"] == 1.0
    assert np.isfinite(outcome.probabilities_after).all()


def test_trees_that_fail_are_set_apart_and_the_mixture_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def failing(*_: object) -> str:
        raise ValueError("no trees today")

    monkeypatch.setattr(trees_module, "_fit", failing)
    outcome = heal(recipes_with(trees=True), small.start(NETWORK), rows_of(*curved(6, 700)))
    assert outcome.measured["apart_trees_2500"] == 1.0
    assert np.isfinite(outcome.probabilities_after).all()


def test_trees_that_raise_when_asked_are_told_and_the_mixture_goes_on(
    learned: HealOutcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> Matrix:
        raise ValueError("no answer today")

    monkeypatch.setattr(trees_module.boosters, "probabilities", failing)
    rows = rows_of(*curved(11, 100))
    later = replace(rows, arrival=rows.arrival + 20)
    outcome = heal(recipes_with(trees=True), learned.after, later)
    assert outcome.measured["apart_trees_10000"] == 1.0
    assert np.isfinite(outcome.probabilities_after).all()


def test_trees_take_effect_at_the_batch_that_was_said_and_a_fit_beside_decides_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipes, state, told = recipes_with(trees=True, after=2), small.start(NETWORK), []
    rows = rows_of(*curved(13, 700))
    for until in range(7):
        outcome = heal(recipes, state, rows.where(rows.arrival <= until))
        state = outcome.after
        told.append({key: value for key, value in outcome.measured.items() if "trees_2500" in key})
    assert [one.get("due_trees_2500") for one in told] == [2, 2, None, None, None, 7, 7]
    assert [one.get("fitted_trees_2500") for one in told] == [None, None, 0, 0, 0, 0, 0]
    monkeypatch.setattr(trees_module.fits, "begin", lambda key, fitting: None)
    in_place = heal(recipes, small.start(NETWORK), rows)
    assert small.bytes_of(in_place.after.memory) == small.bytes_of(state.memory)


def test_trees_that_fail_beside_the_stream_are_set_apart_when_they_are_due(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def failing(*_: object) -> str:
        raise ValueError("no trees today")

    monkeypatch.setattr(trees_module, "_fit", failing)
    recipes = recipes_with(trees=True, after=1)
    outcome = heal(recipes, small.start(NETWORK), rows_of(*curved(14, 200)))
    assert outcome.measured["apart_trees_2500"] == 1.0


@pytest.mark.parametrize("positives", [0, 700, 2])
def test_rows_of_nearly_one_class_are_learned_from(positives: int) -> None:
    x, y = curved(8, 700)
    y = (np.arange(700) < positives).astype(np.int8)
    outcome = heal(recipes_with(trees=True), small.start(NETWORK), rows_of(x, y))
    assert np.isfinite(outcome.probabilities_after).all()
    assert log_loss_of(outcome, y) < 0.2


@pytest.mark.parametrize("each", [3, 900])
def test_three_rows_a_batch_and_all_labels_at_once_are_learned_from(each: int) -> None:
    x, y = curved(9, 900)
    x[:, 3] = 1.5  # and what never varies is no matter
    outcome = heal(recipes_with(trees=False), small.start(NETWORK), rows_of(x, y, each))
    assert log_loss_of(outcome, y) < 0.65


def test_what_was_learned_of_wrong_labels_goes_as_it_came() -> None:
    recipes, state = recipes_with(trees=False), small.start(NETWORK)
    x, y = curved(10, 1_600)
    told = y.copy()
    told[800:1_200] = 1 - y[800:1_200]
    outcome = heal(recipes, state, rows_of(x, told))
    assert log_loss_of(outcome, y) < 0.65


def log_loss_of(outcome: HealOutcome, y: NDArray[np.int8]) -> float:
    p = outcome.probabilities_after[-100:]
    return float(-np.log(np.where(y[-100:] == 1, p, 1 - p)).mean())
