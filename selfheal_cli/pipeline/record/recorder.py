"""Writes down what happens: the event log first, the registry second."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Protocol

from selfheal_cli.events.event import Event
from selfheal_cli.events.log import Clock
from selfheal_cli.events.run_record import Account
from selfheal_cli.events.types import RunFinished, SnapshotScored, SnapshotTaken, StreamStopped
from selfheal_cli.pipeline.record.replayed import RecordedEvents
from selfheal_cli.records import Snapshot
from selfheal_cli.registry.base import StepMetrics, identity
from selfheal_cli.scores import AnyScores

Watcher = Callable[[Event], None]


class Log(Protocol):
    """Where events are appended to."""

    def append(self, event: Event) -> Event:
        """Write one down, and return it as it stands there."""

    def sync(self) -> None:
        """What was appended is on disk when it returns."""


class Writer(Protocol):
    """What the registry is told; of itself it keeps nothing, and everything is done at once."""

    @property
    def pending(self) -> int:
        """Writes that are still to be done."""
        return 0

    @property
    def given(self) -> int:
        """Writes that were handed over by now."""
        return 0

    @property
    def full(self) -> bool:
        """So many writes wait that healing should pause."""
        return False

    @property
    def safe(self) -> bool:
        """Whether all that was handed over is on disk."""
        return True

    def add(self, snapshot: Snapshot, adapter: bytes) -> None:
        """Register a snapshot as a version."""
        return

    def score(
        self, snapshot: str, batch: int, metrics: dict[str, float], scores: AnyScores
    ) -> None:
        """Figures of a snapshot that was added before its labels came."""
        return

    def point(self, alias: str, snapshot: str, *, actor: str, at: str, reason: str,
              after: int, promotes: bool = False, along: Sequence[str] = ()) -> None:  # fmt: skip
        """Point an alias to the version of a snapshot."""
        return

    def propose(self, snapshot: str, *, actor: str, at: str, reason: str, after: int,
                expires: str, batch: int) -> None:  # fmt: skip
        """Have the version of a snapshot proposed for a person's approval."""
        return

    def pause(self, *, actor: str, at: str, reason: str) -> None:
        """Have the journal hold the model's healing until somebody releases it."""
        return

    def log_metrics(self, step: StepMetrics) -> None:
        """Figures of a batch."""
        return

    def knows(self, snapshot: str, version: int) -> None:
        """A snapshot that serves again, perhaps of an earlier run."""
        return

    def account(self, snapshot: str) -> Account | None:
        """What was handed over of a snapshot; None for those of earlier runs."""
        return None

    def results(self) -> list[Event]:
        """What was done since the last call, in order."""
        return []

    def send_steps(self) -> None:
        """Hand over the figures of the batches until now."""
        return

    def sync(self) -> None:
        """Wait until all that was handed over is on disk."""
        return

    def flush(
        self,
        patience: float,
        on_left: Callable[[int], None] = lambda left: None,
        *,
        until: int | None = None,
    ) -> None:
        """Wait until the registry has everything, or the first ``until`` that were handed over."""
        return


