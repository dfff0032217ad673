"""A scikit-learn pipeline before a torch network: wrapped, healed, served, stored with it."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from skops import io as sio

from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from selfheal_cli.serve.http.model import load_champion
from tests.conftest import Invoke
from tests.estimators.fitted import NUMBERS, pipeline, table
from tests.model.instances import small_network

FRAME = table(600)
X = FRAME.drop(columns="y")
NETWORK = ("--from", "tests.model.instances:small_network", "--init", '{"inputs": 8}')
WRAP = ("wrap", *NETWORK, "--data", "train.csv", "--drop", "y", "--as", "credit",
        "--gives", "logits", "--preprocess")  # fmt: skip
RUN = ("run", "stream.csv", "--target", "y", "--from", "credit", "--no-plots", "--json",
       "--batch-size", "50", "--set=heal.mode=sync", "--train-fraction", "0.4")  # fmt: skip


def before() -> ColumnTransformer:
    """Fills gaps, scales, and one-hot encodes texts: sparse, of eight columns."""
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    texts = OneHotEncoder(handle_unknown="ignore")
    return ColumnTransformer([("n", numbers, NUMBERS), ("t", texts, ["country", "known"])])


def test_it_is_wrapped_healed_served_and_loaded_with_its_pipeline(
    workdir: Path, invoke: Invoke
) -> None:
    FRAME.to_csv("stream.csv", index=False)
    FRAME[:300].to_csv("train.csv", index=False)
    fitted = before().fit(pd.read_csv("train.csv").drop(columns="y"))
    sio.dump(fitted, "before.skops")
    Path("before.pkl").write_bytes(pickle.dumps(fitted))
    assert "--allow-pickle" in invoke(*WRAP, "before.pkl", expect=3).stderr
    said = invoke(*WRAP, "before.skops").stdout
    assert "columns amount, age, country, known" in said
    stages = json.loads(invoke(*RUN).stdout)["results"]["stages"]
    accuracy = {one["title"]: one["accuracy"] for one in stages}
    assert accuracy["Live (healing)"] > accuracy["Shadow (frozen)"] + 0.03
    whole = np.asarray(fitted.transform(pd.read_csv("stream.csv").drop(columns="y")))
    with torch.inference_mode():
        logits = small_network(inputs=8)(torch.from_numpy(whole.astype(np.float32)))
        own = torch.sigmoid(logits).squeeze(-1).numpy()
    wrapped = mlflow.pyfunc.load_model("models:/credit/1")
    for count in (1, 7, 100):
        assert wrapped.predict(X[:count]) == pytest.approx(own[:count], abs=1e-6)
    served = load_champion(MlflowRegistry(), "credit")
    healed = mlflow.pyfunc.load_model("models:/credit@champion").predict(X)
    assert np.array_equal(served.score(served.quick.encoding.raw(X)), healed)
    assert not np.array_equal(healed, own)


def test_what_transforms_no_rows_is_refused(workdir: Path, invoke: Invoke) -> None:
    FRAME[:300].to_csv("train.csv", index=False)
    sio.dump(pipeline(pd.read_csv("train.csv")), "classifier.skops")
    assert "transforms no rows" in invoke(*WRAP, "classifier.skops", expect=3).stderr
