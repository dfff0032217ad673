"""`selfheal run`, through the front door."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from selfheal_cli.cli.main import main
from selfheal_cli.cli.run_screen import RunScreen
from selfheal_cli.events.log import read, verify
from selfheal_cli.events.state import RunView
from selfheal_cli.registry.writer import RegistryWriter
from tests.conftest import Invoke
from tests.pipeline import faulty

QUICK = ("--batches", "3", "--no-plots")
SHORTEST = ("--batches", "1", "--no-plots")
TABLE = ("data.csv", "--target", "label", "--no-plots", "--json")


def make_table(path: Path, rows: int = 1200) -> pd.DataFrame:
    """A stream whose `amount` drifts upwards half-way, with text and missing values."""
    draw = np.random.default_rng(3)
    label = draw.random(rows) < 0.3
    drift = np.where(np.arange(rows) > rows // 2, 2.0, 0.0)
    frame = pd.DataFrame(
        {
            "amount": draw.normal(np.where(label, 2.0, 0.0)) + drift,
            "kind": np.where(draw.random(rows) < 0.5, "web", "shop"),
            "age": draw.integers(18, 80, rows).astype(float),
            "label": np.where(label, "yes", "no"),
        }
    )
    frame.loc[frame.index % 50 == 7, "age"] = np.nan
    frame.loc[frame.index > rows - 20, "kind"] = "phone"
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep=";")
    return frame


@pytest.fixture(scope="module")
def plain_rows(short_run: Path) -> list[dict[str, object]]:
    """The first three batches of a run without options."""
    (log,) = (short_run / "mlruns/selfheal/runs").glob("*/events.jsonl")
    view = RunView.of(read(log))
    return [asdict(view.rows[batch]) for batch in (1, 2, 3)]


def logs() -> list[Path]:
    return list(Path("mlruns/selfheal/runs").glob("*/events.jsonl"))


def test_two_runs_give_one_document_each_with_the_same_figures_and_the_same_weights(
    workdir: Path, invoke: Invoke
) -> None:
    first, second = (
        json.loads(invoke("run", *QUICK, "--json", "--export-dir", name).stdout)
        for name in ("one", "two")
    )
    assert (first["outcome"], first["versions"], len(first["batches"])) == ("FINISHED", 7, 3)
    assert {line["key"] for line in first["results"]["stages"]} >= {"healed", "limit"}
    rows = [[row | {"version": None} for row in run["batches"]] for run in (first, second)]
    assert rows[0] == rows[1]
    hashes = [[event.sha256 for event in read(log) if event.kind == "snapshot"] for log in logs()]
    assert hashes[0] == hashes[1]
    assert first["results"]["serving_sha256"] == second["results"]["serving_sha256"]


def test_the_log_of_a_run_is_whole(short_copy: Path) -> None:
    (log,) = logs()
    assert verify(log) > 10
    assert not list(log.parent.glob("outbox/*"))


def test_the_effective_configuration_is_kept_with_the_run(workdir: Path, invoke: Invoke) -> None:
    invoke("run", *SHORTEST, "--heal-steps", "2", "--seed", "1", "--policy", "strict")
    (log,) = logs()
    config = json.loads(log.with_name("config.json").read_text())
    assert (config["heal"]["steps"], config["seed"]) == (2, 1)
    assert config["policy"]["fidi_threshold"] == 0.5


@pytest.mark.parametrize(
    ("option", "value", "column"),
    [
        ("--heal-steps", "1", "healed_acc"),
        ("--heal-lr", "0.03", "healed_acc"),
        ("--seed", "1", "pre_acc"),
        ("--drift-strength", "1.0", "z_score"),
        ("--batch-size", "50", "rows"),
        ("--conflict-min", "6", "action"),
        ("--fidi-threshold", "9", "state"),
    ],
)
def test_each_option_changes_what_it_names(
    workdir: Path,
    invoke: Invoke,
    plain_rows: list[dict[str, object]],
    option: str,
    value: str,
    column: str,
) -> None:
    # drift shows in the third batch
    batches = 3 if option in ("--seed", "--drift-strength", "--fidi-threshold") else 1
    given = ("--batches", str(batches), "--no-plots", "--json", option, value)
    changed = json.loads(invoke("run", *given).stdout)["batches"]
    plain = [row[column] for row in plain_rows[:batches]]
    assert plain != [row[column] for row in changed]


def test_an_edited_threshold_file_takes_effect_at_the_next_run(
    short_copy: Path, invoke: Invoke
) -> None:
    exported = Path("monitoring_export/threshold_config.json")
    thresholds = json.loads(exported.read_text())
    assert thresholds["rollback_f1_drop"] == 0.08
    thresholds["conflict_min"] = 1000
    thresholds["fidi_threshold"] = 50
    Path("mine.json").write_text(json.dumps(thresholds))
    document = json.loads(invoke("run", *SHORTEST, "--json", "--thresholds", "mine.json").stdout)
    assert {row["action"] for row in document["batches"]} == {"NONE"}
    again = json.loads(exported.read_text())
    assert again == thresholds


def test_a_table_trains_on_its_first_part_and_streams_the_rest(
    workdir: Path, invoke: Invoke
) -> None:
    frame = make_table(Path("data.csv"))
    document = json.loads(invoke("run", *TABLE).stdout)
    assert document["model"] == "data"
    assert document["trained"]["labels"] == ["no", "yes"]
    assert document["trained"]["rules_suggested"] is True
    assert document["trained"]["rules"][0].startswith("amount >")
    assert sum(row["rows"] for row in document["batches"]) == 900
    stages = {line["key"]: line for line in document["results"]["stages"]}
    assert {stages[key]["rows"] for key in ("healed", "unhealed", "nothing", "everything")} == {900}
    stream = frame.iloc[300:]
    low, high = (frame[["amount", "age"]][:300].agg(end) for end in ("min", "max"))
    outside = (stream[low.index] < low) | (stream[high.index] > high)
    assert document["results"]["notes"] == {
        "missing values": 18,
        "unseen categories": 19,
        "values out of the training range": int(outside.to_numpy().sum()),
    }
    # the prequential table adds up the batches before their heals
    right = sum(round(row["pre_acc"] * row["rows"]) for row in document["batches"])
    assert stages["healed"]["tp"] + stages["healed"]["tn"] == right


def test_a_target_of_several_classes_is_healed_scored_and_drawn(
    workdir: Path, invoke: Invoke
) -> None:
    frame = make_table(Path("data.csv"))
    frame["label"] = pd.cut(frame["amount"], 3, labels=["low", "middle", "high"]).astype(str)
    frame.to_csv("data.csv", index=False)
    document = json.loads(invoke("run", "data.csv", "--target", "label", "--json").stdout)
    assert sorted(document["trained"]["labels"]) == ["high", "low", "middle"]
    stages = {line["key"]: line for line in document["results"]["stages"]}
    # the classes' shares drift with the amount, so that some batches look implausible at first
    held_back = document["results"]["notes"][
        "rows with implausible labels, held back from healing and figures"
    ]
    assert 0 < held_back < 900
    assert {line["rows"] for line in stages.values()} == {900 - held_back}
    for key in ("healed", "unhealed"):
        confusion = np.array(stages[key]["confusion"])
        assert (confusion.shape, confusion.sum()) == ((3, 3), 900 - held_back)
        assert stages[key]["accuracy"] == np.trace(confusion) / confusion.sum()
    assert document["results"]["base_unchanged"] is True
    assert "F1 are the means over the classes" in document["results"]["evaluation"]
    drawn = {path.stem for path in Path("monitoring_export/plots").glob("*.png")}
    assert drawn >= {"dashboard", "accuracy", "f1_rollbacks", "snapshots", "stages", "states"}
    assert "conflicts" in drawn
    assert "costs" not in drawn  # a miss and a false alarm are for two classes


def test_the_users_rule_and_feature_are_used(workdir: Path, invoke: Invoke) -> None:
    make_table(Path("data.csv"))
    rules = ("--rule", "amount > 1.5 and kind == 'web' => 1", "--rule", "amount < 0 => 0")
    options = (*TABLE, "--batches", "1", "--sensitive", "age", *rules)
    invoke("run", *options, "--drop", "age", expect=3)
    document = json.loads(invoke("run", *options).stdout)
    assert document["trained"]["rules"] == [
        "amount > 1.5 and kind == 'web' => 1",
        "amount < 0.0 => 0",
    ]
    assert document["trained"]["sensitive"] == "age"


def test_a_tables_version_scores_raw_rows_through_mlflow(workdir: Path, invoke: Invoke) -> None:
    import mlflow

    frame = make_table(Path("data.csv"))
    invoke("run", *TABLE, "--batches", "1")
    model = mlflow.pyfunc.load_model("models:/data@champion")
    raw = pd.read_csv("data.csv", sep=";").drop(columns="label")
    probabilities = model.predict(raw)
    assert probabilities.shape == (len(frame),)
    assert np.isfinite(probabilities).all()
    whole = raw.assign(age=50)  # whole numbers in a column of floats
    assert np.isfinite(model.predict(whole)).all()


@pytest.mark.usefixtures("forked_worker")
def test_async_heals_beside_scoring_and_ends_with_every_heal_told(
    workdir: Path, invoke: Invoke
) -> None:
    few = ("--batches", "8", "--no-plots", "--json")
    document = json.loads(invoke("run", "--heal-mode", "async", *few).stdout)
    actions = {row["action"] for row in document["batches"]}
    assert actions <= {"HEALED", "COALESCED", "NONE"}
    assert "HEALED" in actions
    healed = sum(row["action"] == "HEALED" for row in document["batches"])
    assert document["versions"] == 1 + 2 * healed


def test_ctrl_c_exports_what_was_measured_and_marks_the_run_killed(workdir: Path) -> None:
    from mlflow import MlflowClient

    # more batches than a machine goes through before it is told to stop
    child = faulty.begun("run", "--batches", "400", "--no-plots")
    for line in child.output:
        if line.split()[:1] == ["1-10"]:
            os.kill(child.pid, signal.SIGINT)
            break
    ended = child()
    assert ended.code == 130, ended
    assert "Interrupted: the figures are of the batches until then." in ended.output
    with Path("monitoring_export/metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert 10 <= len(rows) < 400
    (run,) = MlflowClient().search_runs(["1"])
    assert run.info.status == "KILLED"
    (log,) = logs()
    verify(log)


def test_ctrl_c_while_the_registry_is_waited_for_leaves_what_it_lacks_on_disk(
    workdir: Path, invoke: Invoke
) -> None:
    told = RunScreen.on_left

    def on_left(screen: RunScreen, left: int) -> None:
        told(screen, left)
        signal.raise_signal(signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RegistryWriter, "_carry_next", lambda writer: False)
        patch.setattr(RunScreen, "on_left", on_left)
        done = CliRunner().invoke(main, ["run", *SHORTEST])
    assert done.exit_code == 130
    assert done.stdout.index("Results") < done.stdout.index("wait for the registry: selfheal flush")
    assert "Ending: the figures hold" in done.stderr
    invoke("flush")
    assert "3 versions" in invoke("snapshots").stdout


def test_a_pipe_gets_plain_lines_and_no_bar(short_run: Path) -> None:
    output = (short_run / "output.txt").read_text()
    assert "\x1b" not in output
    assert "\r" not in output
    assert not re.search(r"^(training|stream)\b", output, re.MULTILINE)
    assert "Next: selfheal ui" in output
    assert max(map(len, output.splitlines())) < 250


def test_the_actor_can_be_named_and_is_recorded(
    workdir: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "SELFHEAL_ACTOR", "ann")
    invoke("run", *QUICK)
    (log,) = logs()
    moves = [event.as_dict() for event in read(log) if event.kind == "alias-moved"]
    assert {move["actor"] for move in moves} == {"ann (claimed)"}
    assert moves[0]["alias"] == "baseline"
    assert [move["target"] for move in moves if move["alias"] == "champion"] == [1, 3, 5, 7]


MONITORS = (
    *("--monitor", "psi:on=V14,triggers=heal"),
    *("--monitor", "fidi", "--monitor", "page-hinkley:on=scores"),
)


def test_monitors_are_told_of_and_written_down_and_a_resumed_run_has_the_same_readings(
    workdir: Path, invoke: Invoke
) -> None:
    """The record is cut short behind a batch; each reading that is gone through must come again."""
    given = ("--batches", "4", "--no-plots", "--sensitive", "auto", *MONITORS)
    output = invoke("run", *given).output
    assert "FIDI watches V14" in output
    assert "V14 was chosen: by gradient times input over the training rows" in output
    assert "Monitor psi:V14: warns from 0.1, alarms from 0.2, starts a heal" in output
    assert "monitor-alarm in batch 1: monitor psi:V14: " in output
    exported = Path("monitoring_export/metrics.csv")
    with exported.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["monitor_psi:V14_level"] for row in rows] == ["alarm"] * 4
    events = json.loads(Path("monitoring_export/events.json").read_text())
    assert "psi:V14" in [event.get("monitor") for event in events]

    (log,) = logs()
    whole = [line.split(",") for line in exported.read_text().splitlines()]
    lines = log.read_text().splitlines(keepends=True)
    second = next(i for i, line in enumerate(lines) if '"kind":"batch"' in line.replace(" ", "")
                  and '"batch":2' in line.replace(" ", ""))  # fmt: skip
    log.write_text("".join(lines[: second + 1]))
    log.with_name("outbox.db").unlink()
    done = invoke("run", "--resume", "latest", "--json")
    assert json.loads(done.stdout)["batches"][3]["monitors"]["fidi"]["level"] == "alarm"
    again = [line.split(",") for line in exported.read_text().splitlines()]
    place = whole[0].index("monitor_psi:V14")
    assert [line[place:] for line in again] == [line[place:] for line in whole]


def test_a_monitor_that_cannot_be_is_refused_before_training(workdir: Path, invoke: Invoke) -> None:
    refused = invoke("run", "--monitor", "psi:on=V144", expect=3)
    assert "on = 'V144' is not among what it looks at; did you mean 'V14'?" in refused.stderr
    assert not Path("mlruns").exists()
