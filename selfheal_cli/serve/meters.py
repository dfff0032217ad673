"""What the server counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0)


class Meters:
    """One set a server. What the healer says is read from the board when Prometheus asks."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "selfheal_requests", "Requests answered", ["route", "status", "version"],
            registry=self.registry,
        )  # fmt: skip
        self.rows = Counter("selfheal_rows", "Rows scored", ["version"], registry=self.registry)
        self.seconds = Histogram(
            "selfheal_request_seconds", "Until a request was answered", ["route", "version"],
            buckets=SECONDS, registry=self.registry,
        )  # fmt: skip
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
