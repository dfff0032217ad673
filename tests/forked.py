"""A heal worker that is forked from here, which takes no seconds to load PyTorch again."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from selfheal_cli.heal import worker


@dataclass(frozen=True)
class Forked:
    """What of a `subprocess.Popen` the engine uses."""

    pid: int

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code; a worker ends when its connection closes."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def kill(self) -> None:
        """End it."""
        os.kill(self.pid, signal.SIGKILL)


def start(engine: Any) -> tuple[Forked, Connection]:
    """As `WorkerEngine._start`."""
    ours, theirs = Pipe()
    pid = os.fork()
    if not pid:
        try:
            os.closerange(3, theirs.fileno())  # else other pipes would not end with us
            os.closerange(theirs.fileno() + 1, 1 << 12)
            worker.main(theirs)
        finally:
            os._exit(0)
    theirs.close()
    with suppress(OSError):
        ours.send_bytes(engine._recipes)
    return Forked(pid), ours
