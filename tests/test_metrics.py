"""Scores of rows and of streams, held against scikit-learn."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    log_loss,
    roc_auc_score,
    roc_curve,
)

from selfheal_cli.metrics import RunningScores, classify, confusion, constant, counts, score
from selfheal_cli.scores import AnyScores, ClassScores, Scores

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray, LabelArray

# logits further apart than a bin is wide, and small enough for float32 to tell them apart
RANKED = st.lists(
    st.tuples(st.integers(-400, 400).map(lambda step: step / 50), st.integers(0, 1)),
    min_size=1,
    max_size=60,
)
CUTS = st.lists(st.integers(0, 60), max_size=5)


def arrays(rows: list[tuple[float, int]]) -> tuple[FloatArray, LabelArray]:
    """Probabilities and labels of (logit, label) pairs."""
    logits, labels = zip(*rows, strict=True)
    probabilities = 1 / (1 + np.exp(-np.array(logits)))
    return probabilities.astype(np.float32), np.array(labels, dtype=np.int8)


def drawn(
    seed: int, classes: int, rows: int, unknown: float = 0.0
) -> tuple[FloatArray, LabelArray]:
    """Probabilities of K classes, and labels that follow them more or less."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(0, 2, (rows, classes))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    y = (logits + draw.gumbel(0, 1.5, logits.shape)).argmax(axis=1)
    y[draw.random(rows) < unknown] = -1
    return p.astype(np.float32), y.astype(np.int8)


def calibration_error(confidence: np.ndarray, hit: np.ndarray) -> float:
    """The textbook's: bins' distances of mean confidence and share of hits, weighted by rows."""
    confidence = confidence.astype(np.float64)
    total = 0.0
    for low in range(10):
        inside = np.clip(np.floor(confidence * 10), 0, 9) == low
        if inside.any():
            total += inside.sum() * abs(confidence[inside].mean() - hit[inside].mean())
    return total / len(confidence)


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
        float(log_loss(y, p.astype(np.float64), labels=[0, 1])),
        calibration_error(p, y),
    )


def class_reference(p: FloatArray, y: LabelArray) -> ClassScores:
    """What scikit-learn says of rows in which every class occurs."""
    classes = range(p.shape[1])
    wide = p / p.sum(axis=1, keepdims=True, dtype=np.float64)
    hit = p.argmax(axis=1) == y
    return ClassScores(
        tuple(map(tuple, confusion_matrix(y, p.argmax(axis=1), labels=classes).tolist())),
        float(np.mean([roc_auc_score(y == k, p[:, k]) for k in classes])),
        float(log_loss(y, wide, labels=classes)),
        calibration_error(p.max(axis=1), hit),
    )


def running(
    p: FloatArray, y: LabelArray, threshold: float, cuts: list[int], classes: int = 2
) -> AnyScores:
    """Scores after the rows came in batches cut at these places."""
    scores = RunningScores(classes)
    for part_p, part_y in zip(np.split(p, sorted(cuts)), np.split(y, sorted(cuts)), strict=True):
        scores.add(part_p, threshold, part_y)
    return scores.scores()


def counted(scores: AnyScores) -> AnyScores:
    """The counts alone."""
    if isinstance(scores, ClassScores):
        return ClassScores(scores.confusion)
    return Scores(scores.tp, scores.tn, scores.fp, scores.fn)


def close(actual: AnyScores, expected: AnyScores, within: float) -> bool:
    """The same counts, areas that differ by at most ``within``, and the rest but for rounding."""
    if counted(actual) != counted(expected):
        return False
    reaches = {"roc_auc": within, "pr_auc": within, "log_loss": 1e-6, "ece": 1e-6}
    return all(
        getattr(actual, name, None) == (value and pytest.approx(value, abs=reach))
        for name, reach in reaches.items()
        for value in (getattr(expected, name, None),)
    )


