"""A run over the in-memory registry: what happens when something goes wrong on the way."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from selfheal_cli.config import HealSettings, NetworkSettings, Policy, RunConfig, SyntheticSettings
from selfheal_cli.errors import DrillFailed, RegistryError
from selfheal_cli.events.event import Event
from selfheal_cli.events.log import read, verify
from selfheal_cli.heal.engine import HealEngine
from selfheal_cli.heal.recipe import Recipes
from selfheal_cli.heal.task import AdapterState, HealOutcome, HealTask
from selfheal_cli.heal.worker_engine import WorkerEngine
from selfheal_cli.pipeline.offline.drill import drill
from selfheal_cli.pipeline.runs.run import Finished, RunContext, run
from selfheal_cli.pipeline.stream import outside
from selfheal_cli.records import VersionRecord
from selfheal_cli.registry.memory import MemoryRegistry
from selfheal_cli.registry.outbox import Outbox
from selfheal_cli.sources.synthetic import SyntheticSource

Clock = Callable[[], datetime]
RULE = "V14 < -1.5 => 1"


def config(**changes: Any) -> RunConfig:
    """A run that takes half a second."""
    values: dict[str, Any] = {
        "network": NetworkSettings(epochs=1),
        "rules": (RULE,),
        "batches": 6,
        "plots": False,
        "policy": Policy(conflict_min=1, rollback_f1_drop=1, rollback_acc_drop=1),
    }
    return RunConfig(**(values | changes))


def source(settings: RunConfig) -> SyntheticSource:
    assert isinstance(settings.source, SyntheticSettings)
    return SyntheticSource(settings.source, seed=1, batch_size=100, batches=settings.batches)


def finish(settings: RunConfig, registry: MemoryRegistry, clock: Clock, **more: Any) -> Finished:
    return run(settings, source(settings), RunContext(registry, clock, "ann", **more))


def kinds(finished: Finished) -> Counter[str]:
    return Counter(event.kind for event in read(finished.folder / "events.jsonl"))


def test_every_heal_is_two_versions_and_one_move_of_the_champion(
    empty_dir: Path, fake_clock: Clock
) -> None:
    registry = MemoryRegistry()
    finished = finish(config(), registry, fake_clock)
    counted = kinds(finished)
    seen = {name: counted.pop(name) for name in ("diagnosis", "rule-stale")}
    assert seen["rule-stale"] == 1  # when it became stale, and not in every batch
    assert 1 <= seen["diagnosis"] < 6
    assert counted == {
        "run-started": 1,
        "trained": 1,
        "snapshot": 13,
        "registered": 13,
        "alias-moved": 8,
        "heal": 6,
        "batch": 6,
        "run-finished": 1,
    }
    assert registry.aliases("fraud") == {"baseline": 1, "champion": 13}
    assert registry.runs[finished.run_id]["status"] == "FINISHED"
    assert [step.batch for step in registry.metrics[finished.run_id]] == [1, 2, 3, 4, 5, 6]
    parents = [version.tags.get("selfheal.parent") for version in registry.versions("fraud")]
    assert parents[::-1] == [None, *map(str, range(1, 13))]


def test_a_heal_that_raises_is_an_event_and_scoring_goes_on_with_the_old_weights(
    empty_dir: Path, fake_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    heal = Recipes.heal

    def breaks_in_the_third_batch(
        recipes: Recipes, before: AdapterState, task: HealTask
    ) -> HealOutcome:
        if task.batch == 3:
            raise RuntimeError("out of luck")
        return heal(recipes, before, task)

    monkeypatch.setattr(Recipes, "heal", breaks_in_the_third_batch)
    finished = finish(config(), MemoryRegistry(), fake_clock)
    assert kinds(finished)["heal-failed"] == 1
    rows = finished.view.rows
    assert [rows[batch].action for batch in rows] == [
        *["HEALED"] * 2,
        "FAILED",
        *["HEALED"] * 3,
    ]
    (failure,) = [action for action in finished.view.actions if action["kind"] == "heal-failed"]
    assert failure["reason"] == "out of luck"
    assert rows[3].healed_acc == rows[3].pre_acc


def test_a_rollback_without_a_usable_version_is_an_event_and_the_stream_goes_on(
    empty_dir: Path, fake_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = MemoryRegistry()
    monkeypatch.setattr(registry, "adapter", lambda version: b"not what was registered")
    policy = Policy(conflict_min=1, rollback_f1_drop=0.0, rollback_acc_drop=0.0)
    finished = finish(config(policy=policy, batches=12), registry, fake_clock)
    counted = kinds(finished)
    assert counted["rollback-failed"] > 0
    assert counted["rollback"] == 0
    assert counted["batch"] == 12
    assert "sha256" in next(
        action["error"] for action in finished.view.actions if action["kind"] == "rollback-failed"
    )


def test_a_rollback_serves_the_registrys_best_from_the_next_batch_on(
    empty_dir: Path, fake_clock: Clock
) -> None:
    registry = MemoryRegistry()
    policy = Policy(conflict_min=1, rollback_f1_drop=0.0, rollback_acc_drop=0.0)
    fired: list[Event] = []

    def watch(event: Event) -> None:
        if event.kind == "rollback":
            fired.append(event)

    finished = finish(
        config(policy=policy, batches=25),
        registry,
        fake_clock,
        watchers=[watch],
        stop=lambda: bool(fired),
    )
    (rollback,) = fired
    restored = registry.version("fraud", rollback.version)
    assert finished.view.finished.serving_sha256 == restored.sha256
    assert registry.alias("fraud", "champion") == restored.version
    earlier = [v for v in registry.versions("fraud") if v.phase == "post-heal"]
    assert restored.f1 == max(v.f1 for v in earlier if v.f1 is not None)
    assert finished.view.rows[rollback.batch].state == "ROLLED_BACK"


@pytest.mark.parametrize(("candidates", "within"), [("run", True), ("model", False)])
def test_policy_says_whether_other_runs_versions_may_be_restored(
    empty_dir: Path,
    fake_clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    candidates: str,
    within: bool,
) -> None:
    registry = MemoryRegistry()
    asked: list[str | None] = []
    ranked = registry.ranked

    def note(model: str, *, base: str, run_id: str | None = None) -> Iterator[VersionRecord]:
        asked.append(run_id)
        return ranked(model, base=base, run_id=run_id)

    monkeypatch.setattr(registry, "ranked", note)
    policy = Policy(
        rollback_f1_drop=0.0,
        rollback_acc_drop=0.0,
        rollback_candidates=candidates,  # type: ignore[arg-type]
    )
    finished = finish(config(policy=policy, batches=12), registry, fake_clock)
    assert asked
    assert set(asked) == {finished.run_id if within else None}


def test_a_registry_that_fails_ends_the_run_but_keeps_log_files_and_snapshots(
    empty_dir: Path, fake_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = MemoryRegistry()
    add = registry.add_version

    def add_or_fail(*arguments: Any, again: bool) -> int:
        if "fraud" in registry.models() and len(registry.versions("fraud")) >= 5:
            raise RegistryError("the store is gone")
        return add(*arguments, again=again)

    monkeypatch.setattr(registry, "add_version", add_or_fail)
    with pytest.raises(RegistryError, match="the store is gone"):
        finish(config(), registry, fake_clock)
    (log,) = Path("mlruns/selfheal/runs").glob("*/events.jsonl")
    assert verify(log) > 0
    outbox = Outbox(log.parent / "outbox.db")
    job = outbox.next()
    assert job is not None
    assert (job.kind, job.blob is not None) == ("version", True)
    assert sum(kind == "version" for kind, _ in outbox.results()) == 5
    assert len(Path("monitoring_export/metrics.csv").read_text().splitlines()) == 7
    outbox.close()


def test_a_killed_worker_is_an_event_and_later_batches_heal_again(
    empty_dir: Path, fake_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines: list[WorkerEngine] = []
    build = outside.engine_of

    def remember(*arguments: Any) -> HealEngine:
        engine = build(*arguments)
        if isinstance(engine, WorkerEngine):
            engines.append(engine)
        return engine

    monkeypatch.setattr(outside, "engine_of", remember)
    killed: list[int] = []

    def kill_once(event: Event) -> None:
        pid = engines[0].worker_pid if engines else None
        if event.kind == "batch" and not killed and pid is not None:
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    settings = config(heal=HealSettings(mode="async"), batches=40)
    finished = finish(settings, MemoryRegistry(), fake_clock, watchers=[kill_once])
    counted = kinds(finished)
    assert counted["batch"] == 40
    (failure,) = [action for action in finished.view.actions if action["kind"] == "heal-failed"]
    assert failure["worker_restarted"] is True
    assert counted["heal"] >= 1
    told = counted["heal"] + counted["heal-failed"] + counted["heal-coalesced"]
    requested = [
        event.batch
        for event in read(finished.folder / "events.jsonl")
        if event.kind == "batch" and event.heal_requested
    ]
    assert told == len(requested)


def test_the_drill_fails_when_what_serves_is_not_the_registrys_best(
    empty_dir: Path, fake_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = MemoryRegistry()
    policy = Policy(conflict_min=1, rollback_f1_drop=0.0, rollback_acc_drop=0.0)
    settings = config(policy=policy, batches=14, model_name="drill")
    adapter = registry.adapter
    honest = RunContext(registry, fake_clock, "ann")
    assert drill(settings, source(settings), honest, keep=False).restored_version > 1
    assert registry.models() == []
    calls: list[int] = []

    def changes_after_the_rollback(version: VersionRecord) -> bytes:
        calls.append(version.version)
        return adapter(version) if len(calls) <= 2 else b"changed"  # judged, then loaded

    monkeypatch.setattr(registry, "adapter", changes_after_the_rollback)
    with pytest.raises(DrillFailed, match="what serves has sha256"):
        drill(settings, source(settings), honest, keep=False)


def test_scoring_uses_one_set_of_weights_a_batch_and_pre_heal_scores_are_the_live_ones(
    empty_dir: Path, fake_clock: Clock
) -> None:
    finished = finish(config(), MemoryRegistry(), fake_clock)
    live = {
        event.batch: event["live"]
        for event in read(finished.folder / "events.jsonl")
        if event.kind == "batch"
    }
    for event in read(finished.folder / "events.jsonl"):
        if event.kind == "heal":
            counts = ("tp", "tn", "fp", "fn")
            before = live[event.batch]
            assert [event["before"][name] for name in counts] == [before[name] for name in counts]
