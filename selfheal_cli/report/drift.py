"""How far one feature moved, batch after batch, in figures that do not grow with the batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import fsum
from statistics import fmean

BLOCK = 1_000  # values that are added up at once, without rounding between them


@dataclass(frozen=True, slots=True)
class Drift:
    """The shift of one feature by batch: in training standard deviations, or a share of rows.

    ``mean`` is over the stream, ``size`` that of its absolute value; ``furthest`` is the batch that
    is furthest away, and how far; ``span`` the least and the largest; ``batches`` the first and
    the last. ``shifts`` has a point for so many batches that there are no more
    than can be seen, by the first of them.
    """

    name: str
    numeric: bool
    mean: float
    size: float
    furthest: tuple[int, float]
    span: tuple[float, float]
    batches: tuple[int, int]
    shifts: Mapping[int, float]


@dataclass(slots=True)
class DriftFold:
    """A feature's shifts so far, ``step`` batches a point from batch ``first`` on."""

    first: int
    step: int
    _sum: float = 0.0
    _size: float = 0.0
    _count: int = 0
    _furthest: tuple[int, float] = (0, 0.0)
    _span: tuple[float, float] = (0.0, 0.0)
    _block: list[float] = field(default_factory=list)
    _point: list[float] = field(default_factory=list)
    _start: int = 0
    _last: int = 0
    _shifts: dict[int, float] = field(default_factory=dict)

    def add(self, batch: int, value: float) -> None:
        """Take a batch; they come in order."""
        start = batch - (batch - self.first) % self.step
        if start != self._start:
            self._end_point()
            self._start = start
        self._point.append(value)
        self._block.append(value)
        if len(self._block) == BLOCK:
            self._end_block()
        if not self._count or abs(value) > abs(self._furthest[1]):
            self._furthest = (batch, value)
        low, high = self._span if self._count else (value, value)
        self._span = (min(low, value), max(high, value))
        self._count, self._last = self._count + 1, batch

    def told(self, name: str, *, numeric: bool) -> Drift:
        """Everything so far."""
        self._end_block()
        self._end_point()
        count = max(self._count, 1)
        mean, size = self._sum / count, self._size / count
        batches = (self.first, self._last)
        return Drift(name, numeric, mean, size, self._furthest, self._span, batches, self._shifts)

    def _end_block(self) -> None:
        self._sum = fsum([self._sum, *self._block])
        self._size = fsum([self._size, *map(abs, self._block)])
        self._block.clear()

    def _end_point(self) -> None:
        if self._point:
            self._shifts[self._start] = fmean(self._point)
            self._point.clear()
