"""The event log of one run: its chain, its end, and what it says of the run's snapshots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from selfheal_cli.audit.chain import ChainWatch, Mark
from selfheal_cli.audit.finding import Audit
from selfheal_cli.errors import EventLogError
from selfheal_cli.history.event_log import AFTER_THE_END, read
from selfheal_cli.history.events import Event, Kind

PARTS_OF_THE_END = (Kind.RUN_FINISHED, Kind.RUN_RESUMED)


@dataclass(frozen=True, slots=True)
class Taken:
    """A snapshot as the log has it; ``scored`` holds scores that came with late labels."""

    data: Mapping[str, Any]
    digest: str
    scored: Mapping[str, Any] | None = None


@dataclass(slots=True)
class RunRecord:
    """What a run's log says."""

    run_id: str = ""
    base: str = ""
    base_sha256: str = ""
    head: str = ""
    mark: Mark = field(default_factory=Mark)
    ended: bool = False
    snapshots: dict[str, Taken] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    moves: list[Mapping[str, Any]] = field(default_factory=list)

    def add(self, event: Event) -> None:
        """Take the next event."""
        data = event.data
        self.head = event.digest
        if event.kind is Kind.RUN_STARTED:
            self.run_id = data["run_id"]
        elif event.kind is Kind.TRAINED:
            self.base, self.base_sha256 = data["base"], data["base_sha256"]
        elif event.kind is Kind.SNAPSHOT:
            self.snapshots[data["id"]] = Taken(data, event.digest)
        elif event.kind is Kind.SCORED and data["snapshot"] in self.snapshots:
            taken = self.snapshots[data["snapshot"]]
            self.snapshots[data["snapshot"]] = replace(taken, scored=data["scores"])
        elif event.kind is Kind.REGISTERED:
            self.versions[data["snapshot"]] = data["version"]
        elif event.kind is Kind.ALIAS_MOVED:
            self.moves.append(data)


def audit_log(
    audit: Audit, path: Path, where: str, *, running: bool, signed: Mark | None = None
) -> RunRecord:
    """Walk a log; what of it holds is returned, even where the rest does not."""
    record = RunRecord()
    watch = ChainWatch(audit, where, signed)
    try:
        for event in read(path):
            if record.ended and event.kind not in AFTER_THE_END:
                audit.found(where, f"event {event.sequence} comes after the run's end")
            if event.kind in PARTS_OF_THE_END:
                record.ended = event.kind is Kind.RUN_FINISHED
            record.add(event)
            watch.see(event.sequence, event.digest)
            audit.checked["events"] += 1
    except (EventLogError, KeyError) as exc:
        audit.found(where, str(exc))
        return record
    record.mark = watch.end()
    if not record.ended and not running:
        audit.found(
            where,
            "ends without its last event: the run was killed, or the end was cut off; "
            "'selfheal run --resume' tells",
        )
    audit.checked["event logs"] += 1
    return record


def audit_head(
    audit: Audit, record: RunRecord, tags: Mapping[str, str], where: str, *, running: bool
) -> None:
    """The log's end against the one that the registry keeps."""
    kept = tags.get("selfheal.log_head")
    if running or not record.ended or kept == record.head:
        return
    if kept is None:
        audit.found(where, "the registry keeps no end of this log; 'selfheal flush' brings it")
    else:
        audit.found(
            where,
            f"its last event is {record.head[:12]}…, the registry keeps {kept[:12]}…: lines were "
            "put in or taken away at the end, or the whole log was replaced",
        )
