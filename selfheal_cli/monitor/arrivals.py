"""A desk for labels that arrive by themselves: late, in any order, perhaps never, perhaps twice."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from selfheal_cli.monitor.label_desk import Scored

if TYPE_CHECKING:
    from selfheal_cli.records import LateLabels


class ArrivalDesk:
    """A `Desk` that joins labels to their rows by batch and place.

    Labels trickle in; they are handed on once ``together`` have come, so that what learns from
    them has a batch of rows. At most ``keep`` rows wait; the oldest are forgotten first.
    ``unknown`` counts labels whose row is not waiting: never seen, labelled before, or forgotten.
    """

    def __init__(self, together: int, keep: int) -> None:
        self._together = together
        self._keep = keep
        self._waiting: dict[int, Scored] = {}
        self._rows = 0
        self._come: list[Scored] = []
        self._come_rows = 0
        self.unknown = 0

    @property
    def waiting(self) -> tuple[Scored, ...]:
        """See `Desk`."""
        return (*self._come, *self._waiting.values())

    def take(self, scored: Scored, now: float | None, late: LateLabels | None) -> list[Scored]:
        """See `Desk`."""
        if late is not None:
            self._join(late)
        known = scored.y >= 0
        self._arrived(scored.where(known))
        self._wait(scored.where(~known))
        if self._come_rows < self._together:
            return []
        come, self._come, self._come_rows = self._come, [], 0
        return come

    def _join(self, late: LateLabels) -> None:
        for batch in np.unique(late.batch):
            of_batch = late.batch == batch
            labels = dict(zip(late.place[of_batch], late.y[of_batch], strict=True))
            self.unknown += int(np.count_nonzero(of_batch)) - len(labels)
            scored = self._waiting.pop(int(batch), None)
            if scored is None:
                self.unknown += len(labels)
                continue
            self._rows -= len(scored)
            named = np.isin(scored.place, list(labels))
            self.unknown += len(labels) - int(np.count_nonzero(named))
            found = scored.where(named)
            y = np.array([labels[place] for place in found.place], dtype=np.int8)
            self._arrived(replace(found, y=y))
            self._wait(scored.where(~named))

    def _arrived(self, part: Scored) -> None:
        if len(part):
            self._come.append(part)
            self._come_rows += len(part)

    def _wait(self, part: Scored) -> None:
        if not len(part):
            return
        self._waiting[part.batch] = part
        self._rows += len(part)
        while self._rows > self._keep:
            self._rows -= len(self._waiting.pop(min(self._waiting)))
