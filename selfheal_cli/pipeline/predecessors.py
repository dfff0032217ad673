"""The runs that served a model before: how far they read, and the end of one that was killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from selfheal_cli.history.archive import ALIVE_LOCK, logs_of
from selfheal_cli.history.event_log import Clock, EventLog, read, recover
from selfheal_cli.history.events import Kind
from selfheal_cli.pipeline.flush import flush
from selfheal_cli.registry.base import Registry
from selfheal_cli.registry.outbox import NAME as OUTBOX_NAME
from selfheal_cli.registry.outbox import pending_in
from selfheal_cli.spool.source import Cursor

GONE_THROUGH = (Kind.BATCH, Kind.BATCH_SET_APART)


def last_cursor(model: str, workspace: Path) -> Cursor:
    """Where the spool was read to, by the events of every run in this folder."""
    furthest = Cursor()
    for log in _served(model, workspace):
        taken = furthest
        for event in read(log):
            if event.kind is Kind.ROWS_TAKEN:
                taken = Cursor(**event.data["offsets"])
            elif event.kind in GONE_THROUGH and taken.is_beyond(furthest):
                furthest = taken  # a batch that was taken and not gone through is read again
    return furthest


def settle_earlier(
    model: str, workspace: Path, registry: Registry, clock: Clock, actor: str, patience: float
) -> list[str]:
    """Finish what runs that served the model before have left: writes that the registry does not
    have, and the last event of those that were killed. Returns the ids of the latter.

    Raises `RegistryUnreachable` where the registry does not answer; then it can be done again.
    """
    killed = []
    for log in list(_served(model, workspace)):
        run_id = log.parent.name
        try:
            if _end(log, clock, actor):
                killed.append(run_id)
        except Timeout:
            continue  # it is running
        outbox = log.with_name(OUTBOX_NAME)
        unfinished = registry.run_status(run_id) == "RUNNING"
        if outbox.exists() and (unfinished or pending_in(outbox)):
            flush(outbox, registry, clock, patience=patience, on_left=lambda left: None)
        if unfinished and registry.run_status(run_id) == "RUNNING":
            registry.end_run(run_id, "KILLED", {})
    return killed


def _end(log: Path, clock: Clock, actor: str) -> bool:
    """Write the last event of a run that has none; raises filelock's `Timeout` for one that runs.

    Returns whether it was needed.
    """
    with FileLock(log.with_name(ALIVE_LOCK)).acquire(timeout=0):
        recover(log)
        if any(event.kind is Kind.RUN_FINISHED for event in read(log)):
            return False
        writing = EventLog(log, clock)
        writing.append(Kind.RUN_FINISHED, {"outcome": "KILLED", "ended_by": actor})
        writing.sync()
        writing.close()
    return True


def _served(model: str, workspace: Path) -> Iterator[Path]:
    for log in logs_of(model, workspace):
        first = next(read(log), None)
        if first is not None and first.data["config"]["source"]["kind"] == "served":
            yield log
