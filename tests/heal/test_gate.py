"""Whether a heal may be published: judged on rows that it did not learn from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from selfheal_cli.heal.gate import Judgement, compare, judge
from selfheal_cli.heal.task import AdapterState, HealOutcome, HealRows, HealTask
from selfheal_cli.model.architecture import Architecture
from selfheal_cli.model.network import SelfHealingNetwork
from selfheal_cli.model.training import seeded

INPUTS, ROWS = 3, 100
TRUTH = (np.arange(ROWS) % 4 == 0).astype(np.int8)
HELD = np.arange(ROWS) % 5 == 0


@pytest.fixture(scope="module")
def network() -> SelfHealingNetwork:
    """A small network with the adapter that a convex heal folds into."""
    with seeded(0):
        built = SelfHealingNetwork.build(Architecture(INPUTS, 4))
    built.freeze()
    return built.anchored(beside=False)


def probabilities(seed: int, strength: float) -> np.ndarray:
    """Probabilities that know more of the truth the greater ``strength`` is."""
    draw = np.random.default_rng(seed)
    logits = strength * (2.0 * TRUTH - 1.0) + draw.normal(size=ROWS)
    return (1 / (1 + np.exp(-logits))).astype(np.float32)


def outcome_of(
    network: SelfHealingNetwork,
    before: np.ndarray,
    after: np.ndarray,
    *,
    held_out: np.ndarray = HELD,
    y: np.ndarray = TRUTH,
    arrival: np.ndarray | None = None,
) -> HealOutcome:
    """An outcome with these probabilities, of a heal that changed no weight."""
    x = np.random.default_rng(0).normal(size=(len(y), INPUTS)).astype(np.float32)
    steps = np.ones(len(y), dtype=np.int32) if arrival is None else arrival
    rows = HealRows(network.features(x), y, np.full_like(y, -1), steps, held_out)
    task = HealTask("h", 1, "drift", "anchored", rows)
    return HealOutcome(task, AdapterState(network.adapter.state_dict(), {}), before, after)


def judged(network: SelfHealingNetwork, outcome: HealOutcome, tolerance: float = 2.0) -> Judgement:
    """What the gate says of the outcome of a heal of this network."""
    return judge(network, network.with_adapter(outcome.after.weights), outcome, tolerance)


def losses(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Log loss of each row."""
    return -np.log(np.where(y == 1, p, 1 - p).astype(np.float64))


def test_a_heal_that_is_worse_on_held_out_rows_is_rejected_with_the_figures(
    network: SelfHealingNetwork,
) -> None:
    before, after = probabilities(1, 3.0), probabilities(1, -1.0)
    judgement = judged(network, outcome_of(network, before, after))
    worse = losses(after, TRUTH)[HELD] - losses(before, TRUTH)[HELD]
    error = worse.std(ddof=1) / np.sqrt(HELD.sum())
    assert judgement.worse_by == pytest.approx(worse.mean())
    assert judgement.error == pytest.approx(error)
    assert judgement.rows == 20
    assert judgement.rejected == (
        f"log loss on 20 held-out rows rises by {worse.mean():.4f}, more than 2 standard errors "
        f"({error:.4f})"
    )


def test_a_heal_that_is_better_on_held_out_rows_is_let_through(
    network: SelfHealingNetwork,
) -> None:
    judgement = judged(network, outcome_of(network, probabilities(1, 0.5), probabilities(1, 3.0)))
    assert judgement.rejected == ""
    assert judgement.worse_by is not None
    assert judgement.worse_by < 0
    assert judgement.rows == 20


def test_a_heal_that_changes_nothing_is_let_through(network: SelfHealingNetwork) -> None:
    same = probabilities(1, 1.0)
    assert judged(network, outcome_of(network, same, same)) == Judgement("", 20, 0.0, 0.0)