@given(rows=RANKED, threshold=st.sampled_from([0.0, 0.2, 0.5, 1.0]))
def test_scores_of_rows_equal_scikit_learn(rows: list[tuple[float, int]], threshold: float) -> None:
    p, y = arrays(rows)
    scores, expected = score(p, y, threshold), reference(p, y, threshold)
    assert isinstance(scores, Scores)
    assert close(scores, expected, 1e-12)


@given(rows=RANKED, cuts=CUTS)
def test_scores_of_a_stream_equal_scikit_learn_on_all_its_rows(
    rows: list[tuple[float, int]], cuts: list[int]
) -> None:
    p, y = arrays(rows)
    assert close(running(p, y, 0.5, cuts), reference(p, y, 0.5), 1e-9)


@given(
    seed=st.integers(0, 10_000),
    share=st.floats(0.1, 0.9),
    apart=st.floats(-3, 3),
    spread=st.floats(0.3, 4),
    threshold=st.floats(0.05, 0.95),
)
def test_areas_of_a_stream_of_any_probabilities_are_close_to_the_exact_ones(
    seed: int, share: float, apart: float, spread: float, threshold: float
) -> None:
    draw = np.random.default_rng(seed)
    y = (draw.random(600) < share).astype(np.int8)
    p = (1 / (1 + np.exp(-draw.normal(apart * y, spread)))).astype(np.float32)
    scores, exact = running(p, y, threshold, [100, 250, 251, 599]), reference(p, y, threshold)
    assert scores.roc_auc == pytest.approx(exact.roc_auc, abs=2e-3)
    assert close(scores, exact, 2e-2)  # a tie at the very top moves the PR AUC by 1 / 2 / positives


@given(seed=st.integers(0, 10_000), classes=st.integers(3, 8))
def test_scores_of_many_classes_equal_scikit_learn(seed: int, classes: int) -> None:
    p, y = drawn(seed, classes, 200)
    y[:classes] = np.arange(classes)  # all occur
    expected = class_reference(p, y)
    assert close(score(p, y, 0.5), expected, 1e-12)
    assert close(running(p, y, 0.5, [3, 3, 150], classes), expected, 2e-3)


@given(
    seed=st.integers(0, 10_000),
    classes=st.integers(2, 5),
    rows=st.integers(0, 60),
    unknown=st.sampled_from([0.0, 0.3, 1.0]),
    cuts=CUTS,
)
def test_a_stream_in_parts_scores_as_its_known_rows_in_one(
    seed: int, classes: int, rows: int, unknown: float, cuts: list[int]
) -> None:
    p, y = drawn(seed, classes, rows, unknown)
    if classes == 2 and rows % 2:
        p = p[:, 1]
    known = p[y >= 0], y[y >= 0]
    whole = running(*known, 0.5, [], classes)
    assert close(running(p, y, 0.5, cuts, classes), whole, 0.0)
    assert score(p, y, 0.5) == score(*known, 0.5)
    # two rows that share a bin weigh much among few: areas are held to scikit-learn's elsewhere
    assert close(whole, score(*known, 0.5), 0.5)


@pytest.mark.parametrize("classes", [2, 4])
def test_each_batch_of_a_stream_has_its_own_threshold(classes: int) -> None:
    p, y = drawn(1, classes, 60)
    if classes == 2:
        p = p[:, 1]
    scores = RunningScores(classes)
    thresholds = (0.2, 0.5, 0.9)
    for part, threshold in enumerate(thresholds):
        scores.add(p[part::3], threshold, y[part::3])
    predicted = np.concatenate([classify(p[i::3], t) for i, t in enumerate(thresholds)])
    expected = counts(predicted, np.concatenate([y[i::3] for i in range(3)]), classes)
    assert counted(scores.scores()) == expected


def test_probabilities_of_nought_and_one_are_ranked_at_the_ends() -> None:
    p = np.array([0.0, 1.0, 0.5, 1.0, 0.0], dtype=np.float32)
    y = np.array([0, 1, 0, 0, 1], dtype=np.int8)
    expected = replace(reference(p, y, 0.5), log_loss=score(p, y, 0.5).log_loss)
    assert close(running(p, y, 0.5, [2]), expected, 1e-9)


