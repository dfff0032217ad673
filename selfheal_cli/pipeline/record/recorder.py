"""Writes down what happens: the event log first, the registry second."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from functools import partial
from typing import Any, Protocol

from selfheal_cli.events.log import Clock, EventLog
from selfheal_cli.events.types import Event, Kind
from selfheal_cli.pipeline.record.replayed import RecordedEvents
from selfheal_cli.records import AliasMove, Snapshot
from selfheal_cli.registry.base import Refused, Result, StepMetrics
from selfheal_cli.registry.writer import RegistryWriter
from selfheal_cli.rollback.trust import ByTheLog, Trust
from selfheal_cli.scores import AnyScores

Observer = Callable[[Event], None]


class Ledger(Protocol):
    """What the rooms of a stream need of whoever writes down."""

    @property
    def pending(self) -> int:
        """Writes to the registry that are still to be done."""

    @property
    def full(self) -> bool:
        """So many writes wait that healing should pause."""

    def note(self, kind: Kind, data: Mapping[str, Any]) -> None:
        """Append one event and show it."""

    def keep(self, snapshot: Snapshot, adapter: bytes) -> None:
        """Note a snapshot, then have it registered."""

    def is_kept(self, *, wait: bool) -> bool:
        """Whether all that was noted and kept is on disk; ``wait`` until it is."""

    def score_later(
        self, snapshot: str, batch: int, scores: AnyScores, metrics: Mapping[str, float]
    ) -> None:
        """A snapshot's labels have come: note its figures, then have them registered."""

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        """Figures of a batch, for the registry's run."""

    def point(self, alias: str, snapshot: str, reason: str, *, promotes: bool = False) -> None:
        """Have an alias moved to a snapshot's version; ``promotes`` where nobody healed it."""

    def restored(self, snapshot: str, version: int) -> None:
        """A snapshot that serves again, perhaps of an earlier run."""

    def arrival(self) -> Callable[[], None]:
        """A wait, for any thread, until the registry has all that was written by now.

        It raises `RegistryUnreachable` at once where the registry does not answer.
        """

    @property
    def trust(self) -> Trust:
        """By which versions are judged that a rollback may go to, as things are now."""

    def catch_up(self, *, wait: bool = False) -> None:
        """Note what has been written by now; ``wait`` for all of it.

        Raises `RegistryUnreachable` at once where the registry does not answer.
        """


