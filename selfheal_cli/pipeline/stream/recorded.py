"""A recorded run's answers in place of the world's, until the record ends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from selfheal_cli.errors import EventLogError, NoCandidateError
from selfheal_cli.events import types as events
from selfheal_cli.heal.engine import HealEngine, Serving, heal_or_fail
from selfheal_cli.heal.task import AdapterState, HealFailure, HealOutcome, HealTask
from selfheal_cli.model.checkpoint import Packed
from selfheal_cli.pipeline.record.replayed import RecordedEvents
from selfheal_cli.pipeline.stream.champion import ChampionWatcher
from selfheal_cli.pipeline.stream.outside import (
    Best,
    CanaryWithdrawn,
    Change,
    HoldChange,
    Live,
    ModeChange,
    Outside,
    Stopped,
)
from selfheal_cli.rollback.verify import load_verified

# what ends a heal's waiting
PUBLISHED = (
    events.HealPublished, events.HealRejected, events.HealWithheld, events.HealCoalesced,
    events.CanaryBegan,
)  # fmt: skip


class Recorded(Outside):
    """What the next recorded event says, then ``live``, to which what is under way is handed over.

    It is its own engine: a heal is done again when the record says that it was done. One that
    failed by chance (its worker died) fails again.
    """

    def __init__(self, record: RecordedEvents, live: Live, others: ChampionWatcher) -> None:
        self._record, self._live, self._others = record, live, others
        self._waits = live.config.heal.mode == "sync"  # for the answer, where it is asked for
        self._asks = False  # for what served ``_before``, or the best version
        self._before: Serving | None = None
        self._running: tuple[HealTask, AdapterState] | None = None  # and what served before
        self._waiting: HealTask | None = None

    @property
    def heals(self) -> HealEngine:
        """The record's own."""
        return self

    def changes(self, batch: int, *, held: bool, mode: str) -> Iterator[Change]:
        """Nothing that the record has not told of already."""
        return self._live.changes(batch, held=held, mode=mode) if self._is_over() else iter(())

    def meanwhile(self) -> Iterator[Change]:
        """Stops, moves, holds and withdrawals that come next on record."""
        while event := self._record.expected:
            match event:
                case events.StreamStopped():
                    yield Stopped(event.batch)
                case events.ChampionFollowed():
                    yield replace(self._others.recall(event), batch=event.batch)
                case events.HealingHeld() | events.HealingReleased():
                    held = isinstance(event, events.HealingHeld)
                    yield HoldChange(event.batch, held, event.actor, event.reason)
                case events.ModeChanged():
                    yield ModeChange(
                        event.batch, event.mode, event.actor, event.reason, event.order
                    )
                case events.CanaryEnded() if event.by:
                    yield CanaryWithdrawn(event.batch, event.by, event.reason)
                case _:
                    return

    def ask_best(self, before: Serving | None = None) -> None:
        """Nobody is asked while the record says what was answered."""
        self._asks, self._before = True, before
        self._is_over()

    def best(self, *, wait: bool) -> Best | None:
        """The version that was gone back to, or was not; raises what was recorded."""
        if self._is_over():
            return self._live.best(wait=wait)
        event = self._record.expected
        if (
            event is None
            or not self._asks
            or not (self._waits or isinstance(event, events.RollbackAsked))
        ):
            return None
        self._asks = False
        if isinstance(event, events.RollbackFailed):
            raise NoCandidateError(event.error)
        if not isinstance(event, (events.RolledBack, events.RollbackDeclined)):
            raise EventLogError(
                f"event {event.sequence}: recorded was '{event.kind}', the same rows now "
                "give a rollback"
            )
        if isinstance(event, events.RolledBack) and self._before is not None:
            return self._served(self._before, event)
        registry = self._live.registry
        best = registry.version(self._live.lineage.model, event.version)
        return Best.of(best, load_verified(registry, best), event.passed_over)

    def _served(self, before: Serving, event: events.RolledBack) -> Best:
        """What served before is what this walk published, too: its bytes are the recorded ones."""
        weights = before.adapter.weights
        return Best(
            before.snapshot, event.version, weights, before.threshold, Packed.of(weights).sha256,
            event.f1, event.rows, tuple(event.passed_over),
        )  # fmt: skip

    def is_durable(self, *, wait: bool) -> bool:
        """A heal was published once it was."""
        if self._is_over():
            return self._live.is_durable(wait=wait)
        event = self._record.expected
        return isinstance(event, PUBLISHED)

    @property
    def in_flight(self) -> bool:
        """Something was asked for, and the record did not say yet that it was done."""
        if self._is_over():
            return self._live.heals.in_flight
        return self._running is not None or self._waiting is not None

    def submit(self, task: HealTask) -> HealTask | None:
        """One heal runs, one waits."""
        if self._is_over():
            return self._live.heals.submit(task)
        replaced, self._waiting = self._waiting, task
        self._begin()
        return replaced

    def take(self, *, wait: bool = False) -> HealOutcome | HealFailure | None:
        """Heal again, where the next event is about the heal that runs."""
        if self._is_over():
            return self._live.heals.take(wait=wait)
        self._begin()
        event = self._record.expected
        if self._running is None or not isinstance(event, (events.HealEnded, events.SnapshotTaken)):
            return None
        task, before = self._running
        if event.heal_id != task.heal_id:
            return None
        self._running = None
        if isinstance(event, events.HealFailed) and event.worker_restarted:
            return HealFailure(task, event.reason, worker_restarted=True)
        return heal_or_fail(self._live.recipes, before, task)

    def close(self) -> None:
        """The world is closed by whoever opened it."""

    def _begin(self) -> None:
        if self._running is None and self._waiting is not None:
            self._running = self._waiting, self._live.serving.serving.adapter
            self._waiting = None

    def _is_over(self) -> bool:
        """Whether the record has ended; then what is under way is begun anew in the world."""
        if self._record.expected is not None:
            return False
        running, self._running = self._running, None
        waiting, self._waiting = self._waiting, None
        for task in (running and running[0], waiting):
            if task is not None:
                self._live.heals.submit(task)
        if self._asks:
            self._asks = False
            self._live.ask_best(self._before)
        return True
