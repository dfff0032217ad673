"""Commands whose surroundings fail at a chosen batch, each in a process forked from here."""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

import pytest
import sqlalchemy
from sqlalchemy.engine import Engine

from selfheal_cli.cli.main import main
from selfheal_cli.cli.run_screen import RunScreen
from selfheal_cli.events.event import Event
from selfheal_cli.events.types import BatchScored

RUN = ("run", "--no-plots", "--set", "network.epochs=2", "--batches", "4")
RESUME = ("run", "--resume", "latest")
CRASHED = 99
PATIENCE = "selfheal_cli.pipeline.runs.run.PATIENCE_SECONDS"
LOCK = """
import sqlite3, sys
database = sqlite3.connect("mlflow.db", timeout=60, isolation_level=None)
database.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
database.execute("ROLLBACK")
"""


@dataclass(frozen=True)
class Ended:
    """A command's exit code and what it said."""

    code: int
    output: str
    stderr: str


def in_child(*arguments: str, prepare: Callable[[], None] = lambda: None) -> Ended:
    """A command in a child, which ``prepare`` may spoil, to its end."""
    return begun(*arguments, prepare=prepare)()


@dataclass(frozen=True)
class Child:
    """A command that runs in a child; what it says comes by pipes, which have no limit."""

    pid: int
    output: IO[str]
    stderr: IO[str]

    def __call__(self) -> Ended:
        """Wait for its end; with what was not read of its output before."""
        with self.output, self.stderr:  # the second fits into its pipe until it is read
            said = self.output.read(), self.stderr.read()
        return Ended(os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]), *said)


def begun(*arguments: str, prepare: Callable[[], None] = lambda: None) -> Child:
    """A command that runs in a child; call it to wait."""
    told, telling = os.pipe()
    complained, complaining = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(telling, 1)
        os.dup2(complaining, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w")
        code = CRASHED
        try:
            prepare()
            main(list(arguments))
        except SystemExit as exc:
            code = int(exc.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    os.close(telling)
    os.close(complaining)
    return Child(child, os.fdopen(told), os.fdopen(complained))


def at_batch(batch: int, fault: Callable[[], None], patience: float = 0.2) -> Callable[[], None]:
    """What spoils a child: the fault, once the batch was written down.

    At its end the child waits so many seconds for a registry that does not answer.
    """

    def prepare() -> None:
        shown = RunScreen.on_event

        def on_event(screen: RunScreen, event: Event) -> None:
            shown(screen, event)
            if isinstance(event, BatchScored) and event.batch == batch:
                fault()

        pytest.MonkeyPatch().setattr(RunScreen, "on_event", on_event)
        pytest.MonkeyPatch().setattr(PATIENCE, patience)

    return prepare


def short_of_patience(refused: threading.Event) -> None:
    """SQLite says after 50 ms that the store is locked, where MLflow has it wait for 20 s.

    ``refused`` is set once the thread that brings writes to the registry was told so.
    """

    def shorten(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> tuple[str, Any]:
        return statement.replace("busy_timeout = 20000", "busy_timeout = 50"), parameters

    def note(_: Any) -> None:
        if threading.current_thread().name == "delivery":
            refused.set()

    sqlalchemy.event.listen(Engine, "before_cursor_execute", shorten, retval=True)
    sqlalchemy.event.listen(Engine, "handle_error", note)


def limit_files(size: int) -> None:
    """No file of this process can be written beyond so many bytes: the nearest to a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def renounce_root() -> None:
    """Give up writing where the rights forbid it, which root may: CAP_DAC_OVERRIDE (1).

    Of this thread and of those that it starts; nothing changes for whoever is not root.
    """
    system = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3; of this thread
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice
    if system.capget(header, sets) != 0:
        raise OSError(ctypes.get_errno(), "capget")
    sets[0] &= ~(1 << 1)
    sets[1] &= ~(1 << 1)
    if system.capset(header, sets) != 0:
        raise OSError(ctypes.get_errno(), "capset")


class Locker:
    """Another process that has the store to itself from `lock` to `release`."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def lock(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", LOCK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "locked\n"

    def release(self) -> None:
        if self._process is not None:
            self._process.communicate()
            self._process = None
