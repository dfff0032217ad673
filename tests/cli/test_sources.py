"""Rows from elsewhere than a file, through the front door."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from selfheal_cli.cli.main import main
from selfheal_cli.events.log import read, verify
from tests.cli.test_run import logs, make_table
from tests.conftest import Invoke
from tests.pipeline import faulty
from tests.registry.stores import PASSWORD, Postgres
from tests.sources.kinds import as_lines, into_database

SHORT = ("--target", "label", "--no-plots", "--batch-size", "50", "--batches", "2")


def lines(rows: int = 300) -> list[str]:
    return as_lines(make_table(Path("t.csv"), rows))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--sql", "sqlite://", "--target", "y"), "--query SELECT is needed with --sql"),
        (("--kafka", "b:1", "--target", "y"), "--topic is needed with --kafka"),
        (("t.csv", "--sql", "sqlite://", "--query", "SELECT 1"), "DATA and --sql exclude"),
        (("--query", "SELECT 1"), "--query needs --sql"),
        (("--topic", "rows"), "--topic needs --kafka"),
        (("--label-topic", "rows"), "--label-topic needs --kafka"),
        (
            ("t.csv", "--target", "y", "--max-wait", "1"),
            "--max-wait is for standard input (-) or --kafka, not for a DATA file",
        ),
        (("t.csv", "--target", "y", "--train", "u.csv"), "--train is for standard input (-) or"),
        (("-", "--target", "y", "--train-fraction", "0.5"), "not for standard input (-)"),
        (("-", "--target", "y", "--time", "at"), "--time is for a DATA file or a DATA folder"),
        (("-",), "--target COLUMN is needed with DATA"),
        (("r.ndjson", "--target", "y", "--separator", ";"), "--separator is for a DATA file, not"),
        (
            (
                "--kafka",
                "b",
                "--topic",
                "t",
                "--target",
                "y",
                "--labels",
                "full",
                "--label-topic",
                "l",
                "--key",
                "k",
                "--train",
                "t.csv",
            ),
            "labels and source.label_topic exclude each other",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_options_that_do_not_go_together_are_usage_errors(
    arguments: tuple[str, ...], message: str, empty_dir: Path, invoke: Invoke
) -> None:
    assert message in invoke("run", *arguments, expect=2).stderr


def test_settings_that_do_not_go_together_are_told(empty_dir: Path, invoke: Invoke) -> None:
    kafka = ("--kafka", "b:1", "--topic", "rows", "--target", "y")
    assert "go together" in invoke("run", *kafka, "--key", "id", expect=3).stderr
    unreadable = invoke("run", "--sql", "sqlite://", "--query", "no.sql", "--target", "y", expect=3)
    assert "--query no.sql: neither a query nor a file" in unreadable.stderr


def test_a_comparison_refuses_rows_that_come_once(empty_dir: Path, invoke: Invoke) -> None:
    assert "more than once" in invoke("compare", "-", "--target", "y", expect=2).stderr


def test_a_stream_says_what_it_put_aside_and_show_what_rows_must_be(
    workdir: Path, invoke: Invoke
) -> None:
    text = lines()
    text.insert(210, "broken")
    text[220] = json.dumps(json.loads(text[220]) | {"amount": 99.0})
    done = CliRunner().invoke(
        main,
        ["run", "-", "--train-rows", "200", "--no-reject-misfits", *SHORT],
        input="\n".join(text),
    )
    assert done.exit_code == 0, done.output
    assert "1 lines put aside (rejects.ndjson)" in done.stdout
    assert "Not as in training: kind (19), amount (5)." in done.stdout
    (log,) = logs()
    assert verify(log) > 5
    (told,) = log.with_name("rejects.ndjson").read_text().splitlines()
    assert json.loads(told)["place"] == "standard input: line 211"
    page = Path("monitoring_export/report.html").read_text()
    assert "Against the row contract" in page
    assert "values out of the training range" in page
    shown = invoke("show", "1", "--model-name", "stream").stdout
    assert "Row contract" in shown
    assert "text: shop, web" in shown
    document = json.loads(invoke("show", "1", "--model-name", "stream", "--json").stdout)
    assert [column["name"] for column in document["contract"]["columns"]] == [
        "amount", "kind", "age",
    ]  # fmt: skip
    resumed = invoke("run", "--resume", "latest", expect=4)
    assert "nothing to resume" in resumed.stderr


def test_a_row_against_the_contract_ends_the_run_and_names_it(
    workdir: Path, invoke: Invoke
) -> None:
    text = lines()
    text[220] = json.dumps(json.loads(text[220]) | {"amount": "much"})
    done = CliRunner().invoke(
        main,
        ["run", "-", "--train-rows", "200", "--no-reject-misfits", *SHORT],
        input="\n".join(text),
    )
    assert done.exit_code == 3
    assert "standard input: line 221, column 'amount': 'much' is not a number" in done.stderr
    assert "cannot be" not in done.stderr
    resumed = invoke("run", "--resume", "latest", expect=3)
    assert "came on standard input and were not kept" in resumed.stderr


def test_sigterm_ends_a_quiet_stream_and_everything_is_written(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("train.ndjson").write_text("\n".join(lines()))
    monkeypatch.setenv("COLUMNS", "120")
    coming, telling = os.pipe()

    def prepare() -> None:
        os.dup2(coming, 0)
        sys.stdin = os.fdopen(0)

    child = faulty.begun(
        "run", "-", "--train", "train.ndjson", "--target", "label", "--batch-size", "50",
        "--no-plots", "--max-wait", "0.1", prepare=prepare,
    )  # fmt: skip
    os.write(telling, ("\n".join(lines()[:7]) + "\n").encode())
    for line in child.output:  # until the rows were scored, although there are only a few
        if line.lstrip().startswith("1  "):
            break
    os.kill(child.pid, signal.SIGTERM)
    ended = child()
    os.close(telling)  # not before: it would end the stream by itself
    os.close(coming)
    assert ended.code == 0, ended
    assert "Stopped; selfheal run --resume" in ended.output + ended.stderr
    (log,) = logs()
    assert verify(log) > 5
    assert [event.rows for event in read(log) if event.kind == "batch"] == [7]
    assert "stream-stopped" in [event.kind for event in read(log)]


def test_a_databases_password_is_in_no_file_that_a_run_leaves(
    workdir: Path, invoke: Invoke, postgres: Postgres
) -> None:
    postgres.execute("CREATE DATABASE shop")
    url = postgres.uri("shop")
    into_database(make_table(Path("t.csv"), 300), url)
    Path("rows.sql").write_text("SELECT amount, kind, age, label FROM t ORDER BY place")
    done = invoke("run", "--sql", url, "--query", "rows.sql", "--record-rows", *SHORT)
    bad = invoke("run", "--sql", url, "--query", "SELECT nowhere", "--target", "y", expect=3)
    kept = [path for path in Path().rglob("*") if path.is_file()]
    assert any(path.name == "rows.ndjson" for path in kept)
    for path in kept:
        assert PASSWORD.encode() not in path.read_bytes(), path
    assert PASSWORD not in done.output + bad.output
