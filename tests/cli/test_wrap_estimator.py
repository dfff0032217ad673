"""A scikit-learn pipeline from its file: wrapped, drifted, healed, rolled back, audited, served."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import closing
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from skops import io as sio

from selfheal_cli.config import TableSettings
from selfheal_cli.pipeline.runs.serving import ServingOptions, open_served
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from selfheal_cli.serve.http.model import load_champion
from selfheal_cli.spool.source import Pace
from selfheal_cli.spool.store import Spool
from selfheal_cli.workspace import WORKSPACE
from tests.conftest import Invoke, enter
from tests.estimators.fitted import pipeline, table

WRAP = ("wrap", "model.skops", "--data", "train.csv", "--drop", "y", "--as", "credit")
RUN = ("run", "stream.csv", "--target", "y", "--from", "credit", "--no-plots", "--json",
       "--batch-size", "50", "--set=heal.mode=sync", "--train-fraction", "0.4")  # fmt: skip
OF = ("--model-name", "credit")


@pytest.fixture(scope="module")
def healed(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Path:
    """A folder where a pipeline was wrapped, and healed on a stream that drifts."""
    from click.testing import CliRunner

    from selfheal_cli.cli.main import main

    folder = tmp_path_factory.mktemp("credit")
    with pytest.MonkeyPatch.context() as patch:
        shutil.copy(store_template, folder / "mlflow.db")
        enter(folder, patch)
        frame = table(1_500)
        frame.to_csv("stream.csv", index=False)
        frame[:600].to_csv("train.csv", index=False)
        trained = pd.read_csv("train.csv")
        sio.dump(pipeline(trained), "model.skops")
        for arguments in (WRAP, RUN):
            result = CliRunner().invoke(main, list(arguments))
            assert result.exit_code == 0, result.output + result.stderr
        Path("result.json").write_text(result.stdout)
    return folder


@pytest.fixture
def in_healed(healed: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    enter(healed, monkeypatch)
    return healed


def test_healing_helps_and_the_frozen_one_is_the_model_itself(in_healed: Path) -> None:
    document = json.loads(Path("result.json").read_text())
    stages = {one["title"]: one for one in document["results"]["stages"]}
    logs = [log.read_text() for log in Path("mlruns/selfheal/runs").glob("*/events.jsonl")]
    ends = [re.search(r'"base_unchanged": ?(\w+)', text) for text in logs]
    assert [end[1] for end in ends if end is not None] == ["true"]
    assert stages["Live (healing)"]["accuracy"] > stages["Shadow (frozen)"]["accuracy"] + 0.03
    stream = pd.read_csv("stream.csv")[600:]
    model = pipeline(pd.read_csv("train.csv"))
    own = model.predict(stream.drop(columns="y")) == stream["y"]
    assert stages["Shadow (frozen)"]["accuracy"] == pytest.approx(float(own.mean()))


def test_a_heal_comes_out_the_same_when_it_is_replayed(in_healed: Path, invoke: Invoke) -> None:
    registry = MlflowRegistry()
    last = max(registry.numbers("credit"))
    assert "comes out the same" in invoke("audit", "--replay", str(last), *OF).stdout


def test_mlflow_and_the_server_give_the_same_and_the_wrapped_one_the_models_own(
    in_healed: Path,
) -> None:
    rows = pd.read_csv("stream.csv")[600:700].drop(columns="y")
    own = pipeline(pd.read_csv("train.csv")).predict_proba(rows)[:, 1].astype(np.float32)
    wrapped = mlflow.pyfunc.load_model("models:/credit/1").predict(rows)
    assert np.array_equal(wrapped, own)
    healed = mlflow.pyfunc.load_model("models:/credit@champion").predict(rows)
    served = load_champion(MlflowRegistry(), "credit")
    columns = served.quick.encoding.raw(rows)
    assert np.array_equal(served.score(columns), healed)
    assert not np.array_equal(healed, own)


def test_a_version_costs_its_adapter_and_names_the_libraries(in_healed: Path) -> None:
    registry = MlflowRegistry()
    last = max(registry.numbers("credit"))
    folder = Path(mlflow.artifacts.download_artifacts(f"models:/credit/{last}"))
    assert (folder / "adapter.safetensors").stat().st_size < 200_000  # most of it trees
    assert "scikit-learn==" in (folder / "requirements.txt").read_text()


def test_one_that_was_never_healed_can_be_healed_behind_a_server(
    in_healed: Path, invoke: Invoke
) -> None:
    invoke(*WRAP[:-1], "fresh")
    table_of = TableSettings(path=Path("stream.csv"), target="y")
    wanted = ServingOptions("fresh", {}, table_of, WORKSPACE)
    with closing(Spool(Path("fresh.db"))) as spool:
        served = open_served(MlflowRegistry(), wanted, spool, Pace(50, 1.0, lambda: 0.0, bool))
    rows = next(iter(served.source.training()))
    own = pipeline(pd.read_csv("train.csv")).predict_proba(pd.read_csv("stream.csv")[:5])[:, 1]
    assert served.prepared.network.predict(rows.x)[:5] == pytest.approx(own)


def test_options_for_networks_are_said(in_healed: Path, invoke: Invoke) -> None:
    assert "torch networks" in invoke(*WRAP, "--shape", "3", expect=2).stderr


def test_it_is_told_of_before_anything_is_registered(in_healed: Path, invoke: Invoke) -> None:
    before = MlflowRegistry().numbers("credit")
    (place,) = json.loads(invoke(*WRAP, "--list", "--json").stdout)
    assert place["adapters"] == ["affine"]
    assert place["recipes"] == ["anchored", "ensemble", "gradient"]
    told = json.loads(invoke("check-model", *WRAP[1:6], "--json").stdout)
    assert (told["takes"], told["classes"]) == ("1 float, 1 integer, 1 text, 1 flag", 2)
    assert told["version_kb"] < told["base_kb"] and told["batch_ms"] > 0
    assert MlflowRegistry().numbers("credit") == before
