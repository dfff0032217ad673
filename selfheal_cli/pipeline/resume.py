"""A run that was interrupted goes on where its record ends."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from selfheal_cli.config import RunConfig, recorded
from selfheal_cli.errors import EventLogError, RegistryUnreachable
from selfheal_cli.history.event_log import EventLog, read, recover
from selfheal_cli.history.events import Event, Kind
from selfheal_cli.model.network import use_one_thread
from selfheal_cli.pipeline.flush import bring
from selfheal_cli.pipeline.lease import RunLease, wrote
from selfheal_cli.pipeline.predecessors import GONE_THROUGH
from selfheal_cli.pipeline.prepare import prepare
from selfheal_cli.pipeline.publish import publish
from selfheal_cli.pipeline.run import Course, Finished, Surroundings, go
from selfheal_cli.pipeline.wrapped import wrapped_of
from selfheal_cli.registry.base import Lineage
from selfheal_cli.registry.outbox import NAME as OUTBOX_NAME
from selfheal_cli.registry.outbox import Outbox
from selfheal_cli.registry.results import Result, result_of
from selfheal_cli.registry.writer import RegistryWriter
from selfheal_cli.source.base import Source


@dataclass(frozen=True, slots=True)
class Record:
    """What a run's log says of it: its first event, how far it came, and whether it ended."""

    started: Event
    events: int
    batch: int
    parts: int  # how often it was resumed
    outcome: str  # empty where it has no end


def read_record(log: Path) -> Record:
    """Walk a log once; raises `EventLogError` where nothing was recorded."""
    started: Event | None = None
    events = batch = parts = 0
    outcome = ""
    for event in read(log):
        events += 1
        started = started or event
        if event.kind in GONE_THROUGH:
            batch = event.data["batch"]
        elif event.kind is Kind.RUN_FINISHED:
            outcome = event.data["outcome"]
        elif event.kind is Kind.RUN_RESUMED:
            parts, outcome = parts + 1, ""
    if started is None:
        raise EventLogError(f"{log}: nothing was recorded of this run yet; start it anew")
    return Record(started, events, batch, parts, outcome)


def resume(
    log_path: Path, around: Surroundings, open_rows: Callable[[RunConfig], Source]
) -> Finished:
    """Go through a run's record again, then on from the batch after the last one.

    Training, healing and scoring give the same bytes from the same rows, and every recorded event
    is checked against what the rows give now. Raises `EventLogError` where they differ, and for a
    run that has nothing left to do, `LeaseHeld` and `RegistryRestored` before anything was changed.
    """
    use_one_thread()
    started = _first_event(log_path)
    config = recorded(started.data["config"], where=str(log_path))
    folder = log_path.parent
    lease = RunLease(
        around.registry, config.model_name, started.data["run_id"], folder, around.actor,
        around.clock, four_eyes=config.policy.four_eyes, wrote=lambda: wrote(folder),
    )  # fmt: skip
    with lease:
        recover(log_path)
        record = read_record(log_path)
        if record.outcome == "FINISHED":
            return _complete(log_path, config, record, around, lease)
        return _go_on(log_path, config, record, around, open_rows, lease)


def _first_event(log_path: Path) -> Event:
    """What the run is; the log's end may be cut short by a crash."""
    with log_path.open("rb") as stream:
        whole = stream.readline().endswith(b"\n")
    first = next(read(log_path), None) if whole else None
    if first is None:
        raise EventLogError(f"{log_path}: nothing was recorded of this run yet; start it anew")
    return first


def _go_on(
    log_path: Path,
    config: RunConfig,
    record: Record,
    around: Surroundings,
    open_rows: Callable[[RunConfig], Source],
    lease: RunLease,
) -> Finished:
    with lease.kept_alive():
        source = open_rows(config)
        prepared = prepare(config, source, around.on_epoch, wrapped_of(config, around.registry))
    lease.require()
    left = _left(log_path.with_name(OUTBOX_NAME))
    log = EventLog(log_path, around.clock)
    note = {"actor": around.actor, "batch": record.batch, "events": record.events}
    around.on_event(log.append(Kind.RUN_RESUMED, note))
    started = record.started.data
    with closing(log), closing(read(log_path)) as events:
        course = Course(
            config,
            source,
            prepared,
            started["run_id"],
            log,
            started["actor"],
            started["champion_move"],
            islice(events, record.events),
            left,
            record.parts + 1,
        )
        return go(course, around, lease)


def _complete(
    log_path: Path, config: RunConfig, record: Record, around: Surroundings, lease: RunLease
) -> Finished:
    """The stream had ended: bring what the registry lacks and make the files again."""
    path, run_id = log_path.with_name(OUTBOX_NAME), record.started.data["run_id"]
    outbox = Outbox(path)
    if outbox.result(f"end:{record.parts}") is not None and not outbox.pending:
        outbox.close()
        raise EventLogError(
            f"run {run_id} finished after {record.batch} batches and the registry has everything; "
            "there is nothing to resume"
        )
    _bring(path, around, lease)  # first, so that the files have the versions' numbers
    lineage = Lineage(**(outbox.lineage or {}))
    with closing(EventLog(log_path, around.clock)) as log:
        writer = RegistryWriter(
            around.registry, lineage, outbox, before_commit=log.sync, lease=lease
        )
        try:
            view, files = publish(config, log, record.parts, "FINISHED", writer)
        finally:
            writer.close()
    away = _bring(path, around, lease)
    return Finished(run_id, "FINISHED", log_path.parent, view, files, away=away)


def _bring(path: Path, around: Surroundings, lease: RunLease) -> str:
    """Empty an outbox as far as the registry answers; returns why it does not have everything."""
    patience = around.patience or 0.0
    try:
        bring(path, around.registry, around.clock, lease, patience=patience, on_left=around.on_left)
    except RegistryUnreachable as exc:
        return str(exc)
    return ""


def _left(path: Path) -> list[Result]:
    """What the writer had done; some of it may not have been noted."""
    if not path.exists():
        return []
    outbox = Outbox(path)
    try:
        found = [result_of(kind, result) for kind, result in outbox.results()]
    finally:
        outbox.close()
    return [result for result in found if result is not None]
