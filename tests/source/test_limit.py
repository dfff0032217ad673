"""The Bayes limit, held against figures that were integrated independently."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from selfheal_cli.source.limit import bayes_limit

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


def test_a_large_sample_ranked_by_the_posterior_comes_close_to_the_limit() -> None:
    draw = np.random.default_rng(5)
    y = (draw.random(200_000) < 0.15).astype(int)
    v = np.where(y == 1, draw.normal(-2.5, 0.8, len(y)), draw.normal(-1.0, 1.0, len(y)))
    odds = 0.15 / 0.8 * np.exp(-0.5 * ((v + 2.5) / 0.8) ** 2)
    posterior = odds / (odds + 0.85 * np.exp(-0.5 * (v + 1.0) ** 2))
    limit = bayes_limit(1.0, 0.15)
    assert np.mean((posterior > 0.5) == y) == pytest.approx(limit.accuracy, abs=0.003)
    assert roc_auc_score(y, posterior) == pytest.approx(limit.roc_auc, abs=0.003)
    assert average_precision_score(y, posterior) == pytest.approx(limit.pr_auc, abs=0.008)


@settings(deadline=None, derandomize=True, max_examples=15)
@given(drift=st.floats(-6, 12), share=st.floats(0.02, 0.98))
def test_no_answer_without_looking_is_better_than_the_limit(drift: float, share: float) -> None:
    limit = bayes_limit(drift, share)
    assert 1.0005 > limit.accuracy >= max(share, 1 - share) - 5e-4
    assert 1.0005 > limit.f1 >= 2 * share / (1 + share) - 5e-4
    assert 1.0005 > limit.roc_auc >= 0.5 - 5e-4
    assert 1.0005 > limit.pr_auc >= share - 5e-4
