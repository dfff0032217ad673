"""What the server counts, for Prometheus."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

# A model that heals has a new version every few seconds, and each would be a new time series for
# ever. What an old version counted goes into the sums and its series goes away.


KEPT = 5
VERSION = "version"
Key = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True, slots=True)
class Summed:
    """A metric with its ``labels``, of which one is ``version``, and what its sum is called."""

    metric: Counter | Histogram
    labels: tuple[str, ...]
    name: str
    text: str


class LastVersions(Collector):
    """Gives each metric twice: by version, of the ``kept`` that counted last, and summed.

    What is counted where there is no version (its label is no number) is kept.
    """

    def __init__(self, summed: Iterable[Summed], kept: int = KEPT) -> None:
        self._summed = tuple(summed)
        self._kept = kept
        self._order: list[str] = []  # versions, the one that counted last at the end
        self._counted: dict[str, float] = {}
        self._gone: dict[Key, float] = defaultdict(float)
        self._lock = threading.Lock()

    def describe(self) -> Iterator[Metric]:
        """Names and types, without a look at the counts."""
        for one in self._summed:
            yield _family(one)
            yield Metric(one.name, one.text, _family(one).type)

    def collect(self) -> Iterator[Metric]:
        """What was counted until now."""
        with self._lock:
            yield from list(self._collect())

    def _collect(self) -> Iterator[Metric]:
        collected = [(one, _samples(one)) for one in self._summed]
        old = self._forget([sample for _, samples in collected for sample in samples])
        for one, samples in collected:
            gone = [sample for sample in samples if sample.labels[VERSION] in old]
            family = _family(one)
            family.samples = [sample for sample in samples if sample.labels[VERSION] not in old]
            total = Metric(one.name, one.text, family.type)
            total.samples = self._total(one, family, gone)
            yield family
            yield total
            for labels in {tuple(sample.labels[key] for key in one.labels) for sample in gone}:
                one.metric.remove(*labels)

    def _forget(self, samples: list[Sample]) -> set[str]:
        """Versions that are not among those which counted last."""
        counted: dict[str, float] = defaultdict(float)
        for sample in samples:
            if sample.labels[VERSION].isdecimal():
                counted[sample.labels[VERSION]] += sample.value
        moved = [name for name in counted if counted[name] != self._counted.get(name)]
        moved.sort(key=int)  # of several the newest is the last
        self._order = [name for name in self._order if name in counted and name not in moved]
        self._order += moved
        old = set(self._order[: -self._kept])
        self._order = self._order[-self._kept :]
        self._counted = {name: counted[name] for name in self._order}
        return old

    def _total(self, one: Summed, family: Metric, gone: list[Sample]) -> list[Sample]:
        for sample in gone:
            self._gone[_key(one, family, sample)] += sample.value
        sums = {
            key: value
            for key, value in self._gone.items()
            if key[0].removeprefix(one.name) in ("_total", "_bucket", "_count", "_sum")
        }
        for sample in family.samples:
            key = _key(one, family, sample)
            sums[key] = sums.get(key, 0.0) + sample.value
        return [Sample(name, dict(labels), value) for (name, labels), value in sums.items()]


def _family(one: Summed) -> Metric:
    (family,) = one.metric.describe()
    metric: Metric = family
    return metric


def _samples(one: Summed) -> list[Sample]:
    """Without the times of creation, which do not add up."""
    return [
        sample
        for family in one.metric.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    ]


def _key(one: Summed, family: Metric, sample: Sample) -> Key:
    labels = tuple((key, value) for key, value in sample.labels.items() if key != VERSION)
    return one.name + sample.name.removeprefix(family.name), labels


SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0)


class ServerMetrics:
    """One set a server. What the healer says is read from the channel when Prometheus asks."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        by_request, by_version = ("route", "status", "version"), ("version",)
        self.requests = Counter(
            "selfheal_requests", "Requests answered, of the versions that served last",
            by_request, registry=None,
        )  # fmt: skip
        self.rows = Counter(
            "selfheal_rows", "Rows scored, of the versions that served last", by_version,
            registry=None,
        )  # fmt: skip
        by_route = ("route", "version")
        self.seconds = Histogram(
            "selfheal_request_seconds",
            "Until a request was answered, of the versions that served last", by_route,
            buckets=SECONDS, registry=None,
        )  # fmt: skip
        summed = (
            Summed(self.requests, by_request, "selfheal_all_requests",
                   "Requests answered, of all versions"),
            Summed(self.rows, by_version, "selfheal_all_rows", "Rows scored, of all versions"),
            Summed(self.seconds, by_route, "selfheal_all_request_seconds",
                   "Until a request was answered, of all versions"),
        )  # fmt: skip
        self.registry.register(LastVersions(summed))
        self.refused = Counter(
            "selfheal_refused", "Requests refused, by reason", ["reason"], registry=self.registry
        )
        self.unrecorded = Counter(
            "selfheal_rows_unrecorded", "Rows scored that the spool could not take",
            registry=self.registry,
        )  # fmt: skip
        self.labels = Counter(
            "selfheal_labels", "Labels that came, by what became of them", ["outcome"],
            registry=self.registry,
        )  # fmt: skip
        self.healer_restarts = Counter(
            "selfheal_healer_restarts", "Times the healer's process ended by itself",
            registry=self.registry,
        )  # fmt: skip
        self.publications_refused = Counter(
            "selfheal_publications_refused",
            "Adapters that did not verify or could not be fetched, so that the old one serves",
            registry=self.registry,
        )