class RunRecorder:
    """Writes down what happens: the log first, the registry second.

    It is the one appender of a session's log, and takes back what the registry's writer did. The
    ``watchers`` are shown every event.
    ``known`` is the last move of the champion by others that is known of. The ``recorded`` events
    were written before: they are matched and shown, not written again. ``left`` is what the
    registry's writer had done by then.
    """

    def __init__(
        self,
        log: Log,
        writer: Writer,
        clock: Clock,
        actor: str,
        watchers: Sequence[Watcher] = (),
        known: Callable[[], int] = lambda: 0,
        recorded: Iterable[Event] = (),
        left: Sequence[Event] = (),
    ) -> None:
        self._log = log
        self._writer = writer
        self._actor = actor
        self._watchers = tuple(watchers)
        self._clock = clock
        self._known = known
        self._told: set[tuple[str, str]] = set()
        self.record = RecordedEvents(recorded, self._beside)
        self._left = list(left)
        self._last: Event | None = None

    @property
    def pending(self) -> int:
        """Writes to the registry that are still to be done."""
        return self._writer.pending

    def note(self, event: Event) -> None:
        """Append one event and show it; of a record, match the next one."""
        noted = self.record.match(event) if self.record.expected else None
        if noted is None:
            if self._left:
                self._take_left()
            noted = self._log.append(event)
        self._last = noted
        for watch in self._watchers:
            watch(noted)

    def stop(self, batch: int) -> None:
        """The stream ends before its time; within a record that is no event of its own."""
        if self.record.expected is None:
            self.note(StreamStopped(batch=batch))

    def finish(self, end: RunFinished) -> None:
        """The last event, however much of a record was gone through."""
        self._take_left()
        self._show(self._log.append(end))

    def sync(self) -> None:
        """What was noted is on disk when it returns."""
        self._log.sync()

    def _show(self, event: Event) -> None:
        for watch in self._watchers:
            watch(event)

    def _take_left(self) -> None:
        left, self._left = self._left, []
        self.take(left)

    def _beside(self, event: Event) -> None:
        """Take an event of the record that is not the stream's own."""
        self._told.add(identity(event))
        self._show(event)

    def keep(self, snapshot: Snapshot, adapter: bytes) -> None:
        """Note a snapshot, then have it registered."""
        self.note(SnapshotTaken.of(snapshot))
        head = self._last.digest if self._last else ""
        self._writer.add(replace(snapshot, log_head=head), adapter)

    def score_later(
        self, snapshot: str, batch: int, scores: AnyScores, metrics: Mapping[str, float]
    ) -> None:
        """A snapshot's labels have come: note its figures, then have them registered."""
        self.note(SnapshotScored(snapshot=snapshot, batch=batch, scores=scores))
        self._writer.score(snapshot, batch, dict(metrics), scores)

    def point(
        self, alias: str, snapshot: str, reason: str, *, promotes: bool = False,
        along: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """Have an alias moved to a snapshot's version, and then those that go ``along``;
        ``promotes`` where nobody healed it.
        """
        self._writer.point(
            alias, snapshot, actor=self._actor, at=self._at(), reason=reason, after=self._known(),
            promotes=promotes, along=along,
        )  # fmt: skip

    def propose(self, snapshot: str, reason: str, hours: float, batch: int) -> None:
        """Have a snapshot's version, as of a batch, proposed for a person's approval within so many
        hours.
        """
        at = self._at()
        expires = datetime.fromisoformat(at) + timedelta(hours=hours)
        self._writer.propose(
            snapshot, actor=self._actor, at=at, reason=reason, after=self._known(),
            expires=expires.isoformat(timespec="milliseconds"), batch=batch,
        )  # fmt: skip

    def pause(self, reason: str) -> None:
        """Have the model's healing held until somebody releases it."""
        self._writer.pause(actor=self._actor, at=self._at(), reason=reason)

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        """Figures of a batch, for the registry's run."""
        at_ms = round(datetime.fromisoformat(self._at()).timestamp() * 1000)
        self._writer.log_metrics(StepMetrics(step, metrics, at_ms))

    def send_steps(self) -> None:
        """Hand over the figures of the batches until now: at the same place on each walk."""
        self._writer.send_steps()

    def restored(self, snapshot: str, version: int) -> None:
        """A snapshot that serves again, perhaps of an earlier run."""
        self._writer.knows(snapshot, version)

    def catch_up(self) -> None:
        """Note what the registry was brought by now; a record says that itself."""
        if self.record.expected is None:
            self.take(self._writer.results())

    def take(self, results: Sequence[Event]) -> None:
        """Note what the writer did, unless it was noted before the run was interrupted."""
        for event in results:
            if identity(event) not in self._told:
                self._show(self._log.append(event))

    def _at(self) -> str:
        """When the last event was written down: the same when it is gone through again."""
        if self._last is not None:
            return self._last.at
        return self._clock().isoformat(timespec="milliseconds")
