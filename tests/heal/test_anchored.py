"""The convex heal: identity without evidence, one minimum, near the limit, and back again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score

from selfheal_cli.config import HealSettings, SyntheticSettings
from selfheal_cli.heal.anchor import Anchor, AnchorRows, Design
from selfheal_cli.heal.recipes.anchored import NAMES, Anchored
from selfheal_cli.heal.task import AdapterState, HealOutcome, HealRows, HealTask, Window
from selfheal_cli.logistic import fit, row_losses, targets
from selfheal_cli.model.architecture import Architecture
from selfheal_cli.model.network import SelfHealingNetwork
from selfheal_cli.model.training import seeded
from selfheal_cli.records import Rows
from selfheal_cli.sources.synthetic import V14, SyntheticSource, bayes_limit, posterior
from tests.heal.small import Trained, trained_on

SEED = 0
SETTINGS = HealSettings(recipe="anchored")
PROGRESSIVE = HealSettings(recipe="anchored", progressive=True)
OUTPUTS = pytest.mark.parametrize("outputs", [1, 3])


@pytest.fixture(scope="module")
def trained() -> Trained:
    """A network trained on 5,000 clean rows."""
    return trained_on(source())


def source(*phases: tuple[int, float], test_rows: int = 1_000) -> SyntheticSource:
    """Clean rows to train on, then a stream of these (batches, drift)."""
    settings = SyntheticSettings(phases=phases or ((1, 0.0),), test_rows=test_rows)
    return SyntheticSource(settings, seed=SEED, batch_size=100, batches=None)


def blocks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The training rows."""
    for rows in source().training():
        yield rows.x, rows.y


def anchor_of(network: SelfHealingNetwork, classes: int, x: np.ndarray, y: np.ndarray) -> Anchor:
    """What a network sees of these rows."""
    seen = AnchorRows(network, classes)
    seen.add(x, network.features(x), y)
    return seen.anchor()


def small(outputs: int, *, beside: bool = True) -> tuple[SelfHealingNetwork, Anchor, np.ndarray]:
    """A small anchored network, and rows (n, 4)."""
    with seeded(1):
        plain = SelfHealingNetwork.build(Architecture(4, 8, outputs=outputs))
    plain.freeze()
    network = plain.anchored(beside=beside)
    draw = np.random.default_rng(0)
    x = (3 * draw.normal(size=(300, 4)) + 1).astype(np.float32)
    classes = max(outputs, 2)
    return network, anchor_of(network, classes, x, draw.integers(0, classes, 300)), x


def heals(
    trained: Trained, stream: Sequence[Rows], state: AdapterState | None = None
) -> Iterator[HealOutcome]:
    """Test-then-train on a window: a heal after each batch."""
    recipe = Anchored(trained.network, trained.anchor, SETTINGS)
    window = Window(SETTINGS.window, SETTINGS.held_out, SEED)
    state = state or AdapterState(trained.network.adapter.state_dict(), {})
    for arrival, rows in enumerate(stream, start=1):
        features = trained.network.features(rows.x)
        window.add(arrival, features, rows.y, np.full_like(rows.y, -1))
        task = HealTask(f"h{arrival}", arrival, "drift", "anchored", window.rows())
        outcome = recipe.heal(state, task)
        state = outcome.after
        yield outcome


def stream_of(*phases: tuple[int, float]) -> list[Rows]:
    """Batches of 100 rows, as the synthetic source draws them."""
    return [batch.rows for batch in source(*phases).batches()]


@pytest.fixture(scope="module")
def drifted(trained: Trained) -> list[HealOutcome]:
    """25 heals on rows whose normals' V14 has moved by 3.5."""
    return list(heals(trained, stream_of((25, 3.5))))


def logits_of(network: SelfHealingNetwork, features: np.ndarray) -> np.ndarray:
    """What the head gives for adapted features."""
    with torch.inference_mode():
        logits: np.ndarray = network.head(network.adapter(torch.from_numpy(features))).numpy()
    return logits


