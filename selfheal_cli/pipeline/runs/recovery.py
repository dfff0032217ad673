"""A run that was interrupted goes on where its record ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import cast

from filelock import FileLock, Timeout

from selfheal_cli.config import RunConfig, recorded
from selfheal_cli.errors import EventLogError, RegistryUnreachable
from selfheal_cli.events.archive import ALIVE_LOCK, LOG_NAME, logs_of, model_of
from selfheal_cli.events.event import Event
from selfheal_cli.events.log import Clock, EventLog, read, recover
from selfheal_cli.events.state import RunState
from selfheal_cli.events.types import (
    BatchScored,
    BatchSetApart,
    RowsTaken,
    RunFinished,
    RunResumed,
    RunStarted,
)
from selfheal_cli.model.threads import use_one_thread
from selfheal_cli.pipeline.prepare.baseline import prepare
from selfheal_cli.pipeline.prepare.lease import RunLease, wrote
from selfheal_cli.pipeline.prepare.wrapped import wrapped_of
from selfheal_cli.pipeline.runs.results import publish
from selfheal_cli.pipeline.runs.run import Finished, RunContext, RunSpec, go
from selfheal_cli.registry.aliases import OnSettled, untold
from selfheal_cli.registry.base import Lineage, Outcome, Registry, identity, result_of
from selfheal_cli.registry.outbox import ENDED, Outbox, knows_end, pending_in
from selfheal_cli.registry.outbox import NAME as OUTBOX_NAME
from selfheal_cli.registry.writer import RegistryWriter
from selfheal_cli.sources.base import Source
from selfheal_cli.spool.answer_log import AnswerLog
from selfheal_cli.spool.entries import Cursor
from selfheal_cli.workspace import WORKSPACE


@dataclass(frozen=True, slots=True)
class Flushed:
    """A run whose writes were brought: how many, and whether the run itself had ended."""

    run_id: str
    brought: int
    ended: bool


def outboxes(workspace: Path = WORKSPACE) -> list[Path]:
    """Those of the runs in this folder that hold something, or whose run ended by its log alone."""
    paths = sorted((workspace / "runs").glob(f"*/{OUTBOX_NAME}"))
    return [path for path in paths if pending_in(path) or _killed_at_the_end(path)]


def _killed_at_the_end(path: Path) -> bool:
    """Whether the run was killed behind its last event, before it could hand over its end."""
    log = path.with_name(LOG_NAME)
    return not knows_end(path) and log.exists() and RunState.of(read(log)).finished is not None


def flush(
    path: Path,
    registry: Registry,
    clock: Clock,
    actor: str,
    *,
    patience: float,
    on_left: Callable[[int], None],
    on_settled: OnSettled = untold,
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
        wrote=lambda: wrote(folder), on_settled=on_settled,
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
        if not knows_end(path):
            registry.end_run(lineage.run_id, cast("Outcome", ended.outcome), {})
            with closing(Outbox(path)) as outbox:
                outbox.know(ENDED, "end", {})
    return Flushed(lineage.run_id, wanted, ended is not None)


def _note_results(path: Path, clock: Clock) -> tuple[Path, RunFinished | None]:
    """Append what the registry gave since the log was written; with the run's end, if it had."""
    log_path = path.with_name(LOG_NAME)
    recover(log_path)
    told, ended = set(), None
    for event in read(log_path):
        told.add(identity(event))
        if isinstance(event, RunFinished):
            ended = event
        elif isinstance(event, RunResumed):
            ended = None
    outbox = Outbox(path)
    results = [result_of(kind, done) for kind, done in outbox.results()]
    outbox.close()
    if ended is None:
        return log_path, ended  # the run notes them itself when it is resumed
    log = EventLog(log_path, clock)
    for result in results:
        if result is not None and identity(result) not in told:
            log.append(result)
    log.sync()
    log.close()
    return log_path, ended


def _head(log: Path) -> str:
    head = ""
    for event in read(log):
        head = event.digest
    return head


