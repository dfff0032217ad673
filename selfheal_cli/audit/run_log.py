"""Audits the event log of one run: its chain, its end, and the registry's entry of the run."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isclose
from pathlib import Path

from selfheal_cli.audit.finding import Audit, ChainHead, ChainWatch
from selfheal_cli.config import flattened
from selfheal_cli.drift.figures import batch_figures
from selfheal_cli.errors import EventLogError
from selfheal_cli.events.event import Event
from selfheal_cli.events.log import AFTER_THE_END, read
from selfheal_cli.events.run_record import RunRecord
from selfheal_cli.events.types import BatchScored, SnapshotTaken
from selfheal_cli.records import READINGS, StoredRun
from selfheal_cli.registry.base import MAX_PARAM

MAX_SHOWN = 3  # steps of one figure that are named; the others are counted
UNLIKE_THE_FILE = ("monitors",)  # parameters that are a sentence, not the setting
OF_SNAPSHOTS = "est_"  # a healed snapshot in the same batch has figures of its own by these names
BY_CHANCE = ("pending_writes",)  # depends on how fast the registry was


@dataclass
class AuditedRun(RunRecord):
    """A run's record, with the figures of each batch by name (``steps``). In batch ``healed`` its
    last snapshot was taken: the registry may have readings of it where the run was killed in it.

    ``heads`` are digests that the journal names, each with its entry, and no event had yet.
    """

    steps: dict[str, dict[int, float]] = field(default_factory=dict)
    heads: dict[str, int] = field(default_factory=dict)
    healed: int = 0

    def apply(self, event: Event) -> None:
        """Take the next event."""
        super().apply(event)
        self.heads.pop(event.digest, None)
        if isinstance(event, SnapshotTaken):
            self.healed = event.batch
        if isinstance(event, BatchScored):
            for name, value in batch_figures(event).items():
                self.steps.setdefault(name, {})[event.batch] = value


def audit_log(
    audit: Audit,
    record: AuditedRun,
    path: Path,
    where: str,
    *,
    alive: bool,
    signed: ChainHead | None = None,
) -> ChainHead:
    """Walk a log and fold the part that can be read; returns its last link."""
    watch = ChainWatch(audit, where, signed)
    try:
        for event in read(path):
            if record.finished and not isinstance(event, AFTER_THE_END):
                audit.report(where, f"event {event.sequence} comes after the run's end")
            record.apply(event)
            watch.add(event.sequence, event.digest)
            audit.checked["events"] += 1
    except EventLogError as exc:
        audit.report(where, str(exc))
        return ChainHead()
    mark = watch.end()
    if alive:
        audit.note(where, "is under way: this is what there was at one moment")
    elif not record.finished:
        audit.report(
            where,
            "ends without its last event: the run was killed, or the end was cut off; "
            "'selfheal run --resume' tells",
        )
    audit.checked["event logs"] += 1
    return mark


def audit_stored_run(
    audit: Audit,
    record: AuditedRun,
    stored: StoredRun,
    where: str,
    *,
    arriving: bool,
) -> None:
    """Compare the registry's entry of a run with its log; while writes arrive it may hold less."""
    if stored.deleted:
        audit.report(
            where, f"was deleted in the registry; 'mlflow runs restore --run-id {record.run_id}'"
        )
    _audit_head(audit, record, stored, where, arriving=arriving)
    _audit_parameters(audit, record, stored, where)
    for name, steps in record.steps.items():
        if name not in BY_CHANCE:
            _audit_figure(audit, record, name, steps, stored, where, arriving=arriving)
    audit.checked["runs"] += 1


def _audit_head(
    audit: Audit, record: RunRecord, stored: StoredRun, where: str, *, arriving: bool
) -> None:
    """Compare the log's last digest with the registry's."""
    kept = stored.tags.get("selfheal.log_head")
    if arriving or not record.finished or kept == record.head:
        return
    if kept is None:
        audit.report(where, "the registry keeps no end of this log; 'selfheal flush' brings it")
    else:
        audit.report(
            where,
            f"its last event is {record.head[:12]}…, the registry keeps {kept[:12]}…: lines were "
            "put in or taken away at the end, or the whole log was replaced",
        )


def _audit_parameters(audit: Audit, record: RunRecord, stored: StoredRun, where: str) -> None:
    expected = flattened(record.config)
    parameters = flattened({k: v for k, v in stored.parameters.items() if k in expected})
    if not parameters:  # a run that registers a wrapped model has other parameters
        return
    for name, value in sorted(expected.items()):
        if name.split(".")[0] in UNLIKE_THE_FILE:
            continue
        kept = parameters.get(name)
        if kept != value[:MAX_PARAM]:
            audit.report(where, f"parameter {name} is {kept!r}, the log says {value!r}")


def _audit_figure(
    audit: Audit,
    record: AuditedRun,
    name: str,
    steps: dict[int, float],
    stored: StoredRun,
    where: str,
    *,
    arriving: bool,
) -> None:
    """Compare one figure at every batch."""
    differing = []
    # a snapshot's figure may have the same name and batch: then one of the values must agree
    shared = name.startswith(OF_SNAPSHOTS)
    kept: dict[int, list[float]] = {}
    for step, value in stored.figures.get(name, ()):
        kept.setdefault(step, []).append(value)
    for step, value in steps.items():
        values = kept.pop(step, [])
        if not values and (arriving or (record.finished and record.finished.ended_by)):
            continue
        same = [isclose(number, value, rel_tol=1e-9, abs_tol=1e-12) for number in values]
        if not (any(same) if shared else values and all(same)):
            shown = " and ".join(map(str, values)) or "gone"
            differing.append(f"{shown} at batch {step}, the log says {value}")
    if name in READINGS:
        kept.pop(record.healed, None)
    if not (arriving or shared):
        differing += [f"{v[-1]} at batch {step}, the log has none" for step, v in kept.items()]
    for difference in differing[:MAX_SHOWN]:
        audit.report(where, f"metric {name} is {difference}")
    if len(differing) > MAX_SHOWN:
        more = len(differing) - MAX_SHOWN
        audit.report(where, f"metric {name} differs at {more} batches more")
