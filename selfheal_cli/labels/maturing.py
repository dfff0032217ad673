"""Labels where only positives are told: who was not complained about in a time is a negative.

Positives are told early and negatives are only known in the end, so that of the labels which are
there at a moment far too many are positive. A row counts once its time is over, whatever it is.
"""

from __future__ import annotations

from dataclasses import replace
from heapq import heappop, heappush
from typing import TYPE_CHECKING

import numpy as np

from selfheal_cli.config_labels import LabelSettings
from selfheal_cli.labels.queue import LabelQueue, Matured, Scored
from selfheal_cli.records import LateLabels

if TYPE_CHECKING:
    from numpy.typing import NDArray


class MaturedLabels(LabelQueue):
    """Hands a row back once its own time is ``negative_after`` ago.

    Its label is the one that was told by then, else negative. Time is the latest of all rows', so
    that it never goes back. Rows are handed on once ``together`` of them are there; at most
    ``keep`` wait, and those that had to go before their time are ``lost``.
    """

    def __init__(self, settings: LabelSettings, together: int) -> None:
        assert settings.negative_after is not None  # noqa: S101 - who chose this queue asked
        self._after = settings.negative_after
        self._together, self._keep = together, settings.keep
        self._now = float("-inf")
        self._waiting: dict[int, Scored] = {}
        self._waiting_rows = 0
        self._ripe: list[Scored] = []
        self._to_come: list[tuple[float, int, int, int]] = []  # when, batch, place and class
        self._matured: list[Matured] = []
        self.unknown = 0
        self.lost = 0

    @property
    def waiting(self) -> tuple[Scored, ...]:
        """Rows that were not handed back yet, those whose time is over first."""
        return (*self._ripe, *self._waiting.values())

    def take(self, scored: Scored, now: float | None, late: LateLabels | None) -> list[Scored]:
        """As `LabelQueue.take`; ``now`` is that of the rows."""
        if late is not None:
            self._join(late)
        self._add(scored)
        self._ripen()
        if sum(map(len, self._ripe)) < self._together:
            return []
        ripe, self._ripe = self._ripe, []
        return ripe

    @property
    def countable(self) -> tuple[Scored, ...]:
        """Rows whose time is over."""
        return tuple(self._ripe)

    def recall(self, scored: Scored) -> list[Scored]:
        """Rows of an earlier run, with the labels that had come: those whose time was over."""
        self._add(scored)
        self._ripen()
        ripe, self._ripe, self._matured = self._ripe, [], []
        return ripe

    def matured(self) -> list[Matured]:
        """What grew up since this was asked last."""
        matured, self._matured = self._matured, []
        return matured

    def told_since(self) -> LateLabels | None:
        """Labels that were told by now of rows whose time had been over before."""
        told = []
        while self._to_come and self._to_come[0][0] <= self._now:
            told.append(heappop(self._to_come)[1:])
        if not told:
            return None
        batch, place, y = zip(*told, strict=True)
        return LateLabels(np.array(batch), np.array(place), np.array(y, dtype=np.int8))

    def _join(self, late: LateLabels) -> None:
        for batch in np.unique(late.batch).tolist():
            of_batch = late.batch == batch
            now = dict(zip(late.place[of_batch].tolist(), late.y[of_batch].tolist(), strict=True))
            if batch in self._waiting:
                self._waiting[batch] = _told(self._waiting[batch], now)
            self._ripe = [_told(one, now) if one.batch == batch else one for one in self._ripe]
            self.unknown += len(now)

    def _add(self, scored: Scored) -> None:
        if not len(scored):
            return
        assert scored.at is not None  # noqa: S101 - a source without times was refused
        self._now = max(self._now, float(scored.at.max()))
        self._waiting[scored.batch] = scored
        self._waiting_rows += len(scored)
        while self._waiting_rows > self._keep:
            oldest = len(self._waiting.pop(min(self._waiting)))
            self._waiting_rows -= oldest
            self.lost += oldest

    def _ripen(self) -> None:
        for batch in sorted(self._waiting):
            part = self._waiting[batch]
            due = _at(part) + self._after <= self._now
            if not due.any():
                continue
            self._ripe.append(self._grown(part.where(due)))
            self._waiting_rows -= int(due.sum())
            if due.all():
                del self._waiting[batch]
            else:
                self._waiting[batch] = part.where(~due)

    def _grown(self, part: Scored) -> Scored:
        """The rows with the labels that were told by now, all others negative."""
        told = part.y >= 0
        if part.label_at is not None:
            late = told & ~(part.label_at <= self._now)
            told &= ~late
            for row in np.flatnonzero(late & (part.y > 0) & ~np.isnan(part.label_at)):
                when = float(part.label_at[row])
                heappush(self._to_come, (when, part.batch, int(part.place[row]), int(part.y[row])))
        negatives = int(np.count_nonzero(~told))
        self._matured.append(Matured(part.batch, len(part), negatives, self._now))
        return replace(part, y=np.where(told, part.y, 0).astype(np.int8))


def _at(part: Scored) -> NDArray[np.float64]:
    assert part.at is not None  # noqa: S101 - as `_add` saw
    return part.at


def _told(part: Scored, now: dict[int, int]) -> Scored:
    """The rows with their labels by place, which are taken out of ``now``."""
    y = part.y.copy()
    for row, place in enumerate(part.place.tolist()):
        y[row] = now.pop(place, y[row])
    return replace(part, y=y)