def resume(
    log_path: Path, around: RunContext, open_rows: Callable[[RunConfig], Source]
) -> Finished:
    """Go through a run's record again, then on from the batch after the last one.

    Training, healing and scoring give the same bytes from the same rows, and every recorded event
    is checked against what the rows give now. Raises `EventLogError` where they differ, and for a
    run that has nothing left to do, `LeaseHeld` and `RegistryRestored` before anything was changed.
    """
    use_one_thread()
    started = _first_event(log_path)
    config = recorded(started.config, where=str(log_path), parts=started.parts)
    folder = log_path.parent
    lease = RunLease(
        around.registry, config.model_name, started.run_id, folder, around.actor,
        around.clock, four_eyes=config.policy.four_eyes, wrote=lambda: wrote(folder),
        on_settled=around.on_settled,
    )  # fmt: skip
    with lease:
        recover(log_path)
        record = RunState.of(read(log_path))
        if record.finished and record.finished.outcome == "FINISHED":
            return _complete(log_path, config, record, around, lease)
        return _go_on(log_path, config, started, record, around, open_rows, lease)


def _first_event(log_path: Path) -> RunStarted:
    """What the run is; the log's end may be cut short by a crash."""
    with log_path.open("rb") as stream:
        whole = stream.readline().endswith(b"\n")
    first = next(read(log_path), None) if whole else None
    if not isinstance(first, RunStarted):
        raise EventLogError(f"{log_path}: nothing was recorded of this run yet; start it anew")
    return first


def _go_on(
    log_path: Path,
    config: RunConfig,
    started: RunStarted,
    record: RunState,
    around: RunContext,
    open_rows: Callable[[RunConfig], Source],
    lease: RunLease,
) -> Finished:
    with lease.kept_alive():
        source = open_rows(config)
        prepared = prepare(config, source, around.on_epoch, wrapped_of(config, around.registry))
    lease.require()
    left = _left(log_path.with_name(OUTBOX_NAME))
    log = EventLog(log_path, around.clock)
    note = RunResumed(actor=around.actor, batch=record.batch, events=record.length)
    resumed = log.append(note)
    for watch in around.watchers:
        watch(resumed)
    with closing(log), closing(read(log_path)) as events:
        course = RunSpec(
            config,
            source,
            prepared,
            started.run_id,
            log,
            started.actor,
            started.champion_move,
            islice(events, record.length),
            left,
            record.resumed + 1,
        )
        return go(course, around, lease)


def _complete(
    log_path: Path, config: RunConfig, record: RunState, around: RunContext, lease: RunLease
) -> Finished:
    """The stream had ended: bring what the registry lacks and make the files again."""
    path, run_id = log_path.with_name(OUTBOX_NAME), record.run_id
    outbox = Outbox(path)
    if outbox.result(f"end:{record.resumed}") is not None and not outbox.pending:
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
            view, files = publish(config, log, record.resumed, "FINISHED", writer)
        finally:
            writer.close()
    away = _bring(path, around, lease)
    return Finished(run_id, "FINISHED", log_path.parent, view, files, away=away)


def _bring(path: Path, around: RunContext, lease: RunLease) -> str:
    """Empty an outbox as far as the registry answers; returns why it does not have everything."""
    patience = around.patience or 0.0
    try:
        bring(path, around.registry, around.clock, lease, patience=patience, on_left=around.on_left)
    except RegistryUnreachable as exc:
        return str(exc)
    return ""


def _left(path: Path) -> list[Event]:
    """What the writer had done; some of it may not have been noted."""
    if not path.exists():
        return []
    outbox = Outbox(path)
    try:
        answers = [result_of(kind, result) for kind, result in outbox.results()]
    finally:
        outbox.close()
    return [result for result in answers if result is not None]


SPOOLED = ("served", "pushed")  # kinds of sources whose rows come over a spool
MOST_TRIES = 3  # processes that end in the same batch before it is left out


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
    model: str, workspace: Path, spool: AnswerLog, run: str = "", batch: int = 0,
    champion: tuple[str, int] = ("", 0),
) -> Beginning:  # fmt: skip
    """Where the spool was read to, by the events of every run in this folder, if it is the spool
    that was read. ``run`` is the one that last spoke of itself there, at ``batch``; the champion
    was made by a run at a batch.
    """
    read_before = _read_before(model, workspace, champion)
    written_down = _written_down(spool, read_before, champion)
    if written_down is not None:
        return _beyond_what_kills(written_down, read_before.begun)
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


