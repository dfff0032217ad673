"""A run of its own that makes one version, without a stream: what was wrapped, or put together."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from selfheal_cli.config import RunConfig
from selfheal_cli.errors import RegistryError
from selfheal_cli.events.archive import LOG_NAME, run_folder
from selfheal_cli.events.event import Event
from selfheal_cli.events.log import EventLog
from selfheal_cli.events.types import RunFinished
from selfheal_cli.pipeline.record.recorder import RunRecorder
from selfheal_cli.pipeline.record.replayed import run_started
from selfheal_cli.registry.base import CHAMPION, Lineage
from selfheal_cli.registry.journal import standing
from selfheal_cli.registry.outbox import NAME as OUTBOX_NAME
from selfheal_cli.registry.outbox import Outbox
from selfheal_cli.registry.writer import HeldLease, RegistryWriter

if TYPE_CHECKING:
    from selfheal_cli.pipeline.runs.run import RunContext


@dataclass(frozen=True, slots=True)
class OneVersion:
    """What is to become a version: ``happened`` says what was done, ``take`` takes the snapshot and
    returns its id. ``config`` and ``adapter`` are those of whoever heals it later.
    """

    config: RunConfig
    adapter: str
    happened: Event
    take: Callable[[RunRecorder], str]


def begin_log(run_id: str, around: RunContext) -> EventLog:
    """The log of a run that has just begun."""
    return EventLog(run_folder(run_id, around.workspace) / LOG_NAME, around.clock)


def register(
    made: OneVersion, lineage: Lineage, log: EventLog, around: RunContext,
    lease: HeldLease | None = None,
) -> int:  # fmt: skip
    """Go from the run's first event to its last; returns the version's number.

    Raises `RegistryError` where the registry has none afterwards.
    """
    registry, model, run_id = around.registry, lineage.model, lineage.run_id
    last = standing(registry, model).moves.get(CHAMPION)
    known = last.sequence if last else 0
    outbox = Outbox(log.path.with_name(OUTBOX_NAME))
    writer = RegistryWriter(registry, lineage, outbox, before_commit=log.sync, lease=lease)
    with closing(writer):
        recorder = RunRecorder(
            log, writer, around.clock, around.actor, around.watchers, lambda: known
        )
        recorder.note(run_started(run_id, model, around.actor, known, made.config, made.adapter))
        recorder.note(made.happened)
        snapshot = made.take(recorder)
        writer.flush(patience=around.patience or 0.0)
        recorder.catch_up()
        recorder.finish(RunFinished(outcome="FINISHED"))
        writer.finish("0", [(log.path, None)], "FINISHED", {"selfheal.log_head": log.head})
        writer.flush(patience=around.patience or 0.0)
        version = outbox.result(f"version:{snapshot}")
    if version is None:
        raise RegistryError(f"model '{model}': snapshot {snapshot} of run {run_id} is no version")
    return int(version["version"])
