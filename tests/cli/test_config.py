"""Option over variable over selfheal.yaml over default, as seen from the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_bad_input import GOOD, HEADER, refused
from tests.conftest import Invoke

FILE = """\
source:
  kind: table
  path: data.csv
  target: label
  drop: [kind]
heal:
  window: 7
network: {epochs: 1}
batches: 2
batch_size: 50
policy: {base: strict, fidi_threshold: 0.25}
model_name: mine
plots: no
"""


@pytest.fixture
def folder(workdir: Path) -> Path:
    """A folder with a table and a selfheal.yaml."""
    Path("data.csv").write_text(HEADER + GOOD)
    Path("selfheal.yaml").write_text(FILE)
    return workdir


def shown(invoke: Invoke, *arguments: str) -> dict[str, Any]:
    """What ``config show --json`` says, by key."""
    values: dict[str, Any] = json.loads(invoke("config", "show", "--json", *arguments).stdout)
    return values["values"]  # type: ignore[no-any-return]


def test_an_option_stands_over_a_variable_over_the_file_over_the_default(
    folder: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFHEAL_BATCH_SIZE", "40")
    monkeypatch.setenv("SELFHEAL_BATCHES", "5")
    monkeypatch.setenv("SELFHEAL_HEAL__RIDGE", "2.5")
    monkeypatch.setenv("SELFHEAL_RULES", "[amount > 1 => 1, age < 3 and amount > 2 => 0]")
    over = ("--rollback-f1-drop", "0.2", "--set", "policy.cooldown=3")
    values = shown(invoke, "--batches", "9", *over)
    assert {key: (value["value"], value["from"]) for key, value in values.items()
            if value["kind"] not in ("default", "policy")} == {
        "source.kind": ("table", "selfheal.yaml:2"),
        "source.path": ("data.csv", "selfheal.yaml:3"),
        "source.target": ("label", "selfheal.yaml:4"),
        "source.drop": (["kind"], "selfheal.yaml:5"),
        "heal.window": (7, "selfheal.yaml:7"),
        "heal.ridge": (2.5, "SELFHEAL_HEAL__RIDGE"),
        "network.epochs": (1, "selfheal.yaml:8"),
        "batches": (9, "--batches"),
        "batch_size": (40, "SELFHEAL_BATCH_SIZE"),
        "rules": (["amount > 1 => 1", "age < 3 and amount > 2 => 0"], "SELFHEAL_RULES"),
        "policy.base": ("strict", "selfheal.yaml:11"),
        "policy.fidi_threshold": (0.25, "selfheal.yaml:11"),
        "policy.rollback_f1_drop": (0.2, "--rollback-f1-drop"),
        "policy.cooldown": (3, "--set policy.cooldown"),
        "model_name": ("mine", "selfheal.yaml:12"),
        "plots": (False, "selfheal.yaml:13"),
    }  # fmt: skip
    assert values["heal.recipe"] == {"value": "ensemble", "from": "default", "kind": "default"}
    assert values["policy.conflict_min"]["from"].endswith("registry_policies/strict.yaml")


def test_what_show_says_is_what_a_run_does(folder: Path, invoke: Invoke) -> None:
    document = json.loads(invoke("run", "--json").stdout)
    started = document["config"]
    values = shown(invoke)
    assert started["heal"]["window"] == values["heal.window"]["value"] == 7
    assert started["batch_size"] == 50
    assert started["policy"]["fidi_threshold"] == 0.25
    assert started["source"]["drop"] == ["kind"]
    listed = json.loads(invoke("snapshots", "--json").stdout)
    assert listed  # of 'mine', which the file names
    assert invoke("champion", "--model-name", "mine").stdout == invoke("champion").stdout
    assert "Champion of 'mine'" in invoke("champion").stdout
    # the only model of the store needs no name
    assert "Champion of 'mine'" in invoke("champion", "--no-config").stdout


def test_the_table_of_show_names_key_value_and_origin(folder: Path, invoke: Invoke) -> None:
    lines = invoke("config", "show", "--seed", "7").stdout.splitlines()
    cells = [re.split(r"  +", line.strip()) for line in lines]
    assert ["seed", "7", "--seed"] in cells
    assert ["heal.window", "7", "selfheal.yaml:7"] in cells
    assert ["heal.held_out", "0.1", "default"] in cells


def test_a_file_may_be_named_or_left_alone(
    folder: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("sub").mkdir()
    Path("sub/other.yaml").write_text("source: {kind: table, path: ../data.csv, target: label}\n")
    values = shown(invoke, "--config", "sub/other.yaml")
    assert values["source.path"]["value"] == "sub/../data.csv"
    assert values["model_name"] == {"value": "data", "from": "default", "kind": "default"}
    assert shown(invoke, "--no-config")["source.kind"]["value"] == "synthetic"
    monkeypatch.setenv("SELFHEAL_CONFIG", "sub/other.yaml")
    assert shown(invoke)["source.path"]["from"] == "sub/other.yaml:1"
    refused(["config", "show", "--config", "absent.yaml"], 3, "absent.yaml: no such file")
    both = invoke("config", "show", "--config", "a", "--no-config", expect=2)
    assert "exclude each other" in both.stderr


def test_every_key_of_a_source_is_an_option_and_a_variable(
    folder: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"target": "label", "drop": "[kind]", "categorical": "[age]", "train_fraction": "0.5",
             "time": "at", "label_time": "known", "separator": "'|'", "record_rows": "yes",
             "path": "other.csv"}  # fmt: skip
    values = shown(invoke, *(f"--set=source.{name}={value}" for name, value in given.items()))
    assert values["source.separator"]["value"] == "|"
    assert values["source.drop"] == {
        "value": ["kind"], "from": "--set source.drop", "kind": "option"
    }  # fmt: skip
    for name, value in given.items():
        monkeypatch.setenv(f"SELFHEAL_SOURCE__{name.upper()}", value)
    variables = shown(invoke)
    assert variables["source.separator"]["from"] == "SELFHEAL_SOURCE__SEPARATOR"
    assert {key: one["value"] for key, one in variables.items() if key.startswith("source.")} == {
        key: one["value"] for key, one in values.items() if key.startswith("source.")
    }


def test_the_address_of_a_source_says_its_kind(empty_dir: Path, invoke: Invoke) -> None:
    at = {"path": "a.ndjson", "url": "sqlite:///rows.db", "bootstrap": "localhost:9092"}
    more = {"url": ["source.query=select 1"], "bootstrap": ["source.topic=rows"]}
    kinds = [
        shown(invoke, *(f"--set={one}" for one in (f"source.{name}={address}", "source.target=y",
                                                   *more.get(name, []))))["source.kind"]
        for name, address in at.items()
    ]  # fmt: skip
    assert [kind["value"] for kind in kinds] == ["ndjson", "sql", "kafka"]
    assert kinds[0]["from"] == "--set source.path"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--set", "heal"], 2, "--set heal: KEY=VALUE is expected, such as heal.window=10"),
        (["--set", "=3"], 2, "--set =3: KEY=VALUE is expected"),
        (["--set", "heal.windw=3"], 3, "--set heal.windw: unknown key; did you mean 'window'?"),
        (["--set", "helo.window=3"], 3, "--set helo.window (helo): unknown key; did you mean"),
        (["--set", "seed=x"], 3, "--set seed = 'x': input should be a valid integer"),
        (["--set", "seed=1", "--seed", "2"], 2, "exclude each other: both set seed"),
        (["--set", "seed=1", "--set", "seed=2"], 2, "exclude each other: both set seed"),
        (["--labels", "delayed:3", "--set", "labels.delay=2"], 2, "both set labels.delay"),
        (["--set", "source.separator=x"], 2, "--set source.separator needs a DATA file"),
        (["--ridge", "3"], 2, "No such option '--ridge'. Did you mean '--set heal.ridge=VALUE'?"),
    ],
)
def test_what_is_wrong_with_a_set_key_is_said(
    empty_dir: Path, invoke: Invoke, arguments: list[str], code: int, message: str
) -> None:
    assert message in invoke("config", "show", *arguments, expect=code).stderr


def test_a_key_that_is_set_goes_together_with_the_option_of_its_group(
    empty_dir: Path, invoke: Invoke
) -> None:
    values = shown(invoke, "--policy", "strict", "--set", "policy.cooldown=3")
    assert values["policy.base"]["value"] == "strict"
    assert values["policy.cooldown"]["value"] == 3


def test_a_variable_of_before_works_and_names_the_new_one(
    folder: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("other.csv").write_text(HEADER + GOOD)
    given = {"DATA": "other.csv", "DROP": "kind\nage", "NO_PLOTS": "1", "HEAL_STEPS": "3",
             "RECIPE": "gradient", "RECORD_ROWS": "yes", "RULE": "amount > 1 => 1\n"}  # fmt: skip
    for name, value in given.items():
        monkeypatch.setenv(f"SELFHEAL_{name}", value)
    result = invoke("config", "show", "--json")
    values = json.loads(result.stdout)["values"]
    assert values["source.path"] == {"value": "other.csv", "from": "SELFHEAL_DATA", "kind": "env"}
    assert values["source.drop"]["value"] == ["kind", "age"]
    assert values["rules"]["value"] == ["amount > 1 => 1"]
    assert values["heal.steps"] == {"value": 3, "from": "SELFHEAL_HEAL_STEPS", "kind": "env"}
    assert values["source.record_rows"]["value"] is True
    assert values["plots"]["value"] is False
    assert result.stderr.count("\n") == 1
    for old, new in (("DATA", "SOURCE__PATH"), ("HEAL_STEPS", "HEAL__STEPS"), ("RULE", "RULES"),
                     ("NO_PLOTS", "PLOTS=no"), ("DROP", "SOURCE__DROP")):  # fmt: skip
        assert f"SELFHEAL_{old} (now SELFHEAL_{new})" in result.stderr


def test_a_file_of_rules_in_the_variable_that_is_a_list_by_now_is_still_read(
    empty_dir: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("rules.yaml").write_text("- {name: one, rule: V14 < -1 => 1}\n")
    monkeypatch.setenv("SELFHEAL_RULES", "rules.yaml")
    result = invoke("config", "show", "--json")
    assert json.loads(result.stdout)["values"]["rules"]["value"] == ["V14 < -1.0 => 1"]
    assert "SELFHEAL_RULES (now SELFHEAL_RULES_FILE)" in result.stderr


def test_an_option_of_before_works_and_says_what_to_set(folder: Path, invoke: Invoke) -> None:
    old = ("--categorical", "age", "--train-fraction", "0.5", "--export-dir", "out")
    result = invoke("config", "show", "--json", *old)
    values = json.loads(result.stdout)["values"]
    assert values["source.categorical"]["value"] == ["age"]
    assert values["source.train_fraction"]["from"] == "--train-fraction"
    assert values["export_dir"]["value"] == "out"
    assert result.stderr.count("\n") == 1
    assert "--export-dir (now --output)" in result.stderr
    assert "--categorical (now --set 'source.categorical=[age]')" in result.stderr
    assert "--train-fraction (now --set source.train_fraction=0.5)" in result.stderr


def test_the_store_and_the_model_of_variables_hold_for_all_commands(
    in_article_run: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///nowhere.db")
    monkeypatch.setenv("SELFHEAL_TRACKING_URI", f"sqlite:///{Path('mlflow.db').absolute()}")
    monkeypatch.setenv("SELFHEAL_MODEL_NAME", "fraud")
    assert "Champion of 'fraud'" in invoke("champion").stdout
    monkeypatch.setenv("SELFHEAL_MODEL_NAME", "nobody")
    assert "no registered model 'nobody'" in invoke("champion", expect=4).stderr


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("window: 7", "window: 0", ["selfheal.yaml:7: heal.window = '0'", "greater than or equal"]),
        ("window: 7", "windwo: 7", ["selfheal.yaml:7: heal.windwo: unknown key", "'window'?"]),
        ("batches: 2", "batches: 2\nbatches: 3", ["selfheal.yaml:10: key 'batches' is given twi"]),
        ("target: label", "target: lable", ["no column 'lable'", "selfheal.yaml:4 (source.target"]),
        ("path: data.csv", "path: dta.csv", ["dta.csv: no such file", "selfheal.yaml:3 (source.p"]),
        ("drop: [kind]", "drop: [knd]", ["no column 'knd'", "selfheal.yaml:5 (source.drop[0])"]),
        ("plots: no", "sensitive: kind", ["not a numeric", "selfheal.yaml:13 (sensitive)"]),
        ("plots: no", "rules:\n- amuont < 3 => 1", ["'amuont'", "selfheal.yaml:14 (rules[0])"]),
        ("plots: no", "rules:\n- amount <", ["selfheal.yaml:14: rules[0], position"]),
        ("plots: no", "plots: [", ["selfheal.yaml:14: not YAML"]),
        ("base: strict", "base: strickt", ["selfheal.yaml:11: policy: no policy 'strickt'"]),
    ],
)
def test_a_mistake_in_the_file_is_said_with_file_line_and_key(
    folder: Path, old: str, new: str, parts: list[str]
) -> None:
    assert FILE.count(old) == 1
    Path("selfheal.yaml").write_text(FILE.replace(old, new))
    refused(["run"], 3, *parts)


def test_check_says_whether_a_file_is_valid(folder: Path, invoke: Invoke) -> None:
    assert invoke("config", "check").stdout == "selfheal.yaml: a valid configuration of model " \
        "'mine'\n"  # fmt: skip
    Path("bad.yaml").write_text("seed: x\n")
    refused(["config", "check", "bad.yaml"], 3, "bad.yaml:1: seed = 'x'")
    refused(["config", "check", "none.yaml"], 3, "none.yaml: no such file")


def test_the_schema_knows_every_key_and_says_what_each_means(workdir: Path, invoke: Invoke) -> None:
    import jsonschema
    import yaml

    schema = json.loads(invoke("config", "schema").stdout)

    jsonschema.Draft202012Validator.check_schema(schema)
    check = jsonschema.Draft202012Validator(schema)
    assert check.is_valid(yaml.safe_load(FILE))
    assert check.is_valid({"labels": "delayed:3", "objective": {"kind": "f1"}, "policy": "strict"})
    for wrong in ({"sed": 1}, {"seed": -1}, {"source": {"kind": "tabel"}}, {"heal": {"steps": 0}}):
        assert not check.is_valid(wrong)
    described = [schema["properties"], *(one["properties"] for one in schema["$defs"].values())]
    for properties in described:
        assert all(value.get("description") for value in properties.values()), properties
    invoke("config", "schema", "--out", "s.json")
    assert json.loads(Path("s.json").read_text()) == schema


def test_the_file_s_policy_and_store_hold_for_other_commands(folder: Path, invoke: Invoke) -> None:
    import shutil

    Path("store").mkdir()
    shutil.copy("mlflow.db", "store/other.db")
    text = f"{FILE}tracking_uri: sqlite:///store/other.db\n"
    Path("selfheal.yaml").write_text(text)
    # a network that a heal betters, and every heal published
    changed = ("network.validation=0", "policy.publish_change=0", "policy.publish_share=1")
    told = [part for one in changed for part in ("--set", one)]
    invoke("run", "--batches", "3", "--conflict-min", "1", *told)
    document = json.loads(invoke("doctor", "--json").stdout)
    stores = {one["check"]: one["detail"] for one in document["findings"]}
    assert stores["store"] == "sqlite:///store/other.db"
    first = json.loads(invoke("snapshots", "--json").stdout)[-1]["version"]
    Path("selfheal.yaml").write_text(text.replace("base: strict", "base: strict, four_eyes: true"))
    refused(["rollback", "--to", str(first), "--yes", "--json"], 4, "--propose")
    moved = invoke("rollback", "--to", str(first), "--yes", "--policy", "strict").stdout
    assert f"v{first}" in moved


def test_compare_takes_the_file_as_well_and_refuses_a_wrapped_model(
    folder: Path, invoke: Invoke
) -> None:
    arguments = ("compare", "--recipes", "anchored", "--json")
    document = json.loads(invoke(*arguments).stdout)
    assert {line["rows"] for line in document["lines"]} == {100}
    Path("selfheal.yaml").write_text(f"{FILE}model: models:/credit/1\n")
    refused([*arguments], 3, "selfheal.yaml:14: model: 'selfheal compare' trains a network")


def test_no_password_of_a_store_is_shown(
    folder: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    Path("selfheal.yaml").write_text(f"{FILE}tracking_uri: postgresql://ann:s3cret@db/mlflow\n")
    for arguments in ((), ("--json",)):
        stdout = invoke("config", "show", *arguments).stdout
        assert "s3cret" not in stdout
        assert "postgresql://ann:***@db/mlflow" in stdout


def test_a_resumed_run_goes_on_as_it_was_begun_whatever_the_file_says(
    folder: Path, invoke: Invoke
) -> None:
    invoke("run")
    Path("selfheal.yaml").write_text("seed: nonsense\n")
    refused(["run"], 3, "selfheal.yaml:1: seed = 'nonsense'")
    refused(["run", "--resume", "latest"], 4, "there is nothing to resume")
