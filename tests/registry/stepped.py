"""Works on one registry, one call at a time, in an order that a seed decides and no clock."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

Work = Callable[[Any], object]


@dataclass
class _Worker:
    """A thread that goes on by one call of the registry whenever it is let."""

    work: Work
    registry: Any
    may: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    rests: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    ended: bool = False
    result: object = None

    def start(self) -> None:
        threading.Thread(target=self._run, daemon=True).start()

    def step(self) -> None:
        """Let it go on until its next call, or its end."""
        self.may.release()
        self.rests.acquire()

    def pause(self) -> None:
        """Called by the thread itself, before each call."""
        self.rests.release()
        self.may.acquire()

    def _run(self) -> None:
        self.may.acquire()
        try:
            self.result = self.work(_Stepped(self.registry, self.pause))
        except Exception as exc:
            self.result = exc
        self.ended = True
        self.rests.release()


class _Stepped:
    """The registry as a worker sees it."""

    def __init__(self, registry: Any, pause: Callable[[], None]) -> None:
        self._registry = registry
        self._pause = pause

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._registry, name)

        def call(*arguments: Any, **given: Any) -> Any:
            self._pause()
            result = method(*arguments, **given)
            return iter(list(result)) if isinstance(result, Iterator) else result

        return call if callable(method) else method


def interleave(seed: int, *works: tuple[Work, Any]) -> list[object]:
    """Each work with its registry; what each returned, or the exception that ended it."""
    order = random.Random(seed)  # noqa: S311 (an order, no secret)
    workers = [_Worker(work, registry) for work, registry in works]
    for worker in workers:
        worker.start()
    while under_way := [worker for worker in workers if not worker.ended]:
        order.choice(under_way).step()
    return [worker.result for worker in workers]
