"""A session as any host may use it: made, begun, stepped and finished, many in one process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selfheal_cli.config import HealSettings, NetworkSettings, RunConfig
from selfheal_cli.events.event import Event
from selfheal_cli.events.types import BatchScored
from selfheal_cli.model.checkpoint import pack
from selfheal_cli.pipeline.prepare.baseline import prepare
from selfheal_cli.pipeline.record.recorder import RunRecorder
from selfheal_cli.pipeline.stream.context import SessionContext
from selfheal_cli.pipeline.stream.memory import Replay
from selfheal_cli.pipeline.stream.outside import Outside
from selfheal_cli.pipeline.stream.session import Session
from tests.pipeline.small import config, stream_of

ARTICLE = config(
    heal=HealSettings(recipe="article"), network=NetworkSettings(epochs=1, shadow="plain")
)
ANCHORED = config(seed=7)


@pytest.fixture
def events(empty_dir: Path, monkeypatch: pytest.MonkeyPatch) -> dict[int, list[Event]]:
    """What each recorder was given to note, by the recorder's id."""
    noted: dict[int, list[Event]] = {}
    note = RunRecorder.note

    def remember(recorder: RunRecorder, event: Event) -> None:
        noted.setdefault(id(recorder), []).append(event)
        note(recorder, event)

    monkeypatch.setattr(RunRecorder, "note", remember)
    return noted


class Host:
    """A session on one stream, and what is left of it."""

    def __init__(self, settings: RunConfig) -> None:
        source = stream_of(settings)
        self._replay = Replay(settings, source, prepare(settings, source, lambda done, of: None))
        self._batches = source.batches()
        self.session: Session = self._replay._session
        self.context: SessionContext = self.session.run

    def step(self) -> bool:
        """The next batch; False where there is none."""
        batch = next(self._batches, None)
        if batch is None:
            self.session.finish()
            return False
        self.session.step(batch)
        return True

    def left(self, events: dict[int, list[Event]]) -> tuple[Any, ...]:
        """Bytes that serve, how they decide, and every event."""
        serving = self.context.live.serving
        told = [
            (event.kind, event.as_dict() if isinstance(event, BatchScored) else "")
            for event in events[id(self.context.recorder)]
        ]
        return pack(serving.adapter.weights), serving.threshold, serving.snapshot, told


def test_two_sessions_stepped_in_turns_give_what_each_gives_alone(
    events: dict[int, list[Event]],
) -> None:
    alone = []
    for settings in (ARTICLE, ANCHORED):
        host = Host(settings)
        while host.step():
            pass
        alone.append(host.left(events))
    hosts = [Host(ARTICLE), Host(ANCHORED)]
    while sum(host.step() for host in hosts):
        pass
    assert [host.left(events) for host in hosts] == alone


def test_what_serves_is_the_sessions_own(events: dict[int, list[Event]]) -> None:
    first, second = Host(ANCHORED), Host(ANCHORED)
    before = second.left(events)
    while first.step():
        pass
    assert second.left(events) == before
    assert first.context.state.batch == 8
    assert second.context.state.batch == 0


class Noting:
    """The world, and what was asked of it."""

    def __init__(self, world: Outside) -> None:
        self._world, self.asked = world, list[str]()

    def __getattr__(self, name: str) -> Any:
        self.asked.append(name)
        return getattr(self._world, name)


def test_what_heals_begins_with_the_session_since_a_worker_takes_seconds() -> None:
    context = Host(ANCHORED).context
    world: Any = Noting(context.outside)
    session = Session(replace(context, outside=world))
    world.asked.clear()
    session.begin()
    assert "heals" in world.asked
