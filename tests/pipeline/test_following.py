"""A run beside which another process moves the champion, and the thread that looks for it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from selfheal_cli.config import HealSettings
from selfheal_cli.events.event import Event
from selfheal_cli.events.log import read, verify
from selfheal_cli.events.types import BatchScored, ChampionFollowed, VersionRegistered
from selfheal_cli.pipeline.runs.run import RunContext, run
from selfheal_cli.pipeline.stream import champion as follow
from selfheal_cli.records import Batch
from selfheal_cli.registry.aliases import Move, move_alias
from selfheal_cli.registry.base import CHAMPION
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from tests.conftest import Invoke
from tests.forked import begun
from tests.pipeline.small import config, stream_of
from tests.pipeline.test_outside import AT, clock

MORE_THAN_ENOUGH = 20_000  # batches; the stream is stopped once the move was followed
ENOUGH_HEALS = 4


@pytest.fixture
def mover(workdir: Path) -> Iterator[Connection]:
    """Another process, that makes a version champion when told its number, and tells the move's.

    It is forked before anything here has opened the store.
    """
    ours, theirs = Pipe()

    def move() -> None:
        ours.close()
        wanted = Move("fraud", CHAMPION, theirs.recv(), "bob", AT, "I know better")
        theirs.send(move_alias(MlflowRegistry(), wanted).sequence)

    elsewhere = begun(move)
    theirs.close()
    yield ours
    ours.close()
    elsewhere.wait()


class Paced:
    """A stream of so many batches a second at most."""

    def __init__(self, source: Any, rate: float = 20.0) -> None:
        self._source, self._rate = source, rate

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def batches(self, start: int = 1) -> Iterator[Batch]:
        for batch in self._source.batches(start):
            threading.Event().wait(1 / self._rate)
            yield batch


class Watched:
    """A run's events as they come: has a move made elsewhere, stops two batches after it."""

    def __init__(self, mover: Connection) -> None:
        self.events: list[Event] = []
        self.moved: list[int] = []
        self._mover = mover
        self._moving: threading.Thread | None = None

    def on_event(self, event: Event) -> None:
        self.events.append(event)
        if self._moving is None and len(self.of(VersionRegistered)) > ENOUGH_HEALS:
            self._moving = threading.Thread(target=self._move)
            self._moving.start()

    def _move(self) -> None:
        self._mover.send(1)
        self.moved.append(self._mover.recv())

    def stop(self) -> bool:
        followed = self.of(ChampionFollowed)
        later = [one for one in self.events if followed and one.sequence > followed[0].sequence]
        return len([one for one in later if isinstance(one, BatchScored)]) > 1

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]


def test_a_move_made_by_another_process_is_followed_and_read_beside_the_stream(
    workdir: Path, mover: Connection, monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    load, readers = follow.load_verified, list[str]()

    def noted(*arguments: Any) -> Any:
        readers.append(threading.current_thread().name)
        return load(*arguments)

    monkeypatch.setattr(follow, "load_verified", noted)
    settings = config(heal=HealSettings(recipe="anchored", mode="async"), batches=MORE_THAN_ENOUGH)
    watched, registry = Watched(mover), MlflowRegistry()
    around = RunContext(
        registry, clock, "ann", watchers=[watched.on_event], stop=watched.stop, follow_seconds=0.1
    )
    done = run(settings, Paced(stream_of(settings), rate=4.0), around)
    (followed,) = watched.of(ChampionFollowed)
    assert followed["sequence"] == watched.moved[0]
    assert (followed.actor, followed.version) == ("bob", 1)
    assert followed.to_snapshot == registry.version("fraud", 1).tags["selfheal.snapshot"]
    assert readers == ["follower"]  # the stream's own thread read nothing of the registry
    batches = [event.batch for event in watched.of(BatchScored)]
    assert batches == list(range(1, len(batches) + 1))
    log = done.folder / "events.jsonl"
    verify(log)
    assert list(read(log))[: len(watched.events)] == watched.events
    moves = [entry.data for entry in registry.entries("fraud") if entry.data.get("alias")]
    overtaken = [move for move in moves if move["alias"] == CHAMPION and move["actor"] == "bob"]
    assert [move["sequence"] for move in overtaken] == watched.moved
    invoke("audit")
