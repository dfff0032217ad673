"""Heals in a process of their own, so that scoring keeps its interpreter to itself.

Predict p99 while heals run back to back was measured: a process 1.02 to 1.07 times idle, a
thread 2 to 4 times. ``benchmarks/latency.py`` measures it here.
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

    Of the tasks that wait, only the newest is kept: it has the newest rows, and the heal that is
    under way is soon out of date.
    """

    def __init__(self, live: LiveModel, recipes: Recipes) -> None:
        self._live = live
        self._base = worker.encode_recipes(recipes)
        self._waiting: HealTask | None = None
        self._running: HealTask | None = None
        self._ready = False
        self._starts_left = MAX_STARTS
        self._process, self._connection = self._start()
        self._await_ready()

    @property
    def in_flight(self) -> bool:
        """See `HealEngine`."""
        return self._running is not None or self._waiting is not None

    @property
    def worker_pid(self) -> int | None:
        """Process id of the worker."""
        return self._process.pid

    def submit(self, task: HealTask) -> HealTask | None:
        """See `HealEngine`."""
        replaced, self._waiting = self._waiting, task
        self._dispatch()
        return replaced

    def take(self, *, wait: bool = False) -> HealOutcome | HealFailure | None:
        """See `HealEngine`."""
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
            if self._running is None:  # the first word of a restarted worker
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
        except OSError:  # the worker is gone; `take` finds out and says so
            return

    def _start(self) -> tuple[subprocess.Popen[bytes], Connection]:
        """A process that knows nothing of the program it belongs to: multiprocessing would run
        that program's main file again.
        """
        ours, theirs = Pipe()
        path = os.pathsep.join(one for one in sys.path if one)
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", worker.__name__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
        )
        theirs.close()
        with suppress(OSError):  # it is gone already; whoever waits for it finds out
            ours.send_bytes(self._base)
        return process, ours

    def _end(self) -> int | None:
        """Its exit code, once it has ended: it does when its connection closes."""
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
        """Start the worker again; the heal that was lost with it has failed."""
        self._connection.close()
        code = self._end()
        self._starts_left -= 1
        if self._starts_left == 0:
            raise HealError(f"the heal worker ended {MAX_STARTS} times in a row (exit code {code})")
        lost, self._running, self._ready = self._running, None, False
        self._process, self._connection = self._start()
        if lost is None:  # it ended while it started; the waiting heal goes on waiting
            return None
        reason = f"the heal worker ended (exit code {code}) and was started again"
        return HealFailure(lost, reason, worker_restarted=True)
