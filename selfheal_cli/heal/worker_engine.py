"""Heals in a process of their own, so that they do not slow down scoring.

The p99 of predict while heals run back to back was 1.02 to 1.07 times that of an idle process,
and with a thread 2 to 4 times. ``benchmarks/latency.py`` measures it here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from selfheal_cli.errors import HealError
from selfheal_cli.heal import wire, worker
from selfheal_cli.heal.engine import LiveModel
from selfheal_cli.heal.recipe import Recipes
from selfheal_cli.heal.task import HealFailure, HealOutcome, HealTask

START_SECONDS = 120.0
STOP_SECONDS = 5.0
MAX_STARTS = 3


class WorkerEngine:
    """A `HealEngine` with one worker process; at most one heal in flight and one waiting.

    Of the waiting tasks only the newest is kept: it has the newest rows, and a heal on older ones
    would be out of date once it is done.
    """

    def __init__(self, live: LiveModel, recipes: Recipes) -> None:
        self._live = live
        self._recipes = worker.encode_recipes(recipes)
        self._waiting: HealTask | None = None
        self._running: HealTask | None = None
        self._ready = False
        self._starts_left = MAX_STARTS
        self._process, self._connection = self._start()
        self._await_ready()

    @property
    def in_flight(self) -> bool:
        """Whether a heal runs or waits."""
        return self._running is not None or self._waiting is not None

    @property
    def worker_pid(self) -> int | None:
        """Process id of the worker."""
        return self._process.pid

    def submit(self, task: HealTask) -> HealTask | None:
        """Send the task to the worker, or keep it until the worker is free."""
        replaced, self._waiting = self._waiting, task
        self._dispatch()
        return replaced

    def take(self, *, wait: bool = False) -> HealOutcome | HealFailure | None:
        """The worker's next outcome; a worker that has ended is started again.

        Raises `HealError` where it has ended `MAX_STARTS` times in a row.
        """
        while True:
            self._dispatch()
            if not self.in_flight or not (wait or self._connection.poll()):
                return None
            try:
                frame = self._connection.recv_bytes()
            except (EOFError, OSError):
                if (failure := self._restart()) is not None:
                    return failure
                continue
            if self._running is None:  # a restarted worker says that it is ready
                self._ready = True
                continue
            self._starts_left = MAX_STARTS
            task, self._running = self._running, None
            return wire.decode_outcome(frame, task)

    def close(self) -> None:
        """Let the worker end."""
        self._connection.close()
        self._end()

    def _dispatch(self) -> None:
        if not self._ready or self._running is not None or self._waiting is None:
            return
        task, self._waiting = self._waiting, None
        self._running = task
        try:
            self._connection.send_bytes(wire.encode_task(task, self._live.serving.adapter))
        except OSError:  # the worker has ended; `take` reads the same and restarts it
            return

    def _start(self) -> tuple[subprocess.Popen[bytes], Connection]:
        """Start the worker and send it the recipes."""
        # not by multiprocessing, which would run the main file of the host program again
        ours, theirs = Pipe()
        path = os.pathsep.join(filter(None, sys.path))
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", worker.__name__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
        )
        theirs.close()
        with suppress(OSError):  # it has ended already, which reading from it will show
            ours.send_bytes(self._recipes)
        return process, ours

    def _end(self) -> int | None:
        """Wait for the worker, which ends when its connection closes; returns its exit code."""
        try:
            return self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _await_ready(self) -> None:
        try:
            if self._connection.poll(START_SECONDS):
                self._connection.recv_bytes()
                self._ready = True
                return
        except (EOFError, OSError):
            pass
        raise HealError(f"the heal worker did not start within {START_SECONDS:g} s")

    def _restart(self) -> HealFailure | None:
        """Start the worker again; the heal that it was at has failed."""
        self._connection.close()
        code = self._end()
        self._starts_left -= 1
        if self._starts_left == 0:
            raise HealError(f"the heal worker ended {MAX_STARTS} times in a row (exit code {code})")
        lost, self._running, self._ready = self._running, None, False
        self._process, self._connection = self._start()
        if lost is None:  # it ended during its start; the waiting heal goes on waiting
            return None
        reason = f"the heal worker ended (exit code {code}) and was started again"
        return HealFailure(lost, reason, worker_restarted=True)