def _written_down(
    spool: AnswerLog, read_before: Read, champion: tuple[str, int]
) -> Beginning | None:
    """Of a log that machines share: where runs wrote down there to have come, unless the run that
    did so last is of this folder, and its event log says that it came as far or further.
    """
    committed = spool.committed(*champion) if spool.shared else None
    if committed is None:
        return None
    cursor, run = committed
    own = [one for _, one in read_before.through if one.spool == cursor.spool]
    if run in read_before.batches and not all(map(cursor.is_beyond, own)):
        return None
    here = spool.here(cursor)
    if here is None or not spool.holds(here):
        return None
    if here.spool == cursor.spool:
        return Beginning(here)
    return Beginning(here, _restored(f"run {run}", here))


def _restored(who: str, cursor: Cursor) -> str:
    return (
        f"the log was restored, upgraded or failed over since {who} read it: what it has is "
        f"read on from {_place(cursor)}, and what it lost is lost"
    )


def _in_this(spool: AnswerLog, read_before: Read) -> Beginning:
    """After the furthest batch whose rows are where they were then."""
    identity = spool.identity()
    through = sorted(read_before.through, key=lambda one: (one[1].answered, one[1].place))
    if spool.shared and through and through[-1][1].spool != identity:
        here = spool.here(through[-1][1])
        if here is not None and spool.holds(here):
            return Beginning(here, _restored("a run of this folder", here))
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


def _read_before(model: str, workspace: Path, champion: tuple[str, int]) -> Read:
    """The champion's batch was learned from, though its run may have been killed before its end."""
    through: list[tuple[str, Cursor]] = []
    begun: list[Cursor] = []
    batches: dict[str, int] = {}
    for log in served_logs(model, workspace):
        run, taken = log.parent.name, None
        batches[run] = 0
        for event in read(log):
            if isinstance(event, RowsTaken):
                taken = event.at, Cursor(**event.offsets)
                # labels alone are learned from at once; so was what the champion is made of
                if not event.rows or (run, event.batch) == champion:
                    through.append(taken)
                    taken = None
            elif isinstance(event, (BatchScored, BatchSetApart)):
                batches[run] = event.batch
                through += [] if taken is None else [taken]
                taken = None
        if taken is not None:
            begun.append(taken[1])
    return Read(through, begun, batches)


def settle_earlier(
    model: str, workspace: Path, registry: Registry, clock: Clock, actor: str, patience: float,
    on_settled: OnSettled = untold,
) -> list[str]:  # fmt: skip
    """Finish what runs that served the model before have left: writes that the registry does not
    have, and the last event of those that were killed. Returns the ids of the latter.

    Raises `RegistryUnreachable` where the registry does not answer; then it can be done again.
    """
    killed = []
    for log in list(served_logs(model, workspace)):
        run_id = log.parent.name
        try:
            if _end(log, clock, actor):
                killed.append(run_id)
        except Timeout:
            continue  # it is running
        outbox = log.with_name(OUTBOX_NAME)
        unfinished = registry.run_status(run_id) == "RUNNING"
        if outbox.exists() and (unfinished or pending_in(outbox)):
            flush(
                outbox, registry, clock, actor, patience=patience, on_left=lambda left: None,
                on_settled=on_settled,
            )  # fmt: skip
        if unfinished and registry.run_status(run_id) == "RUNNING":
            registry.end_run(run_id, "KILLED", {})
    return killed


def _end(log: Path, clock: Clock, actor: str) -> bool:
    """Write the last event of a run that has none; raises filelock's `Timeout` for one that runs.

    Returns whether it was needed.
    """
    with FileLock(log.with_name(ALIVE_LOCK)).acquire(timeout=0):
        recover(log)
        if any(isinstance(event, RunFinished) for event in read(log)):
            return False
        writing = EventLog(log, clock)
        writing.append(RunFinished(outcome="KILLED", ended_by=actor))
        writing.sync()
        writing.close()
    return True


def served_logs(model: str, workspace: Path) -> Iterator[Path]:
    """Of the runs in this folder that a server, or a program, gave rows to."""
    for log in logs_of(model, workspace):
        first = next(read(log), None)
        if isinstance(first, RunStarted) and first.config["source"]["kind"] in SPOOLED:
            yield log
