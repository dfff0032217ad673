"""Processes that are forked from here: they take no seconds to load PyTorch or MLflow again."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any


def in_fork(work: Callable[[], object]) -> int:
    """Do the work in a child; returns its exit code, negative for a signal."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


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
    from selfheal_cli.heal import worker

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
