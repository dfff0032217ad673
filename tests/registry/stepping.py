"""Registries that a test stops at each call: two at once in a chosen order, or one frozen."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

from selfheal_cli.errors import RegistryUnreachable
from tests.conftest import PATIENCE


class Interleaving:
    """Runs tasks each in a thread, one at a time; at each step of one the seed says who is next."""

    def __init__(self, seed: int, ran: Callable[[str], None] = lambda name: None) -> None:
        self._random = random.Random(seed)  # noqa: S311
        self._ran = ran
        self._ended: set[str] = set()
        self._back = threading.Semaphore(0)
        self._turns: dict[str, threading.Semaphore] = {}
        self._thread = threading.local()  # an ident is used again once its thread has ended
        self.raised: dict[str, BaseException] = {}

    def run(self, tasks: dict[str, Callable[[], object]]) -> None:
        """All of them to their ends; ``ran`` hears after each turn whose it was."""
        self._turns = {name: threading.Semaphore(0) for name in tasks}
        threads = {
            name: threading.Thread(target=self._go, args=(name, task), daemon=True)
            for name, task in tasks.items()
        }
        for thread in threads.values():
            thread.start()
        left = sorted(tasks)
        while left:
            name = self._random.choice(left)
            self._turns[name].release()
            assert self._back.acquire(timeout=PATIENCE), f"{name} does not come back"
            self._ran(name)
            left = [name for name in left if name not in self._ended]
        for thread in threads.values():
            thread.join(PATIENCE)

    def step(self) -> None:
        """Let another go on; threads that the tasks start themselves run as they like."""
        name = getattr(self._thread, "name", None)
        if name is not None:
            self._back.release()
            self._turns[name].acquire()

    def _go(self, name: str, task: Callable[[], object]) -> None:
        self._thread.name = name
        self._turns[name].acquire()
        try:
            task()
        except Exception as exc:
            self.raised[name] = exc
        self._ended.add(name)
        self._back.release()


class Stepped:
    """A registry, each call of which is a step before it and one after."""

    def __init__(self, registry: Any, steps: Interleaving) -> None:
        self._registry, self._steps = registry, steps

    def __getattr__(self, name: str) -> Any:
        inner = getattr(self._registry, name)
        if not callable(inner):
            return inner

        def call(*arguments: Any, **more: Any) -> Any:
            self._steps.step()
            result = inner(*arguments, **more)
            self._steps.step()
            return result

        return call


class Freezing:
    """A registry that stops a run's writer at one of its calls, before it is done or after, until
    it is thawed; 0 is at none.

    Once it is ``dead`` no call comes through any more.
    """

    def __init__(self, registry: Any, call: int, *, after: bool) -> None:
        self._registry, self._call, self._after = registry, call, after
        self.calls: list[str] = []
        self.frozen, self.thawed = threading.Event(), threading.Event()
        self.dead = False

    def __getattr__(self, name: str) -> Any:
        inner = getattr(self._registry, name)
        if not callable(inner):
            return inner

        def call(*arguments: Any, **more: Any) -> Any:
            if threading.current_thread().name == "delivery":
                self.calls.append(name)
                here = len(self.calls) == self._call
            else:
                here = False
            if here and not self._after:
                self._freeze()
            if self.dead:
                raise RegistryUnreachable("killed")
            result = inner(*arguments, **more)
            if here and self._after:
                self._freeze()
            return result

        return call

    def _freeze(self) -> None:
        self.frozen.set()
        assert self.thawed.wait(PATIENCE)
