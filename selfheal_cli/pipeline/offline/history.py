"""What happened to a model, from its runs' event logs and from its journal, in one list."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selfheal_cli.events import types as events
from selfheal_cli.events.archive import logs_of
from selfheal_cli.events.event import Event, OfBatch
from selfheal_cli.events.log import keys_of, read
from selfheal_cli.events.state import RunState
from selfheal_cli.registry.base import Registry
from selfheal_cli.registry.journal import Entry, EntryKind
from selfheal_cli.workspace import WORKSPACE

RUNS_OWN = (EntryKind.LEASED, EntryKind.RELEASED)


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One entry. ``before`` and ``after`` are versions where it changed which one serves."""

    at: str
    kind: str
    actor: str
    reason: str
    run: str
    batch: int | None
    before: int | None
    after: int | None
    data: Mapping[str, Any]

    def concerns(self, version: int) -> bool:
        """Whether it is about a version."""
        return version in (self.before, self.after, self.data.get("version"))

    @property
    def made(self) -> set[int]:
        """The versions that came of it, or serve since."""
        return {one for one in (self.after, self.data.get("version")) if one is not None}


def model_history(
    model: str, registry: Registry | None, workspace: Path = WORKSPACE
) -> list[HistoryEntry]:
    """Everything by time; each move of an alias once, from the journal.

    A log and the journal keep their own order, even where the clock was set back.
    Raises `EventLogError` for a log whose chain does not hold.
    """
    histories = [of_run(log, moves=not registry) for log in logs_of(model, workspace)]
    if registry is not None:
        histories.append([_from_entry(entry) for entry in registry.entries(model)])
    timed = [pair for one in histories for pair in _timed(one)]
    return [one for _, one in sorted(timed, key=lambda pair: pair[0])]


def until(happenings: Iterable[HistoryEntry], at: str) -> list[HistoryEntry]:
    """What had happened by a time (ISO 8601, UTC), of a list in order."""
    return [one for latest, one in _timed(happenings) if latest <= at]


def _timed(happenings: Iterable[HistoryEntry]) -> Iterator[tuple[str, HistoryEntry]]:
    """Each with the latest time that had been read off a clock by then."""
    latest = ""
    for one in happenings:
        latest = max(latest, one.at)
        yield latest, one


@dataclass
class _Actions(RunState):
    """What a run did, and the versions of its snapshots."""

    versions: dict[str, int] = field(default_factory=dict)
    actions: list[Event] = field(default_factory=list)

    def apply(self, event: Event) -> None:
        """Take the next event."""
        super().apply(event)
        if isinstance(event, events.VersionRegistered):
            self.versions[event.snapshot] = event.version
        elif event.is_action:
            self.actions.append(event)

    def entries(self, *, moves: bool) -> Iterator[HistoryEntry]:
        """In order, once the whole log is known: a version may get its number later."""
        actor = self.started.actor if self.started else ""
        for event in self.actions:
            if isinstance(event, events.AliasMoved):
                if moves:
                    move = event.move
                    yield self._entry(event, move.actor, move.source, move.target or None)
                continue
            before, after, version = _served(event)
            who = event.actor if isinstance(event, events.DecidedOutside) else actor
            served = self.versions.get(before), self.versions.get(after, version)
            yield self._entry(event, who, *served)

    def _entry(
        self, event: Event, actor: str, before: int | None, after: int | None
    ) -> HistoryEntry:
        batch = event.batch if isinstance(event, OfBatch) else None
        return HistoryEntry(
            event.at, event.kind, actor, event.why, self.run_id, batch, before, after,
            keys_of(event),
        )  # fmt: skip


def _served(event: Event) -> tuple[str, str, int | None]:
    """The snapshots that served before and after, and the version where that is written down."""
    match event:
        case events.HealJudged():
            return event.from_snapshot, event.to_snapshot, None
        case events.RolledBack() | events.ChampionFollowed():
            return event.from_snapshot, event.to_snapshot, event.version or None
        case events.HealRefuted():
            return "", event.to_snapshot, None
        case events.RollbackDeclined():
            return "", "", event.version
    return "", "", None


def of_run(log: Path, *, moves: bool = True) -> list[HistoryEntry]:
    """What one run did, in order; its moves of aliases only if they are wanted."""
    return list(_Actions.of(read(log)).entries(moves=moves))


def _from_entry(entry: Entry) -> HistoryEntry:
    data = entry.data
    reason = str(data.get("reason", ""))
    if entry.kind in RUNS_OWN:
        reason = f"run {data['run']}"
    elif entry.kind in (EntryKind.REJECTED, EntryKind.APPROVED):
        reason = f"proposal {data['proposal']}: {reason}"
    elif entry.kind in (EntryKind.PRUNED, EntryKind.SPARED):
        reason = ", ".join(f"v{number}" for number in data["versions"])
    elif entry.kind is EntryKind.MODE:
        reason = f"{data['mode']}: {reason}"
    elif entry.kind is EntryKind.FOUR_EYES:
        reason = f"{'two people' if data['on'] else 'one person'}: {reason}"
    return HistoryEntry(
        entry.at,
        entry.kind.value,
        entry.actor,
        reason,
        str(data.get("run", "")),
        None,
        data.get("source"),
        data.get("target") or None,
        {**data, "entry": entry.sequence},
    )
