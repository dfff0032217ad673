"""Option over variable over selfheal.yaml over default, as seen from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from selfheal_cli.cli.compare import command as compare
from selfheal_cli.cli.configured import variable_of
from selfheal_cli.cli.run import command as run
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
    monkeypatch.setenv("SELFHEAL_RULE", "amount > 1 => 1\n\nage < 3 and amount > 2 => 0\n")
    values = shown(invoke, "--batches", "9", "--rollback-f1-drop", "0.2")
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
        "rules": (["amount > 1 => 1", "age < 3 and amount > 2 => 0"], "SELFHEAL_RULE"),
        "policy.base": ("strict", "selfheal.yaml:11"),
        "policy.fidi_threshold": (0.25, "selfheal.yaml:11"),
        "policy.rollback_f1_drop": (0.2, "--rollback-f1-drop"),
        "model_name": ("mine", "selfheal.yaml:12"),
        "plots": (False, "selfheal.yaml:13"),
    }  # fmt: skip
    assert values["heal.recipe"] == {"value": "anchored", "from": "default", "kind": "default"}
    assert values["policy.cooldown"]["from"].endswith("registry_policies/strict.yaml")


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
    refused(["champion", "--no-config"], 4, "no registered model 'fraud'")


def test_the_table_of_show_names_key_value_and_origin(folder: Path, invoke: Invoke) -> None:
    lines = invoke("config", "show", "--seed", "7").stdout.splitlines()
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if "│" in line]
    assert ["seed", "7", "--seed"] in cells
    assert ["heal.window", "7", "selfheal.yaml:7"] in cells
    assert ["heal.held_out", "0.2", "default"] in cells


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


def test_every_option_of_a_run_has_a_variable_of_its_name(
    folder: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {param.name: param.envvar for command in (run, compare) for param in command.params}
    assert names == {
        param.name: variable_of(param) for command in (run, compare) for param in command.params
    }
    assert (names["rules"], names["rules_file"]) == ("SELFHEAL_RULE", "SELFHEAL_RULES")
    assert names["data"] == "SELFHEAL_DATA"
    Path("other.csv").write_text(HEADER + GOOD)
    given = {"DATA": "other.csv", "DROP": "kind\nage", "LABELS": "delayed:2", "NO_PLOTS": "1",
             "POLICY": "lenient", "RECORD_ROWS": "yes", "MODEL_NAME": "theirs"}  # fmt: skip
    for name, value in given.items():
        monkeypatch.setenv(f"SELFHEAL_{name}", value)
    values = shown(invoke)
    assert values["source.path"] == {"value": "other.csv", "from": "SELFHEAL_DATA", "kind": "env"}
    assert values["source.drop"]["value"] == ["kind", "age"]
    assert (values["labels.regime"]["value"], values["labels.delay"]["value"]) == ("delayed", 2)
    assert values["policy.cooldown"]["from"].endswith("lenient.yaml")
    assert values["source.record_rows"]["from"] == "SELFHEAL_RECORD_ROWS"
    assert values["model_name"]["value"] == "theirs"
    assert "Invalid value for '--batches' (env var: 'SELFHEAL_BATCHES')" in _with(
        monkeypatch, invoke, "SELFHEAL_BATCHES", "many"
    )


def _with(monkeypatch: pytest.MonkeyPatch, invoke: Invoke, name: str, value: str) -> str:
    monkeypatch.setenv(name, value)
    return invoke("run", expect=2).stderr


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
    invoke("run", "--batches", "3", "--conflict-min", "1")
    document = json.loads(invoke("doctor", "--json").stdout)
    stores = {one["check"]: one["detail"] for one in document["findings"]}
    assert stores["store"] == "sqlite:///store/other.db"
    first = json.loads(invoke("snapshots", "--json").stdout)[-1]["version"]
    Path("selfheal.yaml").write_text(text.replace("base: strict", "base: strict, four_eyes: true"))
    refused(["rollback", "--to", str(first), "--yes", "--json"], 4, "--propose")
    told = invoke("rollback", "--to", str(first), "--yes", "--policy", "strict").stdout
    assert f"v{first}" in told


def test_compare_takes_the_file_as_well_and_refuses_a_wrapped_model(
    folder: Path, invoke: Invoke
) -> None:
    arguments = ("compare", "--recipes", "anchored", "--json")
    document = json.loads(invoke(*arguments).stdout)
    assert {line["rows"] for line in document["lines"]} == {100}
    Path("selfheal.yaml").write_text(f"{FILE}model: models:/credit/1\n")
    refused([*arguments], 3, "selfheal.yaml:14: model: 'selfheal compare' trains a network")


def test_no_password_of_a_store_is_shown(folder: Path, invoke: Invoke) -> None:
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
