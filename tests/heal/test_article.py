"""One heal: pure, on the adapter alone, and the article's recipe to the bit."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from selfheal_cli.config import HealSettings
from selfheal_cli.errors import HealError
from selfheal_cli.heal.recipes.article import Article
from selfheal_cli.heal.task import AdapterState, HealOutcome, HealTask
from selfheal_cli.model.network import SelfHealingNetwork
from tests.heal.small import INPUTS, anchor_of, bytes_of, outcome_bytes, rows_of, start, with_rows
from tests.heal.small import small_network as network

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray

ARTICLE = HealSettings()
SILENT = np.full(40, -1, dtype=np.int8)  # no rule speaks of any row
INFINITE = network().features(np.full((40, INPUTS), np.inf, dtype=np.float32))


def x_of(seed: int, rows: int = 40) -> FloatArray:
    """The inputs behind a task's features."""
    return np.random.default_rng(seed).normal(size=(rows, INPUTS)).astype(np.float32)


def task_of(seed: int, rows: int = 40, **changed: Any) -> HealTask:
    """Rows, labels, and rules that speak of some rows only."""
    draw = np.random.default_rng(seed + 1_000_000)
    y = draw.integers(0, 2, rows).astype(np.int8)
    rule_label = draw.integers(-1, 2, rows).astype(np.int8)
    task = HealTask(
        heal_id=f"run-h{seed}",
        batch=seed,
        reason="drift",
        recipe="article",
        rows=rows_of(network(), x_of(seed, rows), y, rule_label),
        positive_share=0.25,
    )
    return dataclasses.replace(task, **changed)


def heal(
    built: SelfHealingNetwork, before: AdapterState, task: HealTask, chosen: HealSettings
) -> HealOutcome:
    """One heal by the article's recipe."""
    return Article(built, anchor_of(built), chosen).heal(before, task)


def article_loss(p: Tensor, task: HealTask) -> tuple[Tensor, Tensor, Tensor]:
    """The article's three-part loss, written out: in all, of the labels, of the rules."""
    y = torch.from_numpy(task.rows.y).float()
    rule = torch.from_numpy(task.rows.rule_label).float()
    share = task.positive_share
    weight = 1.0 if share < 0.10 else min(2.0 + 10.0 * (share - 0.10), 4.0)
    logits = torch.log(p / (1 - p + 1e-8))
    label = functional.binary_cross_entropy_with_logits(logits, y, pos_weight=torch.tensor(weight))
    spoken = rule >= 0
    ruled = functional.binary_cross_entropy(p[spoken], rule[spoken])
    entropy = -(p * torch.log(p + 1e-8) + (1 - p) * torch.log(1 - p + 1e-8)).mean()
    return 0.70 * label + 0.24 * ruled + 0.03 * entropy, label, ruled


def article_heals(tasks: list[HealTask]) -> tuple[SelfHealingNetwork, list[float], list[float]]:
    """Heals in a row on a whole network with one `torch.optim.Adam`; the mean losses of each."""
    built = network()
    built.adapter.requires_grad_(requires_grad=True)
    optimiser = torch.optim.Adam(built.adapter.parameters(), lr=0.003)
    label_losses, rule_losses = [], []
    for task in tasks:
        losses = []
        for _ in range(5):
            optimiser.zero_grad()
            total, label, rule = article_loss(built(torch.from_numpy(x_of(task.batch))), task)
            total.backward()
            optimiser.step()
            losses.append((label.item(), rule.item()))
        label_losses.append(float(np.mean([label for label, _ in losses])))
        rule_losses.append(float(np.mean([rule for _, rule in losses])))
    return built, label_losses, rule_losses


