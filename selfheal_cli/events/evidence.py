"""Which version is better: a paired question, asked of the latest labelled batches.

A candidate is held against what really served, row by row, on batches that came after it was made:
it has learned from none of them, and what served had not learned from them either. Where labels
come late, it is held against what serves when they come as well: that one has learned since.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import fsum, sqrt

from selfheal_cli.events.types import CandidatesCompared

WINDOW = 20  # batches that an answer rests on, or as many more as hold enough positives
POSITIVES = 20
MOST = 200  # batches that are looked back on
WORTH = 0.01  # of the log loss: what is less is no reason to move anything
LATELY = 5  # batches
LEVEL = 0.01  # one-sided, divided by the number of candidates


@dataclass(frozen=True, slots=True)
class BatchLosses:
    """Sums of log losses over the labelled rows of a batch: of what served, of what served when
    their labels came, and by snapshot.
    """

    rows: int
    positives: int
    served: float
    by_now: float
    losses: Mapping[str, float]

    def plus(self, more: CandidatesCompared) -> BatchLosses:
        """With labels that came later; only who was asked about all rows stays."""
        both = self.losses.keys() & more.losses.keys()
        return BatchLosses(
            self.rows + more.rows,
            self.positives + more.positives,
            self.served + more.served,
            self.by_now + (more.served if more.by_now is None else more.by_now),
            {name: self.losses[name] + more.losses[name] for name in sorted(both)},
        )


@dataclass(frozen=True, slots=True)
class PairedGain:
    """By how much a candidate's mean log loss was lower than that of what served.

    ``low`` is the lower end of its one-sided interval over batches, at `LEVEL` divided by the
    number of ``candidates`` that were asked about; ``served`` is the mean log loss of what served,
    ``lately`` the gain on the last `LATELY` batches: what has mended itself by then is left alone.
    ``few`` is what the ``positives`` are, in words.
    """

    snapshot: str
    gain: float
    low: float
    batches: int
    rows: int
    positives: int
    candidates: int
    few: str
    served: float
    lately: float

    @property
    def certain(self) -> bool:
        """Whether the candidate is better beyond chance, and by enough to be worth a move."""
        return self.low > 0 and min(self.gain, self.lately) >= WORTH * self.served


@dataclass(slots=True)
class Evidence:
    """The latest labelled batches of a run, and what candidates would have lost on them."""

    serving: str = ""
    versions: dict[str, int] = field(default_factory=dict)
    batches: dict[int, BatchLosses] = field(default_factory=dict)
    few: str = "positives"  # with more classes: rows that are not of the commonest

    def of_classes(self, classes: Sequence[str]) -> None:
        """Learn from the classes what the few rows are called."""
        if len(classes) > 2:
            self.few = "rows that are not of the commonest class"

    def add(self, event: CandidatesCompared) -> None:
        """Take the labels of one batch, or some of them."""
        self.serving = event.serving
        self.versions |= event.versions
        none = BatchLosses(0, 0, 0.0, 0.0, dict.fromkeys(event.losses, 0.0))
        self.batches[event.batch] = self.batches.get(event.batch, none).plus(event)
        while len(self.batches) > MOST:
            del self.batches[min(self.batches)]

    def window(self) -> list[BatchLosses]:
        """The latest batches, the last one first, as many as an answer needs; empty where there are
        too few.
        """
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
        gains = [_gain(window, name, reference, len(names), self.few) for name in names]
        return sorted(gains, key=lambda one: -one.low)


def _gain(
    window: Sequence[BatchLosses], name: str, reference: str, asked: int, few: str
) -> PairedGain:
    """Against each reference that there is, the less certain answer."""
    served = (
        [[one.losses[reference] for one in window]]
        if reference
        else ([[one.served for one in window], [one.by_now for one in window]])
    )
    rows = [one.rows for one in window]
    distance = quantile(1 - LEVEL / asked, len(window) - 1)
    gains = []
    for losses in served:
        gained = [lost - one.losses[name] for lost, one in zip(losses, window, strict=True)]
        mean, error = mean_and_error(gained, rows)
        lately = fsum(gained[:LATELY]) / sum(rows[:LATELY])
        gains.append((mean - distance * error, mean, fsum(losses) / sum(rows), lately))
    low, gain, loss, lately = min(gains)
    positives = sum(one.positives for one in window)
    return PairedGain(name, gain, low, len(window), sum(rows), positives, asked, few, loss, lately)


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


def quantile(level: float, degrees: float) -> float:
    """Of Student's t distribution (Student, The probable error of a mean, Biometrika 6, 1908).

    >>> round(quantile(0.975, 9), 3)
    2.262
    """
    from scipy.special import stdtrit

    return float(stdtrit(degrees, level))
