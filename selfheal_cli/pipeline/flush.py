"""Brings to the registry what a run left in its outbox, after the run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from selfheal_cli.config import WORKSPACE
from selfheal_cli.history.archive import LOG_NAME, model_of
from selfheal_cli.history.event_log import Clock, EventLog, read, recover
from selfheal_cli.history.events import Kind
from selfheal_cli.pipeline.lease import RunLease, wrote
from selfheal_cli.pipeline.ledger import as_event, identity
from selfheal_cli.registry.base import Lineage, Registry
from selfheal_cli.registry.outbox import NAME as OUTBOX_NAME
from selfheal_cli.registry.outbox import Outbox, pending_in
from selfheal_cli.registry.results import result_of
from selfheal_cli.registry.writer import RegistryWriter


@dataclass(frozen=True, slots=True)
class Flushed:
    """A run whose writes were brought: how many, and whether the run itself had ended."""

    run_id: str
    brought: int
    ended: bool


def outboxes(workspace: Path = WORKSPACE) -> list[Path]:
    """Those of the runs in this folder that hold something."""
    return [
        path for path in sorted((workspace / "runs").glob(f"*/{OUTBOX_NAME}")) if pending_in(path)
    ]


def flush(
    path: Path,
    registry: Registry,
    clock: Clock,
    actor: str,
    *,
    patience: float,
    on_left: Callable[[int], None],
) -> Flushed:
    """Empty one outbox under its model's lease, note in the run's log what came of it, and keep
    the log's new end.

    Raises `LeaseHeld` for a run that is running and where another run heals the model,
    `RegistryRestored` where the registry knows less than when the run wrote into it,
    `RegistryUnreachable` where it did not answer for ``patience`` seconds; then the rest stays.
    """
    folder = path.parent
    model = model_of(path.with_name(LOG_NAME))
    lease = RunLease(
        registry, model, folder.name, folder, actor, clock, four_eyes=False,
        wrote=lambda: wrote(folder),
    )  # fmt: skip
    with lease:
        return bring(path, registry, clock, lease, patience=patience, on_left=on_left)


def bring(
    path: Path,
    registry: Registry,
    clock: Clock,
    lease: RunLease,
    *,
    patience: float,
    on_left: Callable[[int], None],
) -> Flushed:
    """`flush` for whoever has the run's lease."""
    outbox = Outbox(path)
    wanted = outbox.pending
    lineage = Lineage(**(outbox.lineage or {}))
    writer = RegistryWriter(registry, lineage, outbox, lease=lease)
    try:
        writer.flush(patience, on_left)
    finally:
        writer.close()
        log_path, ended = _note_results(path, clock)
    if ended:
        lease.require()
        registry.log_files(lineage.run_id, [log_path])
        registry.set_run_tags(lineage.run_id, {"selfheal.log_head": _head(log_path)})
    return Flushed(lineage.run_id, wanted, ended)


def _note_results(path: Path, clock: Clock) -> tuple[Path, bool]:
    """Append what the registry gave since the log was written; whether the run had ended."""
    log_path = path.with_name(LOG_NAME)
    recover(log_path)
    told, ended = set(), False
    for event in read(log_path):
        told.add(identity(event.kind, event.data))
        ended = event.kind is Kind.RUN_FINISHED or (ended and event.kind is not Kind.RUN_RESUMED)
    outbox = Outbox(path)
    results = [result_of(kind, found) for kind, found in outbox.results()]
    outbox.close()
    if not ended:
        return log_path, ended  # the run notes them itself when it is resumed
    log = EventLog(log_path, clock)
    for kind, data in (as_event(result) for result in results if result is not None):
        if identity(kind, data) not in told:
            log.append(kind, data)
    log.sync()
    log.close()
    return log_path, ended


def _head(log: Path) -> str:
    head = ""
    for event in read(log):
        head = event.digest
    return head
