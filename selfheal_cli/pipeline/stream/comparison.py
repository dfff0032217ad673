"""Two versions held against one another on the same rows, in the order in which they were scored.

Labels of one class may come sooner than those of another: fraud is reported after weeks, and what
nobody complains of is known to be none earlier, or later. Who takes rows as their labels come sees
one class first, and finds in that a difference between two versions which are equally good. So a
batch of rows waits until it is older than the declared delay, or all its labels are there, and
those behind it wait for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from selfheal_cli.heal.gate import log_losses

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfheal_cli.records import FloatArray, LabelArray, LateLabels

MOST = 5.0  # nats that a single row may cost, however sure and wrong its answer was


@dataclass(frozen=True, slots=True)
class ScoredTwice:
    """Rows of a batch with the probabilities (n,) or (n, K) by both versions.

    ``place`` (n,) is each row's in its batch, ``y`` (n,) -1 where unknown, ``weight`` (n,) for how
    many rows each stands, None for itself; ``at`` is when the last of them was scored.
    """

    batch: int
    place: NDArray[np.intp]
    y: LabelArray
    champion: FloatArray
    canary: FloatArray
    at: float
    weight: FloatArray | None = None
    through: Mapping[str, int] | None = None


@dataclass(slots=True)
class _Waiting:
    """``by_class`` (n, K): what the champion would lose more than the canary, by a row's label."""

    rows: ScoredTwice
    y: LabelArray
    by_class: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class LossDifference:
    """By how much less the canary lost, a row, on ``rows`` labelled rows, ``positives`` of them not
    of class 0, up to those of ``batch``, which were read ``through`` there.
    """

    value: float
    rows: int
    positives: int
    batch: int
    through: Mapping[str, int]


class PairedRows:
    """Rows in the order of their scoring, until their labels count.

    ``delay`` is in the unit of the rows' times; ``together`` labelled rows make a difference, and
    at most ``keep`` rows wait: what is beyond is ``lost``. Where ``matures``, a row without a label
    is a negative once the delay is over.
    """

    def __init__(self, delay: float, together: int, keep: int, *, matures: bool = False) -> None:
        self.lost = 0
        self._delay, self._together, self._keep = delay, together, keep
        self._matures = matures
        self._waiting: deque[_Waiting] = deque()
        self._by_batch: dict[int, _Waiting] = {}
        self._rows = 0
        self._sums = np.zeros(2)  # of weighted differences, and of weights
        self._counts = np.zeros(2, dtype=np.int64)  # of rows, and of positives among them

    def __len__(self) -> int:
        return self._rows

    def add(self, rows: ScoredTwice) -> None:
        """Take the rows that were scored next."""
        classes = 2 if rows.champion.ndim == 1 else rows.champion.shape[1]
        by_class = np.stack(
            [_clipped(rows.champion, k) - _clipped(rows.canary, k) for k in range(classes)], axis=1
        ).astype(np.float32)
        one = _Waiting(rows, rows.y.copy(), by_class)
        self._waiting.append(one)
        self._by_batch[rows.batch] = one
        self._rows += len(rows.y)
        while self._rows > self._keep and len(self._waiting) > 1:
            self.lost += len(self._first().y)

    def label(self, late: LateLabels) -> None:
        """Labels of rows that wait; -1 takes one back."""
        for batch in np.unique(late.batch).tolist():
            one = self._by_batch.get(batch)
            if one is not None:
                told = late.batch == batch
                labels = dict(zip(late.place[told].tolist(), late.y[told].tolist(), strict=True))
                for row, place in enumerate(one.rows.place.tolist()):
                    one.y[row] = labels.get(place, one.y[row])

    def leave_out(self, batch: int, place: NDArray[Any]) -> None:
        """Rows whose labels are not believed."""
        one = self._by_batch.get(batch)
        if one is not None:
            one.by_class[np.isin(one.rows.place, place)] = np.nan

    def ripe(self, now: float) -> Iterator[LossDifference]:
        """The differences of rows that count by now, each once."""
        while self._waiting:
            one = self._waiting[0]
            old = now - one.rows.at >= self._delay
            if not (old or bool((one.y >= 0).all())):
                return
            self._first()
            self._take(one, negative=old and self._matures)
            if self._counts[0] >= self._together:
                (rows, positives), (losses, weight) = self._counts.tolist(), self._sums
                self._sums, self._counts = np.zeros(2), np.zeros(2, dtype=np.int64)
                through = one.rows.through or {}
                yield LossDifference(
                    float(losses / weight), rows, positives, one.rows.batch, through
                )

    def _take(self, one: _Waiting, *, negative: bool) -> None:
        y = np.maximum(one.y, 0) if negative else one.y
        known = y >= 0
        lost = np.take_along_axis(one.by_class, np.maximum(y, 0)[:, None].astype(np.int64), axis=1)
        known &= ~np.isnan(lost[:, 0])
        weight = np.ones(len(y)) if one.rows.weight is None else one.rows.weight
        chosen = weight[known].astype(np.float64)
        self._sums += float(chosen @ lost[known, 0]), float(chosen.sum())
        self._counts += int(known.sum()), int((y[known] > 0).sum())

    def _first(self) -> _Waiting:
        one = self._waiting.popleft()
        del self._by_batch[one.rows.batch]
        self._rows -= len(one.y)
        return one


def _clipped(probabilities: FloatArray, y: int) -> NDArray[np.float64]:
    """Log losses (n,) if all rows were of this class; a row without a number costs the most."""
    losses = log_losses(probabilities, np.full(len(probabilities), y))
    return np.where(np.isnan(losses), MOST, np.minimum(losses, MOST))
