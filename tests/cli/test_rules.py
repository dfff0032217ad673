"""``selfheal rules`` and ``selfheal run --rules`` through the front door."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from tests.conftest import Invoke

RULES = """\
- {name: large, rule: amount > 1 => 1 @ 0.9, owner: risk, note: the old limit}
- {name: shop, rule: kind == 'shop' => 0 @ 0.4}
- {name: known, rule: "kind in {'web', 'phone'} and age is not missing => 0 @ 0.9"}
- {name: never, rule: amount > 1000 => 1}
"""
ROWS = 1_200


@pytest.fixture
def frame() -> pd.DataFrame:
    """Rows whose labels follow the amount; in the last fifth they do not."""
    draw = np.random.default_rng(3)
    label = draw.random(ROWS) < 0.3
    amount = draw.normal(np.where(label, 2.5, 0.0), 0.7)
    label[960:] = draw.random(240) < 0.3
    age = draw.integers(18, 80, ROWS).astype(float)
    age[::10] = np.nan
    kind = np.where(draw.random(ROWS) < 0.5, "web", "shop")
    return pd.DataFrame(
        {"amount": amount, "kind": kind, "age": age, "label": np.where(label, "yes", "no")}
    )


@pytest.fixture
def files(empty_dir: Path, frame: pd.DataFrame) -> None:
    frame.to_csv("data.csv", index=False)
    Path("rules.yaml").write_text(RULES)


@pytest.mark.usefixtures("files")
def test_rows_as_people_write_them_are_checked_as_the_same_rows(
    invoke: Invoke, frame: pd.DataFrame
) -> None:
    text = "Payments of March\n\n" + frame.to_csv(index=False, sep=";", decimal=",")
    Path("people.csv.gz").write_bytes(gzip.compress(text.encode("utf-16")))
    checked = [
        json.loads(
            invoke("rules", "check", "rules.yaml", name, "--target", "label", "--json").stdout
        )
        for name in ("data.csv", "people.csv.gz")
    ]
    assert checked[0] == checked[1]


@pytest.mark.usefixtures("files")
def test_check_gives_each_rules_figures(invoke: Invoke, frame: pd.DataFrame) -> None:
    document = json.loads(
        invoke("rules", "check", "rules.yaml", "data.csv", "--target", "label", "--json").stdout
    )
    large, shop, known, never = document["rules"]
    fires, positive = frame["amount"] > 1, frame["label"] == "yes"
    assert document["labels"] == ["no", "yes"]
    assert (large["owner"], large["note"], large["fired"]) == ("risk", "the old limit", fires.sum())
    assert large["coverage"] == pytest.approx(fires.mean())
    assert large["precision"] == pytest.approx(positive[fires].mean())
    assert large["recall"] == pytest.approx(fires[positive].mean())
    assert large["base_rate"] == pytest.approx(positive.mean())
    assert large["stale"].startswith("its precision fell from")
    assert known["fired"] == ((frame["kind"] == "web") & frame["age"].notna()).sum()
    assert shop["stale"] == known["stale"] == ""
    assert (never["fired"], never["precision"], never["stale"]) == (0, None, "it never fires")
    assert {one["disagreed"] for one in document["rules"]} == {None}
    both = {(one["first"], one["second"]): one["both"] for one in document["contradictions"]}
    web = (frame["kind"] == "web") & frame["age"].notna()
    assert both == {
        ("large", "shop"): (fires & (frame["kind"] == "shop")).sum(),
        ("large", "known"): (fires & web).sum(),
    }
    assert document["tied"] == (fires & web).sum()
    assert document["voted"] + document["tied"] + document["silent"] == ROWS


@pytest.mark.usefixtures("files")
def test_check_without_labels_gives_coverage_and_says_what_it_cannot(invoke: Invoke) -> None:
    checked = json.loads(invoke("rules", "check", "rules.yaml", "data.csv", "--json").stdout)
    assert {one["precision"] for one in checked["rules"]} == {None}
    assert checked["rules"][0]["fired"] > 0
    shown = invoke("rules", "check", "rules.yaml", "data.csv").stdout
    assert "large" in shown
    assert "Contradictions" in shown
    assert "labelled ones" not in shown


def test_a_rule_that_stopped_firing_is_stale(
    empty_dir: Path, frame: pd.DataFrame, invoke: Invoke
) -> None:
    frame.loc[frame.index >= 960, "amount"] -= 10
    frame.to_csv("data.csv", index=False)
    Path("rules.yaml").write_text(RULES)
    options = ("--latest", "0.2", "--json")
    checked = json.loads(invoke("rules", "check", "rules.yaml", "data.csv", *options).stdout)
    assert "does not fire on any of the latest 240 rows" in checked["rules"][0]["stale"]


def test_check_holds_rules_against_the_champion_and_run_votes_by_the_file(
    workdir: Path, frame: pd.DataFrame, invoke: Invoke
) -> None:
    frame.to_csv("data.csv", index=False)
    Path("rules.yaml").write_text(RULES)
    options = ("--target", "label", "--no-plots", "--rules", "rules.yaml", "--json",
               "--batch-size", "300")  # fmt: skip
    ran = json.loads(invoke("run", "data.csv", *options, "--rule", "age > 90 => 1").stdout)
    assert ran["trained"]["rules"] == [
        "amount > 1.0 => 1 @ 0.9",
        "kind == 'shop' => 0 @ 0.4",
        "kind in {'web', 'phone'} and age is not missing => 0 @ 0.9",
        "amount > 1000.0 => 1",
        "age > 90.0 => 1",
    ]
    (log,) = Path("mlruns/selfheal/runs").glob("*/events.jsonl")
    batches = [
        event["data"]
        for event in map(json.loads, log.read_text().splitlines())
        if event["kind"] == "batch"
    ]
    streamed = frame[ROWS // 4 :]
    large, web = streamed["amount"] > 1, streamed["kind"] == "web"
    tied = large & web & streamed["age"].notna()
    silent = ~large & web & streamed["age"].isna()
    assert sum(one["abstained"] for one in batches) == (tied | silent).sum()

    against = ("--target", "label", "--model", "data", "--json")
    checked = json.loads(invoke("rules", "check", "rules.yaml", "data.csv", *against).stdout)
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{Path('mlflow.db').absolute()}")
    model = mlflow.pyfunc.load_model("models:/data@champion")
    improbable = model.predict(frame.drop(columns="label")) < 0.3
    assert checked["rules"][0]["disagreed"] == (improbable & (frame["amount"] > 1)).sum() > 0


def test_a_table_that_the_model_was_not_trained_on_is_refused(
    workdir: Path, frame: pd.DataFrame, invoke: Invoke
) -> None:
    frame.to_csv("data.csv", index=False)
    invoke("run", "data.csv", "--target", "label", "--no-plots", "--batches", "1")
    frame.drop(columns="age").to_csv("other.csv", index=False)
    Path("one.yaml").write_text("- {name: large, rule: amount > 1 => 1}\n")
    refused = invoke("rules", "check", "one.yaml", "other.csv", "--model", "data", expect=3)
    assert "model 'data' needs a column 'age'" in refused.stderr
    swapped = ("--target", "label", "--positive", "no", "--model", "data")
    refused = invoke("rules", "check", "one.yaml", "data.csv", *swapped, expect=3)
    assert "give the same --target and --positive" in refused.stderr


def test_one_rule_from_a_file_is_the_same_run_as_from_the_command_line(
    workdir: Path, frame: pd.DataFrame, invoke: Invoke
) -> None:
    frame.to_csv("data.csv", index=False)
    Path("one.yaml").write_text("- {name: large, rule: amount > 1.0 => 1}\n")
    options = ("--target", "label", "--no-plots", "--json", "--batches", "2")
    runs = [
        json.loads(invoke("run", "data.csv", *options, *rules).stdout)
        for rules in (("--rule", "amount > 1.0 => 1"), ("--rules", "one.yaml"))
    ]
    assert runs[0]["results"] == runs[1]["results"]
    assert runs[0]["trained"] == runs[1]["trained"]
    log = next(Path("mlruns/selfheal/runs").glob("*/events.jsonl"))
    assert "abstained" not in log.read_text()


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("rules", "arguments", "message"),
    [
        ("- {name: a, rule: amuont > 1 => 1}", (), "unknown feature 'amuont'; did you mean 'amo"),
        ("- {name: a, rule: kind > 1 => 1}", (), "'kind' is text, 1.0 is not"),
        ("- {name: a, rule: amount > 1 => 2}", ("--target", "label"), "not one of 0 to 1"),
        ("- {name: a, rule: amount >> 1 => 2}", (), "rules.yaml, line 1, column 27: expected"),
        ("- {name: a, rule: amount > 1 => 1}", ("--target", "labl"), "no column 'labl'"),
        ("- {name: a, rule: label == 'yes' => 1}", ("--target", "label"), "unknown feature 'label"),
    ],
)
def test_what_is_wrong_with_rules_or_data_is_one_line(
    invoke: Invoke, rules: str, arguments: tuple[str, ...], message: str
) -> None:
    Path("rules.yaml").write_text(rules)
    refused = invoke("rules", "check", "rules.yaml", "data.csv", *arguments, expect=3)
    assert message in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_suggestions_are_a_file_of_rules_that_hold_on_later_rows(
    empty_dir: Path, frame: pd.DataFrame, invoke: Invoke
) -> None:
    frame[:960].to_csv("data.csv", index=False)
    printed = invoke("rules", "suggest", "data.csv", "--target", "label").stdout
    Path("found.yaml").write_text(printed)
    first = yaml.safe_load(printed)[0]
    assert first["rule"].startswith("amount ")
    assert "base rate" in first["note"]
    options = ("--target", "label", "--json")
    checked = json.loads(invoke("rules", "check", "found.yaml", "data.csv", *options).stdout)
    told = json.loads(invoke("rules", "suggest", "data.csv", *options).stdout)
    for seen, one in zip(checked["rules"], told["rules"], strict=True):
        assert seen["rule"] == one["rule"]
        parts = (one["learned"], one["held_out"])
        assert seen["fired"] == sum(part["fired"] for part in parts)
        assert seen["right"] == sum(part["right"] for part in parts)
        assert parts[1]["rows"] == 288
        assert parts[1]["precision"] > parts[1]["base_rate"]


@pytest.mark.usefixtures("files")
def test_suggest_needs_a_target_and_says_when_nothing_holds(
    invoke: Invoke, frame: pd.DataFrame
) -> None:
    assert "--target COLUMN is needed" in invoke("rules", "suggest", "data.csv", expect=2).stderr
    draw = np.random.default_rng(1)
    frame["label"] = draw.permutation(frame["label"])
    frame.to_csv("noise.csv", index=False)
    printed = invoke("rules", "suggest", "noise.csv", "--target", "label").stdout
    assert "No rule holds on the rows held out" in printed
    assert yaml.safe_load(printed) == []
