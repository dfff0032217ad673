"""The thread that keeps the spool from growing without end, whoever reads it or nobody."""

from __future__ import annotations

import sys
import time

from selfheal_cli.lookout import Lookout
from selfheal_cli.serve.operator.status import last_word
from selfheal_cli.spool.control import ControlChannel
from selfheal_cli.spool.store import Spool

LOOK_SECONDS = 2.0
SHARE = 0.02  # of its time at most that it looks: counting many rows takes longer
MOST_UNREAD = 1_000_000  # rows that are kept for a healer which does not come after


class Keeper(Lookout):
    """Forgets the oldest answered rows beyond ``keep_rows``.

    Rows that a healer here has still to read are kept beyond that, up to `MOST_UNREAD`. ``kept``
    and ``unread`` count rows as of the last look; ``lost`` those that nobody had read when they
    were forgotten. ``stalled`` are the seconds for which rows have waited for a healer that read
    none, beyond the ``max_wait`` that it may wait for more.
    """

    def __init__(
        self, channel: ControlChannel, spool: Spool, keep_rows: int, max_wait: float = 0.0
    ) -> None:
        super().__init__("keeper")
        self.kept = self.unread = self.lost = 0
        self.stalled = 0.0
        self._max_wait = max_wait
        self._read_to = -1
        self._moved = time.monotonic()
        self._channel = channel
        self._spool = spool
        self._keep = keep_rows

    def look(self) -> None:
        """Count, and forget what is too much. Raises `StorageError`."""
        began = time.monotonic()
        word = last_word(self._channel, self._channel.now())
        read_to = word.standing.read_to
        kept, unread = self._spool.count(read_to)
        if kept > self._keep:
            if word.heals and unread <= MOST_UNREAD:
                self._spool.forget(self._keep, before=read_to)
            else:
                self._spool.forget(self._keep)
            kept, left = self._spool.count(read_to)
            if word.heals and left < unread:
                self.lost += unread - left
                sys.stderr.write(
                    f"selfheal: {unread - left} answered rows were forgotten before the healer "
                    "read them: more come than it can look at\n"
                )
            unread = left
        self.kept, self.unread = kept, unread
        now = time.monotonic()
        if not unread or not word.heals or read_to != self._read_to:
            self._read_to, self._moved = read_to, now
        self.stalled = max(0.0, now - self._moved - self._max_wait)
        self.seconds = max(LOOK_SECONDS, (now - began) / SHARE)
