"""Whole commands over the stores that a team shares, and what is said where one fails."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from selfheal_cli.errors import RegistryError, RegistryUnreachable, VersionCorrupt
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from tests.conftest import Invoke
from tests.forked import in_fork
from tests.registry.conftest import SERVER_DATABASE, SharedServer
from tests.registry.stores import S3, Postgres

pytestmark = pytest.mark.slow


def run_and_roll_back(invoke: Invoke, *store: str) -> dict[str, Any]:
    """A short run, a rollback, an audit and a pruning over a store; the rollback's document."""
    document = json.loads(invoke("run", "--batches", "3", "--json", "--no-plots", *store).stdout)
    assert document["versions"] == 7
    best = json.loads(invoke("rollback", "--to-best", "--yes", "--json", *store).stdout)
    assert best["verified"]
    invoke("audit", *store)
    pruned = json.loads(invoke("prune", "--apply", "--json", *store).stdout)
    invoke("audit", *store)
    invoke("doctor", *store)
    assert pruned is not None
    champion = json.loads(invoke("champion", "--json", *store).stdout)
    assert champion["version"] == best["target"]["version"]
    return best


def test_postgresql_holds_versions_journal_and_rollback(
    postgres_uri: str, empty_dir: Path, invoke: Invoke
) -> None:
    run_and_roll_back(invoke, "--tracking-uri", postgres_uri)
    assert not Path("mlflow.db").exists()


def test_a_shared_server_takes_everything_and_keeps_the_files_behind_it(
    shared_server: SharedServer, empty_dir: Path, invoke: Invoke
) -> None:
    run_and_roll_back(invoke, "--tracking-uri", shared_server.uri)
    assert not Path("mlflow.db").exists()
    assert any(key.endswith("adapter.safetensors") for key in shared_server.bucket.objects())


@pytest.fixture
def in_bucket(s3: S3, workdir: Path, invoke: Invoke) -> S3:
    """A run of two batches whose files are in a bucket."""
    MlflowClient().create_experiment("selfheal", artifact_location=f"{s3.uri}/selfheal")
    invoke("run", "--batches", "2", "--no-plots")
    return s3


def test_a_version_whose_object_is_gone_is_not_restored(in_bucket: S3, invoke: Invoke) -> None:
    registry = MlflowRegistry()
    model_id = MlflowClient().get_model_version("fraud", "3").source.removeprefix("models:/")
    (key,) = [k for k in in_bucket.objects() if model_id in k and k.endswith("adapter.safetensors")]
    in_bucket.delete(key)
    with pytest.raises(VersionCorrupt, match=r"fraud v3: adapter\.safetensors is gone"):
        registry.adapter(registry.version("fraud", 3))
    said = invoke("rollback", "--to", "3", "--yes", expect=4).stderr
    assert "adapter.safetensors is gone" in said
    assert len(said.splitlines()) == 1


def test_a_bucket_out_of_reach_is_not_taken_for_a_lost_file(
    in_bucket: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = MlflowRegistry()
    version = registry.version("fraud", 3)
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(RegistryUnreachable, match=r"127\.0\.0\.1:9"):
        registry.adapter(version)


@pytest.mark.parametrize(
    ("uri", "module", "extra"),
    [
        ("postgresql://u:secret@127.0.0.1:1/db", "psycopg", "postgres"),
        ("postgresql+psycopg://u:secret@127.0.0.1:1/db", "psycopg", "postgres"),
    ],
)
def test_a_missing_driver_is_named_with_its_extra(
    uri: str,
    module: str,
    extra: str,
    empty_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    invoke: Invoke,
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    said = invoke("snapshots", "--tracking-uri", uri, expect=4).stderr
    assert f"pip install 'selfheal-cli[{extra}]'" in said
    assert "secret" not in said


def test_a_bucket_without_its_library_is_refused_before_a_run_exists(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient()
    client.create_experiment("selfheal", artifact_location="s3://bucket/selfheal")
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(RegistryError, match=r"pip install 'selfheal-cli\[s3\]'"):
        MlflowRegistry().begin_run("selfheal", {}, {})
    assert not client.search_runs([client.get_experiment_by_name("selfheal").experiment_id])


def test_a_store_that_was_outgrown_moves_to_a_server_with_everything_that_it_holds(
    short_copy: Path,
    shared_server: SharedServer,
    postgres: Postgres,
    invoke: Invoke,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = Path(__file__).parents[2] / "docs" / "move_store.py"
    before = json.loads(invoke("snapshots", "--json", "--limit", "100").stdout)
    artifacts = MlflowClient().get_experiment_by_name("selfheal").artifact_location
    root = Path(artifacts.removeprefix("file://")).parent
    places = [f"sqlite:///{short_copy}/mlflow.db", postgres.uri(SERVER_DATABASE)]
    monkeypatch.setattr(sys, "argv", ["", *places, str(root), "mlflow-artifacts:"])
    assert in_fork(lambda: runpy.run_path(str(script), run_name="__main__")) == 0
    shared_server.bucket.upload(root)
    store = ("--tracking-uri", shared_server.uri)
    assert json.loads(invoke("snapshots", "--json", "--limit", "100", *store).stdout) == before
    invoke("audit", *store)
    invoke("rollback", "--to-best", "--yes", *store)
    invoke("run", "--batches", "1", "--no-plots", *store)  # numbers go on from the highest
