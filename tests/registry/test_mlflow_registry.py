"""What only MLflow's own store can show."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.utils.file_utils import ArtifactProgressBar

from selfheal_cli.config import SyntheticSettings
from selfheal_cli.errors import RegistryError, RegistryUnreachable, VersionCorrupt
from selfheal_cli.model.checkpoint import assemble
from selfheal_cli.registry import staleness
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from selfheal_cli.registry.mlflow.store import resolve
from selfheal_cli.rollback.verify import load_verified
from selfheal_cli.sources.synthetic import NAMES, SyntheticSource
from tests.conftest import Invoke


def artifact(number: int, name: str) -> Path:
    """The file of a version of `fraud`, on disk."""
    client = MlflowClient()
    model_id = client.get_model_version("fraud", str(number)).source.removeprefix("models:/")
    place = client.get_logged_model(model_id).artifact_location
    return Path(place.removeprefix("file://"), name)


def test_a_version_scores_as_the_run_did_in_a_process_that_knows_nothing_of_it(
    in_article_run: Path, tmp_path: Path
) -> None:
    registry = MlflowRegistry()
    version = registry.version("fraud", 21)
    network = assemble(registry.base(version.base), load_verified(registry, version), where="v21")
    source = SyntheticSource(SyntheticSettings(), seed=42, batch_size=100, batches=25)
    rows = source.held_out()["drifted"]
    expected = network.predict(rows.x)
    code = (
        "import sys, mlflow, pandas as pd, numpy as np\n"
        "frame = pd.read_parquet(sys.argv[1])\n"
        "p = mlflow.pyfunc.load_model('models:/fraud/21').predict(frame)\n"
        "np.save(sys.argv[2], p)"
    )
    frame = pd.DataFrame(rows.x, columns=NAMES)
    frame.to_parquet(tmp_path / "rows.parquet")
    arguments = [str(tmp_path / "rows.parquet"), str(tmp_path / "p.npy")]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True)
    assert np.array_equal(np.load(tmp_path / "p.npy"), expected)


def test_the_base_is_stored_once_for_all_versions(in_article_run: Path) -> None:
    bases = {version.base for version in MlflowRegistry().versions("fraud")}
    stored = list(Path("mlruns").rglob("base.safetensors"))
    assert len(bases) == len(stored) == 1
    assert artifact(21, "adapter.safetensors").stat().st_size < 34_000


def test_figures_are_on_the_logged_model_and_on_the_run(in_article_run: Path) -> None:
    client = MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("selfheal").experiment_id])
    assert len(client.get_metric_history(run.info.run_id, "live_accuracy")) == 25
    assert run.data.params["policy.rollback_f1_drop"] == "0.08"
    assert run.data.params["heal.recipe"] == "article"
    kept = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert kept == {"config.json", "events.jsonl", "monitoring_export", "plots"}
    assert len(client.list_artifacts(run.info.run_id, "plots")) == 10
    version = MlflowRegistry().version("fraud", 21)
    wanted = {"f1", "accuracy", "precision", "recall", "roc_auc", "pr_auc", "lift_accuracy",
              "lift_f1", "drift_z", "conflicts", "log_loss", "ece", "kappa", "rows"}  # fmt: skip
    assert set(version.metrics) == wanted


def test_a_version_whose_file_is_gone_is_corrupt(article_copy: Path) -> None:
    artifact(21, "adapter.safetensors").unlink()
    registry = MlflowRegistry()
    with pytest.raises(VersionCorrupt, match=r"v21.*gone"):
        load_verified(registry, registry.version("fraud", 21))


def test_a_version_whose_file_was_changed_is_corrupt(article_copy: Path) -> None:
    path = artifact(21, "adapter.safetensors")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    registry = MlflowRegistry()
    with pytest.raises(VersionCorrupt, match=r"v21.*sha256"):
        load_verified(registry, registry.version("fraud", 21))
    with pytest.raises(Exception, match="sha256"):  # by the code that the version carries
        mlflow.pyfunc.load_model("models:/fraud/21")


def test_a_changed_base_is_found_at_load(article_copy: Path) -> None:
    (path,) = Path("mlruns").rglob("base.safetensors")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    registry = MlflowRegistry()
    with pytest.raises(VersionCorrupt, match="base"):
        load_verified(registry, registry.version("fraud", 21))


def test_best_passes_over_a_version_that_other_tools_deleted(article_copy: Path) -> None:
    registry = MlflowRegistry()
    base = registry.version("fraud", 1).base
    MlflowClient().delete_model_version("fraud", "21")
    best = registry.best("fraud", base=base)
    assert best is not None
    assert best.version == 27


def test_where_all_versions_on_a_base_are_of_one_model_the_best_takes_one_search(
    in_article_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staleness, "SETTLED_MS", 0)
    registry = MlflowRegistry()
    base = registry.version("fraud", 1).base
    first = registry.best("fraud", base=base)
    client = Mock(wraps=registry._client)
    monkeypatch.setattr(registry, "_client", client)
    assert registry.best("fraud", base=base) == first
    calls = [call[0] for call in client.method_calls]
    assert calls == ["search_logged_models", "get_model_version"]


def test_a_second_run_adds_its_versions_and_stores_no_second_base(
    article_copy: Path, invoke: Invoke
) -> None:
    invoke("run", "--batches", "2", "--no-plots")
    versions = MlflowRegistry().versions("fraud")
    assert versions[0].version == 56
    assert len({version.base for version in versions}) == 1
    assert len(list(Path("mlruns").rglob("base.safetensors"))) == 1
    first = {v.version: v.sha256 for v in versions}
    assert [first[n] for n in range(1, 6)] == [first[n] for n in range(52, 57)]


def test_a_password_is_never_shown() -> None:
    with pytest.raises(RegistryUnreachable) as error:
        MlflowRegistry("postgresql://a:s3cret@127.0.0.1:1/db")
    assert "s3cret" not in str(error.value)


def test_an_old_file_store_is_refused_with_what_to_do(empty_dir: Path) -> None:
    Path("mlruns/0").mkdir(parents=True)
    Path("mlruns/0/meta.yaml").write_text("artifact_location: x\n")
    with pytest.raises(RegistryError, match="file store"):
        resolve(None)


def test_a_database_that_is_none_is_out_of_reach(empty_dir: Path) -> None:
    Path("mlflow.db").write_text("this is no database, only text that is long enough\n" * 50)
    with pytest.raises(RegistryUnreachable):
        MlflowRegistry()


def test_what_is_fetched_draws_no_bars_into_a_program_of_somebody_elses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[object] = []
    bars = SimpleNamespace(tqdm=lambda **named: drawn.append(named))
    monkeypatch.setitem(sys.modules, "tqdm", SimpleNamespace(auto=bars))
    monkeypatch.setitem(sys.modules, "tqdm.auto", bars)
    ArtifactProgressBar.files("Downloading artifacts", total=8)
    assert drawn == []
