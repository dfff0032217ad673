"""The runs that served a model before: how far they read, and the end of one that was killed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from selfheal_cli.history.archive import ALIVE_LOCK, logs_of
from selfheal_cli.history.event_log import Clock, EventLog, read, recover
from selfheal_cli.history.events import Kind
from selfheal_cli.pipeline.flush import flush
from selfheal_cli.registry.base import Registry
from selfheal_cli.registry.outbox import NAME as OUTBOX_NAME
from selfheal_cli.registry.outbox import pending_in
from selfheal_cli.spool.store import Cursor, Spool

MOST_TRIES = 3  # processes that end in the same batch before it is left out
GONE_THROUGH = (Kind.BATCH, Kind.BATCH_SET_APART)


@dataclass(frozen=True, slots=True)
class Beginning:
    """Where to read the spool from; ``notice`` says what is not as it was left, if anything."""

    cursor: Cursor
    notice: str = ""


@dataclass(frozen=True, slots=True)
class Read:
    """What the logs of earlier runs say of reading: cursors of batches that were gone through, each
    with its time, the cursors of those that were begun only, and the last batch of each run.
    """

    through: Sequence[tuple[str, Cursor]]
    begun: Sequence[Cursor]
    batches: Mapping[str, int]


def where_to_begin(
    model: str, workspace: Path, spool: Spool, run: str = "", batch: int = 0
) -> Beginning:
    """Where the spool was read to, by the events of every run in this folder, if it is the spool
    that was read. ``run`` is the one that last spoke of itself there, at ``batch``.
    """
    read_before = _read_before(model, workspace)
    beginning = _in_this(spool, read_before)
    batches = read_before.batches
    if not beginning.notice and run and batches.get(run, -1) < batch:
        known = f"ends at batch {batches[run]}" if run in batches else "is not here"
        notice = (
            f"the event log of run {run}, which read the spool up to batch {batch}, {known}: "
            f"rows are read again from {_place(beginning.cursor)} on"
        )
        beginning = replace(beginning, notice=notice)
    return _beyond_what_kills(beginning, read_before.begun)


def _in_this(spool: Spool, read_before: Read) -> Beginning:
    """After the furthest batch whose rows are where they were then."""
    identity = spool.identity()
    through = sorted(read_before.through, key=lambda one: (one[1].answered, one[1].place))
    own = [one for one in through if one[1].spool == identity]
    if not any(one.spool for _, one in through):
        own = through[-1:]  # nobody wrote down which spool was read: the last place must tell
    for _, cursor in reversed(own):
        if spool.holds(cursor):
            latest = _latest(own)
            if not latest.is_beyond(cursor):
                return Beginning(cursor)
            return Beginning(
                cursor,
                f"the spool is an older copy of the one that was read up to {_place(latest)}: "
                f"rows are read from {_place(cursor)} on",
            )
    anew = Cursor(spool=identity)
    if not through:
        return Beginning(anew)
    latest = _latest(through)
    return Beginning(
        anew,
        f"the spool is not the one that was read up to {_place(latest)}: it was lost, replaced or "
        "set aside; rows are read from the beginning of the new one",
    )


def _beyond_what_kills(beginning: Beginning, begun: Sequence[Cursor]) -> Beginning:
    """Past a batch in which several processes have ended, so that it is not tried for ever."""
    own = [
        one for one in begun
        if one.spool == beginning.cursor.spool and one.is_beyond(beginning.cursor)
    ]  # fmt: skip
    if len(own) < MOST_TRIES:
        return beginning
    least = min(own, key=lambda one: (one.answered, one.place))
    return Beginning(
        least,
        f"{len(own)} processes ended in the batch after {_place(beginning.cursor)}: its rows up to "
        f"{_place(least)} are left out",
    )


def _latest(through: Sequence[tuple[str, Cursor]]) -> Cursor:
    return max(through, key=lambda one: (one[0], one[1].answered, one[1].place))[1]


def _place(cursor: Cursor) -> str:
    return f"request {cursor.answered}" + (f", row {cursor.place}" if cursor.place else "")


def _read_before(model: str, workspace: Path) -> Read:
    through: list[tuple[str, Cursor]] = []
    begun: list[Cursor] = []
    batches: dict[str, int] = {}
    for log in _served(model, workspace):
        taken = None
        batches[log.parent.name] = 0
        for event in read(log):
            if event.kind is Kind.ROWS_TAKEN:
                taken = Cursor(**event.data["offsets"])
            elif event.kind in GONE_THROUGH and taken is not None:
                through.append((event.at, taken))
                batches[log.parent.name] = event.data["batch"]
                taken = None
        if taken is not None:
            begun.append(taken)
    return Read(through, begun, batches)


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
            flush(outbox, registry, clock, actor, patience=patience, on_left=lambda left: None)
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
