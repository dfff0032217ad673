"""A served model that nobody heals is watched all the same, and nothing is written of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfheal_cli.events.event import Event
from selfheal_cli.events.types import BatchScored, HealEnded, SnapshotTaken
from selfheal_cli.pipeline.runs.watching import latest, watch_served
from selfheal_cli.registry.journal import standing
from selfheal_cli.serve.healer.status import EventFold
from selfheal_cli.serve.operator.status import ModelStatus
from tests.pipeline.test_served import Server


@pytest.fixture
def server(empty_dir: Path) -> Server:
    return Server(batches=3)


def test_drift_monitors_and_figures_are_told_and_nothing_heals_or_is_stored(server: Server) -> None:
    server.answer(6)
    server.label(list(server.truth))
    versions, journal = list(server.registry.versions("fraud")), standing(server.registry, "fraud")
    files = sorted(Path().rglob("*.jsonl"))
    fold, told = EventFold(), list[Event]()

    def see(event: Event) -> None:
        fold.apply(event)
        told.append(event)

    watch_served(server.open(), latest(server.spool), see, lambda: False)
    seen = ModelStatus(**fold.facts)
    assert (seen.batch, seen.rows, seen.labels) == (6, 600, 600)
    assert seen.drift is not None and seen.drift.feature == "V14" and seen.drift.z > 0
    assert seen.live is not None and seen.shadow is not None and seen.live.rows == 600
    assert len(seen.history) == 6
    assert not any(isinstance(one, HealEnded) for one in told)
    assert sum(isinstance(one, SnapshotTaken) for one in told) <= 1  # what it began with
    assert not any(one.heal_requested for one in told if isinstance(one, BatchScored))
    assert list(server.registry.versions("fraud")) == versions
    assert standing(server.registry, "fraud") == journal
    assert sorted(Path().rglob("*.jsonl")) == files


def test_watching_begins_with_the_latest_rows_and_ends_when_it_is_told(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answer(6)
    monkeypatch.setattr("selfheal_cli.pipeline.runs.watching.LOOKED_BACK", 200)
    told = list[Event]()
    watch_served(server.open(), latest(server.spool), told.append, lambda: False)
    assert sum(one.rows for one in told if isinstance(one, BatchScored)) == 200
    told.clear()
    watch_served(server.open(), latest(server.spool), told.append, lambda: True)
    assert sum(isinstance(one, BatchScored) for one in told) == 1
