"""The registry is asked as it is: what others copied, renamed, deleted, collected or moved.

The versions here are made without a run and so without a log: a rollback is told so.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import ANY

import pytest
from mlflow import MlflowClient
from mlflow.tracking._tracking_service.utils import _get_store

from selfheal_cli.errors import RegistryError, VersionCorrupt
from selfheal_cli.registry.aliases import Move, move_alias
from selfheal_cli.registry.base import CHAMPION, Lineage
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from tests.conftest import Invoke, copied, enter
from tests.registry.test_contract import ADAPTER, NOW, a_base, snapshot

OF_M = ("--model-name", "m")


def fill(registry: MlflowRegistry, count: int = 3) -> Lineage:
    """A run whose model `m` has some versions, the last of them the champion and the best."""
    run_id = registry.begin_run("trial", {"a": "1"}, {})
    base = registry.store_base(run_id, a_base())
    lineage = Lineage("m", run_id, base, "article", "full", "abc")
    for number in range(1, count + 1):
        registry.add_version(lineage, snapshot(number, f1=number / 10), ADAPTER, None)
    move_alias(registry, Move("m", CHAMPION, count, "ann", NOW, "first"))
    return lineage


@pytest.fixture(scope="module")
def filled(store_template: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Lineage]:
    """A folder whose store has three versions of `m`; tests take copies."""
    folder = tmp_path_factory.mktemp("filled")
    shutil.copy(store_template, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        enter(folder, patch)
        return folder, fill(MlflowRegistry())


@pytest.fixture
def lineage(
    filled: tuple[Path, Lineage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Lineage:
    """The three versions in the store of the working folder."""
    enter(copied(filled[0], tmp_path), monkeypatch)
    return filled[1]


def listed(invoke: Invoke, model: str, *options: str) -> list[int]:
    told = invoke("snapshots", "--json", "--model-name", model, *options).stdout
    return [version["version"] for version in json.loads(told)]


@pytest.mark.usefixtures("lineage")
def test_a_copied_version_is_shown_checked_and_restored_like_the_one_it_was_copied_from(
    invoke: Invoke,
) -> None:
    client = MlflowClient()
    for number in ("1", "2"):
        client.copy_model_version(f"models:/m/{number}", "stage")
        client.copy_model_version(f"models:/stage/{number}", "prod")
    client.delete_model_version("stage", "2")
    client.set_registered_model_alias("prod", CHAMPION, "1")
    shown = json.loads(invoke("show", "2", "--model-name", "prod", "--json").stdout)
    assert (shown["version"], shown["metrics"]["f1"]) == (2, 0.2)
    assert listed(invoke, "prod") == [2, 1]
    assert listed(invoke, "prod", "--sort", "f1", "--phase", "post-heal") == [2, 1]
    invoke("champion", "--model-name", "prod")
    done = json.loads(
        invoke(
            "rollback", "--to-best", "--yes", "--unverified", "--json", "--model-name", "prod"
        ).stdout
    )
    assert done["move"]["target"] == 2
    assert MlflowRegistry().alias("prod", CHAMPION) == 2


@pytest.mark.usefixtures("lineage")
def test_a_copy_has_no_files_of_its_own_and_keeps_those_that_it_stands_on() -> None:
    MlflowClient().copy_model_version("models:/m/1", "prod")
    registry = MlflowRegistry()
    with pytest.raises(RegistryError, match="m v1 was copied to prod v1, which needs its files"):
        registry.delete_version(registry.version("m", 1))
    assert registry.delete_version(registry.version("prod", 1)) == 0
    assert registry.adapter(registry.version("m", 1)) == ADAPTER
    assert registry.delete_version(registry.version("m", 1)) >= len(ADAPTER)


def test_a_renamed_model_keeps_its_versions_its_journal_and_the_way_back(
    lineage: Lineage, invoke: Invoke
) -> None:
    MlflowClient().rename_registered_model("m", "n")
    assert listed(invoke, "n") == [3, 2, 1]
    invoke("rollback", "--to", "1", "--yes", "--unverified", "--model-name", "n")
    assert json.loads(invoke("champion", "--json", "--model-name", "n").stdout)["version"] == 1
    registry = MlflowRegistry()
    later = Lineage("n", lineage.run_id, lineage.base, "article", "full", "abc")
    assert registry.add_version(later, snapshot(4, f1=0.15), ADAPTER, None).version == 4
    assert listed(invoke, "n", "--sort", "f1") == [3, 2, 4, 1]


def test_a_name_that_is_taken_again_has_nothing_of_the_model_that_was_deleted(
    lineage: Lineage, invoke: Invoke
) -> None:
    MlflowClient().delete_registered_model("m")
    assert "no registered model 'm'" in invoke("snapshots", *OF_M, expect=4).stderr
    MlflowRegistry().add_version(lineage, snapshot(7, f1=0.7), ADAPTER, None)
    (version,) = MlflowRegistry().versions("m")
    assert (version.version, version.batch, version.metrics["f1"]) == (1, 7, 0.7)
    best = MlflowRegistry().best("m", base=lineage.base)
    assert best is not None
    assert best.version == 1


@pytest.mark.parametrize("way", ["deleted", "renamed"])
def test_a_name_that_is_taken_again_begins_a_journal_of_its_own(lineage: Lineage, way: str) -> None:
    client = MlflowClient()
    if way == "deleted":
        client.delete_registered_model("m")
    else:
        client.rename_registered_model("m", "was-m")
    assert MlflowRegistry().last_entry("m") is None
    MlflowRegistry().add_version(lineage, snapshot(7, f1=0.7), ADAPTER, None)
    move_alias(MlflowRegistry(), Move("m", CHAMPION, 1, "ann", NOW, "anew"))
    (entry,) = MlflowRegistry().entries("m")
    assert MlflowRegistry().last_entry("m") == replace(entry, standing=ANY)
    assert (entry.sequence, entry.data["reason"]) == (1, "anew")
    if way == "renamed":
        last = MlflowRegistry().last_entry("was-m")
        assert last is not None
        assert last.data["reason"] == "first"


@pytest.mark.usefixtures("lineage")
def test_a_deleted_experiment_is_said_and_its_versions_are_found(invoke: Invoke) -> None:
    client = MlflowClient()
    trial = client.get_experiment_by_name("trial").experiment_id
    client.delete_experiment(trial)
    assert listed(invoke, "m") == [3, 2, 1]
    invoke("rollback", "--to", "1", "--yes", "--unverified", *OF_M)
    said = f"mlflow experiments restore --experiment-id {trial}"
    findings = json.loads(invoke("doctor", "--json", expect=4).stdout)["findings"]
    assert [one["check"] for one in findings if not one["well"]] == ["experiment"]
    assert any(said in one["detail"] for one in findings)
    with pytest.raises(RegistryError, match=said):
        MlflowRegistry().begin_run("trial", {}, {})
    client.restore_experiment(trial)
    invoke("doctor")


@pytest.mark.usefixtures("lineage")
def test_without_the_journals_experiment_moves_say_what_brings_it_back(invoke: Invoke) -> None:
    client = MlflowClient()
    journals = client.get_experiment_by_name("selfheal-journal").experiment_id
    client.delete_experiment(journals)
    said = f"mlflow experiments restore --experiment-id {journals}"
    invoke("champion", *OF_M)
    assert said in invoke("rollback", "--to", "1", "--yes", "--unverified", *OF_M, expect=4).stderr
    assert said in invoke("hold", "--reason", "no", *OF_M, expect=4).stderr
    assert said in json.dumps(json.loads(invoke("doctor", "--json", expect=4).stdout))
    client.restore_experiment(journals)
    invoke("rollback", "--to", "1", "--yes", "--unverified", *OF_M)


def test_a_collected_run_takes_its_figures_with_it_and_no_version(
    lineage: Lineage, invoke: Invoke
) -> None:
    MlflowClient().delete_run(lineage.run_id)
    _get_store()._hard_delete_run(lineage.run_id)  # as 'mlflow gc' does
    said = invoke("rollback", "--to-best", "--yes", "--unverified", *OF_M, expect=5).stderr
    assert f"run {lineage.run_id} was removed from the store" in said
    assert "name one with --to VERSION" in said
    invoke("rollback", "--to", "1", "--yes", "--unverified", *OF_M)
    assert MlflowRegistry().alias("m", CHAMPION) == 1


@pytest.fixture
def elsewhere(
    filled: tuple[Path, Lineage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[..., object]], Path]:
    """Fill a store in the folder `one`, bring it to `two` as is asked, and stand there."""

    def bring(how: Callable[..., object]) -> Path:
        one, two = tmp_path / "one", tmp_path / "two"
        enter(copied(filled[0], one), monkeypatch)
        how(one, two)
        enter(two, monkeypatch)
        return one

    return bring


def test_a_moved_folder_is_named_and_nothing_is_written_into_the_old_one(
    elsewhere: Callable[[Callable[..., object]], Path], invoke: Invoke
) -> None:
    one = elsewhere(shutil.move)
    said = invoke("rollback", "--to", "1", "--yes", "--unverified", *OF_M, expect=4).stderr
    assert f"{one}/mlruns" in said
    assert "if its folder was moved, move it back or put a link to it there" in said
    with pytest.raises(VersionCorrupt, match=f"{one}/mlruns"):
        registry = MlflowRegistry()
        registry.adapter(registry.version("m", 1))
    said = invoke("run", "--batches", "1", "--experiment", "trial", expect=4).stderr
    assert f"experiment 'trial' keeps its files in {one}/mlruns" in said
    assert not one.exists()
    one.symlink_to(Path.cwd())
    invoke("rollback", "--to", "1", "--yes", "--unverified", *OF_M)


def test_a_copied_folder_that_shares_its_files_says_so(
    elsewhere: Callable[[Callable[..., object]], Path],
) -> None:
    one = elsewhere(shutil.copytree)
    said = MlflowRegistry().copied_from("trial")
    assert f"keeps its files in {one}/mlruns" in said
    assert f"beside the store {one}/mlflow.db" in said
    assert MlflowRegistry().copied_from("another") == ""


@pytest.mark.usefixtures("lineage")
def test_every_one_of_many_models_is_read_and_its_aliases_are_checked(invoke: Invoke) -> None:
    client = MlflowClient()
    for number in range(120):
        client.create_registered_model(f"a{number:03}")
    registry = MlflowRegistry()
    assert len(registry.models()) == 121
    assert registry.all_aliases()["m"] == registry.aliases("m") == {CHAMPION: 3}
    assert "m@champion" in invoke("doctor", "--json").stdout
