"""Heals again in the order in which a worker was done with them the first time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from selfheal_cli.errors import HealError, HealRefused
from selfheal_cli.heal.engine import HealEngine
from selfheal_cli.heal.live import LiveModel
from selfheal_cli.heal.recipe import Recipes
from selfheal_cli.heal.task import AdapterState, HealFailure, HealOutcome, HealTask

# what a record says of a heal that is done: None for nothing, else the event's data
Ended = Callable[[str], Mapping[str, Any] | None]


class RecordedEngine:
    """Stands for a worker while a recorded run is gone through again, then hands over to it.

    ``ended`` tells, by a heal's id, whether the next recorded event is about its end; ``over``
    whether the record has come to its own end.
    """

    def __init__(
        self,
        live: LiveModel,
        recipes: Recipes,
        start: Callable[[], HealEngine],
        ended: Ended,
        over: Callable[[], bool],
    ) -> None:
        self._live = live
        self._recipes = recipes
        self._start = start
        self._ended = ended
        self._over = over
        self._real: HealEngine | None = None
        self._running: HealTask | None = None
        self._before: AdapterState | None = None  # what served when the running heal began
        self._waiting: HealTask | None = None

    @property
    def in_flight(self) -> bool:
        """See `HealEngine`."""
        if self._real is not None:
            return self._real.in_flight
        return self._running is not None or self._waiting is not None

    def submit(self, task: HealTask) -> HealTask | None:
        """See `HealEngine`."""
        engine = self._engine()
        if engine is not None:
            return engine.submit(task)
        replaced, self._waiting = self._waiting, task
        self._dispatch()
        return replaced

    def take(self, *, wait: bool = False) -> HealOutcome | HealFailure | None:
        """See `HealEngine`."""
        engine = self._engine()
        if engine is not None:
            return engine.take(wait=wait)
        self._dispatch()
        if self._running is None or self._before is None:
            return None
        recorded = self._ended(self._running.heal_id)
        if recorded is None:
            return None
        task, self._running = self._running, None
        if recorded.get("worker_restarted"):
            return HealFailure(task, recorded["reason"], worker_restarted=True)
        try:
            return self._recipes.heal(self._before, task)
        except (HealError, RuntimeError, ValueError) as exc:
            reason = " ".join(str(exc).split())
            return HealFailure(task, reason, refused=isinstance(exc, HealRefused))

    def close(self) -> None:
        """See `HealEngine`."""
        if self._real is not None:
            self._real.close()

    def _engine(self) -> HealEngine | None:
        """The worker, once the record is over; what is under way begins there anew."""
        if self._real is None and self._over():
            self._real = self._start()
            for task in (self._running, self._waiting):
                if task is not None:
                    self._real.submit(task)
            self._running = self._waiting = None
        return self._real

    def _dispatch(self) -> None:
        if self._running is None and self._waiting is not None:
            self._running, self._waiting = self._waiting, None
            self._before = self._live.serving.adapter
