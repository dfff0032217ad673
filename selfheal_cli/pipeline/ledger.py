"""Writes down what happens: the event log first, the registry second."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from selfheal_cli.history.event_log import Clock, EventLog
from selfheal_cli.history.events import Event, Kind
from selfheal_cli.records import AliasMove, Snapshot
from selfheal_cli.registry.writer import RegistryWriter
from selfheal_cli.scores import AnyScores

Observer = Callable[[Event], None]


class Ledger(Protocol):
    """What the rooms of a stream need of whoever writes down."""

    actor: str

    @property
    def pending(self) -> int:
        """Writes to the registry that are still to be done."""

    def note(self, kind: Kind, data: Mapping[str, Any]) -> None:
        """Append one event and show it."""

    def keep(self, snapshot: Snapshot, adapter: bytes) -> None:
        """Note a snapshot, then have it registered."""

    def score_later(
        self, snapshot: str, batch: int, scores: AnyScores, metrics: Mapping[str, float]
    ) -> None:
        """A snapshot's labels have come: note its figures, then have them registered."""

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        """Figures of a batch, for the registry's run."""

    def point(self, alias: str, snapshot: str, reason: str) -> None:
        """Have an alias moved to a snapshot's version."""

    def restored(self, snapshot: str, version: int) -> None:
        """A snapshot that serves again, perhaps of an earlier run."""

    def moved(self, move: AliasMove) -> None:
        """Note an alias that was moved."""

    def catch_up(self, *, wait: bool = False) -> None:
        """Note what has been written by now; ``wait`` for all of it, and raise its errors."""

    def now(self) -> str:
        """The time, as it is written down."""


class RunLedger:
    """The one appender of a run's log; it also takes back what the registry's writer did."""

    def __init__(
        self, log: EventLog, writer: RegistryWriter, observe: Observer, clock: Clock, actor: str
    ) -> None:
        self._log = log
        self._writer = writer
        self.actor = actor
        self._observe = observe
        self._clock = clock

    @property
    def pending(self) -> int:
        """See `Ledger`."""
        return self._writer.pending

    def note(self, kind: Kind, data: Mapping[str, Any]) -> None:
        """See `Ledger`."""
        self._observe(self._log.append(kind, data))

    def keep(self, snapshot: Snapshot, adapter: bytes) -> None:
        """See `Ledger`."""
        self.note(
            Kind.SNAPSHOT,
            {
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
            },
        )
        self._writer.add(snapshot, adapter)

    def score_later(
        self, snapshot: str, batch: int, scores: AnyScores, metrics: Mapping[str, float]
    ) -> None:
        """See `Ledger`."""
        self.note(Kind.SCORED, {"snapshot": snapshot, "batch": batch, "scores": scores.as_dict()})
        self._writer.score(snapshot, batch, dict(metrics), scores.rows)

    def point(self, alias: str, snapshot: str, reason: str) -> None:
        """See `Ledger`."""
        self._writer.point(alias, snapshot, actor=self.actor, at=self.now(), reason=reason)

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        """See `Ledger`."""
        self._writer.log_metrics(metrics, step)

    def restored(self, snapshot: str, version: int) -> None:
        """See `Ledger`."""
        self._writer.knows(snapshot, version)

    def moved(self, move: AliasMove) -> None:
        """See `Ledger`."""
        self.note(Kind.ALIAS_MOVED, move.as_dict())

    def catch_up(self, *, wait: bool = False) -> None:
        """See `Ledger`."""
        try:
            if wait:
                self._writer.flush()
        finally:
            for result in self._writer.results():
                if isinstance(result, AliasMove):
                    self.moved(result)
                else:
                    self.note(
                        Kind.REGISTERED, {"snapshot": result.snapshot, "version": result.version}
                    )

    def now(self) -> str:
        """See `Ledger`."""
        return self._clock().isoformat(timespec="milliseconds")