def test_a_sure_and_wrong_answer_has_a_finite_loss() -> None:
    y = np.array([1], dtype=np.int8)
    flat, wide = np.array([0.0], dtype=np.float32), np.array([[1.0, 0.0, 0.0]], dtype=np.float32)
    for p, classes in ((flat, 2), (wide, 3)):
        for scores in (score(p, y, 0.5), running(p, y, 0.5, [], classes)):
            assert scores.log_loss == pytest.approx(-np.log(1e-12))
            assert scores.ece == 1.0


def test_rows_that_score_the_same_are_ties() -> None:
    p = np.full(6, 0.7, dtype=np.float32)
    y = np.array([0, 1, 0, 1, 1, 0], dtype=np.int8)
    scores = running(p, y, 0.5, [3])
    assert isinstance(scores, Scores)
    assert (scores.roc_auc, scores.pr_auc) == (0.5, 0.5)
    uniform, labels = np.full((6, 3), 1 / 3, dtype=np.float32), np.arange(6, dtype=np.int8) % 3
    assert running(uniform, labels, 0.5, [3], 3).roc_auc == 0.5


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_has_no_area(label: int) -> None:
    p, y = np.array([0.1, 0.9], dtype=np.float32), np.full(2, label, dtype=np.int8)
    for scores in (score(p, y, 0.5), running(p, y, 0.5, [1])):
        assert isinstance(scores, Scores)
        assert (scores.roc_auc, scores.pr_auc, scores.accuracy) == (None, None, 0.5)
        assert scores.ece == pytest.approx(0.5)
    wide = np.array([[0.5, 0.4, 0.1], [0.2, 0.7, 0.1]], dtype=np.float32)
    for any_found in (score(wide, y, 0.5), running(wide, y, 0.5, [1], 3)):
        assert (any_found.roc_auc, any_found.accuracy) == (None, 0.5)


def test_a_class_that_never_came_is_left_out_of_the_mean_area() -> None:
    p, y = drawn(5, 4, 300)
    p, y = p[y != 2], y[y != 2]
    expected = np.mean([roc_auc_score(y == k, p[:, k]) for k in (0, 1, 3)])
    assert score(p, y, 0.5).roc_auc == pytest.approx(expected, abs=1e-12)
    assert running(p, y, 0.5, [9], 4).roc_auc == pytest.approx(expected, abs=1e-3)


def test_more_classes_than_histograms_have_no_area() -> None:
    p, y = drawn(3, 65, 40)
    scores = running(p, y, 0.5, [7], 65)
    assert scores.roc_auc is None
    assert close(scores, replace(score(p, y, 0.5), roc_auc=None), 0.0)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_stream_without_known_rows_scores_nothing(classes: int) -> None:
    nothing = Scores(0, 0, 0, 0) if classes == 2 else ClassScores(((0, 0, 0),) * 3)
    running_scores = RunningScores(classes)
    assert running_scores.scores() == nothing
    for rows in (0, 2):
        p = np.full((rows, classes), 1 / classes, dtype=np.float32)
        unknown = np.full(rows, -1, dtype=np.int8)
        running_scores.add(p, 0.5, unknown)
        assert score(p, unknown, 0.5) == nothing
    assert running_scores.scores() == nothing


def test_a_probability_at_the_threshold_is_flagged() -> None:
    p, y = np.array([0.3, 0.29], dtype=np.float32), np.array([1, 1], dtype=np.int8)
    for threshold in (0.3, np.float64(0.3)):
        assert classify(p, threshold).tolist() == [1, 0]
        for scores in (score(p, y, threshold), running(p, y, threshold, [])):
            assert isinstance(scores, Scores)
            assert (scores.tp, scores.tn, scores.fp, scores.fn) == (1, 0, 0, 1)


def test_the_likeliest_of_many_classes_is_chosen_whatever_the_threshold() -> None:
    p = np.array([[0.2, 0.3, 0.5], [0.4, 0.35, 0.25]], dtype=np.float32)
    assert [classify(p, t).tolist() for t in (0.0, 0.9)] == [[2, 0], [2, 0]]
    assert classify(p, 0.5).dtype == np.int8