@pytest.mark.parametrize("share", [0.0, 0.05, 0.10, 0.25, 0.9])
def test_heals_in_a_row_equal_a_plain_loop_with_torch_s_adam(share: float) -> None:
    built = network()
    tasks = [task_of(seed, positive_share=share) for seed in (1, 2, 3)]
    expected, label_losses, rule_losses = article_heals(tasks)
    state, outcomes = start(built), []
    for task in tasks:
        outcomes.append(heal(built, state, task, ARTICLE))
        state = outcomes[-1].after
    assert bytes_of(state.weights) == bytes_of(expected.adapter.state_dict())
    assert [outcome.measured["label_loss"] for outcome in outcomes] == pytest.approx(label_losses)
    assert [outcome.measured["rule_loss"] for outcome in outcomes] == pytest.approx(rule_losses)


@settings(max_examples=15)
@given(seed=st.integers(0, 1_000), rows=st.integers(1, 60), steps=st.integers(1, 8))
def test_the_same_arguments_give_the_same_bytes(seed: int, rows: int, steps: int) -> None:
    chosen = HealSettings(steps=steps)
    first = heal(network(), start(network()), task_of(seed, rows), chosen)
    torch.rand(3)  # whatever was drawn in between
    second = heal(network(), start(network()), task_of(seed, rows), chosen)
    assert outcome_bytes(first) == outcome_bytes(second)


def test_other_rows_labels_rules_shares_and_settings_give_other_bytes() -> None:
    task = task_of(1)
    other = task_of(2)
    built = network()
    healed = [
        heal(built, start(built), changed, chosen).after.weights
        for changed, chosen in [
            (task, ARTICLE),
            (with_rows(task, features=other.rows.features), ARTICLE),
            (with_rows(task, y=other.rows.y), ARTICLE),
            (with_rows(task, rule_label=other.rows.rule_label), ARTICLE),
            (dataclasses.replace(task, positive_share=0.0), ARTICLE),
            (task, HealSettings(steps=6)),
            (task, HealSettings(learning_rate=0.004)),
            (task, HealSettings(label_weight=0.5)),
            (task, HealSettings(rule_weight=0.5)),
            (task, HealSettings(entropy_weight=0.5)),
        ]
    ]
    assert len({str(bytes_of(weights)) for weights in healed}) == len(healed)


def test_a_heal_does_not_change_its_inputs() -> None:
    built, task = network(), task_of(1)
    state = heal(built, start(built), task_of(0), ARTICLE).after
    before = (
        bytes_of(built.state_dict()),
        bytes_of(state.weights),
        bytes_of(state.memory),
        [np.asarray(getattr(task.rows, name)).tolist() for name in task.rows.__slots__],
    )
    outcome = heal(built, state, task, ARTICLE)
    after = (
        bytes_of(built.state_dict()),
        bytes_of(state.weights),
        bytes_of(state.memory),
        [np.asarray(getattr(task.rows, name)).tolist() for name in task.rows.__slots__],
    )
    assert after == before
    assert not any(parameter.requires_grad for parameter in built.parameters())
    assert all(parameter.grad is None for parameter in built.parameters())
    shared = {value.data_ptr() for value in (*state.weights.values(), *state.memory.values())}
    fresh = (*outcome.after.weights.values(), *outcome.after.memory.values())
    assert shared.isdisjoint(value.data_ptr() for value in fresh)


def test_backbone_and_head_stay_and_every_weight_of_the_adapter_moves() -> None:
    built = network()
    base = bytes_of(built.base_weights())
    outcome = heal(built, start(built), task_of(1), ARTICLE)
    healed = built.with_adapter(outcome.after.weights)
    assert bytes_of(healed.base_weights()) == base
    before, after = start(built).weights, outcome.after.weights
    assert before.keys() == after.keys()
    assert all(not torch.equal(before[name], after[name]) for name in before)
    assert not any(value.requires_grad for value in after.values())


def test_the_optimiser_s_state_is_carried_from_heal_to_heal() -> None:
    built = network()
    first = heal(built, start(built), task_of(1), ARTICLE).after
    assert {name.partition(".")[0] for name in first.memory} == {"step", "exp_avg", "exp_avg_sq"}
    assert float(first.memory["step.scale"]) == 5.0
    carried = heal(built, first, task_of(2), ARTICLE).after
    fresh = heal(built, AdapterState(first.weights, {}), task_of(2), ARTICLE).after
    assert float(carried.memory["step.scale"]) == 10.0
    assert bytes_of(carried.weights) != bytes_of(fresh.weights)


