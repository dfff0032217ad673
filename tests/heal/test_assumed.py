"""Healing without labels: right where what is assumed is true, refused where it is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import log_loss

from selfheal_cli.config import HealSettings, SyntheticSettings
from selfheal_cli.errors import HealRefused
from selfheal_cli.heal.anchor import AnchorRows
from selfheal_cli.heal.experts.random_features import draw_features
from selfheal_cli.heal.gate import judge
from selfheal_cli.heal.recipe import Recipes, label_free
from selfheal_cli.heal.task import AdapterState, HealOutcome, HealRows, HealTask
from selfheal_cli.records import Rows
from selfheal_cli.sources.synthetic import V14, SyntheticSource, as_rows, posterior
from tests.heal.small import Trained, trained_on

SEED = 0
TRUE_DRIFTS = (1.0, 3.5)


@pytest.fixture(scope="module")
def trained() -> Trained:
    """A network trained on 5,000 clean rows."""
    return trained_on(source())


def source(**settings: Any) -> SyntheticSource:
    """The article's generator, drift 0 unless said otherwise."""
    chosen = SyntheticSettings.model_validate({"drift_strength": 0.0, "fresh": True, **settings})
    return SyntheticSource(chosen, seed=SEED, batch_size=2_500, batches=1)


def window_and_fresh(**settings: Any) -> tuple[Rows, Rows]:
    """2,500 rows of the stream, and 20,000 more like them."""
    (batch,) = source(**settings).batches()
    return batch.rows, source(test_rows=20_000, **settings).held_out()["drifted"]


def moved(rows: Rows, scale: float, shift: float) -> Rows:
    """All ten inputs stretched and shifted."""
    return as_rows(rows.x * np.float32(scale) + np.float32(shift), rows.y)


@pytest.fixture(scope="module")
def mixed(trained: Trained) -> Trained:
    """The same with an ensemble's mixture for its adapter."""
    rows = next(iter(source().training()))
    network = trained.network.mixed(*draw_features(rows.x))
    seen = AnchorRows(network, 2)
    seen.add(rows.x, network.features(rows.x), rows.y)
    return Trained(trained.plain, network, seen.anchor())


def heal(trained: Trained, assume: Any, rows: Rows, recipe: str = "anchored") -> HealOutcome:
    """A heal on these rows without their labels."""
    settings = HealSettings(recipe=recipe, assume=assume, assume_strictly=recipe != "anchored")
    name = label_free(settings)
    assert name is not None
    features, steps = trained.network.features(rows.x), np.ones(len(rows), dtype=np.int32)
    unknown, none = np.full_like(rows.y, -1), np.zeros(len(rows), dtype=bool)
    healing = HealRows(features, unknown, unknown.copy(), steps, none)
    before = AdapterState(trained.network.adapter.state_dict(), {})
    recipes = Recipes(trained.network, trained.anchor, settings)
    return recipes.heal(before, HealTask("h1", 1, "drift", name, healing))


def losses(trained: Trained, outcome: HealOutcome, fresh: Rows) -> tuple[float, float]:
    """Log loss on fresh rows, frozen and healed."""
    healed = trained.network.with_adapter(outcome.after.weights)
    frozen = log_loss(fresh.y, trained.network.predict(fresh.x))
    return float(frozen), float(log_loss(fresh.y, healed.predict(fresh.x)))


@pytest.mark.parametrize("drift", TRUE_DRIFTS)
def test_stable_positives_heal_normals_that_moved(trained: Trained, drift: float) -> None:
    window, fresh = window_and_fresh(drift_strength=drift)
    outcome = heal(trained, "positives-stable", window)
    frozen, healed = losses(trained, outcome, fresh)
    limit = log_loss(fresh.y, posterior(fresh.x[:, V14], drift, 0.15))
    assert healed < limit + 0.04 < 0.7 * frozen
    assert outcome.measured["rho"] < 1.5


