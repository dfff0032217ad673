"""What is expected of rows without labels, held against drawn labels and against brute force."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from selfheal_cli.labels.estimate import Estimate, Interval, estimate
from selfheal_cli.metrics import confusion, score

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray
from selfheal_cli.scores import Scores

FIGURES = ("accuracy", "precision", "recall", "f1", "roc_auc")
FEW = st.lists(st.sampled_from([0.02, 0.125, 0.25, 0.5, 0.7, 0.9]), min_size=1, max_size=7)


def array(values: list[float]) -> FloatArray:
    return np.array(values, dtype=np.float32)


def labellings(p: FloatArray, threshold: float) -> tuple[FloatArray, list[Scores]]:
    """All labels that the rows may have: how likely each is, and the counts it gives."""
    likely, counts = [], []
    wide = p.astype(np.float64)
    for labels in itertools.product((0, 1), repeat=len(p)):
        y = np.array(labels, dtype=np.int8)
        likely.append(np.where(y == 1, wide, 1 - wide).prod())
        counts.append(confusion(p >= threshold, y))
    return np.array(likely), counts


@given(values=FEW, threshold=st.sampled_from([0.2, 0.5, 0.8]))
def test_expected_figures_equal_the_mean_over_all_labellings(
    values: list[float], threshold: float
) -> None:
    p = array(values)
    likely, counts = labellings(p, threshold)
    tp, fp, fn, tn = (
        float(likely @ [getattr(scores, name) for scores in counts])
        for name in ("tp", "fp", "fn", "tn")
    )
    expected = estimate(p, threshold)
    assert expected.precision and expected.recall and expected.f1
    assert expected.accuracy.value == pytest.approx((tp + tn) / len(p))
    assert expected.precision.value == pytest.approx(tp / (tp + fp) if tp + fp else 0.0)
    assert expected.recall.value == pytest.approx(tp / (tp + fn))
    assert expected.f1.value == pytest.approx(2 * tp / (2 * tp + fp + fn) if tp + fp else 0.0)


@given(values=FEW)
def test_intervals_of_accuracy_and_precision_have_the_variance_of_all_labellings(
    values: list[float],
) -> None:
    p = array(values)
    likely, counts = labellings(p, 0.5)
    expected = estimate(p, 0.5)
    assert expected.precision
    for name, interval in (("accuracy", expected.accuracy), ("precision", expected.precision)):
        drawn = np.array([getattr(scores, name) for scores in counts])
        reach = 1.959964 * np.sqrt(likely @ (drawn - likely @ drawn) ** 2)
        assert interval.low == pytest.approx(max(interval.value - reach, 0), abs=1e-6)
        assert interval.high == pytest.approx(min(interval.value + reach, 1), abs=1e-6)


@given(values=FEW)
def test_the_area_equals_scikit_learns_with_each_row_weighed_as_both_classes(
    values: list[float],
) -> None:
    p = array(values)
    wide = p.astype(np.float64)
    expected = roc_auc_score(
        np.repeat([1, 0], len(p)), np.tile(wide, 2), sample_weight=np.concatenate([wide, 1 - wide])
    )
    area = estimate(p, 0.5).roc_auc
    assert area
    assert area.value == pytest.approx(expected)


@pytest.mark.parametrize(
    ("shape", "threshold"), [((1.0, 1.0), 0.5), ((0.5, 3.0), 0.3), ((4.0, 2.0), 0.6)]
)
def test_about_95_of_100_draws_of_labels_fall_inside_the_interval(
    shape: tuple[float, float], threshold: float
) -> None:
    draw = np.random.default_rng(7)
    p = draw.beta(*shape, 1_000).astype(np.float32)
    expected, draws = estimate(p, threshold), 600
    inside = dict.fromkeys(FIGURES, 0)
    for _ in range(draws):
        scores = score(p, (draw.random(len(p)) < p).astype(np.int8), threshold)
        for name in FIGURES:
            interval = getattr(expected, name)
            inside[name] += interval.low <= getattr(scores, name) <= interval.high
    for name, count in inside.items():
        # four standard deviations of a share of 600 draws are 0.036
        assert count / draws == pytest.approx(0.95, abs=0.036), name


def test_drift_that_breaks_calibration_breaks_the_estimate() -> None:
    draw = np.random.default_rng(3)
    p = draw.random(1_000).astype(np.float32)
    scores = score(p, (draw.random(1_000) < 1 - p).astype(np.int8), 0.5)
    assert estimate(p, 0.5).accuracy.low > scores.accuracy + 0.3


@pytest.mark.parametrize(("probability", "value"), [(0.0, 0.0), (1.0, 1.0)])
def test_sure_rows_of_one_class_have_no_area_and_intervals_without_width(
    probability: float, value: float
) -> None:
    sure = Interval(value, value, value)
    right = Interval(1.0, 1.0, 1.0)
    estimated = estimate(np.full(5, probability, dtype=np.float32), 0.5)
    assert estimated == Estimate(5, right, precision=sure, recall=sure, f1=sure, roc_auc=None)
    assert "est_roc_auc" not in estimated.figures()


def test_sure_rows_of_both_classes_are_told_apart() -> None:
    right = Interval(1.0, 1.0, 1.0)
    assert estimate(array([0, 1, 1]), 0.5) == Estimate(3, *[right] * 5)


def test_flagging_nothing_leaves_accuracy_and_area() -> None:
    estimated, none = estimate(array([0.1, 0.2, 0.3]), 0.9), Interval(0.0, 0.0, 0.0)
    assert (estimated.precision, estimated.recall, estimated.f1) == (none, none, none)
    assert estimated.accuracy.value == pytest.approx(0.8)
    assert estimated.roc_auc and estimated.roc_auc.value > 0.5


def test_flagging_everything_finds_all_positives_for_sure() -> None:
    estimated = estimate(array([0.1, 0.2, 0.3]), 0.0)
    assert estimated.recall == Interval(1.0, 1.0, 1.0)
    assert estimated.precision and estimated.precision.value == pytest.approx(0.2)


def test_of_many_classes_only_the_accuracy_is_estimated() -> None:
    p = np.array([[0.5, 0.25, 0.25], [0.0, 0.0, 1.0]], dtype=np.float32)
    estimated = estimate(p, 0.5)
    assert (estimated.rows, estimated.accuracy.value) == (2, 0.75)
    assert list(estimated.figures()) == ["est_accuracy", "est_accuracy_low", "est_accuracy_high"]


def test_figures_name_each_estimate_and_its_bounds() -> None:
    estimated = estimate(array([0.1, 0.2, 0.8]), 0.5)
    names = [f"est_{name}{end}" for name in FIGURES for end in ("", "_low", "_high")]
    assert list(estimated.figures()) == names
    assert estimated.recall and estimated.figures()["est_recall_high"] == estimated.recall.high


@given(
    values=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=40),
    threshold=st.floats(0, 1),
)
def test_an_interval_holds_its_value_and_lies_within_nought_and_one(
    values: list[float], threshold: float
) -> None:
    estimated = estimate(array(values), threshold)
    for name in FIGURES:
        interval = getattr(estimated, name)
        assert interval is None or 0 <= interval.low <= interval.value <= interval.high <= 1
    assert estimate(array(values), threshold) == estimated


@pytest.mark.parametrize("shape", [(0,), (0, 3)])
def test_no_rows_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="at least one row"):
        estimate(np.zeros(shape, dtype=np.float32), 0.5)


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_a_probability_outside_nought_and_one_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        estimate(array([0.5, value]), 0.5)
