"""The process beside the server that heals: begun, watched, begun again, ended."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from selfheal_cli.serve.http.metrics import ServerMetrics
from selfheal_cli.serve.settings import HealerSettings, Priority

# -P: the module of this installation, whatever lies in the working folder
COMMAND = (sys.executable, "-P", "-m", "selfheal_cli.serve.healer")
NICENESS = 10  # scoring comes first, also where there is no class for idle time
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
SETTLED_SECONDS = 60.0  # a process that lived so long begins again without waiting long
PATIENCE_SECONDS = 30.0  # for a run to be ended properly


class Supervisor:
    """Keeps one healer process alive until `stop`."""

    def __init__(
        self, settings: HealerSettings, meters: ServerMetrics, command: Sequence[str] = COMMAND
    ) -> None:
        self.restarts = 0
        self._told = settings.model_dump_json().encode()
        self._priority = settings.priority
        self._command = list(command)
        self._meters = meters
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> None:
        """Begin the process and watch it."""
        self._thread.start()

    def stop(self, patience: float = PATIENCE_SECONDS) -> None:
        """Have it end its run, and wait for that; one that does not end is killed."""
        with self._lock:
            self._stop.set()
            process = self._process
        if process is not None:
            process.terminate()
            try:
                process.wait(patience)
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
            self._meters.healer_restarts.inc()
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
                self._command, stdin=subprocess.PIPE, process_group=0
            )
        _give_way(process.pid, self._priority)
        if process.stdin is not None:
            with contextlib.suppress(OSError):  # it ended before it listened
                process.stdin.write(self._told)
                process.stdin.close()
        return process


def _give_way(pid: int, priority: Priority) -> None:
    """Set how a process, and those that it starts, come to the processor."""
    with contextlib.suppress(OSError):
        if priority != "normal":
            os.setpriority(os.PRIO_PROCESS, pid, NICENESS)
        if priority == "idle" and hasattr(os, "SCHED_IDLE"):
            os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
