"""What every monitor takes and gives, and the one rule by which all of them alarm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
from scipy.special import chdtrc

from selfheal_cli.config import MonitorSettings
from selfheal_cli.events.types import MonitorReading
from selfheal_cli.records import Rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfheal_cli.records import Columns, FloatArray, LabelArray

    Floats = NDArray[np.float64]
    Counts = NDArray[np.int64]
    Sums = NDArray[Any]  # int64 or float64


SCORES, ERRORS = "scores", "errors"
MOST_NAMED = 5  # features in a reading
SIZE = 10_000  # rows of a sample; a share of them is known to half a percentage point
SEED = 14
LEAST_EXPECTED = 5.0  # rows a cell, for the chi-squared approximation to hold (Cochran 1954)
CONSTANT = 1e-12  # relative spread below which a feature does not vary


class Level(StrEnum):
    """How loud a monitor is."""

    QUIET = "quiet"
    WARNING = "warning"
    ALARM = "alarm"


@dataclass(frozen=True, slots=True)
class BatchView:
    """What monitors may see of a batch of n rows.

    ``columns``: each feature's values (n,) as the source gave them. ``scores``: probabilities of
    the frozen baseline, (n,) or (n, K). ``classes`` (n,): decided by the serving version.
    ``conflicts``: rows where a rule disagrees with it. ``errors`` (m,): one for each label that
    came with this batch, 1.0 where the answer was wrong. ``batch`` is its number; None: the one
    after the last.
    """

    columns: Columns
    scores: FloatArray
    classes: LabelArray
    conflicts: int
    errors: Floats
    batch: int | None = None

    def values(self, target: str) -> Floats:
        """The numbers of a feature, of the scores or of the errors; missing ones left out."""
        if target == ERRORS:
            return self.errors
        return numbers(self.columns, self.scores, target)


@dataclass(frozen=True, slots=True)
class FeatureReading:
    """How far one feature moved: an effect size, which rows do not enlarge, and its p-value."""

    feature: str
    effect: float
    p: float


@dataclass(frozen=True, slots=True)
class Reading:
    """What a monitor says after a batch.

    ``value`` is an effect size: it does not grow with the number of rows. ``p`` is corrected for
    the number of features. ``features`` are those that moved, furthest first; ``alarming`` all
    that reach the threshold, however many.
    """

    value: float
    level: Level
    p: float
    features: tuple[str, ...] = ()
    alarming: tuple[FeatureReading, ...] = ()

    def as_dict(self) -> MonitorReading:
        """The reading as an event has it."""
        return {
            "value": self.value,
            "level": self.level.value,
            "p": self.p,
            "features": list(self.features),
        }


QUIET = Reading(0.0, Level.QUIET, 1.0)


@dataclass(frozen=True, slots=True)
class AlarmLimits:
    """From which effect on a monitor warns and alarms, if it is significant at ``alpha``."""

    threshold: float
    warning: float
    alpha: float

    def level(self, effect: float, p: float) -> Level:
        """Effect and significance must both be there: many rows alone alarm nobody."""
        if p > self.alpha or effect < self.warning:
            return Level.QUIET
        return Level.ALARM if effect >= self.threshold else Level.WARNING


@dataclass(frozen=True, slots=True, eq=False)
class MonitorState:
    """Sums by batch: ``numbers`` (m,) of the batches, rising, and ``sums`` (m, k) of each.

    ``of`` says which monitor they are of, and what it compares with. They are text and arrays,
    which any wire carries.
    """

    of: str
    numbers: NDArray[np.int64]
    sums: Sums


class Monitor(Protocol):
    """Reads one batch after another; the same batches give the same readings.

    Those of `merging` add up over partitions of the rows; the others refuse in words.
    """

    limits: AlarmLimits

    def update(self, view: BatchView) -> Reading:
        """Take a batch."""

    def state(self) -> MonitorState:
        """What it counted; raises `ConfigurationError` where it does not merge."""

    def merge(self, states: Sequence[MonitorState]) -> Reading:
        """Take what others counted, and say what holds of the whole; raises as `state`."""


def numbers(columns: Columns, scores: FloatArray, target: str) -> Floats:
    """Numbers of a feature or of the scores (of K classes the largest), without missing ones."""
    if target == SCORES:
        largest = scores if scores.ndim == 1 else scores.max(axis=1)
        return largest.astype(np.float64)
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


def read(readings: Sequence[FeatureReading], limits: AlarmLimits) -> Reading:
    """The reading of the feature that moved furthest: of the significant ones, else of all."""
    if not readings:
        return QUIET
    corrected = holm(np.array([reading.p for reading in readings])).tolist()
    pairs = zip(readings, corrected, strict=True)
    # a significant small effect says more than a large one that may be chance
    ranked = sorted(pairs, key=lambda pair: (pair[1] > limits.alpha, -pair[0].effect))
    top, p = ranked[0]
    levels = [
        (FeatureReading(r.feature, r.effect, q), limits.level(r.effect, q)) for r, q in ranked
    ]
    moved = [one.feature for one, level in levels if level is not Level.QUIET]
    alarming = tuple(one for one, level in levels if level is Level.ALARM)
    return Reading(top.effect, limits.level(top.effect, p), p, tuple(moved[:MOST_NAMED]), alarming)


class Reservoir:
    """A uniform sample of rows that come in blocks, in their order; at most ``size`` of them.

    Each row gets a random key and the largest keys go: that is uniform however the blocks are
    cut, and needs no number of rows beforehand.
    """

    def __init__(self, size: int = SIZE) -> None:
        self._size = size
        self._draw = np.random.default_rng(SEED)
        self._rows: Rows | None = None
        self._keys = np.empty(0)

    def add(self, rows: Rows) -> None:
        """Take a block."""
        keys = np.concatenate([self._keys, self._draw.random(len(rows))])
        joined = rows if self._rows is None else _joined(self._rows, rows)
        if len(keys) > self._size:
            kept = np.sort(np.argpartition(keys, self._size - 1)[: self._size])
            joined, keys = _chosen(joined, kept), keys[kept]
        self._rows, self._keys = joined, keys

    def rows(self) -> Rows:
        """The sample; raises `ValueError` where no block came."""
        if self._rows is None:
            raise ValueError("no training rows were given")
        return self._rows


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSample:
    """A sample of n training rows with the frozen baseline's answers.

    ``scores`` as in `BatchView`; ``classes`` (n,) as it decided; ``conflicts`` counts rows where a
    rule and it disagree; ``labels`` are the names of the classes, ``categories`` the values of
    each text feature; ``gradients`` how much the logit moves with one standard deviation of each
    numeric feature.
    """

    rows: Rows
    scores: FloatArray
    classes: LabelArray
    conflicts: int
    labels: tuple[str, ...]
    numeric: tuple[str, ...]
    categories: Mapping[str, tuple[str, ...]]
    gradients: Mapping[str, float]

    def __len__(self) -> int:
        return len(self.rows)

    def values(self, target: str) -> Floats:
        """As `BatchView.values`, of features and scores."""
        return numbers(self.rows.columns, self.scores, target)


@dataclass(frozen=True, slots=True)
class MonitorSetup:
    """What a monitor is built from; ``targets`` are the features, scores or errors it reads.

    With ``exact`` rare errors are compared by their counts, as runs of before did not.
    """

    settings: MonitorSettings
    limits: AlarmLimits
    targets: tuple[str, ...]
    sample: TrainingSample
    exact: bool = False


def varies(values: Floats) -> bool:
    """Whether a feature's values (n,) have a standard deviation to measure shifts by."""
    return bool(len(values)) and values.std() > CONSTANT * max(1.0, abs(float(values.mean())))


