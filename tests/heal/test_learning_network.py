"""The expert of ``ensemble`` that learns by gradient steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from selfheal_cli.config import HealSettings
from selfheal_cli.heal.experts.networks import LearningNetwork
from selfheal_cli.heal.recipe import Recipes
from selfheal_cli.heal.task import AdapterState, HealOutcome, HealTask
from selfheal_cli.model.checkpoint import assemble, make_base, pack, unpack
from selfheal_cli.records import digest
from tests.heal import small
from tests.heal.test_ensemble import NETWORK, curved, rows_of

INPUTS = 4


def recipes_with(steps: int = 10, charged: int = 0) -> Recipes:
    settings = HealSettings(recipe="ensemble", network_steps=steps, charged=charged)
    return small.recipes_of(NETWORK, settings)


def heal(recipes: Recipes, before: AdapterState, rows: Any) -> HealOutcome:
    return recipes.heal(before, HealTask("h", 1, "", "ensemble", rows))


def expert(classes: int = 2, steps: int = 10, **state: Any) -> LearningNetwork:
    none = np.zeros((0, INPUTS), dtype=np.float32), np.zeros(0, dtype=np.int8)
    return LearningNetwork(
        np.full(INPUTS, 5.0), np.full(INPUTS, 2.0), classes - 1, none, steps, state
    )


def rows(count: int, classes: int = 2) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """Inputs, and classes that a product of two of them tells."""
    x = np.random.default_rng(3).normal(size=(count, INPUTS)).astype(np.float32)
    product = x[:, 0] * x[:, 1]
    y = np.digitize(product, np.quantile(product, np.arange(1, classes) / classes)).astype(np.int8)
    return 5.0 + 2.0 * x, y


@pytest.mark.parametrize("classes", [2, 3])
def test_it_learns_what_no_line_in_the_inputs_tells(classes: int) -> None:
    x, y = rows(3_000, classes)
    network = expert(classes)
    network.learn(x[:2_500], y[:2_500])
    p = network.predict(x[2_500:])[0]
    assert (p.argmax(axis=1) == y[2_500:]).mean() > 0.85
    np.testing.assert_allclose(p.sum(axis=1), 1.0)


@pytest.mark.parametrize("steps", [1, 7, 10, 250])
def test_how_many_rows_come_at_once_changes_nothing(steps: int) -> None:
    x, y = rows(250)
    served = []
    for size in (3, 100, 250):
        network = expert(steps=steps)
        for start in range(0, len(y), size):
            network.learn(x[start : start + size], y[start : start + size])
        served.append(network.served())
    assert torch.equal(served[0], served[1]) and torch.equal(served[0], served[2])


def test_from_its_state_it_goes_on_to_the_same_bits() -> None:
    x, y = rows(300)
    whole, first = expert(), expert()
    whole.learn(x, y)
    first.learn(x[:150], y[:150])
    second = expert(**{key: value.copy() for key, value in first.state().items()})
    second.learn(x[150:], y[150:])
    assert torch.equal(whole.served(), second.served())


def test_where_it_gives_no_numbers_it_begins_anew_and_is_told() -> None:
    rows = rows_of(*curved(5, 200))
    state = heal(recipes_with(), small.start(NETWORK), rows.where(rows.arrival == 0)).after
    broken = torch.full_like(state.memory["network.weights"], float("nan"))
    state = AdapterState(state.weights, {**state.memory, "network.weights": broken})
    outcome = heal(recipes_with(), state, rows)
    assert outcome.measured["apart_network"] == 1.0
    assert np.isfinite(outcome.probabilities_after).all()


def test_a_version_with_it_decides_as_it_does_and_the_same_once_it_is_stored() -> None:
    rows = rows_of(*curved(1, 500))
    recipes = recipes_with()
    after = heal(recipes, small.start(NETWORK), rows).after
    alone = {**after.weights, "share": torch.zeros_like(after.weights["share"])}
    alone["share"][-1] = 1.0
    read = slice(NETWORK.architecture.hidden, NETWORK.architecture.hidden + small.INPUTS)
    known = [(key.partition("."), value.numpy()) for key, value in after.memory.items()]
    state = {name: value for (part, _, name), value in known if part == "network"}
    anchor = recipes.anchor
    trained = anchor.latest_x, anchor.latest_y
    network = LearningNetwork(anchor.mean[read], anchor.sd[read], 1, trained, 10, state)
    p = network.predict(rows.features[:, read])[0, :, 1]
    served = NETWORK.with_adapter(alone).predict_features(rows.features)
    np.testing.assert_allclose(served, np.clip(p, 1e-3, 1 - 1e-3), atol=1e-5)
    data = pack(alone)
    base = make_base(NETWORK, {}, {})
    there = assemble(base, unpack(data, sha256=digest(data), where="v1"), where="v1")
    x, _ = curved(3, 200)
    assert there.predict(x).tobytes() == NETWORK.with_adapter(alone).predict(x).tobytes()


def test_without_steps_there_is_none() -> None:
    outcome = heal(recipes_with(0), small.start(NETWORK), rows_of(*curved(1, 200)))
    assert "weight_network" not in outcome.measured
    assert not len(outcome.after.weights["network"])
