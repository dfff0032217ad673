"""A clock that is set back or forward while a run goes on."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from selfheal_cli.cli.run_screen import RunScreen
from selfheal_cli.errors import LeaseHeld
from selfheal_cli.events.archive import find_run
from selfheal_cli.events.event import Event
from selfheal_cli.events.log import read, verify
from selfheal_cli.events.types import BatchScored
from selfheal_cli.pipeline.runs.run import RunContext, run
from selfheal_cli.registry.base import CHAMPION
from selfheal_cli.registry.journal import standing
from selfheal_cli.registry.memory import MemoryRegistry
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from tests.conftest import Invoke, enter, left_by_run
from tests.pipeline.small import config, stream_of
from tests.pipeline.test_outside import Acting

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
BEFORE = "2026-01-01T11:30"  # after the clock was set back it shows this, and noon was before


class SetClock:
    """Moves on a second each time that it is read, and can be set."""

    def __init__(self, now: datetime = NOON) -> None:
        self.now = now

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


@pytest.fixture(scope="module")
def set_back_at_3(store_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole run whose clock goes back an hour in batch 3."""
    clock, shown = SetClock(), RunScreen.on_event

    def on_event(screen: RunScreen, event: Event) -> None:
        shown(screen, event)
        if isinstance(event, BatchScored) and event.batch == 3:
            clock.now -= HOUR

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunScreen, "on_event", on_event)
        patch.setattr("selfheal_cli.cli.run.clock", clock)
        patch.setattr("selfheal_cli.registry.writer.BEAT_SECONDS", 0.1)
        options = ("--batches", "5", "--no-plots", "--set", "network.epochs=2")
        folder = tmp_path_factory.mktemp("set-back")
        left_by_run(folder, store_template, *options)
        return folder


def of(invoke: Invoke, *arguments: str, expect: int = 0) -> Any:
    answer = invoke(*arguments, "--json", expect=expect)
    return json.loads(answer.stdout) if expect == 0 else answer.stderr


def test_a_clock_that_is_set_back_costs_a_run_neither_its_lease_nor_its_order(
    set_back_at_3: Path, monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    enter(set_back_at_3, monkeypatch)
    log = find_run("latest")
    assert log is not None
    verify(log)
    events = list(read(log))
    times = [event.at for event in events]
    assert times != sorted(times)
    assert [e.batch for e in events if isinstance(e, BatchScored)] == list(range(1, 6))
    assert events[-1].outcome == "FINISHED"
    invoke("audit")
    told = [one for one in of(invoke, "history") if one["kind"] == "heal"]
    assert [one["batch"] for one in told] == sorted(one["batch"] for one in told)


def test_what_served_at_a_time_follows_the_order_of_the_moves_not_the_clock(
    set_back_at_3: Path, monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    enter(set_back_at_3, monkeypatch)
    registry = MlflowRegistry()
    entries = list(registry.entries("fraud"))
    moves = [entry for entry in entries if entry.data.get("alias") == CHAMPION]
    late = [entry for entry in moves if entry.at < NOON.isoformat()]
    early = moves[: len(moves) - len(late)]
    assert early
    assert late
    assert late == moves[len(early) :]
    # noon had been when the clock showed half past eleven for the second time
    assert "nothing is recorded" in of(invoke, "champion", "--at", BEFORE, expect=5)
    assert of(invoke, "history", "--at", BEFORE) == []
    middle = early[0]
    served = of(invoke, "champion", "--at", middle.at)
    assert served["version"] == middle.data["target"]
    assert served["move"] == middle.sequence
    now = of(invoke, "champion", "--at", "2026-01-02")
    assert now["move"] == late[-1].sequence
    assert now["version"] == of(invoke, "champion")["version"]
    whole, until = of(invoke, "history"), of(invoke, "history", "--at", middle.at)
    assert until == whole[: len(until)]
    assert of(invoke, "history", "--at", "2026-01-02") == whole


def test_a_run_elsewhere_does_not_take_the_lease_of_a_clock_that_runs_behind(
    empty_dir: Path,
) -> None:
    registry, settings, clock = MemoryRegistry(), config(batches=4), SetClock()
    refused: list[str] = []

    def another() -> None:
        elsewhere = RunContext(registry, lambda: NOON - HOUR, "bob", workspace=Path("elsewhere"))
        with pytest.raises(LeaseHeld, match=r"of ann .* \(last sign of life 0 s ago\)") as told:
            run(settings, stream_of(settings), elsewhere)
        refused.append(str(told.value))

    source = Acting(stream_of(settings), {2: another})
    done = run(settings, source, RunContext(registry, clock, "ann", follow_seconds=0))
    assert (done.outcome, len(refused)) == ("FINISHED", 1)


def test_a_run_whose_lease_was_taken_by_a_clock_ahead_writes_nothing_more(
    empty_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfheal_cli.registry.writer.BEAT_SECONDS", 0.01)
    registry, settings, clock = MemoryRegistry(), config(batches=8), SetClock()
    ahead = SetClock(NOON + HOUR)

    def another() -> None:
        ahead_of_time = RunContext(
            registry, ahead, "bob", workspace=Path("elsewhere"), follow_seconds=0
        )
        assert run(settings, stream_of(settings), ahead_of_time).outcome == "FINISHED"
        taken.extend(registry.versions("fraud", limit=1000))
        ahead.now -= HOUR

    taken: list[Any] = []
    source = Acting(stream_of(settings), {4: another})
    with pytest.raises(LeaseHeld, match="the lease on 'fraud' was taken over"):
        run(settings, source, RunContext(registry, clock, "ann", follow_seconds=0))
    assert registry.versions("fraud", limit=1000) == taken
    assert standing(registry, "fraud").lease is None
    again = RunContext(registry, ahead, "cy", workspace=Path("third"), follow_seconds=0)
    assert run(settings, stream_of(settings), again).outcome == "FINISHED"
