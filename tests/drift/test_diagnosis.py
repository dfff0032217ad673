"""The verdict before healing, on networks trained as the tool trains them, and on odd windows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from selfheal_cli.config import NetworkSettings, SyntheticSettings
from selfheal_cli.drift.diagnosis import (
    Advice,
    Diagnosis,
    ReferenceRows,
    TrainingReference,
    diagnose,
)
from selfheal_cli.heal.experts.trees import grown
from selfheal_cli.model.architecture import Architecture
from selfheal_cli.model.network import SelfHealingNetwork
from selfheal_cli.model.training import SpooledRows, seeded, train
from selfheal_cli.sources.synthetic import NAMES, SyntheticSource

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray, LabelArray

LABELS = ("normal", "fraud")
V14 = NAMES.index("V14")
SIZES = [1_000, 2_500]
WINDOWS = range(2)


def measure(
    x: FloatArray, y: LabelArray, names: Sequence[str], logits: FloatArray | None = None,
    classes: int = 2,
) -> TrainingReference:  # fmt: skip
    """The reference of training rows that are all in memory."""
    rows = ReferenceRows(names, classes)
    rows.add(x, y, logits)
    return rows.reference()


@dataclass
class Trained:
    """A network on clean rows, its source and what was measured of its training rows."""

    network: SelfHealingNetwork
    source: SyntheticSource
    reference: TrainingReference

    def diagnose(self, x: np.ndarray, y: np.ndarray) -> Diagnosis:
        return diagnose(self.reference, LABELS, x, *seen(self.network, x), y)


def seen(network: SelfHealingNetwork, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the frozen head sees, and its logit."""
    with torch.inference_mode():
        features = network.adapter(network.backbone(torch.from_numpy(x)))
        return features.numpy(), network.head(features).squeeze(-1).numpy()


@cache
def trained(seed: int) -> Trained:
    """Trained once a session."""
    source = SyntheticSource(SyntheticSettings(), seed=seed, batch_size=100, batches=None)
    (rows,) = source.training()
    with seeded(seed):
        network = SelfHealingNetwork.build(Architecture(len(NAMES), 64))
        train(network, SpooledRows(iter([rows])), NetworkSettings(), lambda: None)
    return Trained(network, source, measure(rows.x, rows.y, NAMES, seen(network, rows.x)[1]))


def drawn(
    seed: int, rows: int, *, share: float = 0.15, normal: float = 0.0, fraud: float = -2.5
) -> tuple[np.ndarray, np.ndarray]:
    """Fresh rows whose V14 has these means."""
    draw = np.random.default_rng(seed)
    y = (draw.random(rows) < share).astype(np.int8)
    x = draw.normal(size=(rows, len(NAMES)))
    x[:, V14] = np.where(y == 1, draw.normal(fraud, 0.8, rows), draw.normal(normal, 1.0, rows))
    return x.astype(np.float32), y


@pytest.fixture(params=[42, 1, 2])
def network(request: pytest.FixtureRequest) -> Trained:
    return trained(request.param)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("rows", SIZES)
@pytest.mark.parametrize(
    ("drift", "advice", "moved"),
    [
        ({}, Advice.HOLDS, []),
        ({"normal": -1.0}, Advice.HEAL, [("normal", -1.0)]),
        ({"normal": -2.2}, Advice.GONE, [("normal", -2.2)]),
        ({"normal": -3.5}, Advice.HEAL, [("normal", -3.5)]),
        ({"fraud": -1.5}, Advice.HEAL, [("fraud", 1.25)]),
        ({"normal": -1.0, "fraud": -3.5}, Advice.HEAL, [("fraud", -1.25), ("normal", -1.0)]),
        ({"share": 0.05}, Advice.HEAL, []),
        ({"share": 0.40}, Advice.HEAL, []),
    ],
    ids=["clean", "normal-1", "normal-2.2", "normal-3.5", "fraud+1", "both-1", "5%", "40%"],
)
def test_a_drift_is_told_for_what_it_is(
    network: Trained,
    drift: dict[str, float],
    advice: Advice,
    moved: list[tuple[str, float]],
    rows: int,
    window: int,
) -> None:
    diagnosis = network.diagnose(*drawn(window, rows, **drift))
    assert diagnosis.advice is advice, diagnosis.sentence
    assert diagnosis.base_rate_moved == ("share" in drift)
    assert diagnosis.inputs_moved == bool(moved)
    assert {one.label for one in diagnosis.moved} == {label for label, _ in moved}
    for label, shift in moved:
        (one,) = (one for one in diagnosis.moved if one.label == label)
        assert one.name == "V14"
        assert one.shift == pytest.approx(shift, abs=0.35)
    if not moved:
        assert not diagnosis.relation_moved
    assert ("both classes moved together" in diagnosis.sentence) == (len(moved) == 2)


