"""Answered rows on their way from scoring to the spool: memory first, one thread writes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from selfheal_cli.errors import StorageError
from selfheal_cli.spool.answer_log import AnswerLog
from selfheal_cli.spool.entries import LoggedRequest

GROUP_SECONDS = 0.03  # what came meanwhile is one commit
AGAIN_SECONDS = 0.5
GROUP = 500  # requests a commit
MOST_ROWS = 200_000


class Recorder:
    """Scoring never waits for the disk: what does not fit is counted, not kept.

    ``unrecorded`` rows are not kept, ``conflicting`` of them since their request's id stands for
    other rows. ``problem`` says why nothing is written now. ``on_lost`` is told of rows not kept.
    """

    def __init__(
        self, spool: AnswerLog, on_lost: Callable[[int], object], most_rows: int = MOST_ROWS
    ) -> None:
        self.problem = ""
        self.unrecorded = self.conflicting = 0
        self._spool = spool
        self._on_lost = on_lost
        self._most = most_rows
        self._queue: deque[LoggedRequest] = deque()
        self._rows = 0
        self._counting = threading.Lock()
        self._writing = threading.Lock()
        self._some = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)

    @property
    def waiting(self) -> int:
        """Rows that are not on disk yet."""
        return self._rows

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def take(self, answered: LoggedRequest) -> bool:
        """Keep it in memory; False where there is no room."""
        rows = len(answered)
        if not rows:
            return True
        with self._counting:
            if self._rows + rows > self._most:
                self._lost(rows)
                return False
            self._rows += rows
            self._queue.append(answered)
        self._some.set()
        return True

    def flush(self) -> None:
        """Write what waits now; raises `StorageError`, and what was not written waits on."""
        with self._writing:
            until = len(self._queue)
            while until > 0:
                group = [self._queue[place] for place in range(min(GROUP, until))]
                try:
                    conflicting = self._spool.append(group).conflicting
                except StorageError as exc:
                    self.problem = str(exc)
                    raise
                self.problem = ""
                if conflicting:
                    self.conflicting += conflicting
                    self._lost(conflicting)
                until -= len(group)
                with self._counting:
                    for _ in group:
                        self._rows -= len(self._queue.popleft())

    def close(self) -> None:
        """Write what is left and stop; rows that cannot be written are counted."""
        self._stop.set()
        self._some.set()
        self._thread.join()
        try:
            self.flush()
        except StorageError:
            self._lost(self._rows)

    def _lost(self, rows: int) -> None:
        self.unrecorded += rows
        self._on_lost(rows)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._some.wait()
            self._some.clear()
            try:
                self.flush()
            except StorageError:
                self._some.set()
                self._stop.wait(AGAIN_SECONDS)
            else:
                self._stop.wait(GROUP_SECONDS)
