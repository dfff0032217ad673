"""Scores of rows and of streams, held against scikit-learn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score

from selfheal_cli.monitor.prequential import RunningScores, confusion, constant, score
from selfheal_cli.records import Scores

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray, LabelArray

PROPERTY = settings(deadline=None, derandomize=True, max_examples=60)
# logits further apart than a bin is wide, and small enough for float32 to tell them apart
RANKED = st.lists(
    st.tuples(st.integers(-400, 400).map(lambda step: step / 50), st.integers(0, 1)),
    min_size=1,
    max_size=60,
)


def arrays(rows: list[tuple[float, int]]) -> tuple[FloatArray, LabelArray]:
    """Probabilities and labels of (logit, label) pairs."""
    logits, labels = zip(*rows, strict=True)
    probabilities = 1 / (1 + np.exp(-np.array(logits)))
    return probabilities.astype(np.float32), np.array(labels, dtype=np.int8)


def reference(p: FloatArray, y: LabelArray, threshold: float) -> Scores:
    """What scikit-learn says of them."""
    tn, fp, fn, tp = confusion_matrix(y, p >= np.float32(threshold), labels=[0, 1]).ravel()
    both = 0 < y.sum() < len(y)
    return Scores(
        int(tp),
        int(tn),
        int(fp),
        int(fn),
        float(roc_auc_score(y, p)) if both else None,
        float(average_precision_score(y, p)) if both else None,
    )


def running(p: FloatArray, y: LabelArray, threshold: float, cuts: list[int]) -> Scores:
    """Scores after the rows came in batches cut at these places."""
    scores = RunningScores(threshold)
    for part_p, part_y in zip(np.split(p, sorted(cuts)), np.split(y, sorted(cuts)), strict=True):
        scores.add(part_p, part_y)
    return scores.scores()


def close(found: Scores, expected: Scores, within: float) -> bool:
    """The same counts, and areas that differ by at most ``within``."""
    counts = ("tp", "tn", "fp", "fn")
    return all(getattr(found, name) == getattr(expected, name) for name in counts) and (
        (found.roc_auc, found.pr_auc)
        == (
            expected.roc_auc and pytest.approx(expected.roc_auc, abs=within),
            expected.pr_auc and pytest.approx(expected.pr_auc, abs=within),
        )
    )


@PROPERTY
@given(rows=RANKED, threshold=st.sampled_from([0.0, 0.2, 0.5, 1.0]))
def test_scores_of_rows_equal_scikit_learn(rows: list[tuple[float, int]], threshold: float) -> None:
    p, y = arrays(rows)
    assert score(p, y, threshold) == reference(p, y, threshold)


@PROPERTY
@given(rows=RANKED, cuts=st.lists(st.integers(0, 60), max_size=5))
def test_scores_of_a_stream_equal_scikit_learn_on_all_its_rows(
    rows: list[tuple[float, int]], cuts: list[int]
) -> None:
    p, y = arrays(rows)
    assert close(running(p, y, 0.5, cuts), reference(p, y, 0.5), 1e-9)


@PROPERTY
@given(
    seed=st.integers(0, 10_000),
    share=st.floats(0.1, 0.9),
    apart=st.floats(-3, 3),
    spread=st.floats(0.3, 4),
    threshold=st.floats(0.05, 0.95),
)
def test_areas_of_a_stream_of_any_probabilities_are_within_a_five_hundredth(
    seed: int, share: float, apart: float, spread: float, threshold: float
) -> None:
    draw = np.random.default_rng(seed)
    y = (draw.random(600) < share).astype(np.int8)
    p = (1 / (1 + np.exp(-draw.normal(apart * y, spread)))).astype(np.float32)
    assert close(running(p, y, threshold, [100, 250, 251, 599]), reference(p, y, threshold), 2e-3)


def test_probabilities_of_nought_and_one_are_ranked_at_the_ends() -> None:
    p = np.array([0.0, 1.0, 0.5, 1.0, 0.0], dtype=np.float32)
    y = np.array([0, 1, 0, 0, 1], dtype=np.int8)
    assert close(running(p, y, 0.5, [2]), reference(p, y, 0.5), 1e-9)


def test_rows_that_score_the_same_are_ties() -> None:
    p = np.full(6, 0.7, dtype=np.float32)
    y = np.array([0, 1, 0, 1, 1, 0], dtype=np.int8)
    found = running(p, y, 0.5, [3])
    assert (found.roc_auc, found.pr_auc) == (0.5, 0.5)


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_has_no_area(label: int) -> None:
    p, y = np.array([0.1, 0.9], dtype=np.float32), np.full(2, label, dtype=np.int8)
    for found in (score(p, y, 0.5), running(p, y, 0.5, [1])):
        assert (found.roc_auc, found.pr_auc, found.accuracy) == (None, None, 0.5)


def test_a_stream_without_rows_scores_nothing() -> None:
    found = RunningScores(0.5)
    assert found.scores() == Scores(0, 0, 0, 0)
    found.add(np.array([], dtype=np.float32), np.array([], dtype=np.int8))
    assert found.scores() == Scores(0, 0, 0, 0)


def test_a_probability_at_the_threshold_is_flagged() -> None:
    p, y = np.array([0.3, 0.29], dtype=np.float32), np.array([1, 1], dtype=np.int8)
    assert score(p, y, 0.3) == Scores(tp=1, tn=0, fp=0, fn=1)
    assert running(p, y, 0.3, []) == Scores(tp=1, tn=0, fp=0, fn=1)


def test_yes_or_no_answers_have_counts_and_no_areas() -> None:
    flagged = np.array([True, True, False, False, True])
    y = np.array([1, 0, 1, 0, 1], dtype=np.int8)
    assert confusion(flagged, y) == Scores(tp=2, tn=1, fp=1, fn=1)


def test_the_constant_answers_score_the_same_rows() -> None:
    scores = Scores(tp=3, tn=10, fp=5, fn=2, roc_auc=0.8, pr_auc=0.4)
    flag_all, flag_none = constant(scores, flag=True), constant(scores, flag=False)
    assert (flag_all.accuracy, flag_none.accuracy) == (0.25, 0.75)
    assert flag_all == Scores(tp=5, tn=0, fp=15, fn=0, roc_auc=0.5)
    assert flag_none == Scores(tp=0, tn=15, fp=0, fn=5, roc_auc=0.5)
