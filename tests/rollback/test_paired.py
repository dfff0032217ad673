"""A rollback to a better version: asked row by row, on rows that nothing had learned from."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from selfheal_cli.config import HealSettings, LabelSettings, Policy
from selfheal_cli.errors import NoCandidateError
from selfheal_cli.events.event import Event
from selfheal_cli.events.evidence import WINDOW
from selfheal_cli.events.types import RolledBack
from selfheal_cli.model.checkpoint import pack
from selfheal_cli.pipeline.prepare.baseline import prepare
from selfheal_cli.pipeline.runs.recovery import resume
from selfheal_cli.pipeline.runs.run import RunContext
from selfheal_cli.pipeline.stream.memory import Replay
from selfheal_cli.records import Snapshot, digest
from selfheal_cli.registry.aliases import Move, move_alias
from selfheal_cli.registry.base import CHAMPION, Added, Lineage
from selfheal_cli.registry.journal import Hold
from selfheal_cli.registry.memory import MemoryRegistry
from selfheal_cli.registry.orders import hold
from selfheal_cli.report.recommendation import recommend
from selfheal_cli.rollback.paired import plan_better
from selfheal_cli.rollback.plan import By, RollbackPlan, execute
from selfheal_cli.rollback.trust import Unverified
from tests.conftest import PATIENCE
from tests.pipeline.small import Ran, config, ran, stream_of, watch_heals
from tests.pipeline.test_outside import Looking

AT = "2026-01-01T00:00:00.000+00:00"
BY = By("ann", AT, "fell")
PAIRED = HealSettings(recipe="anchored", better_by="paired")
SPOILED = 12
LENIENT = Policy(gate_tolerance=1e6, cooldown=2)  # a heal that does harm is published


class Held:
    """A stream in which healing is held before a batch."""

    def __init__(self, source: Any, batch: int) -> None:
        self._source, self._batch = source, batch
        self.registry: MemoryRegistry | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def batches(self, start: int = 1) -> Iterator[Any]:
        for batch in self._source.batches(start):
            if batch.index == self._batch:
                assert self.registry is not None
                hold(self.registry, "fraud", Hold("ann", AT, "odd"), actor="ann", at=AT)
            yield batch

    def settle(self, sync: Any, held: Any) -> None:
        self._source.settle(sync, held)


def plan(done: Ran) -> RollbackPlan:
    workspace = done.finished.folder.parent.parent
    return plan_better(done.registry, "fraud", workspace=workspace)


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    """A heal that went wrong was published, then healing was held: nothing mended it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("poisoned"))
        patch.setattr("selfheal_cli.pipeline.runs.run.ChampionWatcher", Looking)
        watch_heals(patch, spoil={SPOILED})
        policy = LENIENT.model_copy(update={"brake_level": 1e-300})
        settings = config(heal=PAIRED, policy=policy, batches=SPOILED + WINDOW + 1)
        registry, source = MemoryRegistry(), Held(stream_of(settings), SPOILED)  # seen one later
        source.registry = registry
        yield ran(settings, source, registry=registry)


def test_the_version_that_would_have_lost_less_is_gone_back_to(poisoned: Ran) -> None:
    advised, planned = recommend(poisoned.finished.view), plan(poisoned)
    assert advised.back
    assert advised.version == planned.target.version
    assert planned.serving is not None
    assert planned.serving.version != planned.target.version
    assert planned.target.batch < SPOILED
    assert any("lower log loss than what served" in note for note in planned.notes)


def test_once_it_serves_no_version_is_better(poisoned: Ran) -> None:
    assert poisoned.registry.alias("fraud", CHAMPION) is not None
    before = poisoned.registry.alias("fraud", CHAMPION) or 0
    execute(poisoned.registry, plan(poisoned), BY)
    with pytest.raises(NoCandidateError, match="no version is better than the serving one"):
        plan(poisoned)
    move_alias(poisoned.registry, Move("fraud", CHAMPION, before, "ann", AT, "back"))


def test_a_version_that_did_not_serve_in_the_run_is_not_compared(poisoned: Ran) -> None:
    before = poisoned.registry.alias("fraud", CHAMPION) or 0
    odd = next(one for one in poisoned.versions("pre-heal") if one.batch == 3)
    move_alias(poisoned.registry, Move("fraud", CHAMPION, odd.version, "ann", AT, "odd"))
    planned = plan(poisoned)
    assert "highest F1" in planned.criterion
    assert f"v{odd.version} did not serve in run" in planned.notes[0]
    move_alias(poisoned.registry, Move("fraud", CHAMPION, before, "ann", AT, "back"))


def test_a_comparison_that_was_written_later_counts_for_nothing(
    poisoned: Ran, tmp_path: Path
) -> None:
    log = poisoned.finished.folder / "events.jsonl"
    folder = tmp_path / "runs" / poisoned.finished.run_id
    folder.mkdir(parents=True)
    lines = log.read_bytes().splitlines(keepends=True)
    last = max(place for place, line in enumerate(lines) if b'"kind":"candidates"' in line[-320:])
    (folder / "events.jsonl").write_bytes(b"".join(lines[: last + 1]))
    planned = plan_better(poisoned.registry, "fraud", Unverified(), workspace=tmp_path)
    assert "is not what its journal closed" in planned.notes[0]


