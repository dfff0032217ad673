"""A model that MLflow knows as python_function alone: wrapped, healed, served, refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature

from selfheal_cli.errors import ModelError
from selfheal_cli.estimators.scorer import scorer_of
from selfheal_cli.model.allowed import VARIABLE
from selfheal_cli.pipeline.prepare.estimator_origin import EstimatorOrigin, read_estimator
from selfheal_cli.pipeline.prepare.estimators import WrappedEstimator, described
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from selfheal_cli.serve.http.model import load_champion
from tests.conftest import Invoke
from tests.estimators.fitted import NUMBERS, pipeline, table

# what MLflow says of pickles, hints and examples
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
FRAME = table(600)
X = FRAME.drop(columns="y")
MODEL = pipeline(FRAME[:300])
WRAP = ("wrap", "model", "--data", "train.csv", "--drop", "y", "--as", "credit")
RUN = ("run", "stream.csv", "--target", "y", "--from", "credit", "--no-plots", "--json",
       "--batch-size", "50", "--set=heal.mode=sync", "--train-fraction", "0.4")  # fmt: skip


class Scores(mlflow.pyfunc.PythonModel):
    """Gives what ``HOW`` says of a pipeline's probabilities."""

    def __init__(self, how: str) -> None:
        self.how, self.model = how, MODEL

    def predict(self, context, model_input, params=None) -> Any:  # type: ignore[no-untyped-def]
        return HOW[self.how](self.model.predict_proba(model_input))


HOW: dict[str, Any] = {
    "of class 1": lambda table: table[:, 1],
    "of each class": lambda table: table,
    "one column": lambda table: table[:, 1:],
    "a list": lambda table: table[:, 1].tolist(),
    "named": lambda table: pd.DataFrame(table, columns=["no", "yes"]),
    "labels": lambda table: (table[:, 1] > 0.5).astype(int),
    "words": lambda table: np.where(table[:, 1] > 0.5, "yes", "no"),
    "amounts": lambda table: 40 * table[:, 1],
}


def stored(how: str, folder: Path) -> Path:
    """A folder that MLflow wrote of a pipeline that gives its answer in some way."""
    given = HOW[how](MODEL.predict_proba(X))
    # its class goes along: where it is loaded there is no such module
    mlflow.pyfunc.save_model(
        folder / "model", python_model=Scores(how), signature=infer_signature(X, given),
        code_paths=[__file__], pip_requirements=["mlflow", "scikit-learn==1.5.0"],
    )  # fmt: skip
    return folder / "model"


def taken(how: str, folder: Path) -> WrappedEstimator:
    origin = EstimatorOrigin(str(stored(how, folder)), allow_pickle=True)
    fitted, names = read_estimator(None, origin) or pytest.fail("not read")
    return described(fitted, X, names, None)


@pytest.mark.parametrize("how", ["of class 1", "of each class", "one column", "a list", "named"])
def test_one_column_or_one_a_class_is_its_probability(how: str, tmp_path: Path) -> None:
    wrapped = taken(how, tmp_path)
    own = MODEL.predict_proba(X)[:, 1].astype(np.float32)
    assert np.array_equal(wrapped.own[:, 0], own)
    assert wrapped.labels == (("no", "yes") if how == "named" else ("0", "1"))
    kinds = {one.name: one.kind for one in wrapped.spec.inputs}
    assert kinds == {"amount": "float", "age": "integer", "country": "text", "known": "flag"}


@pytest.mark.parametrize(
    ("how", "why"), [("labels", "only 0, 1"), ("words", "no probability"), ("amounts", "between")]
)
def test_what_gives_no_probabilities_is_refused(how: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=why):
        taken(how, tmp_path)


def test_one_array_goes_in_where_its_signature_says_so(tmp_path: Path) -> None:
    rows = X[NUMBERS].fillna(0.0).to_numpy(np.float32)

    class Sums(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None) -> Any:  # type: ignore[no-untyped-def]
            assert model_input.dtype == np.float32
            return 1 / (1 + np.exp(-model_input.sum(axis=1)))

    signature = infer_signature(rows, rows[:, 0])
    mlflow.pyfunc.save_model(
        tmp_path / "m", python_model=Sums(), signature=signature, pip_requirements=["mlflow"]
    )
    read = read_estimator(None, EstimatorOrigin(str(tmp_path / "m"), allow_pickle=True))
    assert read is not None
    wrapped = described(read[0], None, read[1], None)
    assert (wrapped.spec.takes, wrapped.spec.names) == ("matrix", ("x0", "x1"))
    one = scorer_of(wrapped.spec).score({"x0": rows[:1, 0], "x1": rows[:1, 1]})
    assert one == pytest.approx(1 / (1 + np.exp(-rows[:1].sum())))


def test_it_is_wrapped_healed_and_loaded_by_mlflow(
    workdir: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored("of class 1", workdir)
    FRAME.to_csv("stream.csv", index=False)
    FRAME[:300].to_csv("train.csv", index=False)
    refused = invoke(*WRAP, expect=3).stderr
    assert "runs the code and pickles" in refused and "--allow-pickle" in refused
    invoke(*WRAP, "--allow-pickle")
    stages = json.loads(invoke(*RUN).stdout)["results"]["stages"]
    accuracy = {one["title"]: one["accuracy"] for one in stages}
    assert accuracy["Live (healing)"] > accuracy["Shadow (frozen)"] + 0.03
    own = MODEL.predict_proba(X)[:, 1].astype(np.float32)
    assert np.array_equal(mlflow.pyfunc.load_model("models:/credit/1").predict(X), own)
    served = load_champion(MlflowRegistry(), "credit")
    healed = mlflow.pyfunc.load_model("models:/credit@champion").predict(X)
    assert np.array_equal(served.score(served.quick.encoding.raw(X)), healed)
    folder = Path(mlflow.artifacts.download_artifacts("models:/credit/1"))
    assert "scikit-learn==1.5.0" in (folder / "requirements.txt").read_text().splitlines()
    # another user, who allowed nothing
    monkeypatch.setenv("XDG_CONFIG_HOME", str(workdir / "nobody"))
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr("selfheal_cli.estimators.scorer._kept", {})
    assert "--allow-module pyfunc-" in invoke(*RUN, expect=3).stderr


def test_a_version_of_selfheals_own_is_not_wrapped_again(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text(
        "flavors: {python_function: {loader_module: selfheal_scoring_1.registry.pyfunc}}"
    )
    with pytest.raises(ModelError, match="run --from"):
        read_estimator(None, EstimatorOrigin(str(tmp_path), allow_pickle=True))
