"""The Bayes limit, held against figures that were integrated independently."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from selfheal_cli.sources.synthetic import bayes_limit, posterior

# drift, accuracy, best F1, recall there, ROC AUC, PR AUC, at 15 % positives
KNOWN = [
    (0.0, 0.942, 0.805, 0.823, 0.975, 0.882),
    (0.5, 0.909, 0.695, 0.743, 0.941, 0.751),
    (1.0, 0.873, 0.563, 0.667, 0.879, 0.555),
    (1.5, 0.850, 0.429, 0.631, 0.783, 0.350),
    (2.2, 0.850, 0.295, 0.759, 0.606, 0.190),
    (3.5, 0.850, 0.429, 0.631, 0.783, 0.350),
]


@pytest.mark.parametrize(("drift", "accuracy", "f1", "recall", "roc_auc", "pr_auc"), KNOWN)
def test_the_limit_equals_the_known_figures(
    drift: float, accuracy: float, f1: float, recall: float, roc_auc: float, pr_auc: float
) -> None:
    limit = bayes_limit(drift, 0.15)
    assert limit.accuracy == pytest.approx(accuracy, abs=6e-4)
    assert limit.f1 == pytest.approx(f1, abs=6e-4)
    assert limit.recall == pytest.approx(recall, abs=6e-4)
    assert limit.roc_auc == pytest.approx(roc_auc, abs=6e-4)
    assert limit.pr_auc == pytest.approx(pr_auc, abs=6e-4)


@pytest.mark.parametrize(
    ("drift", "share", "mean"), [(1.0, 0.15, -2.5), (2.2, 0.15, -4.0), (2.2, 0.4, -1.5)]
)
def test_a_large_sample_ranked_by_the_posterior_comes_close_to_the_limit(
    drift: float, share: float, mean: float
) -> None:
    draw = np.random.default_rng(5)
    y = (draw.random(200_000) < share).astype(int)
    v = np.where(y == 1, draw.normal(mean, 0.8, len(y)), draw.normal(-drift, 1.0, len(y)))
    probabilities = posterior(v, drift, share, mean)
    limit = bayes_limit(drift, share, mean)
    assert np.mean((probabilities > 0.5) == y) == pytest.approx(limit.accuracy, abs=0.003)
    assert roc_auc_score(y, probabilities) == pytest.approx(limit.roc_auc, abs=0.003)
    assert average_precision_score(y, probabilities) == pytest.approx(limit.pr_auc, abs=0.008)


def test_the_posterior_is_bayes_rule_on_the_densities() -> None:
    v = np.linspace(-8, 4, 50)
    fraud = 0.3 / 0.8 * np.exp(-0.5 * ((v + 3.5) / 0.8) ** 2)
    normal = 0.7 * np.exp(-0.5 * (v + 1.0) ** 2)
    np.testing.assert_allclose(posterior(v, 1.0, 0.3, -3.5), fraud / (fraud + normal), rtol=1e-9)


@given(
    v=st.floats(-1e4, 1e4, width=32),
    drift=st.floats(-100, 100),
    share=st.floats(0.001, 0.999),
    mean=st.floats(-103, 98),
)
def test_the_posterior_is_a_probability_however_far_out_the_row(
    v: float, drift: float, share: float, mean: float
) -> None:
    (probability,) = posterior(np.array([v], dtype=np.float32), drift, share, mean)
    assert 0 <= probability <= 1


def test_the_limit_depends_on_how_far_apart_the_classes_are_and_not_where() -> None:
    moved, still = bayes_limit(2.2, 0.15, -4.7), bayes_limit(0.0, 0.15)
    for name in ("accuracy", "f1", "recall", "roc_auc", "pr_auc"):
        assert getattr(moved, name) == pytest.approx(getattr(still, name), abs=1e-4)


@settings(max_examples=15)
@given(drift=st.floats(-6, 12), share=st.floats(0.02, 0.98))
def test_no_answer_without_looking_is_better_than_the_limit(drift: float, share: float) -> None:
    limit = bayes_limit(drift, share)
    assert 1.0005 > limit.accuracy >= max(share, 1 - share) - 5e-4
    assert 1.0005 > limit.f1 >= 2 * share / (1 + share) - 5e-4
    assert 1.0005 > limit.roc_auc >= 0.5 - 5e-4
    assert 1.0005 > limit.pr_auc >= share - 5e-4
