"""What happened to a model, from its runs' event logs and from its journal, in one list."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfheal_cli.config import WORKSPACE
from selfheal_cli.events.archive import logs_of
from selfheal_cli.events.log import read
from selfheal_cli.events.types import ACTIONS, Event, Kind
from selfheal_cli.registry.base import Registry
from selfheal_cli.registry.journal import Entry, EntryKind

WHY = ("error", "declined", "rejected", "sentence", "reason")  # the first that there is
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


def chronicle(
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


def of_run(log: Path, *, moves: bool = True) -> list[HistoryEntry]:
    """What one run did, in order; its moves of aliases only if they are wanted."""
    versions: dict[str, int] = {}
    actor, run, kept = "", "", list[Event]()
    for event in read(log):
        data = event.data
        if event.kind is Kind.RUN_STARTED:
            actor, run = data.get("actor", ""), data.get("run_id", "")
        elif event.kind is Kind.REGISTERED:
            versions[data["snapshot"]] = data["version"]
        elif event.kind in ACTIONS and (moves or event.kind is not Kind.ALIAS_MOVED):
            kept.append(event)
    return list(_from_events(kept, versions, actor, run))


def _from_events(
    events: list[Event], versions: Mapping[str, int], actor: str, run: str
) -> Iterator[HistoryEntry]:
    for event in events:
        data = event.data
        before = data.get("source", versions.get(data.get("from_snapshot", "")))
        after = data.get("target", versions.get(data.get("to_snapshot", ""), data.get("version")))
        why = next((str(data[key]) for key in WHY if data.get(key)), "")
        yield HistoryEntry(
            event.at,
            event.kind.value,
            data.get("actor", actor),
            why,
            run,
            data.get("batch"),
            before,
            after,
            data,
        )


def _from_entry(entry: Entry) -> HistoryEntry:
    data = entry.data
    reason = str(data.get("reason", ""))
    if entry.kind in RUNS_OWN:
        reason = f"run {data['run']}"
    elif entry.kind is EntryKind.REJECTED:
        reason = f"proposal {data['proposal']}: {reason}"
    elif entry.kind in (EntryKind.PRUNED, EntryKind.SPARED):
        reason = ", ".join(f"v{number}" for number in data["versions"])
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
        data.get("target"),
        {**data, "entry": entry.sequence},
    )