def _joined(first: Rows, second: Rows) -> Rows:
    columns = {
        name: np.concatenate([values, second.columns[name]])
        for name, values in first.columns.items()
    }
    return Rows(np.concatenate([first.x, second.x]), np.concatenate([first.y, second.y]), columns)


def _chosen(rows: Rows, kept: NDArray[np.intp]) -> Rows:
    columns = {name: values[kept] for name, values in rows.columns.items()}
    return Rows(rows.x[kept], rows.y[kept], columns)


class Quantiles:
    """Cells between quantiles of a reference; equal quantiles make one cell."""

    def __init__(self, values: Floats, cells: int) -> None:
        inner = np.quantile(values, np.arange(1, cells) / cells) if len(values) else np.empty(0)
        self.edges = np.unique(inner)

    def count(self, values: Floats) -> Counts:
        """How many values (n,) lie in each cell; an edge belongs to the cell below it."""
        cells = np.searchsorted(self.edges, values, side="left")
        return np.bincount(cells, minlength=len(self.edges) + 1)


class Categories:
    """A cell for each category, and one for texts that training lacks; missing ones do not count.

    ``known`` are the categories of the training rows.
    """

    def __init__(self, known: Sequence[str]) -> None:
        self._index = pd.Index(known)

    def count(self, values: NDArray[Any]) -> Counts:
        """How many texts (n,) are in each category, new ones last."""
        present = values[~pd.isna(values)]
        codes = self._index.get_indexer(pd.Index(present, dtype=object))
        return np.bincount(np.where(codes < 0, len(self._index), codes), minlength=self.cells)

    @property
    def cells(self) -> int:
        """Number of cells: the known categories and one."""
        return len(self._index) + 1


def homogeneity(first: Counts, second: Counts) -> float:
    """The p-value of two rows of counts (k,) having the same shares: the likelihood-ratio test.

    Cells in which too few rows are expected are put together.

    >>> homogeneity(np.array([500, 500]), np.array([50, 50]))
    1.0
    """
    pair = np.stack([first, second]).astype(np.float64)
    rows = pair.sum(axis=1)
    if not rows.all():
        return 1.0
    cells = _pooled(pair, least=LEAST_EXPECTED * rows.sum() / rows.min())
    if cells.shape[1] < 2:
        return 1.0
    expected = np.outer(rows, cells.sum(axis=0)) / rows.sum()
    ratios = np.zeros_like(cells)
    np.log(cells / expected, out=ratios, where=cells > 0)  # an empty cell adds 0 ln 0 = 0
    statistic = max(0.0, 2 * float((cells * ratios).sum()))
    return float(chdtrc(cells.shape[1] - 1, statistic))


def _pooled(pair: Floats, least: float) -> Floats:
    """Columns (2, k) put together, smallest first, until each sums to ``least``."""
    pair = pair[:, np.argsort(pair.sum(axis=0), kind="stable")]
    starts, rows = [0], 0.0
    for column, size in enumerate(pair.sum(axis=0).tolist()):
        if rows >= least:
            starts.append(column)
            rows = 0.0
        rows += size
    if rows < least and len(starts) > 1:  # the last group is too small: it joins the one before
        starts.pop()
    pooled: Floats = np.add.reduceat(pair, starts, axis=1)
    return pooled


def apart(first: Counts, second: Counts) -> float:
    """Total variation distance: the share of rows that would have to change their cell."""
    if not (first.any() and second.any()):
        return 0.0
    return float(np.abs(first / first.sum() - second / second.sum()).sum() / 2)
