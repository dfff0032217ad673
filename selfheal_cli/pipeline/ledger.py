"""Writes down what happens: the event log first, the registry second."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from selfheal_cli.history.event_log import Clock, EventLog
from selfheal_cli.history.events import Event, Kind
from selfheal_cli.records import AliasMove, Snapshot
from selfheal_cli.registry.writer import RegistryWriter

Observer = Callable[[Event], None]


class Ledger:
    """The one appender of a run's log; it also takes back what the registry's writer did."""

    def __init__(
        self, log: EventLog, writer: RegistryWriter, observe: Observer, clock: Clock, actor: str
    ) -> None:
        self.log = log
        self.writer = writer
        self.actor = actor
        self._observe = observe
        self._clock = clock

    def note(self, kind: Kind, data: Mapping[str, Any]) -> None:
        """Append one event and show it."""
        self._observe(self.log.append(kind, data))

    def keep(self, snapshot: Snapshot, adapter: bytes) -> None:
        """Note a snapshot, then have it registered."""
        self.note(
            Kind.SNAPSHOT,
            {
                "id": snapshot.id,
                "phase": snapshot.phase.value,
                "batch": snapshot.batch,
                "sha256": snapshot.sha256,
                "scores": snapshot.scores.as_dict(),
                "evaluation": snapshot.evaluation.value,
                "reason": snapshot.reason,
                "parent": snapshot.parent,
                "heal_id": snapshot.heal_id,
            },
        )
        self.writer.add(snapshot, adapter)

    def point(self, alias: str, snapshot: str, reason: str) -> None:
        """Have an alias moved to a snapshot's version."""
        self.writer.point(alias, snapshot, actor=self.actor, at=self.now(), reason=reason)

    def moved(self, move: AliasMove) -> None:
        """Note an alias that was moved."""
        self.note(Kind.ALIAS_MOVED, move.as_dict())

    def catch_up(self, *, wait: bool = False) -> None:
        """Note what the writer has done by now; ``wait`` for all of it, and raise its errors."""
        try:
            if wait:
                self.writer.flush()
        finally:
            for result in self.writer.results():
                if isinstance(result, AliasMove):
                    self.moved(result)
                else:
                    self.note(
                        Kind.REGISTERED, {"snapshot": result.snapshot, "version": result.version}
                    )

    def now(self) -> str:
        """The time, as it is written down."""
        return self._clock().isoformat(timespec="milliseconds")
