"""Which batch each row of a request went into, so that its label finds it there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from selfheal_cli.records import LateLabels
from selfheal_cli.spool.rows import Answered
from selfheal_cli.spool.store import Label


@dataclass(frozen=True, slots=True)
class Part:
    """Rows ``start`` to before ``stop`` of a request."""

    one: Answered
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class _Segment:
    """Rows of a request that stand in a batch from place ``at`` on."""

    start: int
    stop: int
    batch: int
    at: int


class Whereabouts:
    """Remembers the latest ``keep`` rows; ``forgotten`` counts labels of older ones."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._segments: dict[int, list[_Segment]] = {}
        self._rows = 0
        self._oldest = 0  # requests up to here are forgotten
        self.forgotten = 0

    def note(self, batch: int, parts: Sequence[Part]) -> None:
        """A batch was made of these, in this order."""
        at = 0
        for part in parts:
            segment = _Segment(part.start, part.stop, batch, at)
            self._segments.setdefault(part.one.number, []).append(segment)
            at += len(part)
        self._rows += at
        while self._rows > self._keep:
            self._oldest = next(iter(self._segments))
            gone = self._segments.pop(self._oldest)
            self._rows -= sum(one.stop - one.start for one in gone)

    def late(self, labels: Sequence[Label]) -> LateLabels | None:
        """Labels by batch and place; those whose rows are in no batch yet are left out."""
        found = [(*went, one.y) for one in labels if (went := self._where(one)) is not None]
        if not found:
            return None
        batch, place, y = zip(*found, strict=True)
        return LateLabels(np.array(batch), np.array(place), np.array(y, dtype=np.int8))

    def _where(self, label: Label) -> tuple[int, int] | None:
        self.forgotten += label.answered <= self._oldest
        for one in self._segments.get(label.answered, ()):
            if one.start <= label.place < one.stop:
                return one.batch, one.at + label.place - one.start
        return None