def test_yes_or_no_answers_have_counts_and_no_areas() -> None:
    flagged = np.array([True, True, False, False, True, True])
    y = np.array([1, 0, 1, 0, 1, -1], dtype=np.int8)
    assert confusion(flagged, y) == Scores(tp=2, tn=1, fp=1, fn=1)
    assert counts(flagged.astype(np.int8), y, 2) == Scores(tp=2, tn=1, fp=1, fn=1)


def test_predicted_classes_are_counted_by_true_class() -> None:
    predicted, y = np.array([0, 2, 1, 1, 2]), np.array([0, 1, 1, -1, 1], dtype=np.int8)
    assert counts(predicted, y, 3) == ClassScores(((1, 0, 0), (0, 1, 2), (0, 0, 0)))


def test_the_constant_answers_score_the_same_rows() -> None:
    scores = Scores(tp=3, tn=10, fp=5, fn=2, roc_auc=0.8, pr_auc=0.4, log_loss=0.5, ece=0.1)
    flag_all, flag_none = constant(scores, flag=True), constant(scores, flag=False)
    assert (flag_all.accuracy, flag_none.accuracy) == (0.25, 0.75)
    assert flag_all == Scores(tp=5, tn=0, fp=15, fn=0, roc_auc=0.5)
    assert flag_none == Scores(tp=0, tn=15, fp=0, fn=5, roc_auc=0.5)


@given(rows=RANKED, ratios=st.lists(st.floats(0.01, 100), min_size=1, max_size=5))
def test_the_cost_curve_is_the_cost_at_each_ratios_threshold(
    rows: list[tuple[float, int]], ratios: list[float]
) -> None:
    # thresholds half way between the logits that rows can have: no row shares their bin
    halfway = [float(np.exp((round(np.log(ratio) * 50) + 0.5) / 50)) for ratio in ratios]
    p, y = arrays(rows)
    scores = RunningScores()
    scores.add(p, 0.5, y)
    for ratio, cost in zip(halfway, scores.curve(halfway), strict=True):
        at_its_threshold = score(p, y, 1 / (1 + ratio))
        assert isinstance(at_its_threshold, Scores)
        assert cost == pytest.approx(at_its_threshold.cost(fn=ratio, fp=1))


def test_the_cost_curve_ends_in_the_constant_answers() -> None:
    p, y = drawn(2, 2, 200)
    scores = RunningScores()
    scores.add(p[:, 1], 0.5, y)
    misses_free, misses_dear = scores.curve([0.0, 1e12])
    assert misses_free == 0.0
    assert misses_dear == pytest.approx(100 * np.mean(y == 0))
    assert RunningScores().curve([0.5, 2.0]) == [0.0, 0.0]
    assert scores.curve([]) == []


@pytest.mark.parametrize("ratio", [-1.0, float("inf"), float("nan")])
def test_a_cost_ratio_that_is_none_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="0 or more and finite"):
        RunningScores().curve([ratio])


def test_the_cost_curve_is_for_two_classes() -> None:
    with pytest.raises(ValueError, match="2 classes, not 3"):
        RunningScores(3).curve([1.0])


def test_recall_at_few_false_positives_is_that_of_the_roc_curve() -> None:
    draw = np.random.default_rng(4)
    y = (draw.random(20_000) < 0.05).astype(np.int8)
    p = (1 / (1 + np.exp(3 - 2 * y - draw.normal(size=len(y))))).astype(np.float32)
    running = RunningScores()
    for part in np.array_split(np.arange(len(y)), 7):
        running.add(p[part], 0.5, y[part])
    false, true, _ = roc_curve(y, p, drop_intermediate=False)
    assert running.recall_at() == pytest.approx(true[false <= 0.01].max(), abs=0.01)
    assert RunningScores(3).recall_at() is None
    assert RunningScores().recall_at() is None