@pytest.mark.parametrize(
    ("assume", "change"),
    [
        ("positives-stable", {"drift_strength": 2.2}),
        ("inputs-shifted", {"drift_strength": 1.0, "positive_shift": -1.0}),
    ],
)
def test_an_ensemble_heals_without_labels_as_anchored_does(
    trained: Trained, mixed: Trained, assume: str, change: dict[str, Any]
) -> None:
    window, fresh = window_and_fresh(**change)
    alone, ours = heal(trained, assume, window), heal(mixed, assume, window, "ensemble")
    frozen, healed = losses(mixed, ours, fresh)
    assert healed < 0.7 * frozen
    assert healed == pytest.approx(losses(trained, alone, fresh)[1], abs=0.003)
    assert ours.measured["rho"] == pytest.approx(alone.measured["rho"], abs=1e-6)
    for one, known in ((alone, trained), (ours, mixed)):
        healed_network = known.network.with_adapter(one.after.weights)
        np.testing.assert_allclose(
            healed_network.predict(window.x), one.probabilities_after, atol=1e-6
        )


@pytest.mark.parametrize(
    ("assume", "change"),
    [
        ("positives-stable", {"positive_shift": 1.0}),
        ("inputs-shifted", {"drift_strength": 2.2}),
        ("positives-stable", {}),
    ],
)
def test_an_ensemble_is_refused_what_anchored_is(
    mixed: Trained, assume: str, change: dict[str, Any]
) -> None:
    with pytest.raises(HealRefused):
        heal(mixed, assume, window_and_fresh(**change)[0], "ensemble")


