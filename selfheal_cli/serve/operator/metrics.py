"""What the healer says and what waits, for Prometheus: read from the channel when it asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from selfheal_cli.errors import StorageError
from selfheal_cli.scores import title_of
from selfheal_cli.serve.operator.status import Judged, ModelStatus, StatusSnapshot, lifts

STATES: tuple[str, ...] = get_args(ModelStatus.model_fields["state"].annotation)
ENDS = ("promoted", "proposed", "withdrawn")
OUTCOMES = ("healed", "rejected", "refused", "failed", "coalesced")
FIGURES = {"f1": "F1", "accuracy": "Accuracy", "precision": "Precision", "recall": "Recall"}
Values = Iterable[tuple[tuple[str, ...], float]]


class StatusMetrics(Collector):
    """One a server; ``look`` is asked each time that Prometheus asks."""

    def __init__(self, look: Callable[[], StatusSnapshot]) -> None:
        self._look = look

    def describe(self) -> Iterator[Metric]:
        """Nothing is read before somebody asks."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """What stands on the control channel; where it cannot be read, that alone."""
        try:
            seen = self._look()
        except StorageError:
            yield _gauge("board_up", "1 where the file that server and healer share can be read", 0)
            return
        yield _gauge("board_up", "1 where the file that server and healer share can be read", 1)
        yield from _server(seen)
        yield from _healer(seen)
        yield from _stream(seen.standing)
        yield from _scores(seen.standing)
        yield from _labels(seen)
        yield from _canary(seen)


def _server(seen: StatusSnapshot) -> Iterator[Metric]:
    server, standing = seen.server, seen.standing
    yield _gauge("server_info", "1, with the name of the model", [((server.model,), 1)], "model")
    yield _gauge("start_time_seconds", "When the server began, since 1970", server.started)
    yield _gauge("workers", "Processes that score, as wanted", server.workers)
    yield _gauge("workers_up", "Processes that score", server.workers_up)
    yield _counter(
        "worker_restarts", "Processes that scored and ended by themselves", server.worker_restarts
    )
    yield _gauge("recorder_queue_rows", "Rows answered that are not on disk yet", server.queue)
    yield _gauge("spool_rows", "Rows that are kept for labels and for the healer", server.kept)
    yield _counter("rows_lost", "Rows forgotten before the healer read them", server.lost)
    yield _gauge("waiting_rows", "Rows answered that the healer did not look at", standing.waiting)
    yield _gauge("pending_writes", "Writes that wait for the registry", standing.pending_writes)
    if server.version is not None:
        yield _gauge("served_version", "Version that requests are answered with", server.version)
    yield _gauge("no_champion", "1 where the alias is gone", bool(standing.no_champion))
    if standing.champion is not None:
        yield _gauge(
            "champion_version", "Version that the alias points to", standing.champion.version
        )
        yield _gauge(
            "champion_foreign", "1 where another tool registered it, so that it does not serve",
            standing.champion.foreign,
        )  # fmt: skip


def _healer(seen: StatusSnapshot) -> Iterator[Metric]:
    standing = seen.standing
    yield _gauge("healer_up", "1 where the healer has spoken lately", int(seen.healer_up))
    if seen.age is not None:
        yield _gauge("healer_word_age_seconds", "Since the healer's last word", seen.age)
    yield _gauge(
        "state", "1 for the state that the healer is in",
        [((name,), float(name == standing.state)) for name in STATES], "state",
    )  # fmt: skip
    yield _gauge(
        "registry_away", "1 where the registry does not answer", bool(standing.registry_away)
    )
    yield _gauge("healing_held", "1 where an operator holds healing", bool(standing.held_by))
    heals = {name: standing.heals.get(name, 0) for name in OUTCOMES} | standing.heals
    yield _counter(
        "heals", "Heals, by what became of them",
        [((name,), count) for name, count in heals.items()], "outcome",
    )  # fmt: skip
    yield _counter(
        "spool_begun_anew", "Times that reading did not go on where it was left, since the spool "
        "or the log was another one", standing.begun_anew,
    )  # fmt: skip
    yield _counter("rollbacks", "Times that an earlier version was restored", standing.rollbacks)


def _canary(seen: StatusSnapshot) -> Iterator[Metric]:
    canary = seen.standing.canary
    yield _gauge("canary_share", "Share of requests that a canary answers; 0 where none is tried",
                 canary.share if canary else 0.0)  # fmt: skip
    yield _counter("canary_rows", "Rows that canaries answered", seen.server.canary_rows)
    yield _counter(
        "canaries", "Canaries that ended, by what became of them",
        [((name,), seen.standing.canaries.get(name, 0)) for name in ENDS], "outcome",
    )  # fmt: skip
    if canary is None:
        return
    if canary.version is not None:
        yield _gauge("canary_version", "Version that is tried", canary.version)
    yield _gauge("canary_batches", "Batches of labelled rows that it was compared on",
                 canary.batches)  # fmt: skip
    known = {"mean": canary.difference, "low": canary.low, "high": canary.high}
    yield _gauge(
        "canary_difference", "Log loss a row of the champion minus that of the canary, with bounds",
        [((name,), value) for name, value in known.items() if value is not None], "bound",
    )  # fmt: skip


def _stream(standing: ModelStatus) -> Iterator[Metric]:
    yield _counter("batches", "Batches that the healer looked at", standing.batch)
    yield _counter("rows_seen", "Rows that the healer looked at", standing.rows)
    yield _counter(
        "noted", "Rows and values that healing could not take as they came",
        [((what,), count) for what, count in standing.notes.items()], "what",
    )  # fmt: skip
    text = "Rows of the last batch on which rule and network disagree"
    yield _gauge("conflicts", text, standing.conflicts)
    drift = standing.drift
    if drift is not None:
        at = (drift.feature,)
        yield _gauge("drift_z", "Distance of the feature from training, in its sd",
                     [(at, drift.z)], "feature")  # fmt: skip
        yield _gauge("drift_threshold", "Distance from which on it counts as drift",
                     [(at, drift.threshold)], "feature")  # fmt: skip
        yield _gauge("drifting", "1 where the feature drifts", [(at, float(drift.drifting))],
                     "feature")  # fmt: skip
    yield _gauge(
        "monitor_reading", "Last reading of a monitor, in its own unit",
        [((name,), value) for name, value in standing.monitors.items()], "monitor",
    )  # fmt: skip
    yield _gauge("monitor_alarms", "Monitors in alarm", len(standing.alarms))


def _scores(standing: ModelStatus) -> Iterator[Metric]:
    who = {"live": standing.live, "shadow": standing.shadow}
    known: dict[str, Judged] = {name: one for name, one in who.items() if one is not None}
    yield _gauge(
        "judged_rows", "Labelled rows behind the figures of live and shadow",
        [((name,), one.rows) for name, one in known.items()], "who",
    )  # fmt: skip
    for figure, title in FIGURES.items():
        text = f"{title} on labelled rows, before anything learned from them"
        samples = [((name,), one.figures[figure]) for name, one in known.items()
                 if figure in one.figures]  # fmt: skip
        yield _gauge(figure, text, samples, "who")
    yield _gauge(
        "lift", "Live minus shadow: what healing gives, below 0 what it costs",
        [((figure,), value) for figure, value in lifts(standing).items()], "figure",
    )  # fmt: skip
    high = {one.figure: one.high for one in standing.compared if one.high is not None}
    yield _gauge(
        "lift_high", "Upper bound of the lift: where it is below 0, healing costs beyond chance",
        [((name,), high[title_of(name)]) for name in FIGURES if title_of(name) in high], "figure",
    )  # fmt: skip


def _labels(seen: StatusSnapshot) -> Iterator[Metric]:
    standing = seen.standing
    yield _counter(
        "healer_labels", "Labels that the healer got, by whether their rows are known",
        [(("joined",), standing.labels), (("unknown",), standing.labels_unknown)], "outcome",
    )  # fmt: skip
    if seen.label_age is not None:
        yield _gauge("last_label_age_seconds", "Since a label came last", seen.label_age)


def _gauge(name: str, text: str, values: Values | float, *labels: str) -> Metric:
    return _filled(GaugeMetricFamily(f"selfheal_{name}", text, labels=labels), values)


def _counter(name: str, text: str, values: Values | float, *labels: str) -> Metric:
    return _filled(CounterMetricFamily(f"selfheal_{name}", text, labels=labels), values)


def _filled(family: Any, values: Values | float) -> Metric:
    pairs: Values = [((), values)] if isinstance(values, int | float) else values
    for labels, value in pairs:
        family.add_metric(labels, value)
    metric: Metric = family
    return metric
