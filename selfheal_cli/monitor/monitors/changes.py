"""River's change detectors, fed with few figures a batch, and held to an effect size.

A batch of any size gives each detector at most five values: means of its parts in units of their
standard error. Row by row the detectors would test a batch of 10,000 rows 10,000 times.
Needs selfheal-cli[monitors].
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import erfc, log, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from selfheal_cli.config import MonitorSettings
from selfheal_cli.errors import ConfigurationError
from selfheal_cli.monitor.fidi import CONSTANT
from selfheal_cli.monitor.monitors.base import (
    ERRORS,
    BatchView,
    Finding,
    Limits,
    Reading,
    read,
)
from selfheal_cli.monitor.monitors.sample import TrainingSample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

PARTS = 5  # values a batch
WARM_UP = 100  # parts of the training rows that a detector knows before the first batch
LARGEST = 20.0  # standard errors; one wild value shall not stay in the detectors' means for ever
ALLOWANCE = 0.5  # Page-Hinkley: a shift of less than twice this many standard errors is no matter
SEED = 14
MakeDetector = Callable[[float], Any]  # by the chance of a false alarm a value


def require_river() -> Any:
    """River's detectors; raises `ConfigurationError` where it is not installed."""
    try:
        from river import drift
    except ImportError as exc:
        raise ConfigurationError(
            "monitors adwin, kswin and page-hinkley need river: "
            "pip install 'selfheal-cli[monitors]', or leave them out"
        ) from exc
    return drift


def adwin(chance: float) -> Any:
    """Looks for a change after each value."""
    return require_river().ADWIN(delta=chance, clock=1)


def kswin(chance: float) -> Any:
    """The last 30 values against 30 of the 70 before."""
    return require_river().KSWIN(alpha=chance, seed=SEED)


def page_hinkley(chance: float) -> Any:
    """Alarms at ``ln(1 / chance)``: of a sum with allowance k that is the chance of exp(-2 k h)."""
    height = log(1 / chance) / (2 * ALLOWANCE)
    return require_river().PageHinkley(delta=ALLOWANCE, threshold=height)


@dataclass(frozen=True, slots=True)
class _Normal:
    """What is normal: mean and standard deviation of so many values."""

    mean: float
    sd: float
    rows: int

    @classmethod
    def of(cls, values: Floats) -> _Normal:
        return cls(float(values.mean()), float(values.std()), len(values))

    def parts(self, values: Floats, parts: int) -> list[float]:
        """Means of up to so many parts of the values, in standard errors from normal."""
        if not len(values):
            return []
        pieces = np.array_split(values, min(parts, len(values)))
        found = [(float(p.mean()) - self.mean) / self.sd * sqrt(len(p)) for p in pieces]
        return [min(max(one, -LARGEST), LARGEST) for one in found]


class _Target:
    """A detector for one feature, the scores or the errors."""

    def __init__(self, target: str, window: int, detector: Any) -> None:
        self.target = target
        self._detector = detector
        self._normal: _Normal | None = None
        self._first: list[Floats] = []
        self._last: deque[tuple[float, int]] = deque(maxlen=window)
        self._since = window  # batches since the detector spoke up
        self._window = window

    def learn(self, values: Floats) -> None:
        """What is normal; a target that never varied there is not watched."""
        if self.target == ERRORS and len(values):
            rate = (values.sum() + 0.5) / (len(values) + 1)  # none so far is not none ever
            self._normal = _Normal(float(rate), sqrt(rate * (1 - rate)), len(values))
        else:
            self._normal = _Normal.of(values)
        for value in self._normal.parts(values, WARM_UP):
            self._detector.update(value)

    def update(self, values: Floats) -> Finding:
        """Take a batch's values (n,)."""
        if self._normal is None:
            return self._begin(values)
        self._since += 1
        for value in self._normal.parts(values, PARTS):
            self._detector.update(value)
            if self._detector.drift_detected:
                self._since = 0
        self._last.append((float(values.sum()), len(values)))
        total, rows = (sum(part) for part in zip(*self._last, strict=True))
        if self._since >= self._window or not rows:
            return Finding(self.target, 0.0, 1.0)
        shift = (total / rows - self._normal.mean) / self._normal.sd
        if self.target == ERRORS and shift < 0:
            return Finding(self.target, 0.0, 1.0)  # fewer of them are no alarm
        error = sqrt(1 / rows + 1 / self._normal.rows)
        return Finding(self.target, abs(shift), erfc(abs(shift) / error / sqrt(2)))

    def _begin(self, values: Floats) -> Finding:
        """Errors have no training to be compared with: the first window is what is normal."""
        if len(values):
            self._first.append(values)
        if len(self._first) == self._window:
            self.learn(np.concatenate(self._first))
            self._first = []
        return Finding(self.target, 0.0, 1.0)


class Changes:
    """Alarms where a detector spoke up within the window, and the window's mean has moved."""

    def __init__(
        self,
        make: MakeDetector,
        settings: MonitorSettings,
        limits: Limits,
        targets: Sequence[str],
        sample: TrainingSample,
    ) -> None:
        self.limits = limits
        chance = settings.alpha / (PARTS * max(len(targets), 1))
        self._targets = []
        for name in targets:
            known = np.empty(0) if name == ERRORS else sample.values(name)
            if name != ERRORS and not _varies(known):
                continue
            one = _Target(name, settings.window, make(chance))
            if name != ERRORS:
                one.learn(known)
            self._targets.append(one)

    def update(self, view: BatchView) -> Reading:
        """See `Monitor`."""
        return read([one.update(view.values(one.target)) for one in self._targets], self.limits)


def _varies(values: Floats) -> bool:
    return bool(len(values)) and values.std() > CONSTANT * max(1.0, abs(float(values.mean())))
