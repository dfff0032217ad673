"""What others do to a model while a run goes on: move its champion, hold it, want it as well."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from selfheal_cli.config import HealSettings, LabelSettings
from selfheal_cli.errors import LeaseHeld, RegistryUnreachable
from selfheal_cli.events.archive import find_run
from selfheal_cli.events.event import Event
from selfheal_cli.events.log import read, verify
from selfheal_cli.events.types import (
    BatchScored,
    ChampionFollowed,
    HealingHeld,
    HealingReleased,
    MoveRefused,
    RunResumed,
    SnapshotTaken,
    VersionRegistered,
)
from selfheal_cli.pipeline.prepare.rows import open_source
from selfheal_cli.pipeline.runs.recovery import flush, outboxes, resume
from selfheal_cli.pipeline.runs.run import RunContext, run
from selfheal_cli.pipeline.stream import champion as follow
from selfheal_cli.records import Batch
from selfheal_cli.registry.aliases import Move, move_alias
from selfheal_cli.registry.base import CHAMPION, Added
from selfheal_cli.registry.journal import Hold, Lease, standing
from selfheal_cli.registry.lease import take_lease
from selfheal_cli.registry.memory import MemoryRegistry
from selfheal_cli.registry.orders import hold
from tests.conftest import until
from tests.pipeline.small import config, stream_of

AT = "2026-01-01T00:00:00.000+00:00"
WHO = {"actor": "bob", "at": AT}


def clock() -> datetime:
    return datetime.now(UTC)


class Acting:
    """A source that does something between two batches, once the run has written everything."""

    def __init__(self, source: Any, actions: dict[int, Any]) -> None:
        self._source, self._actions = source, actions

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def batches(self, start: int = 1) -> Any:
        for batch in self._source.batches(start):
            action = self._actions.get(batch.index)
            if action is not None:
                action()
            yield batch

    def held_out(self) -> dict[str, Any]:
        return {}


class Looking(follow.ChampionWatcher):
    """A follower without a thread, that looks whenever it is asked."""

    def take(self) -> follow.ChampionMove | None:
        self.look()
        return super().take()


def drained(registry: MemoryRegistry) -> None:
    """Until every version that was handed over is registered."""
    log = find_run("latest")
    assert log is not None
    taken = sum(isinstance(event, SnapshotTaken) for event in read(log))
    until(lambda: len(registry.versions("fraud", limit=1000)) >= taken, every=0.0)


def events_of(folder: Path) -> list[Event]:
    return list(read(folder / "events.jsonl"))


@pytest.mark.parametrize(("recipe", "mode"), [("anchored", "sync"), ("article", "async")])
def test_a_run_serves_what_somebody_else_made_champion_and_heals_from_there(
    empty_dir: Path, monkeypatch: pytest.MonkeyPatch, recipe: Any, mode: Any
) -> None:
    monkeypatch.setattr("selfheal_cli.pipeline.runs.run.ChampionWatcher", Looking)
    registry = MemoryRegistry()

    def move() -> None:
        drained(registry)
        move_alias(registry, Move("fraud", CHAMPION, 1, "bob", AT, "I know better"))

    settings = config(heal=HealSettings(recipe=recipe, mode=mode), batches=12)
    source = Acting(stream_of(settings), {6: move})
    done = run(settings, source, RunContext(registry, clock, "ann", follow_seconds=0))
    events = events_of(done.folder)
    (followed,) = [event for event in events if isinstance(event, ChampionFollowed)]
    baseline = registry.version("fraud", 1).tags["selfheal.snapshot"]
    assert (followed.batch, followed.actor) == (6, "bob")
    assert followed.to_snapshot == baseline
    later = [
        event.parent
        for event in events
        if isinstance(event, SnapshotTaken)
        and event.sequence > followed.sequence
        and event.phase == "pre-heal"
    ]
    assert later[0] == baseline
    moved = standing(registry, "fraud").moves[CHAMPION]
    assert moved.run == done.run_id  # the heals after it are champions again
    assert registry.alias("fraud", CHAMPION) == moved.target


def test_a_held_model_is_scored_and_not_healed_until_it_is_released(
    empty_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Always(Looking):
        @property
        def hold(self) -> Hold | None:  # type: ignore[override]
            return standing(registry, "fraud").hold

        @hold.setter
        def hold(self, value: Hold | None) -> None:
            pass

    monkeypatch.setattr("selfheal_cli.pipeline.runs.run.ChampionWatcher", Always)
    registry = MemoryRegistry()
    settings = config(batches=12)
    actions = {
        4: lambda: hold(registry, "fraud", Hold("bob", AT, "wait"), **WHO),
        8: lambda: hold(registry, "fraud", None, **WHO),
    }
    source = Acting(stream_of(settings), actions)
    done = run(settings, source, RunContext(registry, clock, "ann", follow_seconds=0))
    events = events_of(done.folder)
    asked = [e.batch for e in events if isinstance(e, BatchScored) and e.heal_requested]
    assert asked == [1, 2, 3, 8, 9, 10, 11, 12]
    told = [(type(e), e.batch) for e in events if "healing-" in e.kind]
    assert told == [(HealingHeld, 4), (HealingReleased, 8)]
    assert sum(isinstance(e, BatchScored) for e in events) == 12


def test_the_baseline_of_a_run_on_a_held_model_does_not_become_the_champion(
    empty_dir: Path,
) -> None:
    registry = MemoryRegistry()
    around = RunContext(registry, clock, "ann", follow_seconds=0)
    run(config(batches=3), stream_of(config(batches=3)), around)
    champion, wait = registry.alias("fraud", CHAMPION), Hold("bob", AT, "wait")
    hold(registry, "fraud", wait, **WHO)
    done = run(config(batches=3), stream_of(config(batches=3)), around)
    assert registry.alias("fraud", CHAMPION) == champion
    refused = [one.as_dict() for one in events_of(done.folder) if isinstance(one, MoveRefused)]
    assert [one["alias"] for one in refused] == [CHAMPION]
    assert "is held by bob" in refused[0]["reason"]


def test_a_second_run_on_a_model_is_refused_with_who_holds_it(empty_dir: Path) -> None:
    registry = MemoryRegistry()
    settings = config(batches=3)

    def another() -> None:
        with pytest.raises(LeaseHeld, match=r"run run-1 of ann heals 'fraud' since .*this folder"):
            run(settings, stream_of(settings), RunContext(registry, clock, "bob"))

    run(settings, Acting(stream_of(settings), {2: another}), RunContext(registry, clock, "ann"))
    assert standing(registry, "fraud").lease is None
    assert list(registry.runs) == ["run-1"]


def test_the_lease_of_a_run_that_died_elsewhere_is_taken_over_after_a_minute(
    empty_dir: Path,
) -> None:
    registry, settings = MemoryRegistry(), config(batches=1)
    dead = registry.begin_run("selfheal", {}, {})
    take_lease(registry, "fraud", Lease(dead, "bob", AT), four_eyes=False, alive=lambda _: "")
    just_after = datetime.fromisoformat("2026-01-01T00:00:30+00:00")
    with pytest.raises(LeaseHeld, match=r"of bob .* \(last sign of life 30 s ago\)"):
        run(settings, stream_of(settings), RunContext(registry, lambda: just_after, "ann"))
    later = datetime.fromisoformat("2026-01-01T00:01:01+00:00")
    done = run(settings, stream_of(settings), RunContext(registry, lambda: later, "ann"))
    assert done.outcome == "FINISHED"


class Flaky(MemoryRegistry):
    """A registry that can be away."""

    away = False

    def add_version(self, *arguments: Any, **more: Any) -> Added:
        if self.away:
            raise RegistryUnreachable("the store is away")
        return super().add_version(*arguments, **more)


def test_a_registry_that_is_away_in_mid_stream_gets_everything_in_order_and_once(
    empty_dir: Path,
) -> None:
    def went_away(registry: Flaky) -> list[tuple[Any, ...]]:
        settings = config(batches=12)
        actions = {
            3: lambda: setattr(registry, "away", True),
            10: lambda: setattr(registry, "away", False),
        }
        source = Acting(stream_of(settings), actions if registry.away is False else {})
        done = run(settings, source, RunContext(registry, clock, "ann", follow_seconds=0))
        assert (done.outcome, done.left, done.away) == ("FINISHED", 0, "")
        verify(done.folder / "events.jsonl")
        versions = registry.versions("fraud", limit=1000)
        return [(v.version, v.phase, v.batch, v.sha256, v.metrics) for v in versions]

    interrupted = went_away(Flaky())
    steady = config(batches=12)
    registry = MemoryRegistry()
    around = RunContext(registry, clock, "ann", workspace=Path("steady"), follow_seconds=0)
    run(steady, Acting(stream_of(steady), {}), around)
    versions = registry.versions("fraud", limit=1000)
    assert interrupted == [(v.version, v.phase, v.batch, v.sha256, v.metrics) for v in versions]


def test_what_a_run_left_is_brought_by_flush_and_the_log_stays_whole(empty_dir: Path) -> None:
    registry = Flaky()
    settings = config(batches=6)
    source = Acting(stream_of(settings), {3: lambda: setattr(registry, "away", True)})
    around = RunContext(registry, clock, "ann", patience=0.0, follow_seconds=0)
    done = run(settings, source, around)
    assert done.outcome == "FINISHED"
    assert done.left > 0
    assert "the store is away" in done.away
    registry.away = False
    (path,) = outboxes()
    flushed = flush(path, registry, clock, "ann", patience=5.0, on_left=lambda left: None)
    assert (flushed.run_id, flushed.brought, flushed.ended) == (done.run_id, done.left, True)
    assert outboxes() == []
    events = events_of(done.folder)
    taken = [event.id for event in events if isinstance(event, SnapshotTaken)]
    assert [e.snapshot for e in events if isinstance(e, VersionRegistered)] == taken
    verify(done.folder / "events.jsonl")
    assert registry.runs[done.run_id]["selfheal.log_head"] == events[-1].digest
    assert registry.runs[done.run_id]["status"] == "FINISHED"


@pytest.mark.parametrize(
    ("mode", "labels"),
    [("async", LabelSettings()), ("sync", LabelSettings(regime="delayed", delay=2))],
)
def test_an_interrupted_stream_goes_on_where_it_was(
    empty_dir: Path, mode: Any, labels: LabelSettings
) -> None:
    registry = MemoryRegistry()
    settings = config(heal=HealSettings(recipe="anchored", mode=mode), labels=labels, batches=10)
    stops = iter([False] * 5 + [True] + [False] * 100)
    around = RunContext(registry, clock, "ann", stop=lambda: next(stops), follow_seconds=0)
    first = run(settings, open_source(settings), around)
    assert first.outcome == "KILLED"
    log = first.folder / "events.jsonl"
    again = resume(log, RunContext(registry, clock, "bob", follow_seconds=0), open_source)
    assert again.outcome == "FINISHED"
    events = events_of(again.folder)
    assert [e.batch for e in events if isinstance(e, BatchScored)] == list(range(1, 11))
    (resumed,) = [e for e in events if isinstance(e, RunResumed)]
    assert (resumed.actor, resumed.batch) == ("bob", 6)
    verify(log)
    if mode == "sync":
        whole = MemoryRegistry()
        at = RunContext(whole, clock, "ann", workspace=Path("whole"), follow_seconds=0)
        run(settings, open_source(settings), at)
        assert [v.sha256 for v in whole.versions("fraud", limit=99)] == [
            v.sha256 for v in registry.versions("fraud", limit=99)
        ]


def test_a_run_whose_rows_changed_is_not_resumed(empty_dir: Path) -> None:
    registry, settings = MemoryRegistry(), config(batches=6)
    stops = iter([False, False, True])
    first = run(
        settings,
        open_source(settings),
        RunContext(registry, clock, "ann", stop=lambda: next(stops), follow_seconds=0),
    )

    def changed(batch: Batch) -> Batch:
        batch.rows.x[:] += 1
        return batch

    from tests.pipeline.small import Altered

    around = RunContext(registry, clock, "ann", follow_seconds=0)
    with pytest.raises(Exception, match="the data or the installed packages have changed since"):
        resume(
            first.folder / "events.jsonl",
            around,
            lambda settings: Altered(open_source(settings), changed),  # type: ignore[arg-type,return-value]
        )
