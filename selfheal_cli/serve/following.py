"""The thread that looks at the board and has what stands there served."""

from __future__ import annotations

import threading
from collections.abc import Callable

from selfheal_cli.errors import NotWritten, SelfhealError
from selfheal_cli.registry.base import Registry
from selfheal_cli.serve.meters import Meters
from selfheal_cli.serve.scorer import Scorer
from selfheal_cli.spool.board import Board

LOOK_SECONDS = 0.05
AGAIN_SECONDS = 1.0  # before a publication that could not be taken is tried again


class Following:
    """Serves what is published after ``since``; ``problem`` says why something is not served."""

    def __init__(
        self,
        scorer: Scorer,
        board: Board,
        registry: Callable[[], Registry],
        meters: Meters,
        since: int,
    ) -> None:
        self.problem = ""
        self._scorer = scorer
        self._board = board
        self._registry = registry
        self._meters = meters
        self._taken = since
        self._board_read = board.identity()
        self._refused = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="following", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()
        self._thread.join()

    def look(self) -> bool:
        """Take what is new; False where it could not be taken and may be later."""
        try:
            identity = self._board.identity()
            if identity != self._board_read:  # another board counts from 1 again
                self._board_read, self._taken = identity, 0
            sequence, version = self._board.standing()
            if sequence <= self._taken:
                if sequence and version is not None and self._unnumbered(sequence):
                    self._scorer.number(version)
                return True
            wanted = self._board.published()
            if wanted is None:
                return True
            self._scorer.take(wanted, self._registry())
        except NotWritten as exc:
            self.problem = str(exc)
            return False
        except SelfhealError as exc:
            self.problem = str(exc)
            if sequence != self._refused:
                self._refused = sequence
                self._meters.publications_refused.inc()
            return False
        self._taken, self.problem = wanted.sequence, ""
        return True

    def _unnumbered(self, sequence: int) -> bool:
        return sequence == self._taken and self._scorer.served.version is None

    def _run(self) -> None:
        while not self._stop.wait(LOOK_SECONDS if self.look() else AGAIN_SECONDS):
            pass
