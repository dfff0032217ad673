"""Recipes, labels that come late, and decisions, through the front door and MLflow's store."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from selfheal_cli.events.event import Event
from selfheal_cli.events.log import read
from selfheal_cli.events.types import RunStarted
from selfheal_cli.records import VersionRecord
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from tests.cli.test_bad_input import refused
from tests.conftest import Invoke

SMALL = ("--no-plots", "--json")
ANCHORED = ("--recipe", "anchored")
CLASSES = ["high", "low", "middle"]


def table(path: str, classes: int = 2, rows: int = 800) -> pd.DataFrame:
    """Three features, of which `amount` tells the classes apart."""
    draw = np.random.default_rng(11)
    place = draw.integers(0, classes, rows)
    frame = pd.DataFrame(
        {
            "amount": draw.normal(2.0 * place),
            "weight": draw.normal(size=rows),
            "kind": np.where(draw.random(rows) < 0.5, "web", "shop"),
            "label": np.array(CLASSES if classes == 3 else ["no", "yes"])[place],
        }
    )
    frame.to_csv(path, index=False)
    return frame


def events() -> list[Event]:
    (log,) = Path("mlruns/selfheal/runs").glob("*/events.jsonl")
    return list(read(log))


def versions(model: str = "fraud") -> list[VersionRecord]:
    return MlflowRegistry().versions(model)[::-1]


def steps(log: list[Event]) -> Iterator[tuple[int, Event]]:
    """Events with the number of the batch that was being worked on."""
    step = 1
    for event in log:
        yield step, event
        step += event.kind == "batch"


# --- late labels


def test_late_labels_reach_the_json_the_files_and_mlflows_versions(
    workdir: Path, invoke: Invoke
) -> None:
    arguments = ("run", *ANCHORED, "--labels", "delayed:3", "--batches", "8", *SMALL)
    document = json.loads(invoke(*arguments).stdout)
    known = [row["pre_acc"] is not None for row in document["batches"]]
    assert known == [True] * 5 + [False] * 3
    with Path("monitoring_export/metrics.csv").open() as stream:
        written = list(csv.DictReader(stream))
    assert [row["pre_f1"] == "" for row in written] == [False] * 5 + [True] * 3
    log = events()
    came = {step: e.batch for step, e in steps(log) if e.kind == "labels"}
    assert came == {step: step - 3 for step in range(4, 9)}
    scored = {e.snapshot: e["scores"] for e in log if e.kind == "snapshot-scored"}
    assert scored
    for version in versions()[1:]:
        tags = version.tags
        assert tags["selfheal.labels"] == "delayed:3"
        if tags["selfheal.snapshot"] in scored:
            scores = scored[tags["selfheal.snapshot"]]
            assert tags["selfheal.evaluation"] == "prequential"
            assert (tags["selfheal.eval_rows"], version.metrics["rows"]) == ("300", 300.0)
            assert version.f1 == pytest.approx(scores["f1"])
        else:
            assert tags["selfheal.evaluation"] == "awaiting-labels"
            assert (tags["selfheal.eval_rows"], version.f1) == ("0", None)
    best = MlflowRegistry().best("fraud", base=versions()[0].base)
    assert best is not None
    assert best.tags["selfheal.evaluation"] == "prequential"


def test_nothing_is_the_best_while_every_version_awaits_its_labels(
    workdir: Path, invoke: Invoke
) -> None:
    invoke("run", *ANCHORED, "--labels", "delayed:3", "--batches", "4", *SMALL)
    assert any(version.phase == "post-heal" for version in versions())
    invoke("rollback", "--to-best", expect=5)


def test_the_labels_of_a_table_come_at_their_time_or_never(workdir: Path, invoke: Invoke) -> None:
    frame = table("data.csv")
    frame["at"] = np.arange(len(frame))
    frame["labelled"] = (frame["at"] + 150).where(frame["at"] % 10 > 0)
    frame.loc[(frame["at"] % 10 == 0) & (frame["at"] >= 200), "label"] = None
    frame.to_csv("data.csv", index=False)
    times = ("--time", "at", "--label-time", "labelled")
    document = json.loads(invoke("run", "data.csv", "--target", "label", *times, *SMALL).stdout)
    came: Counter[int] = Counter()
    for step, event in steps(events()):
        if event.kind == "labels":
            came[step] += event.rows
    due = [n + 150 for n in range(200, 800) if n % 10]
    expected = {
        step: sum(100 + 100 * step <= at < 200 + 100 * step for at in due) for step in range(1, 7)
    }
    assert came == {step: count for step, count in expected.items() if count}
    accuracy = [row["pre_acc"] for row in document["batches"]]
    assert [value is None for value in accuracy] == [False] * 5 + [True]
    assert {line["rows"] for line in document["results"]["stages"]} == {540}


def test_without_any_label_there_are_estimates_and_no_verdict(
    workdir: Path, invoke: Invoke
) -> None:
    frame = table("data.csv")
    frame.loc[200:, "label"] = None
    frame.to_csv("data.csv", index=False)
    target = ("run", "data.csv", "--target", "label")
    arguments = (*target, "--labels", "none", "--batches", "2", *SMALL)
    document = json.loads(invoke(*arguments).stdout)
    assert {row["action"] for row in document["batches"]} == {"NONE"}
    assert document["versions"] == 1
    assert "No label is known" in document["results"]["verdict"]["sentence"]
    batches = [event for event in events() if event.kind == "batch"]
    assert all("est_accuracy" in event.estimates for event in batches)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--labels", "full", *ANCHORED), "--labels none or delayed:K"),
        (("--labels", "none", "--recipe", "article"), "anchored or ensemble, not 'article'"),
        (("--labels", "none"), "anchored or ensemble, not 'article'"),
        (("--labels", "delayed:2", "--recipe", "gradient"), "anchored or ensemble, not 'gradient'"),
    ],
)
def test_an_assumption_that_nothing_could_rest_on_is_refused(
    workdir: Path, arguments: tuple[str, ...], part: str
) -> None:
    refused(["run", *arguments, "--assume", "positives-stable"], 3, part)


def test_an_assumption_for_two_classes_is_refused_for_three(workdir: Path) -> None:
    table("three.csv", classes=3)
    arguments = ["run", "three.csv", "--target", "label", "--labels", "none", "--assume"]
    refused([*arguments, "negatives-stable"], 3, "for two classes and the target has 3")


@pytest.mark.parametrize(
    "text", ["late", "delayed", "delayed:", "full:3", "none:1", "delayed:x", "delayed:-1"]
)
def test_bad_labels_are_said_with_what_is_allowed(workdir: Path, text: str) -> None:
    one_line(["run", "--labels", text], text)


@pytest.mark.parametrize(
    "text",
    [
        *("f2", "cost", "cost:", "cost:1", "cost:1,2,3", "cost:a,b", "accuracy:1", "f1:"),
        *("cost:0,1", "cost:-1,2", "cost:inf,1", "cost:1,nan"),
    ],
)
def test_a_bad_objective_is_said_with_what_is_allowed(workdir: Path, text: str) -> None:
    one_line(["run", "--objective", text], text)


def one_line(arguments: list[str], *parts: str) -> None:
    """A usage or configuration error: its last line says all, and nothing was written."""
    from click.testing import CliRunner

    from selfheal_cli.cli.main import main

    before = sorted(Path().rglob("*"))
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code in (2, 3), result.output
    said = [line for line in result.stderr.splitlines() if not line.startswith(("Usage", "Try"))]
    said = [line for line in said if line.strip()]
    assert len(said) == 1, result.stderr
    assert all(part in said[0] for part in parts)
    assert result.stdout == ""
    assert sorted(Path().rglob("*")) == before


def test_labels_and_label_time_exclude_each_other(workdir: Path, invoke: Invoke) -> None:
    table("data.csv")
    both = ("--labels", "none", "--time", "amount", "--label-time", "weight")
    stderr = invoke("run", "data.csv", "--target", "label", *both, expect=2).stderr
    assert "exclude each other" in stderr


# --- what decisions are for


def test_costs_set_the_threshold_of_every_version_and_of_what_it_decides(
    workdir: Path, invoke: Invoke
) -> None:
    import mlflow

    table("data.csv")
    every = ("--set", "policy.publish_change=0")
    arguments = ("run", "data.csv", "--target", "label", "--batches", "3", *every, *SMALL)
    document = json.loads(invoke(*arguments, "--objective", "cost:5000,200").stdout)
    threshold = 200 / 5200
    registered = versions("data")
    assert len(registered) > 1
    for version in registered:
        assert float(version.tags["selfheal.threshold"]) == pytest.approx(threshold)
    for line in document["results"]["stages"]:
        errors = 5000 * line["fn"] + 200 * line["fp"]
        assert line["cost"] == pytest.approx(100 * errors / line["rows"])
    model = mlflow.pyfunc.load_model("models:/data@champion")
    raw = pd.read_csv("data.csv").drop(columns="label")
    probabilities = np.asarray(model.predict(raw))
    assert probabilities.dtype == np.float32
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    decided = model.predict(raw, params={"output": "label"})
    assert list(decided) == ["yes" if p >= threshold else "no" for p in probabilities]
    assert list(decided) != ["yes" if p >= 0.5 else "no" for p in probabilities]
    assert (np.asarray(model.predict(raw, params={"output": "probability"})) == probabilities).all()
    with pytest.raises(Exception, match="'odds'"):
        model.predict(raw, params={"output": "odds"})


# --- more than two classes


def macro_f1(confusion: list[list[int]]) -> float:
    counts = np.array(confusion)
    right, true, called = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    occurs = true + called > 0
    return float(np.mean(2 * right[occurs] / (true + called)[occurs]))


def test_three_classes_are_healed_registered_with_macro_f1_and_served(
    workdir: Path, invoke: Invoke
) -> None:
    import mlflow

    frame = table("three.csv", classes=3)
    target = ("run", "three.csv", "--target", "label", *ANCHORED)
    every = ("--set", "policy.publish_change=0", "--set", "policy.publish_share=1")
    document = json.loads(invoke(*target, "--batches", "3", *every, *SMALL).stdout)
    assert document["outcome"] == "FINISHED"
    assert any(row["action"] == "HEALED" for row in document["batches"])
    scores = {e.id: e["scores"] for e in events() if e.kind == "snapshot"}
    healed = [version for version in versions("three") if version.phase == "post-heal"]
    for version in healed:
        confusion = scores[version.tags["selfheal.snapshot"]]["confusion"]
        assert version.f1 == pytest.approx(macro_f1(confusion))
        assert int(version.tags["selfheal.eval_rows"]) == np.sum(confusion)
    model = mlflow.pyfunc.load_model(f"models:/three/{healed[-1].version}")
    raw = frame.drop(columns="label")
    probabilities: Any = model.predict(raw)
    assert list(probabilities.columns) == CLASSES
    assert len(probabilities) == len(frame)
    assert probabilities.sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-5)
    decided = model.predict(raw, params={"output": "label"})
    assert list(decided) == [CLASSES[place] for place in probabilities.to_numpy().argmax(axis=1)]


def test_the_articles_recipe_says_that_it_is_binary(workdir: Path) -> None:
    table("three.csv", classes=3)
    arguments = ["run", "three.csv", "--target", "label", "--recipe", "article"]
    refused(arguments, 3, "'article' is binary and the target has 3 values", "anchored or gradient")


def rare(path: str) -> None:
    """800 training rows of which 20 are positive."""
    frame = table(path, rows=3_200)
    frame["label"] = np.where(np.arange(3_200) % 40 == 7, "yes", "no")
    frame.to_csv(path, index=False)


def test_rare_positives_get_f1_and_larger_batches_and_are_told_why(
    workdir: Path, invoke: Invoke
) -> None:
    rare("rare.csv")
    result = invoke("run", "rare.csv", "--target", "label", "--no-plots", "--batches", "1")
    assert "Positives are rare (20 of 800 training rows, 2.5 %): objective f1" in result.stderr
    assert "batches of 120 rows hold some 3 positives each" in result.stderr
    config = next(event for event in events() if isinstance(event, RunStarted)).config
    assert config["objective"]["kind"] == "f1"
    assert config["batch_size"] == 120


def test_what_was_said_of_rare_positives_stays_as_it_was_said(
    workdir: Path, invoke: Invoke
) -> None:
    rare("rare.csv")
    told = ("run", "rare.csv", "--target", "label", "--no-plots", "--batches", "1")
    result = invoke(*told, "--objective", "accuracy", "--batch-size", "100")
    assert "rare (" not in result.stderr
    config = next(event for event in events() if isinstance(event, RunStarted)).config
    assert (config["objective"]["kind"], config["batch_size"]) == ("accuracy", 100)


def test_the_network_is_judged_on_rows_held_out_from_training_first_and_without_costs_has_none(
    workdir: Path, invoke: Invoke
) -> None:
    table("data.csv", rows=2_400)
    arguments = ("run", "data.csv", "--target", "label", "--batches", "1", *SMALL)
    document = json.loads(invoke(*arguments).stdout)
    assert document["trained"]["training"].endswith("the latest 60 are held out")
    baseline, healed = document["results"]["stages"][:2]
    assert (baseline["key"], baseline["rows"]) == ("baseline", 60)
    assert 0 <= healed["recall_at_1pct_fp"] <= 1
    assert all("cost" not in line for line in document["results"]["stages"])
    first = versions("data")[0]
    assert first.threshold == 0.5
    assert first.tags["selfheal.evaluation"] == "held-out"
    assert first.f1 == pytest.approx(baseline["f1"])