@pytest.mark.parametrize("batches", [5, 10, 25])
def test_rows_drawn_again_and_again_do_not_make_a_refit_look_better_than_it_is(
    network: Trained, batches: int
) -> None:
    stream = [
        batch.rows for batch, _ in zip(network.source.batches(), range(batches), strict=False)
    ]
    x = np.concatenate([rows.x for rows in stream])
    y = np.concatenate([rows.y for rows in stream])
    diagnosis = network.diagnose(x, y)
    assert diagnosis.advice is Advice.GONE, diagnosis.sentence
    assert diagnosis.auc is not None
    assert diagnosis.auc < 0.68


def test_the_verdict_says_what_to_expect() -> None:
    x, y = drawn(0, 1_000, normal=-2.2)
    told = trained(42).diagnose(x, y)
    assert told.sentence.startswith("the information is gone (in 'normal' rows V14 moved by -2.")
    assert f"no model can beat accuracy {1 - y.mean():.3f} (flag nothing)" in told.sentence
    assert "do not expect F1 to return; retrain with new features" in told.sentence
    told = trained(42).diagnose(*drawn(0, 1_000, normal=-1.0))
    assert told.sentence.startswith("heal: in 'normal' rows V14 moved by -1.")
    told = trained(42).diagnose(*drawn(0, 1_000, share=0.05))
    assert told.sentence.startswith("heal: the base rate moved from 0.150 to 0.0")
    told = trained(42).diagnose(*drawn(0, 1_000, normal=-1.0, fraud=-3.5))
    assert told.sentence.startswith("heal: the inputs of both classes moved together: V14 by -1.")


def test_when_most_rows_are_positive_the_ceiling_is_to_flag_everything() -> None:
    draw = np.random.default_rng(0)
    x, y = drawn(0, 1_000, share=0.7)
    diagnosis = trained(42).diagnose(x, draw.permutation(y))
    assert diagnosis.advice is Advice.GONE
    assert "(flag everything)" in diagnosis.sentence
    assert diagnosis.ceiling_accuracy == pytest.approx(y.mean())


@pytest.mark.parametrize(
    ("rows", "share", "missing"),
    [(0, 0.15, 200), (120, 0.15, 80), (1_000, 0.0, 134), (1_000, 1.0, 24)],
)
def test_too_few_rows_are_undecided_and_the_sentence_says_how_many_more_it_takes(
    rows: int, share: float, missing: int
) -> None:
    diagnosis = trained(42).diagnose(*drawn(0, rows, share=share))
    assert diagnosis.advice is Advice.UNDECIDED
    assert (diagnosis.auc, diagnosis.skill, diagnosis.moved) == (None, None, ())
    assert f"{rows:,} labelled rows are in" in diagnosis.sentence
    assert f"about {missing:,} more are needed" in diagnosis.sentence
    assert diagnosis.base_rate_moved == (rows == 1_000)


def test_a_gain_that_may_be_chance_is_undecided_while_inputs_moved() -> None:
    diagnosis = trained(42).diagnose(*drawn(0, 220, fraud=-1.5))
    assert diagnosis.advice is Advice.UNDECIDED
    assert "may yet be chance on 220 rows" in diagnosis.sentence
    assert diagnosis.inputs_moved


