"""How heals run: in place, or in a process of their own (`worker_engine`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from selfheal_cli.errors import HealError, HealRefused, one_line
from selfheal_cli.heal.recipe import Recipes
from selfheal_cli.heal.task import AdapterState, HealFailure, HealOutcome, HealTask
from selfheal_cli.model.network import SelfHealingNetwork

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray


@dataclass(frozen=True, slots=True)
class Serving:
    """A network with the state of its adapter, the snapshot that it came from, and the
    probability from which on it flags a row.
    """

    network: SelfHealingNetwork
    adapter: AdapterState
    snapshot: str
    threshold: float


class LiveModel:
    """Takes no lock: reading and replacing one attribute are each atomic in CPython.

    ``on_publish`` is told what serves whenever that has changed.
    """

    def __init__(
        self, serving: Serving, on_publish: Callable[[Serving], None] = lambda serving: None
    ) -> None:
        self.serving = serving
        self._on_publish = on_publish

    def predict(self, x: FloatArray) -> FloatArray:
        """(n, inputs) to probabilities, all by the same weights."""
        return self.serving.network.predict(x)

    def publish(self, adapter: AdapterState, snapshot: str, threshold: float) -> None:
        """Serve this adapter from the next prediction on."""
        network = self.serving.network.with_adapter(adapter.weights)
        self.serving = Serving(network, adapter, snapshot, threshold)
        self._on_publish(self.serving)


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

    def __init__(self, live: LiveModel, recipes: Recipes) -> None:
        self._live = live
        self._recipes = recipes
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
        return heal_or_fail(self._recipes, self._live.serving.adapter, task)

    def close(self) -> None:
        """Nothing to give back."""


def heal_or_fail(
    recipes: Recipes, before: AdapterState, task: HealTask
) -> HealOutcome | HealFailure:
    """Heal here and now; what goes wrong is an outcome as well."""
    try:
        return recipes.heal(before, task)
    except (HealError, RuntimeError, ValueError) as exc:
        reason = one_line(exc)
        return HealFailure(task, reason, refused=isinstance(exc, HealRefused))