def test_where_nothing_is_better_the_plan_says_so_and_how_to_go_by_f1(empty_dir: Path) -> None:
    done = ran(config(heal=PAIRED, batches=WINDOW + 2))
    advised = recommend(done.finished.view)
    assert not advised.back
    assert advised.sentence.startswith("No version is better than the serving one")
    with pytest.raises(NoCandidateError) as refused:
        plan(done)
    assert "no version is better than the serving one" in str(refused.value)
    assert "'selfheal rollback --by f1' restores it" in str(refused.value)


def test_on_too_few_labelled_rows_the_highest_f1_is_taken_and_it_is_said_why(
    empty_dir: Path,
) -> None:
    done = ran(config(heal=PAIRED))
    planned = plan(done)
    assert "highest F1" in planned.criterion
    assert "too few labelled rows" in planned.notes[0]
    assert "--by f1" not in recommend(done.finished.view).sentence


@pytest.mark.parametrize("recipe", ["article", "anchored"])
def test_a_run_that_compares_by_f1_writes_no_comparison_and_goes_back_by_f1(
    empty_dir: Path, recipe: Any
) -> None:
    done = ran(config(heal=HealSettings(recipe=recipe)))
    assert done.of("candidates") == []
    planned = plan(done)
    assert planned.criterion == "highest F1 of the post-heal versions on this base"
    assert not any("row by row" in note for note in planned.notes)


class Behind(MemoryRegistry):
    """It numbers nothing but the first versions, until what serves was gone back from."""

    def __init__(self) -> None:
        super().__init__()
        self.gone_back = threading.Event()

    def see(self, event: Event) -> None:
        if isinstance(event, RolledBack):
            self.gone_back.set()

    def add_version(self, lineage: Lineage, snapshot: Snapshot, *rest: Any, **more: Any) -> Added:
        assert snapshot.batch < 3 or self.gone_back.wait(PATIENCE)
        return super().add_version(lineage, snapshot, *rest, **more)


def test_a_heal_that_does_harm_is_gone_back_from_at_once_however_far_behind_the_registry_is(
    empty_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch_heals(monkeypatch, spoil={SPOILED})
    registry = Behind()
    settings = config(heal=PAIRED, policy=LENIENT, batches=SPOILED + 4)
    done = ran(settings, registry=registry, watchers=[registry.see])
    (rollback,) = done.of("rollback")
    assert rollback.version == 0  # nobody knew it yet
    assert "the version before" in str(rollback)
    moves = [one.data["target"] for one in registry.entries("fraud") if "target" in one.data]
    back = done.by_snapshot(rollback.to_snapshot).version
    spoiled = done.by_snapshot(rollback.from_snapshot).version
    assert moves[moves.index(spoiled) + 1] == back  # told in order
    assert done.finished.view.rows[rollback.batch].restored_version == back
    assert rollback.batch == SPOILED + 1
    assert done.by_snapshot(rollback.from_snapshot).batch == SPOILED
    before = done.by_snapshot(rollback.to_snapshot)
    assert before.version == max(
        one.version for one in done.versions("post-heal") if one.batch < SPOILED
    )
    assert "more than the version before it" in rollback.reason


@pytest.mark.parametrize("labels", [LabelSettings(), LabelSettings(regime="delayed", delay=2)])
def test_a_run_that_went_back_at_once_is_resumed_along_its_record(
    empty_dir: Path, monkeypatch: pytest.MonkeyPatch, labels: LabelSettings
) -> None:
    watch_heals(monkeypatch, spoil={6})
    settings = config(heal=PAIRED, policy=LENIENT, labels=labels, batches=14)
    stops = iter([False] * 9 + [True] + [False] * 100)
    first = ran(settings, stop=lambda: next(stops))
    assert first.of("rollback")
    around = RunContext(first.registry, lambda: datetime.now(UTC), "ann", stop=lambda: False)
    around = replace(around, workspace=first.finished.folder.parent.parent)
    again = resume(first.finished.folder / "events.jsonl", around, stream_of)
    whole = ran(settings)
    assert again.view.finished is not None
    assert again.view.finished.serving_sha256 == whole.serving
    memory = Replay(settings, stream_of(settings), prepare(settings, stream_of(settings), quietly))
    for batch in stream_of(settings).batches():
        memory.step(batch)
    assert digest(pack(memory.live.serving.adapter.weights)) == whole.serving


def quietly(done: int, total: int | None) -> None:
    """Training goes on."""


def test_without_harm_nothing_is_rolled_back(empty_dir: Path) -> None:
    events: list[Event] = ran(config(heal=PAIRED, batches=12)).of("rollback", "rollback-failed")
    assert events == []
