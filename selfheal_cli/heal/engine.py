"""How heals run: in place, or in a process of their own (`worker_engine`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from selfheal_cli.config import HealSettings
from selfheal_cli.errors import HealError
from selfheal_cli.heal.healer import HealOutcome, HealTask, heal
from selfheal_cli.heal.live import LiveModel


@dataclass(frozen=True, slots=True)
class HealFailure:
    """A heal that gave no weights; the old ones stay."""

    task: HealTask
    reason: str
    worker_restarted: bool = False


class HealEngine(Protocol):
    """Takes tasks, gives outcomes; never touches what serves."""

    @property
    def in_flight(self) -> bool:
        """A heal was asked for and its outcome was not taken yet."""

    def submit(self, task: HealTask) -> HealTask | None:
        """Ask for a heal; returns the one that still waited and gives way to these newer rows."""

    def take(self, *, wait: bool = False) -> HealOutcome | HealFailure | None:
        """The next outcome, or None when there is none (yet); ``wait`` until nothing is left.

        The caller publishes an outcome before it asks again, so that heals build on one another.
        """

    def close(self) -> None:
        """Give back what the engine holds."""


class InlineEngine:
    """Heals where it is called: the same bytes on every run."""

    def __init__(self, live: LiveModel, settings: HealSettings) -> None:
        self._live = live
        self._settings = settings
        self._task: HealTask | None = None

    @property
    def in_flight(self) -> bool:
        """See `HealEngine`."""
        return self._task is not None

    def submit(self, task: HealTask) -> HealTask | None:
        """See `HealEngine`."""
        replaced, self._task = self._task, task
        return replaced

    def take(self, *, wait: bool = False) -> HealOutcome | HealFailure | None:
        """Heal now, if something was asked for."""
        task, self._task = self._task, None
        if task is None:
            return None
        serving = self._live.serving
        try:
            return heal(serving.network, serving.adapter, task, self._settings)
        except (HealError, RuntimeError) as exc:
            return HealFailure(task, " ".join(str(exc).split()))

    def close(self) -> None:
        """Nothing to give back."""
