"""Processes beside the server: begun, watched, begun again, ended. One of them heals."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence

from selfheal_cli.serve.http.metrics import ServerMetrics
from selfheal_cli.serve.settings import HealerSettings, Priority

# -P: the module of this installation, whatever lies in the working folder
COMMAND = (sys.executable, "-P", "-m", "selfheal_cli.serve.healer")
NICENESS = 10  # scoring comes first, also where there is no class for idle time
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
SETTLED_SECONDS = 60.0  # a process that lived so long begins again without waiting long
PATIENCE_SECONDS = 9.0  # to end properly; whoever comes next ends the run of one that was killed
PARENT_SECONDS = 0.5


class KeptProcess:
    """Keeps one process alive until `stop`; ``told`` comes on its standard input, ``on_restart``
    hears of each that ended by itself, ``files`` are open in it as well.
    """

    def __init__(
        self,
        told: bytes,
        command: Sequence[str],
        on_restart: Callable[[], object],
        priority: Priority = "normal",
        files: Sequence[int] = (),
    ) -> None:
        self.restarts = 0
        self.ended_pid = 0  # of the one that ended last
        self._told = told
        self._priority = priority
        self._command = list(command)
        self._on_restart = on_restart
        self._files = files
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = 0.0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    @property
    def code(self) -> int | None:
        """What the last process ended with."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Begin the process and watch it."""
        self._thread.start()

    def end(self) -> None:
        """Have it end in order, and begin no other one."""
        with self._lock:
            again = self._stop.is_set()
            self._stop.set()
            process = self._process
        if not again:
            self._ended = time.monotonic()
        if process is not None and not again:
            _come_first(process.pid)
            process.terminate()

    def stop(self, patience: float = PATIENCE_SECONDS) -> None:
        """The same, and wait so long since `end`; one that does not end by then is killed."""
        self.end()
        process = self._process
        if process is not None:
            try:
                process.wait(max(0.0, self._ended + patience - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
        self._thread.join()

    def _watch(self) -> None:
        wait = FIRST_WAIT
        while True:
            began = time.monotonic()
            process = self._begin()
            if process is None:
                return
            process.wait()
            if self._stop.is_set():
                return
            self.restarts += 1
            self.ended_pid = process.pid
            self._on_restart()
            wait = FIRST_WAIT if time.monotonic() - began > SETTLED_SECONDS else wait
            if self._stop.wait(wait):
                return
            wait = min(2 * wait, LONGEST_WAIT)

    def _begin(self) -> subprocess.Popen[bytes] | None:
        """A process that was told its settings; None where it is time to stop."""
        with self._lock:
            if self._stop.is_set():
                return None
            # a group of its own: Ctrl-C reaches the server alone, which ends this one in order; not
            # a session of its own, in which Linux would not have it give way to the server
            process = self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, process_group=0, pass_fds=self._files
            )
        _give_way(process.pid, self._priority)
        if process.stdin is not None:
            with contextlib.suppress(OSError):  # it ended before it listened
                process.stdin.write(self._told)
                process.stdin.close()
        return process


class Supervisor(KeptProcess):
    """Keeps the healer's process alive."""

    def __init__(
        self, settings: HealerSettings, meters: ServerMetrics, command: Sequence[str] = COMMAND
    ) -> None:
        told = settings.model_dump_json().encode()
        super().__init__(told, command, meters.healer_restarts.inc, settings.priority)


def watch_parent(parent: int, ended: Callable[[], None]) -> None:
    """In such a process: a server that was killed leaves none behind."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_SECONDS)
        ended()

    threading.Thread(target=watch, name="parent", daemon=True).start()


def _come_first(pid: int) -> None:
    """Who is to end soon no longer waits until nobody else wants the processor."""
    with contextlib.suppress(OSError):
        if hasattr(os, "SCHED_OTHER"):
            os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0))
        os.setpriority(os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, 0))


def _give_way(pid: int, priority: Priority) -> None:
    """Set how a process, and those that it starts, come to the processor."""
    with contextlib.suppress(OSError):
        if priority != "normal":
            os.setpriority(os.PRIO_PROCESS, pid, NICENESS)
        if priority == "idle" and hasattr(os, "SCHED_IDLE"):
            os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
