"""A rollback beside live scoring: the registry takes its time, and the stream does not wait."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from selfheal_cli.config import HealSettings, Policy, RunConfig
from selfheal_cli.errors import RegistryUnreachable
from selfheal_cli.events.event import Event
from selfheal_cli.events.log import read, verify
from selfheal_cli.events.types import BatchScored, ChampionFollowed, RollbackFailed, RolledBack
from selfheal_cli.pipeline.runs.recovery import resume
from selfheal_cli.pipeline.runs.run import RunContext, run
from selfheal_cli.records import VersionRecord
from selfheal_cli.registry.aliases import Move, move_alias
from selfheal_cli.registry.base import CHAMPION
from selfheal_cli.registry.journal import standing
from selfheal_cli.registry.memory import MemoryRegistry
from tests.conftest import PATIENCE
from tests.pipeline.small import Altered, config, flipped, stream_of
from tests.pipeline.test_following import Paced
from tests.pipeline.test_outside import AT, Looking, clock

SICK_FROM, LAST = 6, 2_000
SCORED_MEANWHILE = 5
# any heal that is worse than the first has fallen
STRICT = Policy(rollback_f1_drop=0.0, rollback_acc_drop=0.0, health_window=1, health_min_heals=2)


class Slow(MemoryRegistry):
    """Says what is best only when it is allowed to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.allowed = threading.Event(), threading.Event()
        self.away = False

    def ranked(self, *arguments: Any, **more: Any) -> Iterator[VersionRecord]:
        self.asked.set()
        assert self.allowed.wait(PATIENCE), "nothing was scored meanwhile"
        if self.away:
            raise RegistryUnreachable("the store is away")
        return super().ranked(*arguments, **more)


class Interrupted(BaseException):
    """As if the process had died."""


class Course:
    """Counts the batches since the registry was asked, and since it was answered."""

    def __init__(self, registry: Slow, then: Callable[[], None] = lambda: None) -> None:
        self._registry, self._then = registry, then
        self.events: list[Event] = []
        self.waited: list[Event] = []
        self.after = 0

    def on_event(self, event: Event) -> None:
        self.events.append(event)
        if not isinstance(event, BatchScored) or not self._registry.asked.is_set():
            return
        if any(isinstance(one, ENDS) for one in self.events):
            self.after += 1
            return
        self.waited.append(event)
        if len(self.waited) == SCORED_MEANWHILE:
            self._then()
            self._registry.allowed.set()

    def stop(self) -> bool:
        return self.after >= 3


ENDS = (RolledBack, RollbackFailed, ChampionFollowed)


def settings() -> RunConfig:
    return config(heal=HealSettings(mode="async"), policy=STRICT, batches=LAST)


def sick(settings: RunConfig) -> Any:
    return Paced(Altered(stream_of(settings), flipped(range(SICK_FROM, LAST))))


def around(registry: Slow, course: Course, **more: Any) -> RunContext:
    told = {"watchers": [course.on_event], "stop": course.stop, "follow_seconds": 0} | more
    return RunContext(registry, clock, "ann", **told)


def test_batches_are_scored_while_the_registry_is_asked_and_then_it_is_restored(
    empty_dir: Path,
) -> None:
    registry = Slow()
    course = Course(registry)
    done = run(settings(), sick(settings()), around(registry, course))
    rolled_back = next(event for event in course.events if isinstance(event, RolledBack))
    assert rolled_back.sequence > course.waited[-1].sequence
    # no heal is asked for while the rollback is awaited; the one under way may have been
    assert not any(event.heal_requested for event in course.waited[1:])
    version = registry.version("fraud", rolled_back.version)
    assert rolled_back.to_snapshot == version.tags["selfheal.snapshot"]
    assert version.sha256 == rolled_back.sha256
    later = [event for event in course.events if event.sequence > rolled_back.sequence]
    assert next(e for e in later if isinstance(e, BatchScored)).state == "ROLLED_BACK"
    moves = [e.data for e in registry.entries("fraud") if e.data.get("alias") == CHAMPION]
    assert next(m["target"] for m in moves if m["reason"].startswith("rollback: ")) == (
        version.version
    )
    verify(done.folder / "events.jsonl")


def test_a_registry_that_went_away_while_it_was_asked_fails_the_rollback_not_the_run(
    empty_dir: Path,
) -> None:
    registry = Slow()
    course = Course(registry, then=lambda: setattr(registry, "away", True))
    done = run(settings(), sick(settings()), around(registry, course))
    failed = next(event for event in course.events if isinstance(event, RollbackFailed))
    assert failed.error == "the store is away"
    assert done.outcome == "KILLED"


def test_a_person_who_moves_the_champion_meanwhile_is_followed_and_nothing_is_rolled_back(
    empty_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfheal_cli.pipeline.runs.run.ChampionWatcher", Looking)
    registry = Slow()
    course = Course(
        registry, then=lambda: move_alias(registry, Move("fraud", CHAMPION, 1, "bob", AT, "mine"))
    )
    run(settings(), sick(settings()), around(registry, course))
    first = next(event for event in course.events if isinstance(event, ENDS))
    assert (type(first), first.actor) == (ChampionFollowed, "bob")


@pytest.mark.parametrize("when", ["while it is asked", "after the answer"])
def test_a_run_interrupted_around_a_rollback_is_resumed_along_its_record(
    empty_dir: Path, when: str
) -> None:
    registry = Slow()

    def interrupt() -> None:
        registry.allowed.set()
        raise Interrupted

    early = when == "while it is asked"
    course = Course(registry, then=interrupt if early else lambda: None)
    if early:
        with pytest.raises(Interrupted):
            run(settings(), sick(settings()), around(registry, course))
    else:
        assert run(settings(), sick(settings()), around(registry, course)).outcome == "KILLED"
    log = next(Path("mlruns/selfheal/runs").glob("*/events.jsonl"))
    before = [event for event in read(log) if isinstance(event, ENDS)]
    assert bool(before) is not early
    stop = iter([False] * (len([e for e in read(log) if isinstance(e, BatchScored)]) + 5) + [True])
    second = around(registry, Course(registry), stop=lambda: next(stop), watchers=[])
    resume(log, second, sick)
    verify(log)
    events = list(read(log))
    numbers = [event.batch for event in events if isinstance(event, BatchScored)]
    assert numbers == list(range(1, len(numbers) + 1))
    rollbacks = [event for event in events if isinstance(event, RolledBack)]
    assert [e for e in events if isinstance(e, ENDS)][: len(before)] == before
    assert rollbacks
    assert standing(registry, "fraud").lease is None
