"""What the server counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

from selfheal_cli.serve.last_versions import LastVersions, Summed

SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0)


class Meters:
    """One set a server. What the healer says is read from the board when Prometheus asks."""

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