def test_a_task_that_was_hard_in_training_is_not_gone_while_nothing_moved() -> None:
    draw = np.random.default_rng(0)

    def rows(count: int) -> tuple[np.ndarray, ...]:
        x = draw.normal(size=(count, 1)).astype(np.float32)
        logits = 0.4 * x[:, 0] - 1
        return x, logits, (draw.random(count) < 1 / (1 + np.exp(-logits))).astype(np.int8)

    x, logits, y = rows(20_000)
    reference = measure(x, y, ["x"], logits)
    assert reference.skill is not None
    assert 0.0 < reference.skill < 0.05
    x, logits, y = rows(10_000)
    assert diagnose(reference, LABELS, x, x, logits, y).advice is Advice.HOLDS
    unknown = replace(reference, skill=None)
    assert diagnose(unknown, LABELS, x, x, logits, y).advice is Advice.GONE


def test_where_trees_reach_what_the_frozen_features_lack_the_verdict_is_to_retrain() -> None:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(1_000, 3)).astype(np.float32)
    logits = 3 * x[:, 0]
    line = (draw.random(1_000) < 1 / (1 + np.exp(-logits))).astype(np.int8)
    reference = measure(x, line, ["a", "b", "c"], logits)
    product = (x[:, 0] * x[:, 1] > 0).astype(np.int8)
    trees = partial(grown, 2)
    assert diagnose(reference, LABELS, x, x, logits, product).advice is Advice.GONE
    told = diagnose(reference, LABELS, x, x, logits, product, trees)
    assert told.advice is Advice.RETRAIN
    assert told.sentence.startswith("retrain on these columns (in ")
    assert ": trees on them reach ROC AUC 1.00 (skill 0.9" in told.sentence
    gone = diagnose(reference, LABELS, x, x, logits, draw.permutation(product), trees)
    assert gone.advice is Advice.GONE
    assert "on these columns no model can beat" in gone.sentence
    assert diagnose(reference, LABELS, x, x, logits, line, trees).advice is Advice.HOLDS


def test_several_classes_have_a_verdict_too() -> None:
    draw = np.random.default_rng(0)
    names, before, after = ("a", "b", "c"), draw.normal(size=(4, 3)), draw.normal(size=(4, 3))

    def rows(count: int, relation: np.ndarray) -> tuple[np.ndarray, ...]:
        x = draw.normal(size=(count, 4)).astype(np.float32)
        y = (2 * x @ relation + draw.gumbel(size=(count, 3))).argmax(axis=1).astype(np.int8)
        return x, x, np.float32(2 * x @ before), y

    def verdict(*window: np.ndarray) -> Diagnosis:
        return diagnose(reference, names, *window)

    x, _, logits, y = rows(4_000, before)
    reference = measure(x, y, list("pqrs"), logits, classes=3)
    assert verdict(*rows(800, before)).advice is Advice.HOLDS
    moved = verdict(*rows(800, after))
    assert (moved.advice, moved.relation_moved) == (Advice.HEAL, True)
    x, _, logits, y = rows(800, before)
    gone = verdict(x, x, logits, draw.permutation(y))
    assert gone.advice is Advice.GONE and "(always '" in gone.sentence
    few = (y != 2) | (draw.random(800) < 0.1)
    rarer = verdict(x[few], x[few], logits[few], y[few])
    assert "the share of 'c' moved from 0.418 to 0.05" in rarer.sentence
    assert rarer.base_rate[0] > 3 * rarer.base_rate[1]
    assert verdict(x[:150], x[:150], logits[:150], y[:150]).advice is Advice.UNDECIDED


def test_a_constant_input_that_stays_constant_has_not_moved_and_one_that_jumps_has() -> None:
    draw = np.random.default_rng(0)
    x = np.column_stack([draw.normal(size=1_000), np.ones(1_000)]).astype(np.float32)
    y = (draw.random(1_000) < 0.3).astype(np.int8)
    reference = measure(x, y, ["a", "b"])
    logits = np.zeros(1_000, dtype=np.float32)
    assert not diagnose(reference, LABELS, x, x, logits, y).inputs_moved
    x[:, 1] += 1
    diagnosis = diagnose(reference, LABELS, x, x, logits, y)
    assert {(one.label, one.name) for one in diagnosis.moved} == {("normal", "b"), ("fraud", "b")}


