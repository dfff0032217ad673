"""A scikit-learn pipeline inside a program: it scores as it does, heals, and goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from selfheal_cli.api import SelfHealing
from selfheal_cli.errors import MissingColumn
from tests.estimators.fitted import pipeline, table


def test_a_pipeline_scores_as_it_does_heals_and_goes_on(workdir: Path) -> None:
    frame = table(1_000)
    trained, stream = frame[:400], frame[400:]
    model = pipeline(trained)
    rows, y = stream.drop(columns="y"), stream["y"].to_numpy()
    x = trained.drop(columns="y")
    with SelfHealing(model, x, trained["y"], name="credit", mode="sync", batch_size=50) as healing:
        own = model.predict_proba(rows)[:, 1].astype(np.float32)
        assert np.array_equal(healing.predict(rows), own)
        first = rows[:1].to_dict("records")[0]
        assert healing.predict_one(first) == own[0]
        with pytest.raises(MissingColumn, match="country"):
            healing.predict(rows[["amount"]])
        for start in range(0, len(rows), 50):
            healing.observe(rows[start : start + 50], y[start : start + 50])
    assert healing.finished is not None
    again = SelfHealing.load("credit")
    healed = again.predict(rows)
    again.close()
    late = slice(300, None)
    assert ((healed[late] > 0.5) == y[late]).mean() > ((own[late] > 0.5) == y[late]).mean()


def test_a_classifier_that_computes_in_float32_answers_as_it_does(workdir: Path) -> None:
    x = np.random.default_rng(0).standard_normal((300, 10)).astype(np.float32)
    y = np.digitize(x[:, 0] + x[:, 1] * x[:, 2], [-0.7, 0.7])
    model = make_pipeline(StandardScaler(), GaussianNB()).fit(x, y)
    with SelfHealing(model, x, y, name="bayes", mode="sync") as healing:
        for count in (1, 7, 300):
            own = model.predict_proba(x[:count])
            assert own.dtype == np.float32
            assert np.array_equal(healing.predict(x[:count]), own)