class RunLedger:
    """The one appender of a run's log; it also takes back what the registry's writer did.

    ``known`` is the last move of the champion by others that the run knows of. The ``recorded``
    events were written before the run was interrupted: they are matched and shown, not written
    again. ``left`` is what the registry's writer had done by then.
    """

    def __init__(
        self,
        log: EventLog,
        writer: RegistryWriter,
        observe: Observer,
        clock: Clock,
        actor: str,
        known: Callable[[], int],
        recorded: Iterable[Event] = (),
        left: Sequence[Result] = (),
    ) -> None:
        self._log = log
        self._writer = writer
        self._actor = actor
        self._observe = observe
        self._clock = clock
        self._known = known
        self._told: set[tuple[Kind, object]] = set()
        self.record = RecordedEvents(recorded, self._beside)
        self._left = list(left)
        self._last: Event | None = None

    @property
    def pending(self) -> int:
        """See `Ledger`."""
        return self._writer.pending

    @property
    def full(self) -> bool:
        """See `Ledger`."""
        return self._writer.full

    def note(self, kind: Kind, data: Mapping[str, Any]) -> None:
        """See `Ledger`."""
        event = self.record.match(kind, data)
        if event is None:
            self._take_left()
            event = self._log.append(kind, data)
        self._last = event
        self._observe(event)

    def stop(self, batch: int) -> None:
        """The stream ends before its time; within a record that is no event of its own."""
        if self.record.expected is None:
            self.note(Kind.STREAM_STOPPED, {"batch": batch})

    def finish(self, result: Mapping[str, Any]) -> None:
        """The run's last event, however much of a record was gone through."""
        self._take_left()
        self._observe(self._log.append(Kind.RUN_FINISHED, result))

    def _take_left(self) -> None:
        left, self._left = self._left, []
        self.take(left)

    def _beside(self, event: Event) -> None:
        """Take an event of the record that is not the stream's own."""
        self._told.add(identity(event.kind, event.data))
        self._observe(event)

    def keep(self, snapshot: Snapshot, adapter: bytes) -> None:
        """See `Ledger`."""
        self.note(Kind.SNAPSHOT, snapshot_data(snapshot))
        head = self._last.digest if self._last else ""
        self._writer.add(replace(snapshot, log_head=head), adapter)

    def is_kept(self, *, wait: bool) -> bool:
        """See `Ledger`."""
        if wait:
            self._writer.sync()
        return self._writer.safe

    def score_later(
        self, snapshot: str, batch: int, scores: AnyScores, metrics: Mapping[str, float]
    ) -> None:
        """See `Ledger`."""
        self.note(Kind.SCORED, scored_data(snapshot, batch, scores))
        self._writer.score(snapshot, batch, dict(metrics), scores)

    def point(self, alias: str, snapshot: str, reason: str, *, promotes: bool = False) -> None:
        """See `Ledger`."""
        self._writer.point(
            alias, snapshot, actor=self._actor, at=self._at(), reason=reason, after=self._known(),
            promotes=promotes,
        )  # fmt: skip

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        """See `Ledger`."""
        at_ms = round(datetime.fromisoformat(self._at()).timestamp() * 1000)
        self._writer.log_metrics(StepMetrics(step, metrics, at_ms))

    def restored(self, snapshot: str, version: int) -> None:
        """See `Ledger`."""
        self._writer.knows(snapshot, version)

    def arrival(self) -> Callable[[], None]:
        """See `Ledger`."""
        self._writer.send_steps()
        return partial(self._writer.flush, 0.0, until=self._writer.given)

    @property
    def trust(self) -> Trust:
        """See `Ledger`; the run's own versions by its outbox, from any thread."""
        folder = self._log.path.parent
        account = self._writer.account
        return ByTheLog(self._writer.registry, folder.parent.parent, folder.name, account)

    def catch_up(self, *, wait: bool = False) -> None:
        """See `Ledger`."""
        if wait:
            self._writer.send_steps()
        if self.record.expected is not None:
            return  # the record says what had been written
        try:
            if wait:
                self._writer.flush(patience=0.0)
        finally:
            self.take(self._writer.results())

    def take(self, results: Sequence[Result]) -> None:
        """Note what the writer did, unless it was noted before the run was interrupted."""
        for result in results:
            kind, data = as_event(result)
            if identity(kind, data) not in self._told:
                event = self._log.append(kind, data)
                self._observe(event)

    def _at(self) -> str:
        """When the last event was written down: the same when it is gone through again."""
        if self._last is not None:
            return self._last.at
        return self._clock().isoformat(timespec="milliseconds")


def snapshot_data(snapshot: Snapshot) -> dict[str, Any]:
    """What is noted of a snapshot."""
    return {
        "id": snapshot.id,
        "phase": snapshot.phase.value,
        "batch": snapshot.batch,
        "sha256": snapshot.sha256,
        "scores": snapshot.scores.as_dict() if snapshot.scores else None,
        "evaluation": snapshot.evaluation.value,
        "reason": snapshot.reason,
        "threshold": snapshot.threshold,
        "rejected": snapshot.rejected,
        "parent": snapshot.parent,
        "heal_id": snapshot.heal_id,
    }


def scored_data(snapshot: str, batch: int, scores: AnyScores) -> dict[str, Any]:
    """What is noted of a snapshot's late figures."""
    return {"snapshot": snapshot, "batch": batch, "scores": scores.as_dict()}


def as_event(result: Result) -> tuple[Kind, dict[str, Any]]:
    """What is noted of a result."""
    if isinstance(result, AliasMove):
        return Kind.ALIAS_MOVED, result.as_dict()
    if isinstance(result, Refused):
        reason = {"key": result.key, "alias": result.alias, "reason": result.reason}
        return Kind.MOVE_REFUSED, reason
    told = {name: value for name, value in asdict(result).items() if value != ""}
    return Kind.REGISTERED, told


def identity(kind: Kind, data: Mapping[str, Any]) -> tuple[Kind, object]:
    """What tells one result from another."""
    return kind, data.get("snapshot") or data.get("key")
