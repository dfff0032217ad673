"""Processes that are forked from here: they take no seconds to load PyTorch or MLflow again."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any


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


@dataclass
class Forked:
    """What of a `subprocess.Popen` is used of processes that are started here."""

    pid: int
    stdin: IO[bytes] | None = None
    returncode: int | None = None
    _lock: Any = field(default_factory=threading.Lock)

    def poll(self) -> int | None:
        """Its exit code, once it has ended."""
        with self._lock:  # of several threads that wait, one is told by the system
            if self.returncode is None:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                self.returncode = os.waitstatus_to_exitcode(status) if pid else None
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code; a worker ends when its connection closes."""
        if timeout is None:
            with suppress(ChildProcessError):  # another thread was told
                os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        end = time.monotonic() + (timeout or 0.0)
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            time.sleep(0.005)
        return code

    def send_signal(self, number: int) -> None:
        """Tell it, while it lives."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Have it end in order."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


def begun(work: Callable[[], int | None], stdin: int | None = None) -> Forked:
    """Begin the work in a child with its standard streams as they are now.

    ``stdin`` as in `subprocess.Popen`.
    """
    reading, writing = os.pipe() if stdin == subprocess.PIPE else (None, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python's, where there are threads
        pid = os.fork()
    if pid:
        if reading is None or writing is None:
            return Forked(pid)
        os.close(reading)
        return Forked(pid, os.fdopen(writing, "wb"))
    code = 1
    try:
        signal.set_wakeup_fd(-1)  # else signals would reach the loop that it was forked from
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if reading is not None and writing is not None:
            os.close(writing)
            os.dup2(reading, 0)
            sys.stdin = os.fdopen(0)
        code = work() or 0
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stderr.flush()
        os._exit(code)


class Spares:
    """Processes that are forked before there are threads and open databases, which a child cannot
    share, and that begin the work once they are wanted.
    """

    def __init__(self, count: int, work: Callable[[], int | None]) -> None:
        self._spares: list[tuple[Forked, socket.socket]] = []
        for _ in range(count):
            ours, theirs = socket.socketpair()
            process = begun(lambda: self._wanted(ours, theirs, work), subprocess.PIPE)  # noqa: B023
            theirs.close()
            self._spares.append((process, ours))

    def popen(self, command: Any, stdin: int, process_group: int, pass_fds: Any) -> Forked:
        """In place of `subprocess.Popen`: one of them, with these files open in it as well."""
        process, ours = self._spares.pop()
        with ours:
            os.setpgid(process.pid, process_group)
            socket.send_fds(ours, [json.dumps(list(pass_fds)).encode()], list(pass_fds))
        return process

    def _wanted(
        self, ours: socket.socket, theirs: socket.socket, work: Callable[[], int | None]
    ) -> int | None:
        for process, other in [*self._spares, (None, ours)]:
            other.close()
            if process and process.stdin:
                process.stdin.close()
        with theirs:
            told, files, *_ = socket.recv_fds(theirs, 1 << 10, 8)
        for wanted, file in zip(json.loads(told or "[]"), files, strict=True):
            if file != wanted:
                os.dup2(file, wanted)
                os.close(file)
        return work() if told else None


def server(arguments: Sequence[str], said: Path, patience: float) -> Forked:
    """``selfheal`` with these arguments, whose healer is forked from it and has all the time that
    it needs to end, however slow the machine; what it says on standard error is written down.
    """
    from selfheal_cli.cli.main import main
    from selfheal_cli.serve.healer import process

    def serve() -> None:
        heard(said)
        patient(Spares(3, process.main).popen, patience)
        main(list(arguments))

    return begun(serve)


def heard(said: Path) -> None:
    """What this process says on standard error is written down."""
    sys.stderr = said.open("w", buffering=1)
    os.dup2(sys.stderr.fileno(), 2)


def patient(popen: Callable[..., object], patience: float) -> None:
    """What this server keeps beside it begins by ``popen`` and has so many seconds to end."""
    from selfheal_cli.serve.healer import supervisor

    supervisor.subprocess = SimpleNamespace(  # type: ignore[assignment]
        Popen=popen, PIPE=subprocess.PIPE, TimeoutExpired=subprocess.TimeoutExpired
    )
    supervisor.KeptProcess.stop.__defaults__ = (patience,)


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
