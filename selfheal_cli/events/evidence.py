"""Which version is better: a paired question, asked of the latest labelled batches.

A candidate is held against what really served, row by row, on batches that came after it was made:
it has learned from none of them, and what served had not learned from them either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import fsum, sqrt

from selfheal_cli.events.types import CandidatesCompared

WINDOW = 20  # batches that an answer rests on, or as many more as hold enough positives
POSITIVES = 20
MOST = 200  # batches that are looked back on
LEVEL = 0.01  # one-sided, divided by the number of candidates


@dataclass(frozen=True, slots=True)
class BatchLosses:
    """Sums of log losses over the labelled rows of a batch: of what served, and by snapshot."""

    rows: int
    positives: int
    served: float
    losses: Mapping[str, float]

    def plus(self, more: CandidatesCompared) -> BatchLosses:
        """With labels that came later; only who was asked about all rows stays."""
        both = self.losses.keys() & more.losses.keys()
        return BatchLosses(
            self.rows + more.rows,
            self.positives + more.positives,
            self.served + more.served,
            {name: self.losses[name] + more.losses[name] for name in sorted(both)},
        )


@dataclass(frozen=True, slots=True)
class PairedGain:
    """By how much a candidate's mean log loss was lower than that of what served.

    ``low`` is the lower end of its one-sided interval over batches, at `LEVEL` divided by the
    number of ``candidates`` that were asked about.
    """

    snapshot: str
    gain: float
    low: float
    batches: int
    rows: int
    positives: int
    candidates: int

    @property
    def certain(self) -> bool:
        """Whether the interval excludes zero: the candidate is better."""
        return self.low > 0


@dataclass(slots=True)
class Evidence:
    """The latest labelled batches of a run, and what candidates would have lost on them."""

    serving: str = ""
    versions: dict[str, int] = field(default_factory=dict)
    batches: dict[int, BatchLosses] = field(default_factory=dict)

    def add(self, event: CandidatesCompared) -> None:
        """Take the labels of one batch, or some of them."""
        self.serving = event.serving
        self.versions |= event.versions
        none = BatchLosses(0, 0, 0.0, dict.fromkeys(event.losses, 0.0))
        self.batches[event.batch] = self.batches.get(event.batch, none).plus(event)
        while len(self.batches) > MOST:
            del self.batches[min(self.batches)]

    def window(self) -> list[BatchLosses]:
        """The latest batches, as many as an answer needs; empty where there are too few."""
        chosen: list[BatchLosses] = []
        for batch in sorted(self.batches, reverse=True):
            chosen.append(self.batches[batch])
            if len(chosen) >= WINDOW and sum(one.positives for one in chosen) >= POSITIVES:
                return chosen
        return []

    def gains(self, serving: str = "") -> list[PairedGain]:
        """Of each candidate that was there in the whole window, the surest first.

        They are held against what really served, or against the snapshot ``serving`` where it is a
        candidate itself.
        """
        window = self.window()
        names = sorted(set.intersection(*(set(one.losses) for one in window))) if window else []
        reference = serving if serving in names else ""
        names = [name for name in names if name != (reference or self.serving)]
        gains = [_gain(window, name, reference, len(names)) for name in names]
        return sorted(gains, key=lambda one: -one.low)


def _gain(window: Sequence[BatchLosses], name: str, reference: str, candidates: int) -> PairedGain:
    gained = [
        (one.losses[reference] if reference else one.served) - one.losses[name] for one in window
    ]
    rows = [one.rows for one in window]
    mean, error = mean_and_error(gained, rows)
    return PairedGain(
        name,
        mean,
        mean - quantile(1 - LEVEL / candidates, len(window) - 1) * error,
        len(window),
        sum(rows),
        sum(one.positives for one in window),
        candidates,
    )


def mean_and_error(sums: Sequence[float], rows: Sequence[int]) -> tuple[float, float]:
    """Mean a row of batches' sums, and its standard error over batches.

    A ratio estimate: batches differ in size (Cochran, Sampling Techniques, 3rd edition, 1977,
    chapter 6). With equal ones it is the mean of batch means and their standard error.

    >>> mean_and_error([1.0, 3.0], [1, 1])
    (2.0, 1.0)
    """
    count, total = len(sums), sum(rows)
    mean = fsum(sums) / total
    squares = fsum((value - mean * size) ** 2 for value, size in zip(sums, rows, strict=True))
    return mean, sqrt(count / (count - 1) * squares) / total


def quantile(level: float, degrees: int) -> float:
    """Of Student's t distribution (Student, The probable error of a mean, Biometrika 6, 1908).

    >>> round(quantile(0.975, 9), 3)
    2.262
    """
    from scipy.special import stdtrit

    return float(stdtrit(degrees, level))
