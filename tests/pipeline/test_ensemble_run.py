"""A whole run of recipe ``ensemble``, from the front door."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from selfheal_cli.model import boosters
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


def write_table(path: Path, rows: int = 1_400) -> pd.DataFrame:
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


def test_bad_labels_a_constant_column_and_trees_that_fail_end_no_run_and_are_told(
    workdir: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = write_table(workdir / "data.csv", rows=3_200)
    frame["constant"] = 7.0
    frame.loc[1_000:1_999, "y"] = 0
    frame.loc[2_200:2_599, "y"] = 1 - frame.loc[2_200:2_599, "y"]
    frame.to_csv(workdir / "data.csv", index=False)

    def no_numbers(booster: Any, x: Any) -> Any:
        return np.full(len(x), np.nan)

    monkeypatch.setattr(boosters, "probabilities", no_numbers)
    invoke(*RUN, "--batch-size", "100")
    invoke("report", "latest", "--output", "page.html")
    page = (workdir / "page.html").read_text()
    assert "Expert trees_2500 gave no number, or could not be fitted" in page
    assert "Which expert carried it, and when" in page
    assert "rows with implausible labels, held back from healing and figures" in page


def test_three_rows_a_batch_and_labels_that_come_all_at_once_are_taken(
    workdir: Path, invoke: Invoke
) -> None:
    frame = write_table(workdir / "data.csv", rows=360)
    at = np.arange(360)
    timed = frame.assign(t=at, label_at=np.where(at < 270, 270, at))
    timed.loc[:89, "label_at"] = at[:90]
    timed.to_csv(workdir / "data.csv", index=False)
    invoke(
        *RUN, "--batch-size", "3", "--set", "source.time=t", "--set", "source.label_time=label_at"
    )
    kinds = [one["kind"] for one in json.loads(invoke("history", "--json").stdout)]
    assert kinds.count("heal-learned") + kinds.count("heal") > 20
    assert "heal-failed" not in kinds
    in_a_row = [len(list(same)) for kind, same in groupby(kinds) if kind == "heal-learned"]
    most = f"{max(in_a_row)} heals"
    assert most in invoke("history").stdout
    assert most not in invoke("history", "--wide").stdout