@given(seed=st.integers(0, 50), strength=st.floats(0.2, 2.0), tolerance=st.floats(0, 4).map(float))
def test_a_heal_may_be_worse_by_the_tolerance_and_no_more(
    network: SelfHealingNetwork, seed: int, strength: float, tolerance: float
) -> None:
    outcome = outcome_of(network, probabilities(1, 1.0), probabilities(seed, strength))
    judgement = judged(network, outcome, tolerance)
    assert judgement.worse_by is not None
    assert judgement.error is not None
    assert bool(judgement.rejected) == (judgement.worse_by > tolerance * judgement.error)


def test_rows_that_were_learned_from_say_nothing(network: SelfHealingNetwork) -> None:
    before = probabilities(1, 1.0)
    after = np.where(HELD, probabilities(1, 3.0), probabilities(1, -3.0)).astype(np.float32)
    assert judged(network, outcome_of(network, before, after)).rejected == ""
    after = np.where(HELD, probabilities(1, -3.0), probabilities(1, 3.0)).astype(np.float32)
    assert (
        "log loss on 20 held-out rows"
        in judged(network, outcome_of(network, before, after)).rejected
    )


def test_held_out_rows_without_a_label_say_nothing(network: SelfHealingNetwork) -> None:
    y = np.where(np.arange(ROWS) < 50, -1, TRUTH).astype(np.int8)
    good, bad = probabilities(1, 3.0), probabilities(1, -3.0)
    after = np.where(y < 0, bad, good).astype(np.float32)
    judgement = judged(network, outcome_of(network, probabilities(1, 1.0), after, y=y))
    assert judgement.rejected == ""
    assert judgement.rows == 10


@pytest.mark.parametrize("recent_is_better", [True, False])
def test_the_present_counts_more_than_the_past(
    network: SelfHealingNetwork, recent_is_better: bool
) -> None:
    arrival = np.repeat(np.arange(10, dtype=np.int32), 10)
    recent = arrival >= 5
    better, worse = probabilities(1, 3.0), probabilities(1, -1.0)
    after = np.where(recent == recent_is_better, better, worse).astype(np.float32)
    before = probabilities(1, 1.0)
    judgement = judged(network, outcome_of(network, before, after, arrival=arrival))
    assert bool(judgement.rejected) is not recent_is_better
    known = compare(before[HELD], after[HELD], TRUTH[HELD], arrival[HELD])
    assert known == (judgement.worse_by, judgement.error)


def test_of_three_classes_the_loss_is_that_of_the_true_one(network: SelfHealingNetwork) -> None:
    draw = np.random.default_rng(0)
    y = draw.integers(0, 3, ROWS).astype(np.int8)
    before, after = (draw.dirichlet(np.ones(3), ROWS).astype(np.float32) for _ in range(2))
    judgement = judged(network, outcome_of(network, before, after, y=y))
    picked = np.arange(ROWS), y
    expected = (np.log(before[picked]) - np.log(after[picked]))[HELD].mean()
    assert judgement.worse_by == pytest.approx(expected, rel=1e-5)


def test_probabilities_that_are_certain_and_wrong_are_a_finite_loss(
    network: SelfHealingNetwork,
) -> None:
    before = probabilities(1, 1.0)
    judgement = judged(network, outcome_of(network, before, (1.0 - TRUTH).astype(np.float32)))
    assert judgement.worse_by is not None
    assert 10 < judgement.worse_by < 30
    assert judgement.rejected != ""


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_probability_that_is_not_finite_is_a_collapse(
    network: SelfHealingNetwork, value: float
) -> None:
    after = probabilities(1, 3.0)
    after[3] = value
    judgement = judged(network, outcome_of(network, probabilities(1, 1.0), after))
    assert judgement == Judgement("a probability is not finite", 0)


def test_one_probability_for_all_rows_is_a_collapse(network: SelfHealingNetwork) -> None:
    after = np.full(ROWS, 0.25, dtype=np.float32)
    judgement = judged(network, outcome_of(network, probabilities(1, -3.0), after))
    assert judgement == Judgement("every row gets the same probability", 0)
    assert judged(network, outcome_of(network, after, after)).rejected == ""


