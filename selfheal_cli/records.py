"""The frozen records that rooms hand to one another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float32]
    LabelArray = NDArray[np.int8]
    Columns = Mapping[str, NDArray[Any]]


TINY = 1e-8  # in the denominators of precision, recall and F1, as the article has it


class Phase(StrEnum):
    """When in its life an adapter was snapshotted."""

    BASELINE = "baseline"
    PRE_HEAL = "pre-heal"
    POST_HEAL = "post-heal"


class Evaluation(StrEnum):
    """Which rows a snapshot was scored on."""

    HELD_OUT = "held-out"  # rows that nothing learned from
    PREQUENTIAL = "prequential"  # before this adapter learned from them
    IN_SAMPLE = "in-sample"  # the rows it was healed on: the article's way


@dataclass(frozen=True, slots=True)
class Rows:
    """Labelled rows: ``x`` (n, d) float32 as the network sees them, ``y`` (n,) 0 or 1.

    ``columns`` holds the same rows as they came, by feature name: what rules and monitors read.
    """

    x: FloatArray
    y: LabelArray
    columns: Columns

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows scored together. ``index`` counts from 1."""

    index: int
    rows: Rows


@dataclass(frozen=True, slots=True)
class Scores:
    """How well predictions met the labels on ``tp + tn + fp + fn`` rows.

    ``roc_auc`` and ``pr_auc`` are None where only one class was present or nothing ranks the rows.

    >>> scores = Scores(tp=51, tn=673, fp=177, fn=99)
    >>> scores.rows, scores.accuracy, round(scores.f1, 4)
    (1000, 0.724, 0.2698)
    """

    tp: int
    tn: int
    fp: int
    fn: int
    roc_auc: float | None = None
    pr_auc: float | None = None

    @property
    def rows(self) -> int:
        """Number of rows behind every figure."""
        return self.tp + self.tn + self.fp + self.fn

    @property
    def accuracy(self) -> float:
        """Share of rows that were right."""
        return (self.tp + self.tn) / self.rows if self.rows else 0.0

    @property
    def precision(self) -> float:
        """Share of flagged rows that were positive; 0 when nothing was flagged."""
        return self.tp / (self.tp + self.fp + TINY)

    @property
    def recall(self) -> float:
        """Share of positive rows that were flagged; 0 when there were none."""
        return self.tp / (self.tp + self.fn + TINY)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return 2 * self.precision * self.recall / (self.precision + self.recall + TINY)

    def figures(self) -> dict[str, float]:
        """The defined figures by metric name."""
        known = {
            "accuracy": self.accuracy,
            "f1": self.f1,
            "precision": self.precision,
            "recall": self.recall,
            "roc_auc": self.roc_auc,
            "pr_auc": self.pr_auc,
        }
        return {name: value for name, value in known.items() if value is not None}

    def as_dict(self) -> dict[str, Any]:
        """Counts and figures, as they go into events and JSON."""
        return {**asdict(self), **self.figures(), "rows": self.rows}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Scores:
        """The inverse of `as_dict`."""
        return cls(**{name: record.get(name) for name in cls.__slots__})  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Limit:
    """Expected figures of the Bayes-optimal model; ``recall`` is the one at the best F1."""

    accuracy: float
    f1: float
    recall: float
    roc_auc: float
    pr_auc: float


@dataclass(frozen=True, slots=True)
class DriftReading:
    """What a detector says of a batch: distance ``z`` in training standard deviations."""

    feature: str
    z: float
    drifting: bool


@dataclass(frozen=True, slots=True)
class Conflicts:
    """Rows where rule and network disagree; ``positive_share`` of them are true positives."""

    count: int
    positive_share: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An adapter's weights (by hash) with what was measured of them.

    ``id`` is unique in the run; ``parent`` is the snapshot whose weights these came from.
    """

    id: str
    phase: Phase
    batch: int
    sha256: str
    scores: Scores
    evaluation: Evaluation
    reason: str
    parent: str | None = None
    heal_id: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class VersionRecord:
    """A snapshot as the registry knows it."""

    model: str
    version: int
    phase: Phase
    batch: int
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    created_ms: int
    aliases: tuple[str, ...] = ()

    @property
    def f1(self) -> float | None:
        """F1 as measured when the snapshot was taken."""
        return self.metrics.get("f1")

    @property
    def sha256(self) -> str:
        """Hash of the adapter's bytes."""
        return self.tags["selfheal.sha256"]

    @property
    def base(self) -> str:
        """Id of the stored base that the adapter belongs to."""
        return self.tags["selfheal.base"]

    @property
    def run_id(self) -> str:
        """Run that made the version."""
        return self.tags["selfheal.run_id"]

    @property
    def eval_rows(self) -> int:
        """Rows behind the metrics."""
        return int(self.tags["selfheal.eval_rows"])

    def as_dict(self) -> dict[str, Any]:
        """The record as JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class AliasMove:
    """One move of an alias: who, when, from, to, why."""

    model: str
    alias: str
    source: int | None
    target: int
    actor: str
    at: str
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """The move as JSON."""
        return asdict(self)
