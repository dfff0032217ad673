"""What a run that is gone through again did the first time.

The rooms of a stream are deterministic in the rows and in a few answers from outside (what the
registry called best, when a heal's worker was done, what somebody else moved). So a run is resumed
or checked by walking the same rows again: every event must be the recorded one, and the answers
from outside are taken from the record.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from typing import Any

from selfheal_cli import __version__
from selfheal_cli.errors import EventLogError
from selfheal_cli.events.types import FORMAT, Event, Kind, format_of
from selfheal_cli.model.build import numeric_build, why_other_bytes

# what the registry's writer, or the run's own end, wrote between the stream's events
BESIDE = frozenset(
    {
        Kind.REGISTERED,
        Kind.ALIAS_MOVED,
        Kind.MOVE_REFUSED,
        Kind.RUN_FINISHED,
        Kind.RUN_RESUMED,
    }
)
BY_CHANCE = ("pending_writes",)  # depends on how fast the registry was
# what earlier records do not have: they still can be gone through
LATER = ("shifts", "features", "features_in_all")


def written_by() -> dict[str, Any]:
    """What a run's first words say of whoever writes its record."""
    versions = {"selfheal": __version__, "mlflow": version("mlflow"), "torch": version("torch")}
    return {"format": FORMAT, "build": numeric_build(), "versions": versions}


class RecordedEvents:
    """The events of a log, to be matched one after the other.

    ``beside`` takes those that are not the stream's own, in their place.
    """

    def __init__(
        self,
        events: Iterable[Event],
        beside: Callable[[Event], None] = lambda event: None,
    ) -> None:
        self._events = iter(events)
        self._beside = beside
        self._started: Mapping[str, Any] = {}
        self._next: Event | None = None
        self._advance()

    @property
    def expected(self) -> Event | None:
        """The next event of the stream; None where the record ends."""
        return self._next

    def match(self, kind: Kind, data: Mapping[str, Any]) -> Event | None:
        """The recorded event, None where the record ends.

        Raises `EventLogError` where something else was recorded.
        """
        event = self._next
        if event is None:
            return None
        if kind is Kind.RUN_STARTED and event.kind is kind:
            self._started = event.data  # what a run is told is taken from there
        elif event.kind is not kind or _plain(event.data) != self._as_of(event.data, data):
            raise EventLogError(
                f"event {event.sequence}: recorded was {_told(event.kind, event.data)}, the same "
                f"rows now give {_told(kind, data)}{self._difference(event.data, data)}; "
                f"{why_other_bytes(self._started)}"
            )
        self._advance()
        return event

    def _as_of(self, recorded: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
        """What a record of its age would have held."""
        older = format_of(self._started) < FORMAT
        new = {name for name in (data if older else LATER) if name not in recorded}
        return {name: value for name, value in _plain(data).items() if name not in new}

    def _difference(self, recorded: Mapping[str, Any], now: Mapping[str, Any]) -> str:
        """The first value that differs."""
        before, after = _plain(recorded), self._as_of(recorded, now)
        for name in sorted(before.keys() | after.keys()):
            if before.get(name) != after.get(name):
                return f" ({name} was {before.get(name)!r}, is {after.get(name)!r})"[:300]
        return ""

    def _advance(self) -> None:
        for event in self._events:
            if event.kind not in BESIDE:
                self._next = event
                return
            self._beside(event)
        self._next = None


def _plain(data: Mapping[str, Any]) -> dict[str, Any]:
    """Data as it comes back from a log."""
    plain: dict[str, Any] = json.loads(json.dumps(data))
    return {name: value for name, value in plain.items() if name not in BY_CHANCE}


def _told(kind: Kind, data: Mapping[str, Any]) -> str:
    return f"'{kind}'" + (f" of batch {data['batch']}" if "batch" in data else "")
