"""A stream that has no end: batches as they come, and what there is to do while none does."""

from __future__ import annotations

from collections.abc import Callable

from selfheal_cli.history.event_log import EventLog
from selfheal_cli.history.events import Kind
from selfheal_cli.pipeline.corridor import Corridor
from selfheal_cli.pipeline.ledger import Ledger
from selfheal_cli.source.base import Source, Unbounded


def listen(
    source: Source, corridor: Corridor, ledger: Ledger, log: EventLog, stop: Callable[[], bool]
) -> bool:
    """Every batch until the source ends or is to stop; returns whether it was to.

    The source hears that a batch is done once the log is on disk. While it is quiet the champion
    that others set is served, and what the registry was brought is noted.
    """
    last, stopped = 0, False

    def idle() -> bool:
        nonlocal stopped
        if ledger.expected is None:
            corridor.stream.follow(last + 1)
            ledger.catch_up()
        stopped = stopped or stop()
        return stopped

    if not isinstance(source, Unbounded):
        raise TypeError(f"{type(source).__name__} has an end")
    try:
        source.attend(log.path.parent, idle)
        stopped_here(0, corridor, ledger)
        for batch in source.batches():
            last = batch.index
            corridor.stream.step(batch)
            log.sync()
            source.settle()
            stopped_here(last, corridor, ledger)
    finally:
        source.close()
    if stopped and ledger.expected is None:
        ledger.note(Kind.STREAM_STOPPED, {"batch": last})
    return stopped


def stopped_here(batch: int, corridor: Corridor, ledger: Ledger) -> None:
    """Where a recorded run was interrupted, it first finished the heals that were under way."""
    while (expected := ledger.expected) is not None:
        if expected.kind is not Kind.STREAM_STOPPED or expected.data["batch"] != batch:
            if not corridor.stream.was_told(batch + 1):
                return
            corridor.stream.follow(batch + 1)
            continue
        ledger.note(Kind.STREAM_STOPPED, {"batch": batch})
        corridor.healing.finish()
