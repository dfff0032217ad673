"""Commands that were killed between the journal and the alias, and what the next make of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from selfheal_cli.pipeline.stream.champion import ChampionWatcher
from selfheal_cli.records import AliasMove
from selfheal_cli.registry.aliases import Move, Unsettled, move_alias
from selfheal_cli.registry.base import CHAMPION
from selfheal_cli.registry.journal import standing
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from tests.conftest import Invoke

AT = "2026-01-01T00:00:00.000+00:00"


class Killed(BaseException):
    """The process ended here."""


def killed_before_the_alias(registry: MlflowRegistry, target: int) -> AliasMove:
    """A rollback that got as far as the journal."""

    def die(*_: object) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MlflowRegistry, "set_alias", die)
        with pytest.raises(Killed):
            move_alias(registry, Move("fraud", CHAMPION, target, "ann", AT, "by hand"))
    return standing(registry, "fraud").moves[CHAMPION]


def test_a_rollback_killed_before_the_alias_is_told_as_begun_and_accuses_nobody(
    short_copy: Path, invoke: Invoke
) -> None:
    registry = MlflowRegistry()
    before = registry.alias("fraud", CHAMPION)
    killed_before_the_alias(registry, 2)
    words = f"the move of 'champion' to v2 by ann at {AT} was begun and not finished"
    shown = json.loads(invoke("champion", "--json").stdout)
    assert shown["version"] == before
    assert words in shown["moved"]
    audit = invoke("audit")
    assert "another tool moved it" not in audit.output
    assert "begun and not" in audit.output
    planned = invoke("rollback", "--to", "3", "--dry-run", "--json")
    assert words in json.loads(planned.stdout)["notes"][0]
    assert registry.alias("fraud", CHAMPION) == before  # who only looks changes nothing


def test_the_next_rollback_finishes_it_says_so_and_records_the_true_source(
    short_copy: Path, invoke: Invoke
) -> None:
    registry = MlflowRegistry()
    begun = killed_before_the_alias(registry, 2)
    done = invoke("rollback", "--to-previous", "--yes", "--json")
    assert "Put right first: the move of 'champion' to v2 by ann" in done.stderr
    move = json.loads(done.stdout)["move"]
    assert (move["source"], move["target"]) == (2, begun.source)
    assert registry.alias("fraud", CHAMPION) == begun.source
    assert [one.finished for one in standing(registry, "fraud").open] == [True]
    invoke("audit")


def test_a_rollback_to_what_serves_finishes_what_was_begun_and_goes_back(
    short_copy: Path, invoke: Invoke
) -> None:
    registry = MlflowRegistry()
    before = registry.alias("fraud", CHAMPION)
    killed_before_the_alias(registry, 2)
    invoke("rollback", "--to", str(before), "--yes")
    last = standing(registry, "fraud").moves[CHAMPION]
    assert (last.source, last.target) == (2, before)
    assert registry.alias("fraud", CHAMPION) == before


def test_a_follower_finishes_it_at_its_second_look(short_copy: Path) -> None:
    registry = MlflowRegistry()
    killed_before_the_alias(registry, 2)
    version = registry.version("fraud", 2)
    now = standing(registry, "fraud").moves[CHAMPION].sequence
    told: list[Unsettled] = []
    follower = ChampionWatcher(registry, "fraud", "another-run", version.base, now, told.append)
    follower.look()
    assert registry.alias("fraud", CHAMPION) != 2  # it may be on its way
    assert not told
    follower.look()
    assert registry.alias("fraud", CHAMPION) == 2
    assert [one.move.target for one in told] == [2]


def test_a_run_that_finishes_it_says_so(short_copy: Path, invoke: Invoke) -> None:
    killed_before_the_alias(MlflowRegistry(), 2)
    said = invoke("run", "--batches", "1", "--no-plots", "--json").stderr
    assert said.count("Put right first: the move of 'champion' to v2 by ann") == 1


def test_an_alias_that_another_tool_put_back_is_left_where_it_was_put(
    short_copy: Path, invoke: Invoke
) -> None:
    registry = MlflowRegistry()
    before = registry.alias("fraud", CHAMPION)
    assert before is not None
    invoke("rollback", "--to", "2", "--yes")
    registry.set_alias("fraud", CHAMPION, before)
    shown = json.loads(invoke("champion", "--json").stdout)
    assert "by another tool" in shown["moved"]
    assert "another tool moved it" in " ".join(invoke("audit", expect=4).output.split())
    assert registry.alias("fraud", CHAMPION) == before
