"""What is told of a model, and which of a run's events say it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from selfheal_cli.actor import now_text
from selfheal_cli.events import types as events
from selfheal_cli.events.event import Event, OfBatch
from selfheal_cli.records import Advice

KINDS = {
    "heal-refused": "a heal did worse than what served, failed, or its assumption did not hold",
    "rollback": "a run went back to an earlier version, or could not",
    "champion-moved": "somebody else moved the champion",
    "mode-changed": "heals may do something else",
    "proposal": "a heal waits for approval",
    "paused": "heals did harm, and healing stopped",
    "canary": "a version answers a share of requests, or that is over",
    "drift": "the stream began to drift, or a column moved",
    "verdict": "healing cannot help any more: retrain",
    "handover": "labelled rows were written for whoever retrains",
    "healer-down": "the healer has said nothing for a minute",
    "labels-stopped": "no label has come for a day",
}
OF_EVENTS: tuple[tuple[tuple[type[Event], ...], str], ...] = (
    ((events.HealRejected, events.HealRefuted, events.HealFailed), "heal-refused"),
    ((events.RolledBack, events.RollbackFailed), "rollback"),
    ((events.ModeChanged,), "mode-changed"),
    ((events.ProposalMade,), "proposal"),
    ((events.HealingPaused,), "paused"),
    ((events.CanaryBegan, events.CanaryOrdered, events.CanaryEnded), "canary"),
)
QUIET = timedelta(hours=1)  # between two words on drift of the same stream
SPACE = uuid.UUID("5f1d1f5e-0a76-4f0e-9a0b-6d8f0f3b7a11")  # of delivery ids


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing to be told, in a line ``text`` and as ``data``. What happened once has one ``id``,
    however often it is read out of a log.
    """

    id: str
    kind: str
    at: str
    text: str
    data: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, kind: str, at: str, text: str, *about: object, **data: Any) -> Notice:
        """``about`` says what tells it from any other notice."""
        return cls(str(uuid.uuid5(SPACE, "/".join(map(str, about)))), kind, at, text, data)


def of_handover(model: str, folder: Path, rows: int, reason: str) -> Notice:
    """Labelled rows lie in a folder for whoever retrains."""
    text = f"{rows:,} labelled rows for a retraining are in {folder}: {reason}"
    where = str(folder.resolve())
    about = {"folder": where, "rows": rows, "why": reason}
    return Notice.of("handover", now_text(), text, model, where, **about)


class NoticeFold:
    """The notices of a run, from its events in order."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._run = ""
        self._drifting = False
        self._drift_at = ""
        self._advice = Advice.UNDECIDED

    def add(self, event: Event) -> Iterator[Notice]:
        """What the next event has to be told of it."""
        if isinstance(event, events.RunStarted):
            self._run = event.run_id
        kind = self._kind(event)
        if kind:
            batch = event.batch if isinstance(event, OfBatch) else None
            about = (self._model, self._run, event.sequence)
            if isinstance(event, events.ModeChanged):  # each run says it when it begins
                about = (self._model, "mode", event.order)
            data = {"run_id": self._run, "batch": batch, "event": event.kind, "why": event.why}
            yield Notice.of(kind, event.at, self._text(event), *about, **data)

    def _kind(self, event: Event) -> str:
        if isinstance(event, events.ChampionFollowed):  # the first only says where a run begins
            return "champion-moved" if event.batch else ""
        return next((kind for types, kind in OF_EVENTS if isinstance(event, types)), "") or (
            self._of_stream(event)
        )

    def _of_stream(self, event: Event) -> str:
        if isinstance(event, events.BatchScored):
            began = event.drifting and not self._drifting
            self._drifting = event.drifting
            return "drift" if began and self._is_new(event) else ""
        if isinstance(event, events.ColumnMoved):
            return "" if event.back else "drift"
        if isinstance(event, events.SegmentsDrifted):
            return "drift"
        if isinstance(event, events.Diagnosed):
            before, self._advice = self._advice, event.diagnosis.advice
            return "verdict" if self._advice is Advice.GONE and before is not Advice.GONE else ""
        return ""

    def _is_new(self, event: Event) -> bool:
        """Whether drift was not told of within the hour: it may come and go with each batch."""
        before, self._drift_at = self._drift_at, event.at
        return not before or datetime.fromisoformat(event.at) >= (
            datetime.fromisoformat(before) + QUIET
        )

    def _text(self, event: Event) -> str:
        if isinstance(event, events.BatchScored):
            return f"the stream drifts: {event.reason or f'z is {event.z:.2f}'}"
        if isinstance(event, events.ProposalMade):
            what = f"approve {event.proposal} --model {self._model}"
            return f"{event}; 'selfheal {what}' shows its plan and asks"
        if isinstance(event, events.Diagnosed):
            return f"healing cannot help any more: {event.why}"
        return str(event)
