"""`selfheal compare`: the same stream through recipes, peers, and nothing at all."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from selfheal_cli.cli.main import main
from selfheal_cli.config import NetworkSettings, RunConfig, SyntheticSettings
from selfheal_cli.kinds import PEERS
from selfheal_cli.pipeline.offline.compare import SPEED, WHOLE_SPEED, compare
from selfheal_cli.sources.synthetic import RULE, SyntheticSource
from tests.cli.test_bad_input import refused
from tests.cli.test_recipes_and_labels import table
from tests.conftest import Invoke, enter

SIMPLE = ["no heal", "full fine-tune", "flag nothing", "label rate of the last 10 batches"]
LIMIT = "limit: the generator's own posterior"
OWN = [
    "boosted trees, frozen", "boosted trees, refitted every 10 batches",
    "logistic regression, refitted every 10 batches",
]  # fmt: skip
FIGURES = {"accuracy", "f1_half", "f1", "kappa", "roc_auc", "pr_auc", "log_loss", "ece"}
FIGURES |= {"recall_at_1pct_fp"}
QUICK = ("--recipes", "anchored", "--batches", "4", "--json")


@pytest.fixture(scope="module")
def compared(
    tmp_path_factory: pytest.TempPathFactory, store_template: Path
) -> tuple[Path, dict[str, Any]]:
    """One comparison over two seeds, to look at."""
    folder = tmp_path_factory.mktemp("compared")
    shutil.copy(store_template, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        enter(folder, patch)
        result = CliRunner().invoke(main, ["compare", *QUICK, "--seeds", "2"])
        assert result.exit_code == 0, result.output
    return folder, json.loads(result.stdout)


@pytest.fixture
def in_compared(compared: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Path:
    enter(compared[0], monkeypatch)
    return compared[0]


def test_everyone_is_judged_on_the_same_separate_rows_with_their_spread(
    compared: tuple[Path, dict[str, Any]],
) -> None:
    document = compared[1]
    lines = {line["title"]: line for line in document["lines"]}
    assert list(lines) == [*SIMPLE, LIMIT, "anchored"]
    for title, line in lines.items():
        assert line["rows"] == 20_000
        constant = title in ("flag nothing", "label rate of the last 10 batches")
        missing = {"log_loss"} if title == "flag nothing" else set()
        assert FIGURES - missing <= set(line["mean"]), title
        spread = [line["spread"][name] for name in ("accuracy", "f1", "roc_auc")]
        assert all(value is not None and value >= 0 for value in spread)
        if not constant:
            assert line["spread"]["roc_auc"] > 0
    assert lines["flag nothing"]["mean"]["roc_auc"] == 0.5
    assert lines["flag nothing"]["mean"]["f1_half"] == 0
    assert lines["flag nothing"]["mean"]["accuracy"] == 0.85
    assert lines["anchored"]["mean"]["log_loss"] < lines["no heal"]["mean"]["log_loss"]
    best = lines[LIMIT]["mean"]
    for title in ("no heal", "full fine-tune", "anchored"):
        assert lines[title]["mean"]["log_loss"] > best["log_loss"]
        assert lines[title]["mean"]["roc_auc"] < best["roc_auc"] + 0.005
    for name in ("accuracy", "f1", "roc_auc"):
        assert document["limit"][name] == pytest.approx(best[name], abs=0.02)


def test_who_is_ahead_is_said_with_the_difference_on_the_same_rows(
    compared: tuple[Path, dict[str, Any]],
) -> None:
    document = compared[1]
    order = document["ranking"]
    lines = {line["title"]: line["mean"] for line in document["lines"]}
    assert order["figure"] == "accuracy"
    assert LIMIT not in [order["leader"], *(other["title"] for other in order["others"])]
    for other in order["others"]:
        lead = lines[order["leader"]]["accuracy"] - lines[other["title"]]["accuracy"]
        assert other["lead"] == pytest.approx(lead)
        assert other["low"] <= lead <= other["high"]
    assert order["leader"] in order["sentence"]


def test_each_seed_has_its_own_results_and_the_line_is_their_mean(
    compared: tuple[Path, dict[str, Any]],
) -> None:
    document = compared[1]
    assert {result["seed"] for result in document["results"]} == {42, 43}
    for line in document["lines"]:
        own = [r for r in document["results"] if r["title"] == line["title"]]
        assert [len(result["by_batch"]) for result in own] == [4, 4]
        for name, mean in line["mean"].items():
            assert mean == pytest.approx(sum(r["figures"][name] for r in own) / 2)


def test_mlflow_has_one_run_and_a_child_run_a_contestant(
    compared: tuple[Path, dict[str, Any]], in_compared: Path
) -> None:
    from mlflow import MlflowClient

    document = compared[1]
    runs = {run.info.run_id: run for run in MlflowClient().search_runs(["1"])}
    parent = runs.pop(document["run_id"])
    assert parent.info.status == "FINISHED"
    assert "mlflow.parentRunId" not in parent.data.tags
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {document["run_id"]}
    named = {run.data.tags["mlflow.runName"]: run for run in runs.values()}
    assert set(named) == {*SIMPLE, LIMIT, "anchored"}
    for line in document["lines"]:
        run = named[line["title"]]
        assert run.info.status == "FINISHED"
        for name, value in line["mean"].items():
            assert run.data.metrics[name] == pytest.approx(value)
        assert run.data.metrics["accuracy_sd"] == pytest.approx(line["spread"]["accuracy"])
    kept = [file.path for file in MlflowClient().list_artifacts(document["run_id"])]
    assert kept == ["comparison.png"]


def test_the_picture_is_a_png(compared: tuple[Path, dict[str, Any]], in_compared: Path) -> None:
    picture = Path(compared[1]["plot"])
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 10_000


def test_a_table_is_judged_on_its_stream_and_shown_to_people(
    workdir: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    table("data.csv", rows=600)
    arguments = ("compare", "data.csv", "--target", "label", "--recipes", "gradient,anchored")
    result = invoke(*arguments, "--plot", "pictures/mine.png", "--refit-every", "3")
    assert "Comparison on 450 rows, 1 seed" in result.stdout
    for title in ("no heal", "gradient", "anchored", "flag nothing"):
        assert title in result.stdout
    assert "limit" not in result.stdout
    assert "rows/s" not in result.stdout
    assert "boosted trees, refitted every 3 batches" in result.stdout
    assert "ahead by accuracy" in result.stdout.lower() or "First by" in result.stdout
    assert "seed 42: anchored" in result.stderr
    assert Path("pictures/mine.png").exists()


def test_costs_are_compared_where_they_are_given(workdir: Path, invoke: Invoke) -> None:
    table("data.csv", rows=600)
    given = ("data.csv", "--target", "label", "--recipes", "anchored", "--peers", "none", "--json")
    document = json.loads(invoke("compare", *given, "--objective", "cost:10,1").stdout)
    costs = {line["title"]: line["mean"]["cost"] for line in document["lines"]}
    positives = sum(table("data.csv", rows=600)["label"][150:] == "yes")
    assert costs["flag nothing"] == pytest.approx(100 * 10 * positives / 450)
    assert costs["anchored"] < costs["flag nothing"]
    assert {line["spread"]["cost"] for line in document["lines"]} == {None}


@pytest.mark.parametrize("names", ["healed", "anchored,magic", ",", ""])
def test_an_unknown_recipe_is_a_usage_error_that_names_the_known(
    workdir: Path, invoke: Invoke, names: str
) -> None:
    before = sorted(Path().rglob("*"))
    stderr = invoke("compare", "--recipes", names, expect=2).stderr
    assert "article, gradient, anchored, ensemble" in stderr
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize("names", ["forest", "frozen-trees,magic", ",", "all,frozen-trees"])
def test_an_unknown_peer_is_a_usage_error_that_names_the_known(
    workdir: Path, invoke: Invoke, names: str
) -> None:
    before = sorted(Path().rglob("*"))
    stderr = invoke("compare", "--peers", names, expect=2).stderr
    assert ", ".join(PEERS) in stderr
    assert sorted(Path().rglob("*")) == before


def test_rows_to_refit_on_are_a_number_or_all(workdir: Path, invoke: Invoke) -> None:
    for rows in ("0", "-1", "some", "²"):
        assert "or all" in invoke("compare", "--refit-rows", rows, expect=2).stderr


def test_rare_positives_are_shown_with_what_few_alarms_catch(
    workdir: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    frame = table("data.csv", rows=600)
    frame.loc[(frame.index % 7 != 0), "label"] = "no"
    frame.to_csv("rare.csv", index=False)
    arguments = ("compare", "rare.csv", "--target", "label", "--recipes", "anchored")
    shown = invoke(*arguments, "--peers", "isolation-forest", "--objective", "accuracy").stdout
    assert "at 1 % FP" in shown
    assert "isolation" in shown


@pytest.mark.slow
def test_processes_change_no_figure() -> None:
    config = RunConfig(
        source=SyntheticSettings(train_rows=200, test_rows=200), batches=3, rules=(RULE,),
        plots=False, network=NetworkSettings(hidden=8, epochs=1),
    )  # fmt: skip
    measured = {"seconds", "processor_seconds", "memory_mb", SPEED, WHOLE_SPEED}
    told: list[list[tuple[str, int]]] = []
    compared = []
    for jobs in (1, 2):
        told.append([])
        results = compare(
            config, partial(_small, config), ["anchored"], {}, (1,),
            lambda one: told[-1].append((one.title, one.seed)), jobs,
        )  # fmt: skip
        compared.append([
            (one.title, one.seed, one.by_batch,
             {name: value for name, value in one.figures.items() if name not in measured})
            for one in results
        ])  # fmt: skip
    assert told[0] == told[1]
    assert repr(compared[0]) == repr(compared[1])


def _small(config: RunConfig, seed: int) -> SyntheticSource:
    settings = config.source
    assert isinstance(settings, SyntheticSettings)
    return SyntheticSource(settings, seed=seed, batch_size=50, batches=3)


PEERS_OF_MANY = ("frozen-trees", "refitted-logistic", "retrained-network", "river-logistic")


@pytest.mark.skipif(importlib.util.find_spec("river") is None, reason="river is not installed")
def test_more_than_two_classes_are_compared_by_recipes_and_peers(
    workdir: Path, invoke: Invoke
) -> None:
    table("three.csv", rows=600, classes=3)
    given = ["compare", "three.csv", "--target", "label", "--json", "--refit-every", "2"]
    lines = json.loads(invoke(*given, "--peers", ",".join(PEERS_OF_MANY)).stdout)["lines"]
    by_title = {line["title"]: line["mean"] for line in lines}
    assert len(by_title) == 4 + 3 + len(PEERS_OF_MANY)
    assert not {"article", "flag nothing"} & set(by_title)  # of two classes alone
    commonest = by_title["the commonest class"]
    assert commonest["roc_auc"] == 0.5
    for title in ("no heal", "gradient", "anchored", "ensemble", "boosted trees, frozen"):
        assert by_title[title]["accuracy"] > commonest["accuracy"] + 0.1, title
        assert "f1_half" not in by_title[title]  # of two classes, too


@pytest.mark.parametrize(
    "named", [("--peers", "isolation-forest"), ("--recipes", "article")], ids=" ".join
)
def test_what_is_for_two_classes_alone_says_so_of_more(workdir: Path, named: list[str]) -> None:
    table("three.csv", classes=3)
    refused(["compare", "three.csv", "--target", "label", *named], 3, named[1], "3 values")


def test_river_that_is_not_installed_is_named_with_what_to_install(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "river", None)
    refused(["compare", "--river", *QUICK], 3, "pip install 'selfheal-cli[compare]'", "--river")


@pytest.mark.skipif(importlib.util.find_spec("river") is None, reason="river is not installed")
def test_river_gives_three_lines_more(workdir: Path, invoke: Invoke) -> None:
    table("data.csv", rows=400)
    arguments = ("compare", "data.csv", "--target", "label", "--river")
    document = json.loads(invoke(*arguments, *QUICK, "--batch-size", "50").stdout)
    titles = [line["title"] for line in document["lines"]]
    assert titles[:8] == [*SIMPLE, "anchored", *OWN]
    assert [title.split()[0] for title in titles[8:]] == ["river"] * 3
    assert all(0 <= line["mean"]["accuracy"] <= 1 for line in document["lines"])