def test_once_labels_come_an_ensemble_learns_beside_what_was_assumed(mixed: Trained) -> None:
    window, _ = window_and_fresh(drift_strength=2.2)
    free = heal(mixed, "positives-stable", window, "ensemble")
    features = mixed.network.features(window.x)
    steps = (np.arange(len(window)) // 100).astype(np.int32)
    none = np.zeros(len(window), dtype=bool)
    rows = HealRows(features, window.y, np.full_like(window.y, -1), steps, none)
    recipes = Recipes(mixed.network, mixed.anchor, HealSettings(recipe="ensemble"))
    outcome = recipes.heal(free.after, HealTask("h2", 2, "labels", "ensemble", rows))
    anew = AdapterState(mixed.network.adapter.state_dict(), {})
    same = recipes.heal(anew, HealTask("h2", 2, "labels", "ensemble", rows))
    assert outcome.probabilities_after.tobytes() == same.probabilities_after.tobytes()


def test_what_a_heal_without_labels_remembers_is_nothing(trained: Trained) -> None:
    window, _ = window_and_fresh(drift_strength=1.0)
    assert heal(trained, "positives-stable", window).after.memory == {}


@pytest.mark.parametrize(
    "settings", [{"positive_shift": 1.0}, {"stream_positive_share": 0.05}], ids=["moved", "rarer"]
)
def test_stable_positives_are_refused_where_they_are_not(
    trained: Trained, settings: dict[str, float]
) -> None:
    window, _ = window_and_fresh(**settings)
    with pytest.raises(HealRefused) as caught:
        heal(trained, "positives-stable", window)
    said = str(caught.value)
    assert said.startswith("--assume positives-stable does not hold on the last 2,500 rows: rho ")
    assert said.endswith(" is above 1.5; wait for labels")


@pytest.mark.parametrize("shift", [1.0, -1.0])
def test_stable_negatives_heal_positives_that_moved(trained: Trained, shift: float) -> None:
    window, fresh = window_and_fresh(positive_shift=shift)
    outcome = heal(trained, "negatives-stable", window)
    frozen, healed = losses(trained, outcome, fresh)
    limit = log_loss(fresh.y, posterior(fresh.x[:, V14], 0.0, 0.15, -2.5 + shift))
    assert healed < frozen
    assert healed < limit + 0.04


@pytest.mark.parametrize("drift", TRUE_DRIFTS)
def test_stable_negatives_are_refused_where_they_moved(trained: Trained, drift: float) -> None:
    window, _ = window_and_fresh(drift_strength=drift)
    with pytest.raises(HealRefused, match=r"--assume negatives-stable does not hold"):
        heal(trained, "negatives-stable", window)


@pytest.mark.parametrize("assume", ["positives-stable", "negatives-stable", "inputs-shifted"])
def test_where_nothing_moved_little_changes(trained: Trained, assume: str) -> None:
    window, fresh = window_and_fresh()
    frozen, healed = losses(trained, heal(trained, assume, window), fresh)
    assert healed < frozen + 0.05


@pytest.mark.parametrize(("scale", "shift"), [(1.3, 0.7), (2.0, -3.0), (0.5, 0.0)])
def test_shifted_inputs_are_moved_back(trained: Trained, scale: float, shift: float) -> None:
    window, fresh = window_and_fresh()
    clean = log_loss(fresh.y, trained.network.predict(fresh.x))
    outcome = heal(trained, "inputs-shifted", moved(window, scale, shift))
    frozen, healed = losses(trained, outcome, moved(fresh, scale, shift))
    assert healed < clean + 0.01 < frozen
    assert outcome.measured["rho"] < 1.5


@pytest.mark.parametrize("assume", ["positives-stable", "negatives-stable", "inputs-shifted"])
def test_rows_that_are_not_finite_are_refused(trained: Trained, assume: str) -> None:
    window, _ = window_and_fresh()
    x = window.x.copy()
    x[3, 2] = np.nan
    with np.errstate(invalid="ignore"), pytest.raises(HealRefused, match="rho nan"):
        heal(trained, assume, as_rows(x, window.y))


@pytest.mark.parametrize("drift", [1.0, 2.2, 3.5])
def test_shifted_inputs_are_refused_where_one_class_moved(trained: Trained, drift: float) -> None:
    window, _ = window_and_fresh(drift_strength=drift)
    with pytest.raises(HealRefused):
        heal(trained, "inputs-shifted", window)


def test_the_gate_lets_a_heal_through_that_rightly_flags_nothing(trained: Trained) -> None:
    window, fresh = window_and_fresh(drift_strength=2.2)  # no row's posterior passes 0.20
    outcome = heal(trained, "positives-stable", window)
    frozen, healed = losses(trained, outcome, fresh)
    assert healed < 0.5 * frozen
    network = trained.network.with_adapter(outcome.after.weights)
    assert judge(trained.network, network, outcome, 2.0).rejected == ""


def strictly(trained: Trained, assume: Any, rows: Rows) -> HealOutcome:
    """A heal where inputs must have moved, and rows of the class must be there."""
    settings = HealSettings(recipe="anchored", assume=assume, assume_strictly=True)
    features = trained.network.features(rows.x)
    unknown, none = np.full_like(rows.y, -1), np.zeros(len(rows), dtype=bool)
    anchors = AnchorRows(trained.network, 2, margins=True)
    for clean in source().training():
        anchors.add(clean.x, trained.network.features(clean.x), clean.y)
    recipe = label_free(settings)
    assert recipe is not None
    steps = np.ones(len(rows), dtype=np.int32)
    before = AdapterState(trained.network.adapter.state_dict(), {})
    recipes = Recipes(trained.network, anchors.anchor(), settings)
    healing = HealRows(features, unknown, unknown.copy(), steps, none)
    return recipes.heal(before, HealTask("h1", 1, "drift", recipe, healing))


@pytest.mark.parametrize("assume", ["positives-stable", "negatives-stable", "inputs-shifted"])
def test_where_inputs_are_as_in_training_nothing_is_healed(trained: Trained, assume: str) -> None:
    window, _ = window_and_fresh()
    with pytest.raises(HealRefused, match="are as in training: there is nothing"):
        strictly(trained, assume, window)


def test_where_nothing_but_noise_comes_in_positives_are_missed(trained: Trained) -> None:
    window, _ = window_and_fresh()
    x = np.random.default_rng(0).normal(size=window.x.shape).astype(np.float32)
    with pytest.raises(HealRefused, match=r"of them are where \d+ of its class would be"):
        strictly(trained, "positives-stable", as_rows(x, window.y))


@pytest.mark.parametrize("drift", TRUE_DRIFTS)
def test_where_normals_moved_the_heal_is_the_same(trained: Trained, drift: float) -> None:
    window, _ = window_and_fresh(drift_strength=drift)
    plain = heal(trained, "positives-stable", window)
    strict = strictly(trained, "positives-stable", window)
    for name, weight in plain.after.weights.items():
        assert np.array_equal(weight.numpy(), strict.after.weights[name].numpy())
