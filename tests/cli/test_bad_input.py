"""Bad input: one clear line on stderr, the right exit code, nothing half-written."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from selfheal_cli.cli.main import main
from tests.conftest import Invoke
from tests.pipeline import faulty

HEADER = "amount,kind,age,label\n"
GOOD = "".join(f"{n % 17},{'ab'[n % 2]},{n % 5},{int(n % 3 == 0)}\n" for n in range(400))


def _typed(text: str) -> float | str | None:
    """A cell as JSON has it."""
    return float(text) if text.isdigit() else text or None


def refused(arguments: Sequence[str], code: int, *parts: str) -> Result:
    """Run a command that must fail with one line that holds every part."""
    before = sorted(Path().rglob("*"))
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == code, result.stderr + result.output
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1, result.stderr
    for part in parts:
        assert part in result.stderr, result.stderr
    assert sorted(Path().rglob("*")) == before, "something was written"
    return result


@pytest.mark.parametrize(
    ("content", "arguments", "parts"),
    [
        (None, ["--target", "label"], ["data.csv: no such file"]),
        ("", ["--target", "label"], ["the file is empty"]),
        (HEADER, ["--target", "label"], ["no rows below the header"]),
        (b"\x89PNG\x00\x01\x02", ["--target", "label"], ["not text"]),
        (b"a,b\n\xff\xfe\xfd,1\n" * 9, ["--target", "b"], ["not UTF-8 text"]),
        (HEADER + GOOD, ["--target", "lable"], ["no column 'lable'", "did you mean 'label'?"]),
        (HEADER + GOOD.replace(",1\n", ",0\n"), ["--target", "label"], ["1 value", "'0'"]),
        (
            HEADER + GOOD,
            ["--target", "age", "--recipe", "article"],
            ["recipe 'article' is binary and the target has 5 values", "anchored or gradient"],
        ),
        (
            HEADER + GOOD,
            ["--target", "age", "--labels", "none", "--assume", "positives-stable"],
            ["positives-stable is for two classes and the target has 5", "inputs-shifted"],
        ),
        (
            HEADER + GOOD,
            ["--target", "label", "--assume", "positives-stable"],
            ["heal.assume is for labels that are late or missing", "--labels none or delayed:K"],
        ),
        (
            HEADER + GOOD + "oops,a,1,0\n",
            ["--target", "label", "--no-reject-misfits"],
            ["row 401, column 'amount'", "'oops' is not a number"],
        ),
        (
            HEADER + GOOD + "1,a,1,\n",
            ["--target", "label", "--max-rejects", "0"],
            ["row 401, column 'label'", "missing"],
        ),
        ('"a\nb",y\n1,0\n', ["--target", "z"], ["no column 'z'", "columns: a b, y"]),
        ("a,a,label\n1,2,0\n", ["--target", "label"], ["duplicate column names: a"]),
        (HEADER + GOOD, ["--target", "label", "--rule", "amount < => 1"], ["position 10"]),
        (
            HEADER + GOOD,
            ["--target", "label", "--rule", "amuont < 3 => 1"],
            ["unknown feature 'amuont'", "did you mean 'amount'?"],
        ),
        (
            "amount,same,label\n" + "".join(f"{n % 9},7,{n % 2}\n" for n in range(400)),
            ["--target", "label", "--sensitive", "same"],
            ["'same' is constant"],
        ),
        (HEADER + GOOD, ["--target", "label", "--sensitive", "kind"], ["not a numeric feature"]),
        (HEADER + GOOD, ["--target", "label", "--batch-size", "500"], ["at least one batch"]),
        (HEADER + GOOD, ["--target", "label", "--positive", "9"], ["'9' is not a value"]),
        (HEADER + GOOD, ["--target", "label", "--train-fraction", "1.5"], ["train_fraction"]),
        (HEADER + GOOD, ["--target", "label", "--drop", "label"], ["both the target and dropped"]),
    ],
)
def test_a_bad_table_or_option_is_said_in_one_line(
    workdir: Path, content: str | bytes | None, arguments: list[str], parts: list[str]
) -> None:
    if isinstance(content, bytes):
        Path("data.csv").write_bytes(content)
    elif content is not None:
        Path("data.csv").write_text(content)
    refused(["run", "data.csv", *arguments], 3, *parts)


@pytest.mark.parametrize("name", ["data.csv", "data.ndjson"])
def test_a_few_misfits_in_a_file_end_nothing_and_are_told_counted_and_kept(
    workdir: Path, invoke: Invoke, name: str
) -> None:
    rows = [line.split(",") for line in [*GOOD.splitlines(), "oops,a,1,0", "1,a,1,"]]
    if name == "data.csv":
        Path(name).write_text(HEADER + "".join(f"{','.join(row)}\n" for row in rows))
    else:
        names = HEADER.strip().split(",")
        Path(name).write_text(
            "".join(
                json.dumps(dict(zip(names, map(_typed, row), strict=True))) + "\n" for row in rows
            )
        )
    options = ("--target", "label", "--batch-size", "50", "--model-name", "m", "--no-plots")
    done = invoke("run", name, *options)
    assert "2 lines put aside (rejects.ndjson)" in done.stdout
    assert "1 put aside: column 'amount' holds no number" in " ".join(done.stdout.split())
    (kept,) = Path("mlruns/selfheal/runs").glob("*/rejects.ndjson")
    told = [json.loads(line) for line in kept.read_text().splitlines()]
    assert [one["place"] for one in told] == [f"{name}: row 401", f"{name}: row 402"]
    page = html.unescape(Path("monitoring_export/report.html").read_text())
    assert "put aside: column 'label' has no label" in page


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("rollback_f1_dorp: 0.1\n", ["unknown key 'rollback_f1_dorp'", "known:"]),
        ("rollback_f1_drop: much\n", ["rollback_f1_drop = 'much'"]),
        ("rollback_f1_drop: -0.1\n", ["rollback_f1_drop = -0.1", "greater than or equal to 0"]),
        ("- a\n- b\n", ["expected keys with values"]),
        ("a: [\n", ["does not parse"]),
    ],
)
def test_a_bad_policy_names_file_key_and_value(workdir: Path, text: str, parts: list[str]) -> None:
    Path("mine.yaml").write_text(text)
    refused(["run", "--policy", "mine.yaml"], 3, "mine.yaml", *parts)
    refused(["policy", "validate", "mine.yaml"], 3, "mine.yaml", *parts)


def test_an_unknown_policy_lists_the_known_ones(workdir: Path) -> None:
    refused(["run", "--policy", "strickt"], 3, "no policy 'strickt'", "strict")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--heal-steps", "0"),
        ("--heal-lr", "-1"),
        ("--batches", "0"),
        ("--batch-size", "1"),
        ("--seed", "-1"),
        ("--heal-lr", "nan"),
        ("--rollback-f1-drop", "2"),
        ("--model-name", "a/b"),
    ],
)
def test_an_option_out_of_range_is_named_with_its_value(
    workdir: Path, option: str, value: str
) -> None:
    refused(["run", option, value], 3, "options:")


def test_options_that_would_be_ignored_are_usage_errors(workdir: Path, invoke: Invoke) -> None:
    assert "needs a DATA file" in invoke("run", "--target", "y", expect=2).stderr
    Path("data.csv").write_text(HEADER + GOOD)
    assert "--target COLUMN is needed" in invoke("run", "data.csv", expect=2).stderr
    ignored = invoke("run", "data.csv", "--target", "label", "--drift-strength", "1", expect=2)
    assert "for the synthetic stream" in ignored.stderr
    assert "give one of" in invoke("rollback", expect=2).stderr
    assert "give one of" in invoke("rollback", "--to-best", "--to", "1", expect=2).stderr
    assert "Did you mean 'rollback'?" in invoke("rolback", expect=2).stderr


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "postgresql://u:p4ss@127.0.0.1:9/db"])
def test_a_store_out_of_reach_is_said_at_once_without_the_password(workdir: Path, uri: str) -> None:
    result = refused(["run", "--tracking-uri", uri], 4, "out of reach", "--tracking-uri")
    assert "p4ss" not in result.stderr


def test_an_old_file_store_is_refused(empty_dir: Path) -> None:
    Path("mlruns/0").mkdir(parents=True)
    Path("mlruns/0/meta.yaml").write_text("experiment_id: 0\n")
    refused(["run"], 4, "file store")
    refused(["run", "--tracking-uri", "file:///tmp/x"], 4, "file store")


@pytest.mark.slow
def test_a_read_only_folder_is_said_before_anything_is_trained(empty_dir: Path) -> None:
    empty_dir.chmod(0o555)
    ended = faulty.in_child("run", prepare=faulty.renounce_root)
    empty_dir.chmod(0o755)
    assert ended.code == 4, ended
    assert "not writable" in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert list(empty_dir.iterdir()) == []


def test_nothing_to_restore_is_exit_5(workdir: Path, invoke: Invoke) -> None:
    invoke("run", "--batches", "1", "--conflict-min", "1000", "--no-plots")
    refused(["rollback", "--to-best"], 5, "no post-heal version")
    refused(["rollback", "--to-previous"], 5, "nothing is recorded")


def test_an_unknown_version_or_model_is_exit_4(in_article_run: Path) -> None:
    refused(["rollback", "--to", "999"], 4, "no version 999")
    refused(["show", "999"], 4, "no version 999")
    refused(["snapshots", "--model-name", "nobody"], 4, "no registered model 'nobody'")
    refused(["rollback", "--to-best", "--model-name", "nobody"], 4, "no registered model")


def test_a_run_that_is_not_here_is_exit_4(in_article_run: Path) -> None:
    refused(["export", "0" * 32], 4, "fetch 'events.jsonl'")


def test_a_traceback_comes_with_debug_only(workdir: Path) -> None:
    result = CliRunner().invoke(main, ["--debug", "run", "absent.csv", "--target", "y"])
    assert "no such file" in str(result.exception)
