"""The monitors of a run: fitted on its training rows, read after each batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from selfheal_cli.config import MonitorSettings, RunConfig
from selfheal_cli.history.events import Kind
from selfheal_cli.model.attribution import input_gradients
from selfheal_cli.model.network import Classifier, SelfHealingNetwork
from selfheal_cli.monitor.label_desk import Scored
from selfheal_cli.monitor.monitors.base import BatchView, Level, Monitor, Reading
from selfheal_cli.monitor.monitors.kinds import build, limits_of, targets_of
from selfheal_cli.monitor.monitors.sample import TrainingSample
from selfheal_cli.monitor.prequential import classify
from selfheal_cli.monitor.rules import RuleSet
from selfheal_cli.pipeline.ledger import Ledger
from selfheal_cli.pipeline.sensitive import numeric_inputs
from selfheal_cli.records import Conflicts, Rows
from selfheal_cli.source.base import Source

if TYPE_CHECKING:
    from selfheal_cli.records import Columns, FloatArray


@dataclass(frozen=True, slots=True)
class Watched:
    """A batch's readings by monitor; ``reasons`` to heal, ``drifting`` where there is a verdict."""

    readings: Mapping[str, Reading] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    drifting: bool = False

    def told(self) -> dict[str, Any]:
        """For the batch's event; nothing where there are no monitors."""
        if not self.readings:
            return {}
        return {"monitors": {key: reading.as_dict() for key, reading in self.readings.items()}}


NOTHING = Watched()


class Monitoring:
    """All monitors of a stream; without any it does nothing."""

    def __init__(self, config: RunConfig, sample: TrainingSample | None, ledger: Ledger) -> None:
        self._ledger = ledger
        self._monitors: list[tuple[MonitorSettings, Monitor]] = []
        if sample is not None:
            self._monitors = [(settings, build(settings, sample)) for settings in config.monitors]
        self._alarmed: frozenset[str] = frozenset()

    def observe(
        self, scored: Scored, columns: Columns, conflicts: Conflicts, learned: Sequence[Scored]
    ) -> Watched:
        """Let every monitor see a batch, and the labels that came with it."""
        if not self._monitors:
            return NOTHING
        view = BatchView(
            columns,
            scored.shadow,
            classify(scored.probabilities, scored.threshold),
            conflicts.count,
            _errors(learned),
        )
        readings = {settings.key: one.update(view) for settings, one in self._monitors}
        loud = [
            (settings, one.limits.threshold, readings[settings.key])
            for settings, one in self._monitors
            if readings[settings.key].level is Level.ALARM
        ]
        for settings, threshold, reading in loud:
            if settings.key not in self._alarmed:
                self._note(scored.batch, settings, threshold, reading)
        self._alarmed = frozenset(settings.key for settings, _, _ in loud)
        return Watched(
            readings,
            tuple(_reason(s.key, t, r) for s, t, r in loud if s.triggers == "heal"),
            any(settings.triggers != "nothing" for settings, _, _ in loud),
        )

    def _note(
        self, batch: int, settings: MonitorSettings, threshold: float, reading: Reading
    ) -> None:
        told = {"monitor": settings.key, "threshold": threshold, "triggers": settings.triggers}
        reason = _reason(settings.key, threshold, reading)
        self._ledger.note(
            Kind.MONITOR_ALARM, {"batch": batch, "reason": reason} | told | reading.as_dict()
        )


def check_monitors(config: RunConfig, source: Source) -> None:
    """Raise `ConfigurationError` for a monitor that cannot be, before training takes its time."""
    numeric = source.encoding.numeric
    text = [name for name in source.encoding.names if name not in numeric]
    for settings in config.monitors:
        targets_of(settings, numeric, text)


def sample_of(
    config: RunConfig,
    source: Source,
    rows: Rows,
    network: SelfHealingNetwork,
    shadow: Classifier,
    threshold: float,
    rules: RuleSet,
) -> TrainingSample:
    """What monitors compare with: sampled training rows, seen by the network as it was trained."""
    probabilities = network.predict(rows.x)
    unknown = np.full(len(rows), -1, dtype=np.int8)
    least = config.policy.conflict_probability
    conflicts = rules.judge(rows.columns).conflicts_with(probabilities, unknown, least)
    categories = {
        column.name: column.categories
        for column in source.encoding.columns
        if column.kind == "categorical"
    }
    return TrainingSample(
        rows,
        shadow.predict(rows.x),
        classify(probabilities, threshold),
        conflicts.count,
        tuple(source.labels),
        tuple(source.encoding.numeric),
        categories,
        _gradients(source, network, rows.x),
    )


def describe(monitor: Mapping[str, Any]) -> str:
    """A configured monitor in words."""
    settings = MonitorSettings.model_validate(monitor)
    limits = limits_of(settings)
    started = "nothing" if settings.triggers == "nothing" else f"a {settings.triggers}"
    return (
        f"{settings.key}: warns from {limits.warning:g}, alarms from {limits.threshold:g}, "
        f"starts {started}"
    )


def _gradients(source: Source, network: SelfHealingNetwork, x: FloatArray) -> dict[str, float]:
    """By numeric feature: mean of |gradient| times the input's standard deviation."""
    found = np.abs(input_gradients(network, x)).mean(axis=0, dtype=np.float64)
    found *= x.std(axis=0, dtype=np.float64)
    return {name: float(found[place]) for name, place in numeric_inputs(source.encoding)}


def _errors(learned: Sequence[Scored]) -> Any:
    """One a label: 1.0 where what served was wrong."""
    wrong = [classify(one.probabilities, one.threshold) != one.y for one in learned]
    return np.concatenate(wrong).astype(np.float64) if wrong else np.empty(0)


def _reason(key: str, threshold: float, reading: Reading) -> str:
    named = f" ({', '.join(reading.features)})" if reading.features else ""
    return f"monitor {key}: {reading.value:.3f} >= {threshold:g}{named}"
