"""What every monitor takes and gives, and the one rule by which all of them alarm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfheal_cli.records import Columns, FloatArray, LabelArray

    Floats = NDArray[np.float64]

SCORES, ERRORS = "scores", "errors"
MOST_NAMED = 5  # features in a reading


class Level(StrEnum):
    """How loud a monitor is."""

    QUIET = "quiet"
    WARNING = "warning"
    ALARM = "alarm"


@dataclass(frozen=True, slots=True)
class BatchView:
    """What monitors may see of a batch of n rows.

    ``columns`` (n,) each as they came; ``scores`` (n,), or (n, K) of K classes, by the network as
    it was trained, which no heal moves; ``classes`` (n,) as decided by what serves; ``conflicts``
    of rules with it; ``errors`` one a label that came with this batch, 1.0 where what served was
    wrong.
    """

    columns: Columns
    scores: FloatArray
    classes: LabelArray
    conflicts: int
    errors: Floats

    def values(self, target: str) -> Floats:
        """The numbers of a feature, of the scores or of the errors; missing ones left out."""
        if target == ERRORS:
            return self.errors
        return numbers(self.columns, self.scores, target)


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found in one feature: an effect, which rows do not enlarge, and its p-value."""

    feature: str
    effect: float
    p: float


@dataclass(frozen=True, slots=True)
class Reading:
    """What a monitor says after a batch.

    ``value`` is an effect size: it does not grow with the number of rows. ``p`` is corrected for
    the number of features. ``features`` are those that moved, furthest first.
    """

    value: float
    level: Level
    p: float
    features: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The reading as JSON."""
        return {
            "value": self.value,
            "level": self.level.value,
            "p": self.p,
            "features": list(self.features),
        }


QUIET = Reading(0.0, Level.QUIET, 1.0)


@dataclass(frozen=True, slots=True)
class Limits:
    """From which effect on a monitor warns and alarms, if it is significant at ``alpha``."""

    threshold: float
    warning: float
    alpha: float

    def level(self, effect: float, p: float) -> Level:
        """Effect and significance must both be there: many rows alone alarm nobody."""
        if p > self.alpha or effect < self.warning:
            return Level.QUIET
        return Level.ALARM if effect >= self.threshold else Level.WARNING


class Monitor(Protocol):
    """Looks at one batch after another; the same batches give the same readings."""

    limits: Limits

    def update(self, view: BatchView) -> Reading:
        """Take a batch."""


def numbers(columns: Columns, scores: FloatArray, target: str) -> Floats:
    """Numbers of a feature or of the scores (of K classes the largest), without missing ones."""
    if target == SCORES:
        found = scores if scores.ndim == 1 else scores.max(axis=1)
        return found.astype(np.float64)
    values = columns[target].astype(np.float64)
    return values[~np.isnan(values)]


def holm(p: Floats) -> Floats:
    """P-values (d,) corrected for their number (Holm 1979), which holds however they depend.

    >>> holm(np.array([0.01, 0.04, 0.03])).tolist()
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p, kind="stable")
    steps = p[order] * np.arange(len(p), 0, -1)
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected


def read(findings: Sequence[Finding], limits: Limits) -> Reading:
    """The furthest feature of those that moved significantly, else of all."""
    if not findings:
        return QUIET
    corrected = holm(np.array([one.p for one in findings])).tolist()
    both = zip(findings, corrected, strict=True)
    ranked = sorted(both, key=lambda one: (one[1] > limits.alpha, -one[0].effect))
    top, p = ranked[0]
    loud = [f.feature for f, q in ranked if limits.level(f.effect, q) is not Level.QUIET]
    return Reading(top.effect, limits.level(top.effect, p), p, tuple(loud[:MOST_NAMED]))
