"""A scikit-learn pipeline inside a program: it scores as it does, heals, and goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

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
