"""A whole run of recipe ``ensemble``, from the front door."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from tests.conftest import Invoke

RUN = (
    "run",
    "data.csv",
    "--target",
    "y",
    "--recipe",
    "ensemble",
    "--quiet",
    "--set",
    "plots=false",
)


def write_table(path: Path, rows: int = 2_400) -> pd.DataFrame:
    """Five columns; from the first quarter on the relation is another, and curved."""
    draw = np.random.default_rng(3)
    x = draw.normal(size=(rows, 5))
    later = np.arange(rows) >= rows // 3
    logit = np.where(later, 3 * x[:, 0] * x[:, 1] - x[:, 2], 2 * x[:, 0] + x[:, 2])
    frame = pd.DataFrame(x.round(5), columns=list("abcde"))
    frame["y"] = (draw.random(rows) < 1 / (1 + np.exp(-logit))).astype(int)
    frame.to_csv(path, index=False)
    return frame


def test_a_run_is_scored_audited_replayed_and_rolled_back_by_its_versions(
    workdir: Path, invoke: Invoke
) -> None:
    frame = write_table(workdir / "data.csv")
    invoke(*RUN)
    import mlflow

    versions = json.loads(invoke("snapshots", "--json").stdout)
    healed = [one["version"] for one in versions if one["phase"] == "post-heal"]
    assert len(healed) > 3
    rows = frame.drop(columns="y").tail(50)
    model = mlflow.pyfunc.load_model(f"models:/data/{healed[-1]}")
    answers = np.asarray(model.predict(rows))
    assert np.isfinite(answers).all() and np.ptp(answers) > 0.2
    invoke("audit", "--replay", str(healed[-1]))
    invoke("rollback", "--to", str(healed[0]), "--yes")
    first = mlflow.pyfunc.load_model("models:/data@champion")
    again = mlflow.pyfunc.load_model(f"models:/data/{healed[0]}")
    np.testing.assert_array_equal(first.predict(rows), again.predict(rows))
