"""``selfheal ask-labels`` and ``selfheal label``: the same rows each time, and back again."""

from __future__ import annotations

import csv
import json
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from selfheal_cli.spool.entries import Feedback, LoggedRequest
from selfheal_cli.spool.store import Spool
from tests.conftest import Invoke

SPOOL = Path("mlruns") / "selfheal" / "serving" / "fraud" / "spool.db"
ASK = ("ask-labels", "fraud", "--share", "20%")


def answer(spool: Spool, requests: range, rows: int = 50, *, keyed: bool = False) -> None:
    """Answered requests of rows that score from .05 to .95."""
    for number in requests:
        draw = np.random.default_rng(number)
        columns = {f"V{place}": draw.normal(size=rows) for place in range(30)}
        p = draw.uniform(0.05, 0.95, rows).astype(np.float32)
        keys = tuple(f"k{number}-{place}" for place in range(rows)) if keyed else None
        spool.append([LoggedRequest(f"r{number}", columns, p, "s1", 0.5, 1.0, keys)])


@pytest.fixture
def spool(short_copy: Path) -> Spool:
    """What the model was asked: 500 rows in ten requests."""
    spool = Spool(SPOOL)
    answer(spool, range(10))
    return spool


def waiting(text: str) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    return list(csv.DictReader(StringIO(text)))


def give(path: Path, rows: list[dict[str, str]], label: str = "fraud") -> Path:
    """A file with labels."""
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(row | {"label": label} for row in rows)
    return path


def test_asked_twice_the_same_rows_come_and_a_larger_share_draws_them_and_more(
    spool: Spool, invoke: Invoke
) -> None:
    first, again = (waiting(invoke(*ASK).stdout) for _ in range(2))
    assert first == again
    assert 70 < len(first) < 130
    names = list(first[0])
    assert (names[0], names[-1]) == ("selfheal_id", "label")
    more = waiting(invoke("ask-labels", "fraud", "--share", "0.4").stdout)
    ids = {row["selfheal_id"] for row in first}
    assert ids < {row["selfheal_id"] for row in more}
    answer(spool, range(10, 12))
    later = waiting(invoke("ask-labels", "fraud", "--share", "0.4").stdout)
    assert {row["selfheal_id"] for row in more} < {row["selfheal_id"] for row in later}


def test_labels_of_asked_rows_come_back_and_say_what_all_rows_have(
    spool: Spool, invoke: Invoke
) -> None:
    out = Path("ask.csv")
    told = invoke(*ASK, "--output", str(out)).stdout
    assert "of the 500 rows of 'fraud' were drawn" in told
    assert out.stat().st_mode & 0o077 == 0
    rows = waiting(out.read_text())
    half = len(rows) // 2
    assert "1 label taken" in invoke("label", str(give(Path("one.csv"), rows[:1]))).stdout
    give(Path("ask.csv"), rows[:half])
    done = json.loads(invoke("label", "ask.csv", "--json").stdout)
    assert (done["taken"], done["repeated"], done["unknown"]) == (half - 1, 1, 0)
    assert (done["answered"], done["unanswered"]) == (half, len(rows) - half)
    assert done["sampled"]["positive_rate"]["value"] == pytest.approx(1.0)
    assert done["sampled"]["positive_rate"]["low"] < 1.0
    left = waiting(invoke(*ASK).stdout)
    assert left == rows[half:]
    corrected = json.loads(invoke("label", str(give(out, rows[:1], "normal")), "--json").stdout)
    assert (corrected["taken"], corrected["repeated"]) == (1, 0)


def test_volunteered_labels_teach_and_are_in_no_sampled_figure(
    spool: Spool, invoke: Invoke
) -> None:
    asked = {row["selfheal_id"] for row in waiting(invoke(*ASK).stdout)}
    others = [one for one in (f"r{n}:{place}" for n in range(10) for place in range(50))
              if one not in asked]  # fmt: skip
    rows = [{"selfheal_id": one, "label": ""} for one in others[:40]]
    told = json.loads(invoke("label", str(give(Path("more.csv"), rows)), "--json").stdout)
    assert (told["taken"], told["volunteered"], told["answered"]) == (40, 40, 0)
    assert len(spool.labels_after(0, 100)) == 40
    assert told["sampled"] == {}
    assert told["lacks"].startswith("not enough: 0 answered rows")


def test_few_sampled_positives_are_not_enough_for_recall(spool: Spool, invoke: Invoke) -> None:
    rows = waiting(invoke(*ASK).stdout)
    give(Path("ask.csv"), rows[19:], "normal")
    give(Path("more.csv"), rows[:19])
    invoke("label", "more.csv")
    told = invoke("label", "ask.csv").stdout
    assert "19 sampled positives, 20 are needed" in told
    assert "sampled accuracy" in told
    assert "recall 0" not in told


def test_a_row_that_had_its_label_before_it_was_drawn_is_not_asked_for(
    spool: Spool, invoke: Invoke
) -> None:
    spool.label(
        [Feedback(1, f"r{n}", place) for n in range(10) for place in range(10)], "desk", 1.0
    )
    document = json.loads(invoke(*ASK, "--json").stdout)
    assert document["answered"] > 0
    assert document["asked"] == document["answered"] + len(document["waiting"])
    assert all(int(row["selfheal_id"].partition(":")[2]) >= 10 for row in document["waiting"])


