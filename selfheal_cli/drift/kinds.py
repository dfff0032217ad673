"""Monitors by name: what each reads, its defaults, and how it is built.

A new monitor is a class in `monitors`, a line in `KINDS`, and a name in the configuration; one of
another package is in `own`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf

from selfheal_cli.config import MonitorSettings, checked
from selfheal_cli.drift.fidi import WeightedFidi
from selfheal_cli.drift.monitor import (
    ERRORS,
    SCORES,
    AlarmLimits,
    Monitor,
    MonitorSetup,
    TrainingSample,
)
from selfheal_cli.drift.monitors import (
    Category,
    Changes,
    Missing,
    PredictionRate,
    Psi,
    RuleConflicts,
    TwoSample,
    adwin,
    kswin,
    page_hinkley,
    require_river,
)
from selfheal_cli.drift.own import OwnMonitor
from selfheal_cli.errors import ConfigurationError
from selfheal_cli.installed import load, part_of

ALL = "all"
NUMERIC, TEXT = "numeric features", "text features"


@dataclass(frozen=True, slots=True)
class MonitorKind:
    """A kind of monitor.

    ``reads``: what may stand in ``on``; nothing where there is no choice. ``threshold``: an effect
    size, in the unit that ``docs/monitors.md`` gives; the monitor warns from half of it on.
    ``river``: it needs that package.
    """

    build: Callable[[MonitorSetup], Monitor]
    reads: tuple[str, ...]
    threshold: float
    default: str = ALL
    river: bool = False


STREAMS = (NUMERIC, SCORES, ERRORS)
KINDS = {
    "fidi": MonitorKind(WeightedFidi, (NUMERIC,), 0.5),
    "adwin": MonitorKind(partial(Changes, adwin), STREAMS, 0.2, river=True),
    "kswin": MonitorKind(partial(Changes, kswin), STREAMS, 0.2, default=SCORES, river=True),
    "page-hinkley": MonitorKind(partial(Changes, page_hinkley), STREAMS, 0.2),
    "psi": MonitorKind(Psi, (NUMERIC, TEXT, SCORES), 0.2),
    "two-sample": MonitorKind(TwoSample, (NUMERIC, TEXT, SCORES), 0.1),
    "prediction-rate": MonitorKind(PredictionRate, (), 0.2),
    "missing": MonitorKind(Missing, (NUMERIC, TEXT), 0.2),
    "category": MonitorKind(Category, (TEXT,), 0.1),
    "conflicts": MonitorKind(RuleConflicts, (), 0.2),
}


def kind_of(name: str) -> MonitorKind:
    """What is known of a monitor, built in or not; raises `ConfigurationError`."""
    if name in KINDS:
        return KINDS[name]
    part = load("monitor", name)
    reads = tuple(getattr(part, "reads", (NUMERIC, TEXT)))
    threshold = getattr(part, "threshold", 0.2)
    odd = [one for one in reads if one not in (NUMERIC, TEXT, SCORES, ERRORS)]
    if odd:
        raise part_of("monitor", name).failed(f"reads {odd[0]!r}, which is not there")
    if not (isinstance(threshold, int | float) and 0 < threshold < inf):
        raise part_of("monitor", name).failed(f"has the threshold {threshold!r}: above 0 is needed")
    return MonitorKind(partial(OwnMonitor, name), reads, float(threshold))


def targets_of(
    settings: MonitorSettings, numeric: Sequence[str], text: Sequence[str]
) -> tuple[str, ...]:
    """The features, scores or errors that a monitor reads.

    None where a table has no feature of the kind's and none was asked for. Raises
    `ConfigurationError` for one that it cannot read, and where it needs river and river is not
    installed.
    """
    kind = kind_of(settings.name)
    if kind.river:
        require_river()
    if not kind.reads:
        if settings.on:
            raise _refused(settings, settings.on[0], ())
        return ()
    features = [
        *(numeric if NUMERIC in kind.reads else ()),
        *(text if TEXT in kind.reads else ()),
    ]
    special = [name for name in (SCORES, ERRORS) if name in kind.reads]
    asked = settings.on or (kind.default,)
    # scores and errors are no features: "all" does not mean them
    if asked == (ALL,):
        if not features and settings.on:
            raise ConfigurationError(
                f"monitor '{settings.name}' looks at {' and '.join(kind.reads)}; there are none"
            )
        return tuple(features)
    for name in asked:
        if name not in features and name not in special:
            raise _refused(settings, name, (ALL, *special, *features))
    return tuple(dict.fromkeys(asked))  # a feature that is named twice is read once


def build(settings: MonitorSettings, sample: TrainingSample, *, exact: bool = False) -> Monitor:
    """A monitor as configured, fitted on the training rows; ``exact`` as in `MonitorSetup`."""
    targets = targets_of(settings, sample.numeric, tuple(sample.categories))
    setup = MonitorSetup(settings, limits_of(settings), targets, sample, exact)
    return kind_of(settings.name).build(setup)


def limits_of(settings: MonitorSettings) -> AlarmLimits:
    """Threshold and warning as configured; by default the kind's threshold, and half of it.

    >>> limits_of(MonitorSettings(name="psi", threshold=0.05))
    AlarmLimits(threshold=0.05, warning=0.025, alpha=0.0001)
    """
    kind = kind_of(settings.name)
    threshold, warning = settings.threshold, settings.warning
    # a monitor that warned above its threshold would never warn
    if threshold is None:
        threshold = max(kind.threshold, warning or 0.0)
    if warning is None:
        warning = threshold / 2
    return AlarmLimits(threshold, warning, settings.alpha)


def _refused(settings: MonitorSettings, name: str, known: Sequence[str]) -> ConfigurationError:
    from difflib import get_close_matches

    if not known:
        return ConfigurationError(
            f"monitor '{settings.name}': on = '{name}': it looks at nothing that could be chosen; "
            "leave 'on' out"
        )
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return ConfigurationError(
        f"monitor '{settings.name}': on = '{name}' is not among what it looks at{hint}; "
        f"allowed: {', '.join(known)}"
    )


def parse_monitor(text: str, where: str = "--monitor") -> MonitorSettings:
    """One monitor from its text; several features in ``on`` are joined by ``+``.

    Raises `ConfigurationError`, whose message begins with ``where``.

    >>> parse_monitor("psi:on=V14+V9,threshold=0.3").on
    ('V14', 'V9')
    """
    name, _, options = text.partition(":")
    values: dict[str, object] = {"name": name}
    for option in options.split(",") if options else ():
        key, equals, value = option.partition("=")
        if not equals or not value:
            raise ConfigurationError(
                f"{where} {text!r}: {option!r} is not KEY=VALUE; write it like: "
                "psi:on=V14+V9,threshold=0.3,triggers=heal"
            )
        if key in values:
            raise ConfigurationError(f"{where} {text!r}: '{key}' is given twice")
        values[key] = tuple(value.split("+")) if key == "on" else value
    return checked(MonitorSettings, values, where=f"{where} {text!r}")
