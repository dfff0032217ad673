"""The model that scores, and how heals run: in place, or in a process of their own
(`worker_engine`).
"""

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
    """The serving version: a network with its adapter's state, and the snapshot that it came from.

    ``threshold`` is the probability from which on it flags a row.
    """

    network: SelfHealingNetwork
    adapter: AdapterState
    snapshot: str
    threshold: float


@dataclass(frozen=True, slots=True)
class Tried:
    """A version that answers a ``share`` of requests ``until`` a time (seconds since 1970), by the
    hash of their column ``by``, or of their ids where it is empty; ``base`` is the id of its own
    where it is not on the champion's.
    """

    serving: Serving
    share: float
    by: str
    until: float
    base: str = ""


class LiveModel:
    """The serving version, which any thread may read while another publishes.

    It takes no lock: reading and replacing one attribute are each atomic in CPython.
    ``on_publish`` is called with the new serving version, ``on_canary`` with what is tried beside
    it from now on, None for nothing.
    """

    def __init__(
        self,
        serving: Serving,
        on_publish: Callable[[Serving], None] | None = None,
        on_canary: Callable[[Tried | None], None] | None = None,
    ) -> None:
        self.serving = serving
        self._on_publish = on_publish
        self._on_canary = on_canary

    def predict(self, x: FloatArray) -> FloatArray:
        """Probabilities (n,) or (n, K) of rows (n, inputs), all by the same weights."""
        return self.serving.network.predict(x)

    def publish(
        self,
        adapter: AdapterState,
        snapshot: str,
        threshold: float,
        network: SelfHealingNetwork | None = None,
    ) -> None:
        """Serve this adapter from the next prediction on, in a ``network`` that has it already."""
        network = network or self.serving.network.with_adapter(adapter.weights)
        # one assignment of the whole network: no prediction mixes two adapters
        self.serving = Serving(network, adapter, snapshot, threshold)
        if self._on_publish is not None:
            self._on_publish(self.serving)

    def try_out(self, tried: Tried | None) -> None:
        """Have a share of the requests answered by another version than what serves."""
        if self._on_canary is not None:
            self._on_canary(tried)


class HealEngine(Protocol):
    """Takes tasks and gives outcomes; publishing them is left to the caller."""

    @property
    def in_flight(self) -> bool:
        """Whether a heal was submitted whose outcome was not taken yet."""

    def submit(self, task: HealTask) -> HealTask | None:
        """Queue a heal; returns the waiting one that gives way to these newer rows, if any."""

    def take(self, *, wait: bool = False) -> HealOutcome | HealFailure | None:
        """The next outcome, or None when there is none (yet); ``wait`` until nothing is left.

        The caller publishes an outcome before it takes the next, so that heals build on one
        another.
        """

    def close(self) -> None:
        """Release the engine's process and connection."""


class InlineEngine:
    """Heals where it is called: the same bytes on every run."""

    def __init__(self, live: LiveModel, recipes: Recipes) -> None:
        self._live = live
        self._recipes = recipes
        self._task: HealTask | None = None

    @property
    def in_flight(self) -> bool:
        """Whether a task waits for `take`."""
        return self._task is not None

    def submit(self, task: HealTask) -> HealTask | None:
        """Keep the task until `take`; returns the one that it replaces."""
        replaced, self._task = self._task, task
        return replaced

    def take(self, *, wait: bool = False) -> HealOutcome | HealFailure | None:
        """Heal now, if a task was submitted."""
        task, self._task = self._task, None
        if task is None:
            return None
        return heal_or_fail(self._recipes, self._live.serving.adapter, task)

    def close(self) -> None:
        """Nothing to release."""


def heal_or_fail(
    recipes: Recipes, before: AdapterState, task: HealTask
) -> HealOutcome | HealFailure:
    """Heal in this thread; an error of the recipe comes back as a `HealFailure`."""
    try:
        return recipes.heal(before, task)
    except (HealError, RuntimeError, ValueError) as exc:  # the latter two come of torch and numpy
        reason = one_line(exc)
        return HealFailure(task, reason, refused=isinstance(exc, HealRefused))
