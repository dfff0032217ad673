"""A stream that has no end: batches as they come, and what there is to do while none does."""

from __future__ import annotations

from collections.abc import Callable

from selfheal_cli.history.event_log import EventLog
from selfheal_cli.pipeline.corridor import Corridor
from selfheal_cli.pipeline.ledger import RunLedger
from selfheal_cli.source.base import Source, Unbounded


def listen(
    source: Source, corridor: Corridor, ledger: RunLedger, log: EventLog, stop: Callable[[], bool]
) -> bool:
    """Every batch until the source ends or is to stop; returns whether it was to.

    The source hears that a batch is done once the log is on disk. While it is quiet the champion
    that others set is served, and what the registry was brought is noted.
    """
    last, stopped = 0, False

    def idle() -> bool:
        nonlocal stopped
        corridor.stream.follow(last + 1)
        ledger.catch_up()
        stopped = stopped or stop()
        return stopped

    if not isinstance(source, Unbounded):
        raise TypeError(f"{type(source).__name__} has an end")
    try:
        source.attend(log.path.parent, idle)
        corridor.stream.rest(0)
        for batch in source.batches():
            last = batch.index
            corridor.stream.step(batch)
            log.sync()
            source.settle()
            corridor.stream.rest(last)
    finally:
        source.close()
    if stopped:
        ledger.stop(last)
    return stopped
