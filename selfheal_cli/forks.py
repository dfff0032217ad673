"""What a fork of the process must not find: work half done on SQLite files, and open ones.

SQLite keeps its own locks, and which locks its connections hold on a file, for the whole process. A
fork amid another thread's statement would wait for ever for one of them, and beside an open
connection would take its parent's locks on the file for its own. So work is done `at_work`; a fork
waits until nobody is, and closes what `close_at_fork` named, which opens itself again when it is
used (https://www.sqlite.org/howtocorrupt.html#_carrying_an_open_database_across_a_fork_).
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

PATIENCE = 30.0  # seconds that a fork waits; then it goes on, as a program without us would


class ClosedAtFork(Protocol):
    """Something with a file open."""

    def close_for_fork(self) -> None:
        """Close it until it is used again; nobody is at work with it."""


class _Gate:
    """Threads at work, by their identity; forks go through while there are none."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._at_work: Counter[int] = Counter()
        self._forks = 0

    def enter(self, thread: int) -> None:
        with self._changed:
            # who is at work already goes on, so that the fork gets its turn
            self._changed.wait_for(lambda: not self._forks or thread in self._at_work)
            self._at_work[thread] += 1

    def leave(self, thread: int) -> None:
        with self._changed:
            self._at_work[thread] -= 1
            if not self._at_work[thread]:
                del self._at_work[thread]
                self._changed.notify_all()

    def begin_fork(self, thread: int) -> None:
        with self._changed:
            self._forks += 1
            self._changed.wait_for(lambda: not self._at_work.keys() - {thread}, PATIENCE)

    def end_fork(self) -> None:
        with self._changed:
            self._forks -= 1
            self._changed.notify_all()


_NOTHING = nullcontext()
_gate = _Gate()
_expected: list[Callable[[], None]] = []  # what to close, of a program that may fork
_files: weakref.WeakSet[ClosedAtFork] = weakref.WeakSet()


def expect_forks(close: Callable[[], None]) -> None:
    """From now on forks wait, and ``close`` what is not named by `close_at_fork`."""
    if not _expected:
        os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
    _expected.append(close)


def at_work() -> AbstractContextManager[None]:
    """No fork happens within; a thread may nest it."""
    return _working(threading.get_ident()) if _expected else _NOTHING


@contextmanager
def _working(thread: int) -> Iterator[None]:
    gate = _gate
    gate.enter(thread)
    try:
        yield
    finally:
        gate.leave(thread)


def close_at_fork(file: ClosedAtFork) -> None:
    """Have a file closed before each fork, as long as somebody holds it."""
    _files.add(file)


def _before() -> None:
    _gate.begin_fork(threading.get_ident())
    for file in list(_files):
        file.close_for_fork()
    for close in _expected:
        close()


def _in_parent() -> None:
    _gate.end_fork()


def _in_child() -> None:
    global _gate  # noqa: PLW0603
    _gate = _Gate()  # the threads at work stayed with the parent
