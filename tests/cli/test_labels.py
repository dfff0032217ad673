"""``selfheal labels``: the plan first, the versions that learned, through the one door."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from selfheal_cli.events.archive import find_run
from selfheal_cli.spool.entries import Feedback, LoggedRequest
from selfheal_cli.spool.store import Spool
from tests.conftest import Invoke

SPOOL = Path("mlruns") / "selfheal" / "serving" / "fraud" / "spool.db"


def spooled() -> Spool:
    """A served model's spool: a request of four rows, which have keys."""
    spool = Spool(SPOOL)
    columns = {"V14": np.arange(4.0)}
    p = np.full(4, 0.5, np.float32)
    spool.append([LoggedRequest("r1", columns, p, "s1", 0.5, 1.0, ("a", "b", "c", "d"))])
    return spool


def test_labels_that_are_taken_back_name_their_versions_and_move_the_champion_if_told(
    short_copy: Path, invoke: Invoke
) -> None:
    healed = [one for one in json.loads(invoke("snapshots", "--json", "--limit", "100").stdout)
              if one["phase"] == "post-heal"]  # fmt: skip
    numbers = sorted(one["version"] for one in healed)
    middle = numbers[len(numbers) // 2]
    since = next(one["created_ms"] for one in healed if one["version"] == middle) / 1000
    spool = spooled()
    spool.label([Feedback(1, "r1", 0), Feedback(0, "r1", 1)], "bad", since)
    spool.label([Feedback(0, "r1", 0), Feedback(1, "r1", 2)], "desk", since)
    listed = json.loads(invoke("labels", "list", "--json").stdout)
    assert [(one["name"], one["compared"], one["other"]) for one in listed] == [
        ("bad", 1, 1), ("desk", 1, 1)
    ]  # fmt: skip
    asked = ("labels", "revoke", "--by", "bad", "--since", "2020-01-01")
    told = invoke(*asked, "--dry-run").stdout
    assert "2 labels count by the word of 'bad'" in told
    assert f"v{numbers[-1]}" in told
    plan = json.loads(invoke(*asked, "--dry-run", "--json").stdout)
    assert (plan["labels"], plan["replaced"], plan["revoked"]) == (2, 1, 0)
    assert middle in plan["learned"]
    assert numbers[0] not in plan["learned"]
    done = json.loads(invoke(*asked, "--yes", "--json").stdout)
    assert done["revoked"] == 2
    waiting = json.loads(invoke("proposals", "--json").stdout)
    assert plan["serving_learned"]
    assert [(one["sequence"], one["target"]) for one in waiting] == [
        (done["proposal"], plan["clean"])
    ]
    spool.label([Feedback(1, "r1", 1)], "bad", since)
    again = invoke(*asked, "--yes")  # another one is open: said, and nothing else is wrong
    assert "1 labels were taken back" in again.stdout
    assert f"proposal {done['proposal']} of 'fraud'" in again.stderr
    spool.label([Feedback(1, "r1", 1)], "bad", since)
    done = json.loads(invoke(*asked, "--yes", "--roll-back", "--json").stdout)
    assert done["revoked"] == 1
    assert {(one.place, one.y) for one in spool.labels_after(0, 10)} == {(0, 0), (1, -1), (2, 1)}
    if plan["serving_learned"]:
        assert done["move"]["target"] == plan["clean"]
        assert done["move"]["reason"] == "labels taken back: by hand"
    history = invoke("history").stdout
    assert "labels-revoked" in history
    assert "taken back" in invoke("audit", "--json").stdout


def test_a_persons_rows_are_erased_and_the_audit_says_so(short_copy: Path, invoke: Invoke) -> None:
    spool = spooled()
    spool.label([Feedback(1, key="b")], "desk", 2.0)
    assert json.loads(invoke("labels", "erase", "--id", "b", "--dry-run", "--json").stdout) == {
        "rows": 1, "erased": 0
    }  # fmt: skip
    assert "1 rows were erased" in invoke("labels", "erase", "--id", "b", "--yes").stdout
    (request,) = spool.rows_after(0, 1)
    assert np.isnan(request.columns["V14"]).tolist() == [False, True, False, False]
    assert "Nothing was erased" in invoke("labels", "erase", "--id", "b", "--yes").stdout
    log = find_run("latest")
    assert log is not None
    (log.parent / "rows.csv").write_text("who,amount\nb,1\nc,2\n")
    asked = ("labels", "erase", "--id", "b", "--column", "who", "--yes")
    done = json.loads(invoke(*asked, "--json").stdout)
    assert done == {"rows": 0, "erased": 1, "kept": {f"{log.parent.name}/rows.csv": 1}}
    assert (log.parent / "rows.csv").read_text() == "who,amount\n,\nc,2\n"
    assert "1 rows erased" in invoke("audit", "--json").stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("revoke", "--by", "x", "--since", "soon"), "a time such as 2026-01-31T08:00, or 24h"),
        (("erase",), "give --id KEY, or --request ID"),
        (("erase", "--request", "r", "--column", "who"), "--column is for --id KEY"),
        (("erase", "--id", "b", "--json"), "--json asks nothing"),
    ],
)
def test_what_is_asked_wrongly_is_said(
    short_copy: Path, invoke: Invoke, arguments: tuple[str, ...], says: str
) -> None:
    spooled()
    assert says in invoke("labels", *arguments, expect=2).stderr


def test_without_a_served_model_it_says_where_to_run_it(workdir: Path, invoke: Invoke) -> None:
    assert "no such file" in invoke("labels", "list", "--model", "fraud", expect=3).stderr
