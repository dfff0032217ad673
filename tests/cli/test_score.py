"""``selfheal score``: a table of any length into a file, each row once."""

from __future__ import annotations

import json
import pickle
import shutil
import sqlite3
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from selfheal_cli.cli.main import main
from selfheal_cli.engine import cluster as cluster_module
from selfheal_cli.engine import scoring
from selfheal_cli.engine.scoring import RemoteParts
from selfheal_cli.pipeline.offline.part_scorer import PartTask
from selfheal_cli.pipeline.offline.scored_parts import ScoredParts
from selfheal_cli.pipeline.offline.version_scorer import VersionScorer
from tests.cli.test_run import make_table
from tests.conftest import Invoke, copied, enter

ROWS = 95
OWN = ["decision", "version", "problem"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Path:
    """A folder with a model of amount, kind and age: some versions, one serves."""
    folder = tmp_path_factory.mktemp("scored")
    with pytest.MonkeyPatch.context() as patch:
        shutil.copy(store_template, folder / "mlflow.db")
        enter(folder, patch)
        make_table(Path("t.csv"))
        result = CliRunner().invoke(
            main, ["run", "t.csv", "--target", "label", "--no-plots", "--batches", "2",
                   "--recipe", "article", "--model", "pay"],
        )  # fmt: skip
        assert result.exit_code == 0, result.output + result.stderr
    return folder


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, as the working folder."""
    enter(copied(trained, tmp_path), monkeypatch)
    return tmp_path


def some(rows: int = ROWS) -> pd.DataFrame:
    frame = make_table(Path("made.csv"), rows)
    frame.insert(0, "id", [f"{n:06}" for n in range(rows)])
    return frame


def as_form(form: str, frame: pd.DataFrame) -> list[str]:
    """Write it, and say how it is named on the command line."""
    if form == "folder":
        Path("parts").mkdir()
        frame[:40].to_parquet("parts/a.parquet", index=False)
        frame[40:].to_parquet("parts/b.parquet", index=False)
        return ["parts"]
    if form == "sql":
        with closing(sqlite3.connect("rows.db")) as database:
            frame.to_sql("pay", database, index=False)
        return ["--sql", "sqlite:///rows.db", "--query", "SELECT * FROM pay ORDER BY id"]
    path = f"rows.{form}"
    if form == "parquet":
        frame.to_parquet(path, index=False)
    elif form == "ndjson":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, index=False)
    return [path]


def read(path: str) -> pd.DataFrame:
    if path.endswith(".csv.gz") or path.endswith(".csv"):
        return pd.read_csv(path, dtype={"id": str, "problem": str})
    return pd.read_parquet(path)


@pytest.mark.parametrize(
    ("form", "output"),
    [
        ("csv", "out.csv"),
        ("csv.gz", "out.parquet"),
        ("parquet", "out.csv.gz"),
        ("folder", "out"),
        ("ndjson", "out.parquet"),
        ("sql", "out.parquet"),
    ],
)
def test_every_form_of_rows_gets_the_score_that_the_version_gives_a_caller(
    form: str, output: str, here: Path, invoke: Invoke
) -> None:
    frame = some()
    told = json.loads(invoke("score", *as_form(form, frame), output, "--json").stdout)
    scored = read(output)
    assert list(scored) == ["id", "label", "score", *OWN]
    assert scored["id"].tolist() == frame["id"].tolist()
    assert scored["label"].tolist() == frame["label"].tolist()
    model = mlflow.pyfunc.load_model("models:/pay@champion")
    inputs = frame[["amount", "kind", "age"]]
    np.testing.assert_array_equal(scored["score"].astype(np.float32), model.predict(inputs))
    assert scored["decision"].tolist() == model.predict(inputs, params={"output": "label"})
    assert set(scored["version"]) == {told["version"]}
    assert scored["problem"].isna().all()
    assert told["rows"] == ROWS == sum(told["decisions"].values())
    assert not Path(f"{output}.unfinished").exists()


@pytest.fixture(scope="module")
def refusing(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files that are in the way, and a job that was broken off."""
    folder = copied(trained, tmp_path_factory.mktemp("refusing"))
    with pytest.MonkeyPatch.context() as patch:
        enter(folder, patch)
        frame = some()
        frame.to_csv("rows.csv", index=False)
        frame.drop(columns="age").to_csv("short.csv", index=False)
        frame.assign(score=1).to_csv("scored.csv", index=False)
        Path("there.csv").write_text("mine")
        Path("no").write_text("a file, no folder")
        interrupted(patch, 1)
        job = ["score", "rows.csv", "busy.csv", "--version", "1"]
        assert CliRunner().invoke(main, job).exit_code == 130
    return folder


def interrupted(patch: pytest.MonkeyPatch, calls: int) -> Callable[[], None]:
    """The next job is broken off at its frame of that number; calling puts things right."""
    answer, left = VersionScorer.answer, iter(range(calls - 1))

    def breaking(self: VersionScorer, *given: Any) -> pd.DataFrame:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return answer(self, *given)

    patch.setattr(VersionScorer, "answer", breaking)
    return lambda: patch.setattr(VersionScorer, "answer", answer)


@pytest.mark.parametrize("output", ["out.csv", "out.csv.gz", "out.parquet"])
def test_a_killed_job_goes_on_with_its_version_though_the_alias_moved_and_repeats_no_row(
    output: str, here: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    some(26_000).to_csv("rows.csv", index=False)
    whole = Path(f"whole-{output}")
    champion = json.loads(invoke("score", "rows.csv", str(whole), "--json").stdout)["version"]
    again = interrupted(monkeypatch, 4)  # after a part of two frames, and one of the next
    job = ("score", "rows.csv", output, "--part-rows", "16000", "--json")
    invoke(*job, expect=130)
    again()
    assert not Path(output).exists()
    assert champion != 1
    invoke("rollback", "--to", "1", "--yes", "--model", "pay")
    told = json.loads(invoke(*job).stdout)
    assert (told["version"], told["resumed_after"], told["rows"]) == (champion, 16_383, 26_000)
    assert sum(told["decisions"].values()) == 26_000
    if output != "out.csv":
        pd.testing.assert_frame_equal(read(output), read(str(whole)))
    else:
        assert Path(output).read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(("gone", "left"), [("000000000020.csv", 10), ("000000000010.csv", 0)])
def test_rows_behind_a_part_that_is_gone_are_scored_again(
    gone: str, left: int, tmp_path: Path
) -> None:
    output = tmp_path / "out.csv"
    for rows in (0, left):
        parts = ScoredParts(output)
        with suppress(KeyboardInterrupt), parts.open({"model": "pay"}, force=False):
            assert parts.rows == rows
            for row in (10, 20):
                with parts.stream() as stream:
                    stream.write(b"row")
                parts.end(row, Counter())
            raise KeyboardInterrupt
        (tmp_path / "out.csv.unfinished" / "parts" / f"part-{gone}").unlink()


def test_a_query_is_asked_once_for_a_job_that_goes_on(
    here: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = as_form("sql", some(20_000))
    again = interrupted(monkeypatch, 2)
    job = ("score", *rows, "out.csv", "--part-rows", "1", "--json")
    invoke(*job, expect=130)
    again()
    # it holds what the query gave
    assert stat.S_IMODE(Path("out.csv.unfinished").stat().st_mode) == 0o700
    with closing(sqlite3.connect("rows.db")) as database, database:
        database.execute("DELETE FROM pay")
    assert json.loads(invoke(*job).stdout)["rows"] == 20_000


def test_a_row_that_cannot_be_scored_says_why_and_a_table_of_them_is_refused(
    here: Path, invoke: Invoke
) -> None:
    frame = some().astype({"amount": str})
    frame.loc[3, "amount"] = "much"
    frame.to_csv("rows.csv", index=False)
    told = json.loads(invoke("score", "rows.csv", "out.csv", "--json").stdout)
    assert (told["rows"], told["unscored"]) == (ROWS, 1)
    row = read("out.csv").loc[3]
    assert row["problem"] == "column 'amount': 'much' is not a number"
    assert np.isnan(row["score"])
    frame["amount"] = "1,5"
    frame.to_csv("rows.csv", index=False)
    said = invoke("score", "rows.csv", "o.csv", expect=3).stderr
    assert "rows.csv: row 1: column 'amount': '1,5' is not a number; most of 95 rows" in said
    invoke("score", "rows.csv", "o.csv", "--decimal", ",", "--force")
    assert read("o.csv")["problem"].isna().all()


def test_the_explanation_says_which_column_moved_the_decision(here: Path, invoke: Invoke) -> None:
    frame = some(200)
    frame.to_csv("rows.csv", index=False)
    invoke("score", "rows.csv", "out.csv", "--explain", "--keep", "id", "--version", "v1")
    scored = read("out.csv")
    columns = [f"attribution_{name}" for name in ("amount", "kind", "age")]
    assert list(scored) == ["id", "score", "decision", "version", *columns, "problem"]
    assert set(scored["version"]) == {1}
    assert np.corrcoef(scored["attribution_amount"], frame["amount"])[0, 1] > 0.5


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("rows.csv",), 2, "INPUT and OUTPUT are needed"),
        (("rows.csv", "out.json"), 2, ".csv, .csv.gz, .parquet is allowed"),
        (("rows.csv", "out.csv", "--sql", "sqlite:///x"), 2, "--sql and --query go together"),
        (("none.csv", "out.csv"), 3, "none.csv: no such file"),
        (("rows.csv", "rows.csv", "--force"), 3, "lies in what is read"),
        (("rows.csv", "there.csv"), 3, "there.csv: is there already"),
        (("short.csv", "out.csv"), 3, "no column 'age'"),
        (("scored.csv", "out.csv"), 3, "its column 'score' is one of the answer's"),
        (("rows.csv", "out.csv", "--keep", "ib"), 3, "no column 'ib'; did you mean 'id'?"),
        (("rows.csv", "out.csv", "--version", "99"), 4, "99"),
        (("rows.csv", "busy.csv"), 3, "holds an unfinished job with another version"),
        (("rows.csv", "no/rights/out.csv"), 4, "cannot be written"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    arguments: tuple[str, ...], code: int, said: str, refusing: Path, invoke: Invoke,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    enter(refusing, monkeypatch)
    assert said in " ".join(invoke("score", *arguments, expect=code).stderr.split())
    assert Path("there.csv").read_text() == "mine"
    # what was refused before a row was written is in nobody's way
    assert [one.name for one in Path().glob("*.unfinished")] == ["busy.csv.unfinished"]


def test_the_same_output_is_written_by_one_process_at_a_time(here: Path, invoke: Invoke) -> None:
    some().to_csv("rows.csv", index=False)
    Path("out.csv.unfinished").mkdir()
    with closing(sqlite3.connect("out.csv.unfinished/lock")) as other:
        other.execute("BEGIN EXCLUSIVE")
        said = invoke("score", "rows.csv", "out.csv", expect=3).stderr
    assert "another process is at work there" in said


def remote(task: PartTask, cuts: list[tuple[int, int | None]], cpus: int) -> Iterator[Any]:
    """What processes of a cluster would answer, through the same bytes."""
    score = RemoteParts(pickle.loads(pickle.dumps(task)))  # noqa: S301
    for first, last in cuts:
        piece = {"first": np.array([first]), "last": np.array([-1 if last is None else last])}
        for answer in score(piece):
            yield json.loads(answer["facts"][0]), answer["content"][0]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Scoring by others without Ray; hears how many pieces each job is cut into."""
    pieces = list[int]()

    def run(task: PartTask, cuts: list[tuple[int, int | None]], cpus: int) -> Iterator[Any]:
        pieces.append(len(cuts))
        return remote(task, cuts, cpus)

    monkeypatch.setattr(cluster_module, "require_ray", lambda: None)
    monkeypatch.setattr(scoring, "connected", lambda: nullcontext(2))
    monkeypatch.setattr(scoring, "_run", run)
    return pieces


@pytest.mark.parametrize(
    ("form", "output", "pieces"),
    [("parquet", "out.parquet", 4), ("parquet", "out.csv.gz", 4), ("folder", "out", 4),
     ("csv", "out.csv", 1)],
)  # fmt: skip
def test_parts_that_others_write_are_the_same_bytes_and_rows_are_in_order(
    form: str, output: str, pieces: int, here: Path, invoke: Invoke, cluster: list[int]
) -> None:
    rows = as_form(form, some(25_000))
    job = ("--part-rows", "8000", "--json")
    own = json.loads(invoke("score", *rows, f"own-{output}", *job).stdout)
    told = json.loads(invoke("score", *rows, output, *job, "--engine", "ray").stdout)
    assert {**told, "output": ""} == {**own, "output": ""}
    assert cluster == [pieces]
    assert contents(output) == contents(f"own-{output}")


def contents(output: str) -> list[tuple[str, bytes]]:
    """Of a file, or of each in a folder."""
    path = Path(output)
    if path.is_file():
        return [("", path.read_bytes())]
    return [(part.name, part.read_bytes()) for part in sorted(path.iterdir())]


def test_a_cluster_that_fails_leaves_what_the_same_command_goes_on_with(
    here: Path, invoke: Invoke, cluster: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    some(25_000).to_parquet("rows.parquet", index=False)
    job = ("score", "rows.parquet", "out.csv", "--part-rows", "8000", "--engine", "ray", "--json")

    def dying(task: PartTask, cuts: list[tuple[int, int | None]], cpus: int) -> Iterator[Any]:
        yield from islice(remote(task, cuts, cpus), 1)
        raise OSError("no node\nis left")

    with monkeypatch.context() as patch:
        patch.setattr(scoring, "_run", dying)
        said = invoke(*job, expect=4).stderr
    assert said.strip() == "selfheal: the Ray cluster failed: no node is left"
    assert json.loads(invoke(*job).stdout)["resumed_after"] == 8_192
    invoke("score", "rows.parquet", "own.csv")
    assert Path("out.csv").read_bytes() == Path("own.csv").read_bytes()


def test_a_row_that_another_process_cannot_read_is_said_as_this_one_would(
    here: Path, invoke: Invoke, cluster: list[int]
) -> None:
    some().assign(amount="1,5").to_csv("rows.csv", index=False)
    said = invoke("score", "rows.csv", "out.csv", "--engine", "ray", expect=3).stderr
    assert "rows.csv: row 1: column 'amount': '1,5' is not a number; most of 95 rows" in said


def test_without_ray_the_command_says_what_to_install(
    here: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    some().to_csv("rows.csv", index=False)
    monkeypatch.setattr(cluster_module, "find_spec", lambda name: None)
    said = invoke("score", "rows.csv", "out.csv", "--engine", "ray", expect=3).stderr
    assert said.strip() == "selfheal: Ray is not installed: pip install 'selfheal-cli[ray]'"
    assert not Path("out.csv.unfinished").exists()
