"""Rollback as a person does it: the plan, the choice, the checks, two people, and ten at once."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from mlflow import MlflowClient

from selfheal_cli.records import AliasMove
from selfheal_cli.registry.aliases import Move, move_alias
from selfheal_cli.registry.base import CHAMPION
from selfheal_cli.registry.journal import EntryKind, standing
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from tests.conftest import Invoke
from tests.pipeline import faulty
from tests.registry.chains import check_chain


def as_actor(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("SELFHEAL_ACTOR", name)


def champion() -> int | None:
    return MlflowRegistry().alias("fraud", CHAMPION)


def champion_moves() -> list[AliasMove]:
    """Every move of the champion, in the order of the journal."""
    entries = MlflowRegistry().entries("fraud")
    moves = [AliasMove(**entry.data) for entry in entries if entry.kind is EntryKind.MOVED]
    return [move for move in moves if move.alias == CHAMPION]


def files_of(version: int) -> Path:
    client = MlflowClient(f"sqlite:///{Path('mlflow.db').absolute()}")
    model_id = client.get_model_version("fraud", str(version)).source.removeprefix("models:/")
    return next(Path("mlruns").rglob(f"{model_id}/artifacts"))


def test_the_plan_says_what_would_serve_and_why_and_how_sure_that_is(
    short_copy: Path, invoke: Invoke
) -> None:
    shown = invoke("rollback", "--to-best", "--dry-run", "--wide").stdout
    assert "highest F1 of the post-heal versions" in " ".join(shown.split())
    assert re.search(r"target .* v5 .* post-heal .* 0\.294 .* 0\.\d{3} .* 100 .* article", shown)
    document = json.loads(invoke("rollback", "--to-best", "--dry-run", "--json").stdout)
    assert 0 < document["target"]["f1_lower_bound"] < document["target"]["metrics"]["f1"]
    assert document["move"] is None


def test_without_a_terminal_nothing_moves_unless_yes_is_said(
    short_copy: Path, invoke: Invoke
) -> None:
    assert "--yes" in invoke("rollback", "--to-best", expect=2).stderr
    assert "--yes" in invoke("rollback", "--to-best", "--json", expect=2).stderr
    assert champion() == 9


def test_a_choice_is_for_the_best_alone(short_copy: Path, invoke: Invoke) -> None:
    refused = invoke("rollback", "--to", "3", "--by", "f1_lcb", "--yes", expect=2)
    assert "--by is for --to-best" in refused.stderr


def test_a_rollback_to_what_serves_already_moves_nothing_and_writes_nothing(
    short_copy: Path, invoke: Invoke
) -> None:
    invoke("rollback", "--to", "5", "--yes")
    before = champion_moves()
    for wanted in (("--to-best",), ("--to", "5")):
        said = invoke("rollback", *wanted, "--yes").stdout
        assert said.splitlines()[-1] == "v5 serves already; nothing was moved."
        assert json.loads(invoke("rollback", *wanted, "--propose", "--json").stdout)["move"] is None
    assert champion_moves() == before
    assert standing(MlflowRegistry(), "fraud").proposals == ()


def test_what_served_before_is_another_version_even_where_a_move_moved_nothing(
    short_copy: Path, invoke: Invoke
) -> None:
    registry = MlflowRegistry()
    invoke("rollback", "--to", "5", "--yes")
    idle = Move("fraud", CHAMPION, 5, "ann", "2026-01-01T00:00:00.000+00:00", "again")
    move_alias(registry, idle)  # as earlier versions of selfheal wrote it
    moved = json.loads(invoke("rollback", "--to-previous", "--yes", "--json").stdout)["move"]
    assert (moved["source"], moved["target"]) == (5, 9)


def test_more_rows_and_regimes_can_be_asked_for(short_copy: Path, invoke: Invoke) -> None:
    refused = invoke("rollback", "--to-best", "--min-rows", "101", "--dry-run", expect=5)
    assert "with 101 rows or more" in refused.stderr
    same = json.loads(
        invoke("rollback", "--to-best", "--regime", "same", "--dry-run", "--json").stdout
    )
    assert same["target"]["tags"]["selfheal.regime"] == "drifting"
    sure = json.loads(
        invoke("rollback", "--to-best", "--by", "f1_lcb", "--dry-run", "--json").stdout
    )
    assert sure["criterion"].startswith("highest lower bound of F1")


def test_versions_are_scored_again_on_rows_that_are_new_to_them(
    in_article_run: Path, invoke: Invoke
) -> None:
    shown = invoke("rollback", "--to-best", "--revalidate", "3", "--dry-run").stdout
    assert "of the 3 that learned from none of the latest 1000 rows" in " ".join(shown.split())
    assert len(re.findall(r"v\d+ .* 1000 ", shown)) == 4
    assert re.search(r"v51 .*learned from them", shown)
    target = re.search(r"target\s.*?v(\d+)", shown)
    assert target is not None
    assert MlflowRegistry().version("fraud", int(target[1])).batch <= 15


def test_two_people_are_needed_where_the_policy_says_so(
    short_copy: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("four.yaml").write_text("four_eyes: true\n")
    policy = ("--policy", "four.yaml")
    as_actor(monkeypatch, "ann")
    refused = invoke("rollback", "--to-best", "--yes", *policy, expect=4)
    assert "wants two people" in refused.stderr
    proposed = json.loads(invoke("rollback", "--to-best", "--propose", "--json", *policy).stdout)
    number = str(proposed["proposal"])
    assert f"{number}: v5 by ann (claimed)" in invoke("champion").stdout
    assert "ann (claimed)'s own" in invoke("approve", number, "--yes", expect=4).stderr
    assert champion() == 9
    as_actor(monkeypatch, "bob")
    assert "v9 to v5" in invoke("approve", number, "--yes").stdout
    assert champion() == 5
    assert "no open proposal" in invoke("approve", number, "--yes", expect=4).stderr
    assert "Everything holds" in invoke("audit").stdout


def test_a_proposal_is_not_carried_out_after_another_move_and_can_be_closed(
    short_copy: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_actor(monkeypatch, "ann")
    proposed = json.loads(invoke("rollback", "--to-best", "--propose", "--json").stdout)
    number = str(proposed["proposal"])
    invoke("rollback", "--to", "7", "--yes", "--reason", "at once")
    as_actor(monkeypatch, "bob")
    refused = invoke("approve", number, "--yes", expect=4).stderr
    assert "before ann (claimed) moved the champion to v7" in refused
    assert "is closed" in invoke("reject", number, "--reason", "too late").stdout
    assert standing(MlflowRegistry(), "fraud").proposals == ()
    assert champion() == 7


def test_nothing_moves_to_a_version_that_decides_otherwise_than_recorded(
    short_copy: Path, invoke: Invoke
) -> None:
    client = MlflowClient(f"sqlite:///{Path('mlflow.db').absolute()}")
    client.set_model_version_tag("fraud", "5", "selfheal.threshold", "0.01")
    refused = invoke("rollback", "--to", "5", "--yes", expect=4).stderr
    assert "v5: tag selfheal.threshold is '0.01', the log says '0.5'" in refused
    decides = invoke("rollback", "--to", "5", "--yes", "--unverified", expect=4).stderr
    assert re.search(r"v5: decides \d+ of 256 probe rows otherwise", decides)
    assert champion() == 9


def test_nothing_moves_to_a_version_whose_file_was_changed(
    short_copy: Path, invoke: Invoke
) -> None:
    path = files_of(5) / "adapter.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"\xff\xff\xff\x7f")
    assert "sha256" in invoke("rollback", "--to", "5", "--yes", expect=4).stderr
    assert "sha256" in invoke("rollback", "--to", "5", "--yes", "--unverified", expect=4).stderr
    assert champion() == 9


def test_what_served_is_known_for_every_time(
    short_copy: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    between = standing(MlflowRegistry(), "fraud").moves[CHAMPION].at
    as_actor(monkeypatch, "ann")
    invoke("rollback", "--to-best", "--yes", "--reason", "fell")
    now = json.loads(invoke("champion", "--json").stdout)
    assert (now["version"], now["by"], now["reason"], now["before"]) == (
        5,
        "ann (claimed)",
        "fell",
        9,
    )
    then = json.loads(invoke("champion", "--at", between, "--json").stdout)
    assert then["version"] == 9
    assert "nothing is recorded" in invoke("champion", "--at", "2020-01-01", expect=5).stderr
    assert "a time such as" in invoke("champion", "--at", "noon", expect=2).stderr


def test_another_tools_move_is_told_in_the_plan(short_copy: Path, invoke: Invoke) -> None:
    client = MlflowClient(f"sqlite:///{Path('mlflow.db').absolute()}")
    client.set_registered_model_alias("fraud", CHAMPION, "7")
    assert "another tool" in invoke("rollback", "--to-best", "--dry-run").stdout
    assert "by another tool" in invoke("champion").stdout
    previous = invoke("rollback", "--to-previous", "--dry-run").stdout
    assert re.search(r"target\s.*v9", previous)


def test_a_model_is_held_and_released_once(short_copy: Path, invoke: Invoke) -> None:
    assert "is held: wait" in invoke("hold", "--reason", "wait").stdout
    assert "held already" in invoke("hold").stdout
    assert "held by" in invoke("champion").stdout
    assert "allowed again" in invoke("release").stdout
    assert "is not held" in invoke("release").stdout
    assert "no registered model" in invoke("hold", "--model-name", "nobody", expect=4).stderr


def test_of_five_who_roll_back_at_once_each_wins_or_is_told(
    short_copy: Path, invoke: Invoke
) -> None:
    targets = [str(number) for number in range(2, 7)]
    at_once = [faulty.begun("rollback", "--yes", "--to", target) for target in targets]
    ends = [ended() for ended in at_once]
    won = [int(target) for target, end in zip(targets, ends, strict=True) if end.code == 0]
    told = [end.stderr for end in ends if end.code != 0]
    assert won
    assert all(
        re.search(r"was moved to v\d+ by .* since this move .* was planned", t) for t in told
    )
    registry = MlflowRegistry()
    done = champion_moves()[-len(won) :]
    assert sorted(move.target for move in done) == sorted(won)
    assert [move.source for move in done] == [9, *(move.target for move in done[:-1])]
    assert champion() == done[-1].target
    assert check_chain(registry, "fraud") > len(done)