def test_two_heals_of_some_steps_on_the_same_rows_are_one_of_all_the_steps() -> None:
    built, task = network(), task_of(1)
    state = start(built)
    for steps in (2, 3):
        state = heal(built, state, task, HealSettings(steps=steps)).after
    whole = heal(built, start(built), task, HealSettings(steps=5)).after
    assert bytes_of(state.weights) == bytes_of(whole.weights)
    assert bytes_of(state.memory) == bytes_of(whole.memory)


def test_probabilities_are_those_of_the_adapters_before_and_after() -> None:
    built, task = network(), task_of(2)
    state = heal(built, start(built), task_of(1), ARTICLE).after
    outcome = heal(built, state, task, ARTICLE)
    for weights, probabilities in (
        (state.weights, outcome.probabilities_before),
        (outcome.after.weights, outcome.probabilities_after),
    ):
        np.testing.assert_array_equal(built.with_adapter(weights).predict(x_of(2)), probabilities)
    assert not np.array_equal(outcome.probabilities_before, outcome.probabilities_after)


def test_a_heal_brings_the_labels_closer() -> None:
    built = network()
    task = task_of(1, rows=200, positive_share=0.0)
    y = (x_of(1, rows=200)[:, 0] > 0).astype(np.int8)
    task = with_rows(task, y=y, rule_label=y)
    outcome = heal(built, start(built), task, HealSettings(steps=200, learning_rate=0.02))
    before, after = (
        float(np.mean((probabilities >= 0.5) == y))
        for probabilities in (outcome.probabilities_before, outcome.probabilities_after)
    )
    assert after > before + 0.2


def test_rows_without_a_rule_have_no_rule_loss() -> None:
    built = network()
    silent = with_rows(task_of(1), rule_label=SILENT)
    outcome = heal(built, start(built), silent, ARTICLE)
    without = heal(built, start(built), silent, HealSettings(rule_weight=0.0))
    assert outcome.measured["rule_loss"] == 0.0
    assert bytes_of(outcome.after.weights) == bytes_of(without.after.weights)


def test_weights_that_are_not_finite_are_a_heal_error() -> None:
    built, task = network(), with_rows(task_of(7), rule_label=SILENT)
    before = bytes_of(built.state_dict())
    unusable = AdapterState({**start(built).weights, "scale": torch.tensor(float("nan"))}, {})
    for changed, state in (
        (with_rows(task, features=INFINITE), start(built)),
        (task, unusable),
    ):
        with pytest.raises(
            HealError, match=r"heal run-h7 of batch 7: .+ is not finite; the old weights stay"
        ):
            heal(built, state, changed, ARTICLE)
    assert bytes_of(built.state_dict()) == before


def test_weights_that_the_last_step_made_infinite_are_a_heal_error() -> None:
    built = network()
    state = heal(built, start(built), task_of(1), ARTICLE).after
    unusable = {**state.memory, "exp_avg.scale": torch.tensor(float("inf"))}
    with pytest.raises(HealError, match=r"heal run-h7 of batch 7: '?scale'? is not finite"):
        heal(built, AdapterState(state.weights, unusable), task_of(7), HealSettings(steps=1))


def test_weights_that_are_not_finite_are_a_heal_error_where_rules_speak_too() -> None:
    with pytest.raises(HealError, match="heal run-h7 of batch 7"):
        heal(network(), start(network()), with_rows(task_of(7), features=INFINITE), ARTICLE)


def test_a_row_that_is_surely_negative_does_not_stop_the_heal() -> None:
    built, task = network(), with_rows(task_of(1), rule_label=SILENT)
    outliers = np.array([[1e6] * INPUTS, [-1e6] * INPUTS], dtype=np.float32)
    probabilities = built.predict(outliers)
    assert probabilities.min() == 0.0
    task.rows.features[0] = built.features(outliers)[probabilities.argmin()]
    heal(built, start(built), task, ARTICLE)