def test_one_distribution_for_all_rows_is_a_collapse(network: SelfHealingNetwork) -> None:
    draw = np.random.default_rng(0)
    y = draw.integers(0, 3, ROWS).astype(np.int8)
    before = draw.dirichlet(np.ones(3), ROWS).astype(np.float32)
    after = np.tile(np.array([0.3, 0.3, 0.4], dtype=np.float32), (ROWS, 1))
    judgement = judged(network, outcome_of(network, before, after, y=y))
    assert judgement == Judgement("every row gets the same probability", 0)


def test_features_that_explode_are_a_collapse(network: SelfHealingNetwork) -> None:
    start = network.adapter.state_dict()
    outcome = outcome_of(network, probabilities(1, 1.0), probabilities(1, 3.0))
    weights = {**start, "bias": torch.full_like(start["bias"], 1e6)}
    blown = HealOutcome(
        outcome.task,
        AdapterState(weights, {}),
        outcome.probabilities_before,
        outcome.probabilities_after,
    )
    judgement = judged(network, blown)
    assert judgement.rejected.startswith("adapted features grew from ")
    assert judgement.rows == 0


def test_one_class_for_all_rows_passes_only_with_a_clear_fall_of_log_loss(
    network: SelfHealingNetwork,
) -> None:
    draw = np.random.default_rng(3)
    wrong = probabilities(1, -2.0)
    assert len(np.unique(wrong >= 0.5)) == 2
    never = draw.uniform(0.2, 0.3, ROWS).astype(np.float32)
    better = judged(network, outcome_of(network, wrong, never))
    assert better.rejected == ""
    assert better.worse_by is not None
    assert better.worse_by < 0
    right = np.where(TRUTH == 1, 0.51, 0.24).astype(np.float32)
    almost = np.where(TRUTH == 1, 0.49, 0.225).astype(np.float32)
    same = judged(network, outcome_of(network, right, almost))
    assert same.rejected == "every row gets the same class, and log loss does not fall"
    assert same.rows == 20


def test_one_class_for_all_rows_is_no_matter_where_it_was_so_before(
    network: SelfHealingNetwork,
) -> None:
    draw = np.random.default_rng(3)
    first, second = draw.uniform(0.2, 0.3, (2, ROWS)).astype(np.float32)
    assert judged(network, outcome_of(network, first, second), 4.0).rejected == ""


@pytest.mark.parametrize("labelled", [True, False])
def test_one_class_for_all_rows_without_held_out_rows_passes_only_without_labels(
    network: SelfHealingNetwork, labelled: bool
) -> None:
    never = np.random.default_rng(3).uniform(0.2, 0.3, ROWS).astype(np.float32)
    y = TRUTH if labelled else np.full(ROWS, -1, dtype=np.int8)
    nothing = np.zeros(ROWS, dtype=bool)
    outcome = outcome_of(network, probabilities(1, 1.0), never, held_out=nothing, y=y)
    said = "every row gets the same class" if labelled else ""
    assert judged(network, outcome) == Judgement(said, 0)


@pytest.mark.parametrize("missing", ["held-out rows", "labels"])
def test_without_held_out_rows_nothing_is_held_against_a_heal(
    network: SelfHealingNetwork, missing: str
) -> None:
    nothing = np.zeros(ROWS, dtype=bool)
    worse = (probabilities(1, 3.0), probabilities(1, -3.0))
    outcome = (
        outcome_of(network, *worse, held_out=nothing)
        if missing == "held-out rows"
        else outcome_of(network, *worse, y=np.full(ROWS, -1, dtype=np.int8))
    )
    assert judged(network, outcome) == Judgement("", 0)


def test_one_held_out_row_is_no_evidence(network: SelfHealingNetwork) -> None:
    before, after = probabilities(1, 1.0), probabilities(1, 0.95)
    held_out = np.arange(ROWS) == 7
    judgement = judged(network, outcome_of(network, before, after, held_out=held_out))
    assert judgement.rejected == ""