def test_at_most_five_moves_are_listed_the_largest_first() -> None:
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(1_000, 8)).astype(np.float32), np.repeat(np.int8([0, 1]), 500)
    names = [f"x{number}" for number in range(8)]
    reference = measure(x, y, names)
    moved = x + np.arange(8, dtype=np.float32)
    diagnosis = diagnose(reference, LABELS, moved, moved, np.zeros(1_000, dtype=np.float32), y)
    assert len(diagnosis.moved) == 5
    shifts = [abs(one.shift) for one in diagnosis.moved]
    assert shifts == sorted(shifts, reverse=True)
    assert diagnosis.moved[0].name == "x7"


@given(cuts=st.lists(st.integers(0, 300), max_size=4), seed=st.integers(0, 5))
def test_blocks_give_the_reference_of_the_whole(cuts: list[int], seed: int) -> None:
    x, y = drawn(seed, 300)
    logits = x[:, V14] - 1
    whole, parts = measure(x, y, NAMES, logits), ReferenceRows(NAMES)
    places = sorted(cuts)
    for block in zip(*(np.split(part, places) for part in (x, y, logits)), strict=True):
        parts.add(*block)
    pooled = parts.reference()
    assert (pooled.names, pooled.rows) == (whole.names, whole.rows)
    assert pooled.skill == pytest.approx(whole.skill)
    np.testing.assert_allclose(pooled.mean, whole.mean, atol=1e-9)
    np.testing.assert_allclose(pooled.sd, whole.sd, rtol=1e-9)


def test_the_skill_in_training_is_known_only_with_the_logits_of_all_rows_and_two_classes() -> None:
    x, y = drawn(0, 300)
    rows = ReferenceRows(NAMES)
    rows.add(x, y, x[:, V14])
    assert rows.reference().skill is not None
    rows.add(x, y)
    assert rows.reference().skill is None
    assert measure(x, np.zeros_like(y), NAMES, x[:, V14]).skill is None


@given(
    rows=st.integers(0, 450),
    share=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    scale=st.sampled_from([0.0, 1e-6, 1.0, 1e6]),
    copies=st.sampled_from([1, 2, 50]),
    logit=st.sampled_from([0.0, 1e4, float("inf"), float("nan")]),
    seed=st.integers(0, 99),
)
def test_any_window_gets_the_same_plain_verdict_each_time(
    rows: int, share: float, scale: float, copies: int, logit: float, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    x = np.repeat(draw.normal(size=(rows, 2)) * scale, copies, axis=0)[:rows].astype(np.float32)
    y = (draw.random(rows) < share).astype(np.int8)
    logits = (x[:, 0] + np.float32(logit)).astype(np.float32)
    reference = measure(*drawn(seed, 300), NAMES)
    reference = TrainingReference(
        NAMES[:2],
        reference.mean[:, :2],
        reference.sd[:, :2],
        reference.rows,
        None,  # type: ignore[arg-type]
    )
    diagnosis = diagnose(reference, LABELS, x, x, logits, y)
    assert diagnosis == diagnose(reference, LABELS, x, x, logits, y)
    assert json.dumps(asdict(diagnosis), allow_nan=False)
    assert diagnosis.sentence


@pytest.mark.parametrize("seed", [5, 14, 35])
def test_few_rows_that_teach_a_refit_nothing_are_no_proof_that_there_is_nothing(seed: int) -> None:
    mixing = np.random.default_rng(9).normal(size=(16, 24))

    def rows(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        draw = np.random.default_rng(seed)
        x = draw.normal(size=(count, 16)).astype(np.float32)
        logits = (-2.75 + 0.9 * x[:, 0] + 0.6 * x[:, 1]).astype(np.float32)
        return x, logits, (draw.random(count) < 1 / (1 + np.exp(-logits))).astype(np.int8)

    x, logits, y = rows(4_000, 1)
    reference = measure(x, y, [f"x{place}" for place in range(16)], logits)
    x, logits, y = rows(300, seed)
    features = np.maximum(x @ mixing.astype(np.float32), 0)
    assert diagnose(reference, LABELS, x, features, logits, y, each=True).advice is not Advice.GONE
