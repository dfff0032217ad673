"""How far targets were told, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from selfheal_cli.errors import StorageError
from selfheal_cli.serve.notify.store import NoticeStore


class NoticeMetrics(Collector):
    """Counts when Prometheus asks."""

    def __init__(self, store: NoticeStore) -> None:
        self._store = store

    def describe(self) -> Iterator[Metric]:
        """Nothing is read before somebody asks."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """By target: told, tried and to be tried again, and set aside after three days."""
        family = GaugeMetricFamily(
            "selfheal_notices", "Events that a target was told of, or was not", labels=("target",
            "state")
        )  # fmt: skip
        try:
            counts = self._store.counts()
        except StorageError:
            return
        for (target, state), count in sorted(counts.items()):
            family.add_metric((target, state), count)
        yield family