def problem(
    outputs: int, scale: float = 2.0, rows: int = 400
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A random (design, offset, labels, ridge)."""
    draw = np.random.default_rng(5)
    a = np.c_[draw.normal(size=(rows, 12)), np.ones(rows)]
    offset = scale * draw.normal(size=(rows, outputs)) + (scale if outputs == 1 else 0)
    y = draw.integers(0, max(outputs, 2), rows)
    return a, offset, y, np.r_[np.full(12, 5.0), 1e-3]


def objective(
    flat: np.ndarray, a: np.ndarray, offset: np.ndarray, y: np.ndarray, ridge: np.ndarray
) -> tuple[float, np.ndarray]:
    """Mean log loss with the penalty, and its gradient, written out."""
    theta = flat.reshape(a.shape[1], -1)
    z = offset + a @ theta
    wide = np.c_[np.zeros(len(a)), z] if z.shape[1] == 1 else z
    log_p = wide - np.logaddexp.reduce(wide, axis=1, keepdims=True)
    loss = -log_p[np.arange(len(a)), y].mean()
    gap = np.exp(log_p) - np.eye(wide.shape[1])[y]
    gradient = a.T @ gap[:, -z.shape[1] :] / len(a) + ridge[:, None] * theta / len(a)
    return loss + 0.5 * float((ridge[:, None] * theta**2).sum()) / len(a), gradient.ravel()


@OUTPUTS
@pytest.mark.parametrize("beside", [True, False])
def test_before_any_heal_the_twin_predicts_bit_for_bit_as_the_network(
    outputs: int, beside: bool
) -> None:
    with seeded(1):
        plain = SelfHealingNetwork.build(Architecture(4, 8, outputs=outputs))
    plain.freeze()
    x = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    twin = plain.anchored(beside=beside)
    assert twin.predict(x).tobytes() == plain.predict(x).tobytes()
    assert twin.predict_features(twin.features(x)).tobytes() == plain.predict(x).tobytes()


def test_the_trained_twin_predicts_bit_for_bit_as_the_network(trained: Trained) -> None:
    x = source().held_out()["drifted"].x
    assert trained.network.predict(x).tobytes() == trained.plain.predict(x).tobytes()


@OUTPUTS
def test_folding_no_change_gives_identity_to_the_last_bit(outputs: int) -> None:
    network, anchor, x = small(outputs)
    design = Design(network, anchor)
    healed = network.with_adapter(design.fold(np.zeros((design.columns, outputs))))
    assert healed.predict(x).tobytes() == network.predict(x).tobytes()


@OUTPUTS
@pytest.mark.parametrize("beside", [True, False])
def test_the_folded_adapter_gives_the_logits_of_the_solution(outputs: int, beside: bool) -> None:
    network, anchor, x = small(outputs, beside=beside)
    design, features = Design(network, anchor), network.features(x)
    theta = np.random.default_rng(2).normal(size=(design.columns, outputs))
    offset = design.offset(features)
    expected = offset + design.rows(features, offset) @ theta
    logits = logits_of(network.with_adapter(design.fold(theta)), features)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_the_folded_adapter_of_a_trained_network_gives_the_logits_of_the_solution(
    trained: Trained,
) -> None:
    design = Design(trained.network, trained.anchor)
    features = trained.network.features(source().held_out()["drifted"].x)
    offset = design.offset(features)
    a, y = design.rows(features, offset), source().held_out()["drifted"].y
    ridge = np.r_[np.full(design.features, 5.0), 1.0, 1e-3]
    theta = fit(a, offset, targets(a, y, 1), ridge, np.zeros((design.columns, 1)))
    logits = logits_of(trained.network.with_adapter(design.fold(theta)), features)
    np.testing.assert_allclose(logits, offset + a @ theta, rtol=1e-3, atol=1e-3)


@OUTPUTS
@pytest.mark.parametrize("scale", [0.5, 5.0, 40.0])
@pytest.mark.parametrize("start", [0.0, 3.0])
def test_the_fit_is_the_minimum_that_scipy_finds_whatever_the_start(
    outputs: int, scale: float, start: float
) -> None:
    a, offset, y, ridge = problem(outputs, scale)
    at = start * np.random.default_rng(1).normal(size=(a.shape[1], outputs))
    theta = fit(a, offset, targets(a, y, outputs), ridge, at)
    value, gradient = objective(theta.ravel(), a, offset, y, ridge)
    tight = {"maxiter": 20_000, "maxfun": 50_000, "ftol": 1e-15, "gtol": 1e-9}
    reference = minimize(
        objective,
        np.zeros(theta.size),
        args=(a, offset, y, ridge),
        jac=True,
        method="L-BFGS-B",
        options=tight,
    )
    assert value == pytest.approx(reference.fun, rel=1e-4 if outputs > 1 else 1e-9)
    assert np.abs(gradient).max() < (1e-4 if outputs > 1 else 1e-6)
    if outputs == 1:
        np.testing.assert_allclose(theta.ravel(), reference.x, atol=1e-4)


@pytest.mark.parametrize("outputs", [1, 3])
def test_without_offsets_the_fit_is_scikit_learn_s(outputs: int) -> None:
    a, offset, y, _ = problem(outputs)
    reference = LogisticRegression(C=1 / 5.0, fit_intercept=False, tol=1e-10, max_iter=10_000)
    reference.fit(a, y)
    ridge = np.full(a.shape[1], 5.0)
    start = np.zeros((a.shape[1], outputs))
    theta = fit(a, np.zeros_like(offset), targets(a, y, outputs), ridge, start)
    np.testing.assert_allclose(theta.T, reference.coef_, atol=2e-4)


@pytest.mark.parametrize("far", [20.0, 60.0, 200.0])
def test_logits_that_are_far_off_are_brought_back(far: float) -> None:
    a, offset, y, ridge = problem(1)
    offset = np.full_like(offset, far)
    theta = fit(a, offset, targets(a, y, 1), ridge, np.zeros((a.shape[1], 1)))
    rate = y.mean()
    assert np.mean(offset + a @ theta) == pytest.approx(np.log(rate / (1 - rate)), abs=0.2)


@OUTPUTS
def test_row_losses_are_those_of_the_true_class(outputs: int) -> None:
    a, offset, y, _ = problem(outputs)
    wide = np.c_[np.zeros(len(a)), offset] if outputs == 1 else offset
    p = np.exp(wide) / np.exp(wide).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(row_losses(offset, y), -np.log(p[np.arange(len(a)), y]))


def test_few_rows_change_little(trained: Trained) -> None:
    (outcome,) = heals(trained, stream_of((1, 0.0)))
    x = source().held_out()["clean"].x
    healed = trained.network.with_adapter(outcome.after.weights)
    assert np.abs(healed.predict(x) - trained.network.predict(x)).mean() < 0.01


def test_25_heals_under_drift_come_close_to_the_limit(
    trained: Trained, drifted: list[HealOutcome]
) -> None:
    held_out = source((1, 3.5), test_rows=20_000).held_out()["drifted"]
    x, y = held_out.x, held_out.y
    healed = trained.network.with_adapter(drifted[-1].after.weights).predict(x)
    frozen = trained.network.predict(x)
    limit = bayes_limit(3.5, 0.15)
    best = log_loss(y, posterior(x[:, V14], 3.5, 0.15))
    assert log_loss(y, healed) < best + 0.02 < log_loss(y, frozen)
    assert roc_auc_score(y, healed) > limit.roc_auc - 0.02 > roc_auc_score(y, frozen)
    assert np.mean((healed >= 0.5) == y) > limit.accuracy - 0.01


def test_under_drift_nobody_believes_that_nothing_changed(drifted: list[HealOutcome]) -> None:
    assert drifted[-1].measured["weight_frozen"] < 0.01


def test_the_weights_of_the_explanations_sum_to_one(drifted: list[HealOutcome]) -> None:
    for outcome in drifted:
        assert set(outcome.measured) == {f"weight_{name}" for name in NAMES}
        assert sum(outcome.measured.values()) == pytest.approx(1.0)
        assert min(outcome.measured.values()) >= 0


def test_on_clean_rows_the_frozen_explanation_leads(trained: Trained) -> None:
    last = list(heals(trained, stream_of((10, 0.0))))[-1]
    assert last.measured["weight_frozen"] == max(last.measured.values()) > 0.5


def accuracy_gap(trained: Trained, outcome: HealOutcome) -> float:
    """How much accuracy on 5,000 clean rows the healed network lacks against the frozen one."""
    clean = source(test_rows=5_000).held_out()["clean"]
    healed = trained.network.with_adapter(outcome.after.weights)
    frozen, now = (
        float(np.mean((one.predict(clean.x) >= 0.5) == clean.y))
        for one in (trained.network, healed)
    )
    return frozen - now


@pytest.mark.parametrize(
    "drift",
    [pytest.param(1.0), pytest.param(2.2), pytest.param(3.5)],
)
def test_when_drift_ends_the_frozen_explanation_is_believed_again(
    trained: Trained, drift: float
) -> None:
    outcomes = list(heals(trained, stream_of((25, drift), (5, 0.0))))
    before, after = (outcomes[place].measured["weight_frozen"] for place in (24, 29))
    assert after > before + 0.01
    assert accuracy_gap(trained, outcomes[-1]) < 0.01


def test_when_a_strong_drift_ends_predictions_return_within_eight_batches(
    trained: Trained,
) -> None:
    outcomes = list(heals(trained, stream_of((25, 3.5), (8, 0.0))))
    assert accuracy_gap(trained, outcomes[24]) > 0.5
    assert accuracy_gap(trained, outcomes[-1]) < 0.01


def test_memory_is_carried_from_heal_to_heal(trained: Trained, drifted: list[HealOutcome]) -> None:
    task, recipe = drifted[9].task, Anchored(trained.network, trained.anchor, SETTINGS)
    before = drifted[8].after
    carried = recipe.heal(before, task)
    assert carried.after.memory.keys() == {"thetas", "losses", "last"}
    assert int(carried.after.memory["last"]) == 10
    forgot = recipe.heal(AdapterState(before.weights, {}), task)
    assert carried.measured == drifted[9].measured
    assert forgot.measured != carried.measured
    assert not torch.equal(forgot.after.weights["weight"], carried.after.weights["weight"])


def test_rows_that_were_seen_before_are_not_counted_as_news(
    trained: Trained, drifted: list[HealOutcome]
) -> None:
    recipe = Anchored(trained.network, trained.anchor, SETTINGS)
    again = recipe.heal(drifted[9].after, drifted[9].task)
    assert torch.equal(again.after.memory["losses"], drifted[9].after.memory["losses"])


def loss_after(outcome: HealOutcome) -> float:
    """Of the rows that the heal did not learn from."""
    held = outcome.task.rows.held_out
    return float(log_loss(outcome.task.rows.y[held], outcome.probabilities_after[held]))


def test_a_restart_learns_of_ten_batches_at_once_what_ten_heals_did(
    trained: Trained, drifted: list[HealOutcome]
) -> None:
    recipe = Anchored(trained.network, trained.anchor, PROGRESSIVE)
    first = AdapterState(trained.network.adapter.state_dict(), {})
    anew = recipe.heal(first, drifted[9].task)
    assert loss_after(anew) == pytest.approx(loss_after(drifted[9]), abs=1e-6)
    assert anew.measured == pytest.approx(drifted[9].measured, abs=1e-6)
    assert int(anew.after.memory["last"]) == 10


def test_labels_of_ten_batches_that_come_all_at_once_heal_as_if_they_had_come_one_by_one(
    trained: Trained, drifted: list[HealOutcome]
) -> None:
    rows = drifted[9].task.rows
    together = HealRows(
        rows.features, rows.y, rows.rule_label, np.ones(len(rows), np.int32), rows.held_out
    )
    task = HealTask("h1", 1, "labels came", "anchored", together)
    first = AdapterState(trained.network.adapter.state_dict(), {})
    at_once = Anchored(trained.network, trained.anchor, PROGRESSIVE).heal(first, task)
    assert loss_after(at_once) < loss_after(drifted[9]) + 0.01
    all_alike = Anchored(trained.network, trained.anchor, SETTINGS).heal(first, task)
    assert loss_after(all_alike) > loss_after(drifted[9]) + 0.3  # as selfheal 0.1.0, and its logs


def test_heals_of_one_batch_each_are_the_same_either_way(
    trained: Trained, drifted: list[HealOutcome]
) -> None:
    recipe = Anchored(trained.network, trained.anchor, PROGRESSIVE)
    again = recipe.heal(drifted[8].after, drifted[9].task)
    assert torch.equal(again.after.weights["weight"], drifted[9].after.weights["weight"])