def test_names_of_callers_stand_beside_and_json_comes_back_as_csv_does(
    short_copy: Path, invoke: Invoke
) -> None:
    answer(Spool(SPOOL), range(3), keyed=True)
    document = json.loads(invoke(*ASK, "--json").stdout)
    row = document["waiting"][0]
    number, _, place = row["selfheal_id"][1:].partition(":")
    assert row["selfheal_key"] == f"k{number}-{place}"
    assert row["chance"] == pytest.approx(0.2)
    for one in document["waiting"]:
        one["label"] = "Normal"
    Path("back.json").write_text(json.dumps(document))
    assert json.loads(invoke("label", "back.json", "--json").stdout)["taken"] == len(
        document["waiting"]
    )


def test_the_first_of_the_listed_rows_are_a_sample_and_no_file_is_written_over(
    spool: Spool, invoke: Invoke
) -> None:
    rows = waiting(invoke(*ASK).stdout)
    few = waiting(invoke(*ASK, "--limit", "7").stdout)
    assert few == rows[:7]
    assert len({row["selfheal_id"].partition(":")[0] for row in few}) > 1
    invoke(*ASK, "--output", "x.csv")
    assert "--force writes over it" in invoke(*ASK, "--output", "x.csv", expect=2).stderr
    invoke(*ASK, "--output", "x.csv", "--force")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("id,label\nr1:0,1\n", "columns selfheal_id and label are needed; it has id, label"),
        ("selfheal_id,label\nr1:0,maybe\n", "row 1: label is 'maybe'; allowed: normal, fraud"),
        (
            "selfheal_id,label\nr1:0,fraud\nr1:0,normal\n",
            "row 2: r1:0 has another label further up",
        ),
        (
            "selfheal_id,label\nnobody:0,fraud\nr1,fraud\nr1:99,normal\n",
            "0 of 3 labels are of rows",
        ),
        ("selfheal_id,label\n,fraud\n", "row 1: selfheal_id is missing"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_whole(
    spool: Spool, invoke: Invoke, text: str, says: str
) -> None:
    Path("bad.csv").write_text(text)
    assert says in invoke("label", "bad.csv", expect=3).stderr
    assert spool.labels_after(0, 1) == []


def test_semicolons_and_marks_of_spreadsheets_are_read_and_unknown_rows_counted(
    spool: Spool, invoke: Invoke
) -> None:
    Path("x.csv").write_text("\ufeffselfheal_id;label\nr1:0;fraud\nr1:1;\nr7777:0;normal\n")
    told = invoke("label", "x.csv").stdout
    assert "1 label taken; 1 for rows that nobody asked for; 1 of rows that nobody knows" in told


@pytest.mark.parametrize("share", ["0", "101%", "many", "-4%"])
def test_a_share_that_is_none_is_a_wrong_use(spool: Spool, invoke: Invoke, share: str) -> None:
    assert (
        "above 0 and up to 100%" in invoke("ask-labels", "fraud", "--share", share, expect=2).stderr
    )


def test_without_rows_it_says_where_to_run_it(short_copy: Path, invoke: Invoke) -> None:
    assert "was not served in this folder" in invoke("ask-labels", "fraud", expect=3).stderr


def test_an_erased_row_is_asked_for_no_more(spool: Spool, invoke: Invoke) -> None:
    row = waiting(invoke(*ASK).stdout)[0]
    request, _, place = row["selfheal_id"].partition(":")
    invoke("labels", "erase", "--request", request, "--place", place, "--yes")
    assert row["selfheal_id"] not in {one["selfheal_id"] for one in waiting(invoke(*ASK).stdout)}


def test_rows_of_a_run_are_asked_for_and_labelled(short_copy: Path, invoke: Invoke) -> None:
    asked = json.loads(invoke("ask-labels", "fraud", "--run", "latest", "--json").stdout)
    assert asked["rows"] > 0
    assert asked["unanswered"] == 0  # the article's labels come with their rows


def test_a_run_that_asks_for_a_share_of_the_labels_reads_those_of_drawn_rows_alone(
    workdir: Path, invoke: Invoke
) -> None:
    drawn = np.random.default_rng(4)
    x = drawn.standard_normal((1_200, 3)).round(3)
    table = pd.DataFrame(x, columns=["a", "b", "c"]).assign(y=(x[:, 0] > 0).astype(int))
    table.to_csv("rows.csv", index=False)
    run = ("run", "rows.csv", "--target", "y", "--batch-size", "100", "--no-plots", "--json")
    every, some = (
        json.loads(invoke(*run, *asked).stdout)["results"]["stages"][1]
        for asked in ((), ("--set", "labels.ask=20%"))
    )
    assert (every["title"], every["rows"]) == ("Shadow (frozen)", 900)
    assert some["title"] == "Shadow (frozen), sampled"
    assert 90 < some["rows"] < 270
