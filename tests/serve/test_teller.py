"""What the healer says: what it left out, who rolled back, whether there is a champion."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import requests

from selfheal_cli.events.types import BatchScored, BatchSetApart, HealWithheld
from selfheal_cli.pipeline.stream.session import APART
from selfheal_cli.records import AliasMove
from selfheal_cli.registry.aliases import Move, move_alias
from selfheal_cli.registry.base import CHAMPION
from selfheal_cli.registry.journal import EntryKind, write
from selfheal_cli.registry.journal import JournalState as JournalStanding
from selfheal_cli.registry.memory import MemoryRegistry
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from selfheal_cli.serve.healer.status import ByHand, EventFold, registry_facts
from selfheal_cli.serve.operator.status import Judged, ModelStatus, StatusSnapshot
from selfheal_cli.serve.operator.verdict import state_words, warnings
from tests.conftest import PATIENCE
from tests.events.examples import example
from tests.serve.operating import FACTS, channel_with, operator_app, serving

AT = "2026-01-01T00:00:00+00:00"


def registry_with(versions: int) -> MemoryRegistry:
    registry = MemoryRegistry()
    for _ in range(versions):
        registry.add_foreign("fraud")
    return registry


def move(registry: MemoryRegistry, target: int) -> None:
    move_alias(registry, Move("fraud", CHAMPION, target, "ann", AT, "odd"))


def move_of_a_run(registry: MemoryRegistry, target: int) -> None:
    """As its entry stands; a run itself takes nothing from versions of other tools."""

    def draft(before: JournalStanding, sequence: int) -> dict[str, Any]:
        source = before.moves[CHAMPION].target
        made = AliasMove("fraud", CHAMPION, source, target, "ann", AT, "healed", sequence, "r1")
        return made.as_dict()

    write(registry, "fraud", EntryKind.MOVED, draft, actor="ann", at=AT)


def test_rollbacks_by_people_are_counted_and_a_runs_moves_are_not() -> None:
    registry, by_hand = registry_with(5), ByHand()
    move(registry, 4)
    move(registry, 3)
    by_hand.look(registry, "fraud")
    assert by_hand.count == 0  # from before
    move(registry, 2)
    move(registry, 1)
    by_hand.look(registry, "fraud")
    assert by_hand.count == 2
    move(registry, 5)
    by_hand.look(registry, "fraud")
    move_of_a_run(registry, 4)
    by_hand.look(registry, "fraud")
    assert by_hand.count == 2
    move(registry, 3)
    for _ in range(2):
        by_hand.look(registry, "fraud")
    assert by_hand.count == 3


def test_an_alias_that_was_taken_away_or_points_to_nothing_is_a_warning(tmp_path: Path) -> None:
    registry = registry_with(2)
    move(registry, 2)
    assert registry_facts(registry, "none").get("no_champion")
    del registry._aliases["fraud", CHAMPION]
    standing = ModelStatus(**registry_facts(registry, "fraud"))
    assert standing.champion is None
    (warning,) = warnings(StatusSnapshot(server=FACTS, standing=standing, age=1.0, at=0.0))
    assert "There is no champion (no version of 'fraud' has the alias champion): v12 answers" in (
        warning
    )
    with serving(operator_app(channel_with(tmp_path, standing))) as url:
        assert "There is no champion" in requests.get(url, timeout=PATIENCE).text
        assert "selfheal_no_champion 1.0" in requests.get(f"{url}/metrics", timeout=PATIENCE).text


def test_what_healing_could_not_take_is_counted_in_status_page_and_metrics(tmp_path: Path) -> None:
    fold = EventFold()
    at = "2026-01-01T00:00:00+00:00"
    batch = example(BatchScored, rows=98, at=at, left_out={"rows without an answer": 2})
    for event in (batch, replace(batch, left_out={}), batch):
        fold.apply(event)
    fold.apply(BatchSetApart(batch=4, rows=100, reason="IndexError: out of range", at=at))
    standing = ModelStatus(**fold.facts)
    assert standing.notes == {"rows without an answer": 4, APART: 100}
    assert standing.happenings[0].text == "batch 4 set apart: IndexError: out of range"
    with serving(operator_app(channel_with(tmp_path, standing))) as url:
        assert (
            requests.get(f"{url}/status", timeout=PATIENCE).json()["standing"]["notes"][APART]
            == 100
        )
        assert f"4 rows without an answer; 100 {APART}" in requests.get(url, timeout=PATIENCE).text
        figures = requests.get(f"{url}/metrics", timeout=PATIENCE).text
    assert f'selfheal_noted_total{{what="{APART}"}} 100.0' in figures


def test_reading_that_began_anew_is_told_in_status_page_and_metrics(tmp_path: Path) -> None:
    standing = ModelStatus(spool="the spool is not the one that was read", begun_anew=1)
    told = "Reading did not go on where it was left: the spool is not the one that was read"
    with serving(operator_app(channel_with(tmp_path, standing))) as url:
        assert told in requests.get(f"{url}/status", timeout=PATIENCE).json()["told"]["warnings"]
        assert told in requests.get(url, timeout=PATIENCE).text
        assert "selfheal_spool_begun_anew_total 1.0" in (
            requests.get(f"{url}/metrics", timeout=PATIENCE).text
        )


def test_heals_that_are_kept_for_one_cause_are_one_line_among_what_happened() -> None:
    fold = EventFold()
    for number, why in enumerate(["canary s9 is being tried"] * 3 + ["mode shadow"] * 2):
        fold.apply(
            example(HealWithheld, heal_id=f"h{number}", withheld=why, proposed=False, at="2026")
        )
        fold.apply(example(BatchScored, batch=number + 1))
    fold.apply(example(HealWithheld, heal_id="h9", withheld="mode shadow", proposed=True))
    assert [one.text for one in fold.facts["happenings"]] == [
        "heal h9 proposed: mode shadow",
        "2 heals kept: mode shadow",
        "3 heals kept: canary s9 is being tried",
    ]
    assert fold.facts["heals"]["withheld"] == 6


def test_a_model_that_gets_less_right_than_in_training_is_not_called_healthy() -> None:
    def words(rows: int, now: float, then: float = 0.88, held_out: int = 400) -> str:
        return state_words(
            ModelStatus(
                state="HEALTHY",
                as_trained=Judged(rows=held_out, figures={"accuracy": then}),
                shadow=Judged(rows=rows, figures={"accuracy": now}),
            )
        )

    fell = words(600, 0.405)
    assert fell.startswith("Not as in training, though no monitor alarms: without heals 40.5%")
    assert fell.endswith("of 600 labelled rows are right, and 88.0% of 400 held-out ones were")
    as_ever = "Healthy: the stream looks as it did in training"
    for rows, now, then, held_out in [
        (600, 0.86, 0.88, 400),  # within chance
        (100, 0.405, 0.88, 400),  # too few rows
        (10**6, 0.87, 0.88, 10**6),  # too little to matter
        (600, 0.95, 0.88, 400),  # better
    ]:
        assert words(rows, now, then, held_out) == as_ever


def test_what_the_network_got_in_training_is_told_of_the_champions_own_base(
    short_copy: Path,
) -> None:
    registry = MlflowRegistry()
    told = registry_facts(registry, "fraud")["as_trained"]
    baseline = registry.version("fraud", 1)
    assert (told.rows, told.figures) == (
        baseline.eval_rows, {"accuracy": baseline.metrics["accuracy"]},
    )  # fmt: skip
