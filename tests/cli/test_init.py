"""What ``selfheal init`` writes is what was seen in the data, and a run accepts it unchanged."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from selfheal_cli.settings.resolve import ResolvedSettings, resolve
from selfheal_cli.settings.sources import parse_document
from tests.cli.test_bad_input import GOOD, HEADER, refused
from tests.cli.test_real_streams import DATA
from tests.conftest import Invoke

ROWS = 600
QUICK = ("--batches", "1", "--no-plots", "--set", "network.epochs=1", "--json")
EXAMPLES = Path(__file__).parents[2] / "examples"
HOURS = pd.date_range("2026-01-01", periods=ROWS, freq="h")
OFF = re.compile(r"^( *)#(?! )", re.MULTILINE)


def frame(**columns: Any) -> pd.DataFrame:
    """Rows whose ``amount`` tells something of ``outcome``."""
    rng = np.random.default_rng(3)
    outcome = (rng.random(ROWS) < 0.3).astype(int)
    amount = np.round(rng.normal(outcome, 1.0), 3)
    return pd.DataFrame({"amount": amount, **columns, "outcome": outcome})


def settled(path: str = "selfheal.yaml") -> ResolvedSettings:
    """What the file that was written says."""
    return resolve([parse_document(Path(path).read_text(encoding="utf-8"), path)])


def source(path: str = "selfheal.yaml") -> dict[str, Any]:
    """Its source."""
    return settled(path).config.source.model_dump()


CASES: dict[str, tuple[Callable[[], pd.DataFrame], dict[str, Any], tuple[str, ...]]] = {
    "ids": (
        lambda: frame(customer_id=np.arange(ROWS)[::-1], ref=[f"r{n}" for n in range(ROWS)],
                      number=np.arange(ROWS)),
        {"drop": ("customer_id", "ref", "number"), "target": "outcome"},
        ("customer_id: number, 0 to 599; dropped: an identifier",),
    ),
    "times": (
        lambda: frame(at=HOURS.astype(str), known_at=HOURS[::-1].astype(str)),
        {"time": "at", "drop": ("known_at",)},
        ("at: time; the time of the row", "known_at: time; dropped: a time"),
    ),
    "labels at times": (
        lambda: frame(at=HOURS.astype(str), known_at=(HOURS + pd.Timedelta("9h")).astype(str)),
        {"time": "at", "label_time": "known_at", "drop": (), "unlabelled": True},
        ("known_at: time; when the label came", "labels: timed"),
    ),
    "a time that is known later": (
        lambda: frame(at=HOURS.astype(str), shipped=(HOURS + pd.Timedelta("9h")).astype(str)),
        {"time": "at", "label_time": None, "drop": ("shipped",)},
        ("shipped: time; dropped: a time after the row's own: a leak",),
    ),
    "strong": (
        lambda: frame().assign(after=lambda f: f.outcome * 2.0 + 1),
        {"target": "outcome", "drop": ()},
        ("after: number, 1 69.3 %, 3 30.7 %; strong: alone it has AUC 1.000 on later rows",),
    ),
    "late labels": (
        lambda: frame().assign(outcome=lambda f: f.outcome.where(f.index < 400).astype("Int64")),
        {"target": "outcome", "unlabelled": True},
        ("33.3 % missing",),
    ),
    "late classes": (
        lambda: frame().assign(outcome=lambda f: np.where(f.index == 300, 2, f.outcome)),
        {"train_fraction": 0.55, "positive": None},
        ("the first 330 rows train, 270 stream",),
    ),
    "odd names": (
        lambda: frame(**{"a: b # c": 1.5, "no": np.arange(ROWS) % 7, "é, [x]": "q"}),
        {"target": "outcome"},
        ("a: b # c: number", "é, [x]: text, q 100.0 %; constant"),
    ),
    "a named target": (
        lambda: frame(is_fraud=np.arange(ROWS) % 5 == 0).drop(columns="outcome").assign(
            z=np.arange(ROWS) % 3),
        {"target": "is_fraud", "positive": "True"},
        ("columns that could be the target as well: z",),
    ),
    "empty columns": (
        lambda: frame(nothing=np.nan, flat=3),
        {"drop": ("nothing",)},
        ("nothing: empty, 100.0 % missing; dropped: always empty", "flat: number, 3 100.0 %; con"),
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "suffix"),
    [*((name, "csv") for name in CASES),
     *((name, "parquet") for name in ("times", "a named target", "odd names"))],
)  # fmt: skip
def test_what_is_seen_is_written_and_runs_unchanged(
    workdir: Path, invoke: Invoke, name: str, suffix: str
) -> None:
    make, expected, said = CASES[name]
    if suffix == "csv":
        make().to_csv("rows.csv", index=False)
    else:
        make().to_parquet("rows.parquet")
    invoke("init", f"rows.{suffix}")
    text = Path("selfheal.yaml").read_text(encoding="utf-8")
    written = source()
    assert {key: written[key] for key in expected} == expected
    assert all(part in text for part in said), text
    everything_on = OFF.sub(r"\1", text)
    assert len(OFF.findall(text)) > 30
    assert resolve([parse_document(everything_on, "selfheal.yaml")]).config == settled().config
    document = json.loads(invoke("run", *QUICK).stdout)
    assert document["model"] == "rows"


def test_the_rule_is_the_one_that_a_run_would_have_found(workdir: Path, invoke: Invoke) -> None:
    frame().to_csv("rows.csv", index=False)
    invoke("init", "rows.csv")
    written = json.loads(invoke("run", *QUICK).stdout)
    with_none = ("run", "rows.csv", "--no-config", "--target", "outcome", *QUICK)
    unconfigured = json.loads(invoke(*with_none, "--batch-size", "30", "--model-name", "b").stdout)
    assert written["trained"]["rules"] == unconfigured["trained"]["rules"]
    assert list(written["config"]["rules"]) == written["trained"]["rules"]


def test_without_data_it_is_the_article_s_run(workdir: Path, invoke: Invoke) -> None:
    invoke("init")
    text = Path("selfheal.yaml").read_text()
    from_file = settled().config
    Path("selfheal.yaml").unlink()
    bare = json.loads(invoke("config", "show", "--json").stdout)["values"]
    Path("selfheal.yaml").write_text(text)
    shown = json.loads(invoke("config", "show", "--json").stdout)["values"]
    assert shown.pop("sensitive")["value"] == "V14"  # which a bare run takes from its rule
    assert bare.pop("sensitive")["value"] is None
    assert shown.pop("policy.base")["value"] == "default"
    assert {key: one["value"] for key, one in shown.items()} == {
        key: one["value"] for key, one in bare.items()
    }
    assert from_file.rules == ("V14 < -1.5 => 1",)


def test_a_file_that_is_there_is_left_alone_unless_forced(workdir: Path, invoke: Invoke) -> None:
    Path("selfheal.yaml").write_text("seed: 7\n")
    refused(["init"], 3, "selfheal.yaml: is there already; --force")
    assert Path("selfheal.yaml").read_text() == "seed: 7\n"
    invoke("init", "--force")
    assert settled().config.seed == 42
    invoke("init", "--out", "deep/er.yaml")
    assert Path("deep/er.yaml").exists()


def test_the_path_that_is_written_is_relative_to_the_file(workdir: Path, invoke: Invoke) -> None:
    Path("data").mkdir()
    Path("data/rows.csv").write_text(HEADER + GOOD)
    invoke("init", "data/rows.csv", "--out", "conf/mine.yaml")
    assert yaml.safe_load(Path("conf/mine.yaml").read_text())["source"]["path"] == (
        "../data/rows.csv"
    )
    document = json.loads(invoke("run", "--config", "conf/mine.yaml", *QUICK).stdout)
    assert document["config"]["source"]["path"] == "conf/../data/rows.csv"


def test_what_the_user_says_is_not_guessed(workdir: Path, invoke: Invoke) -> None:
    Path("rows.csv").write_text((HEADER + GOOD).replace(",", ";"))
    said = ("--target", "kind", "--positive", "a", "--drop", "label", "--separator", ";",
            "--categorical", "age")  # fmt: skip
    invoke("init", "rows.csv", *said)
    written = source()
    assert (written["target"], written["positive"], written["separator"]) == ("kind", "a", ";")
    assert (written["drop"], written["categorical"]) == (("label",), ("age",))
    document = json.loads(invoke("init", "rows.csv", "--force", "--json").stdout)
    assert document["file"] == "selfheal.yaml"
    assert any("target 'label'" in note for note in document["notes"])


def test_the_schema_is_named_only_where_it_is(workdir: Path, invoke: Invoke) -> None:
    line = "# yaml-language-server: $schema=selfheal.schema.json\n"
    invoke("init")
    assert line not in Path("selfheal.yaml").read_text()
    invoke("init", "--force", "--schema")
    assert Path("selfheal.yaml").read_text().startswith(line)
    assert Path("selfheal.schema.json").read_text() == invoke("config", "schema").stdout
    invoke("init", "--force")  # it is there now
    assert Path("selfheal.yaml").read_text().startswith(line)


@pytest.mark.parametrize(
    ("text", "arguments", "parts"),
    [
        (None, [], ["rows.csv: no such file"]),
        ("a,b\n", [], ["no rows below the header"]),
        ("a,b\n" + "".join(f"{n / 7},{n / 3}\n" for n in range(200)), [], ["give --target one of"]),
        (HEADER + GOOD, ["--target", "lable"], ["no column 'lable'; did you mean 'label'?"]),
        (HEADER + GOOD, ["--drop", "knd"], ["no column 'knd'; did you mean 'kind'?"]),
        (HEADER + GOOD, ["--positive", "7"], ["'7' is not a value of the target"]),
    ],
)
def test_data_that_no_run_could_take_are_refused(
    workdir: Path, text: str | None, arguments: list[str], parts: list[str]
) -> None:
    if text is not None:
        Path("rows.csv").write_text(text)
    refused(["init", "rows.csv", *arguments], 3, *parts)


@pytest.mark.parametrize(("name", "labels"), [("bank", ["no", "yes"]), ("elec", ["0", "1"])])
def test_the_examples_on_real_streams_run_through_their_file(
    workdir: Path, invoke: Invoke, name: str, labels: list[str]
) -> None:
    file = EXAMPLES / name / "selfheal.yaml"
    invoke("config", "check", str(file))
    path = Path(source(str(file))["path"])
    assert (path.parent.name, path.resolve().parent) == ("data", DATA.resolve())
    if not path.exists():
        pytest.skip(f"{path.name} is not beside the checkout")
    with path.open() as stream:
        Path(path.name).write_text(
            "".join(line for line, _ in zip(stream, range(4_001), strict=False))
        )
    text = file.read_text().replace(yaml.safe_load(file.read_text())["source"]["path"],
                                           path.name)  # fmt: skip
    Path("selfheal.yaml").write_text(text)
    document = json.loads(invoke("run", "--batches", "5", "--no-plots", "--json").stdout)
    assert document["model"] == name
    assert document["trained"]["labels"] == labels
    stages = {line["key"]: line for line in document["results"]["stages"]}
    held_back = sum(count for what, count in document["results"]["notes"].items()
                    if "held back" in what)  # fmt: skip
    assert stages["healed"]["rows"] + held_back == 500


def test_rare_positives_get_f1_and_batches_that_hold_some_and_are_told_why(
    workdir: Path, invoke: Invoke
) -> None:
    rows = 6_000
    amounts = np.random.default_rng(3).normal(size=rows)
    labels = np.where(np.arange(rows) % 50 == 7, "yes", "no")
    pd.DataFrame({"amount": amounts, "label": labels}).to_csv("rare.csv", index=False)
    told = invoke("init", "rare.csv", "--target", "label").stdout
    assert "positives are rare (30 of 1,500 training rows, 2.0 %): objective f1" in told
    text = Path("selfheal.yaml").read_text()
    assert "# positives are rare (30 of 1,500 training rows, 2.0 %)\n# objective f1, since" in text
    config = resolve([parse_document(text, "selfheal.yaml")]).config
    assert config.objective.kind == "f1"
    assert config.batch_size == 225
