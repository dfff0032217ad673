"""What serves: one immutable reference that scoring reads and a heal or rollback replaces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from selfheal_cli.heal.task import AdapterState
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
