"""Geometry of the page's pictures: what the template draws as SVG, without a library.

A plot is 1,000 wide and 100 high and stretched to its place; its ticks are text beside it, so
that they stay readable on a phone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import groupby, islice
from math import ceil, floor, log10
from statistics import fmean
from typing import Any

from selfheal_cli.events.state import Row

WIDTH, HEIGHT = 1000.0, 100.0
MOST_POINTS = 200  # of a line; beyond, means of consecutive batches
STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
Points = Iterable[tuple[int, float | None]]  # by batch, in order


@dataclass(frozen=True, slots=True)
class Tick:
    """A label at ``at`` per cent of the width or, from the top, of the height."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Shape:
    """An SVG path; ``style`` is its class. ``name`` puts it into the legend."""

    path: str
    style: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Spot:
    """A strip of a picture from ``left`` on, ``wide`` across; its text shows under the pointer."""

    left: float
    wide: float
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture with its text: ``description`` says in words what a reader would see."""

    title: str
    description: str
    shapes: tuple[Shape, ...]
    x: tuple[Tick, ...]
    y: tuple[Tick, ...]
    unit: str = ""
    along: str = "batch"
    spots: tuple[Spot, ...] = ()


@dataclass(frozen=True, slots=True)
class Frame:
    """From batches and values to the plot's coordinates; ``step`` batches are one point."""

    first: int
    last: int
    low: float
    high: float
    step: int = 1

    def x(self, batch: float) -> float:
        """From the left."""
        return WIDTH * (batch - self.first + 0.5) / (self.last - self.first + 1)

    def y(self, value: float) -> float:
        """From the top."""
        inside = min(max(value, self.low), self.high)
        return HEIGHT * (self.high - inside) / (self.high - self.low)

    def x_ticks(self) -> tuple[Tick, ...]:
        """A few batches."""
        wanted = _round_step((self.last - self.first) / 4)
        step = max(1, ceil(wanted))
        batches = [self.first, *range(step * (self.first // step + 1), self.last + 1, step)]
        if len(batches) > 1 and batches[1] - batches[0] < step / 2:
            del batches[1]
        return tuple(Tick(round(self.x(b) / WIDTH * 100, 2), f"{b:,}") for b in batches)

    def y_ticks(self) -> tuple[Tick, ...]:
        """A few round values."""
        step = _round_step((self.high - self.low) / 4)
        digits = next(d for d in range(20) if abs(round(step, d) - step) < 1e-6 * step)
        places = range(ceil(self.low / step - 1e-9), floor(self.high / step + 1e-9) + 1)
        return tuple(
            Tick(round(self.y(place * step), 2), f"{place * step + 0.0:.{digits}f}")
            for place in places
        )

    def line(self, values: Points) -> str:
        """A path; it breaks where nothing is known."""
        parts, pen = [], "M"
        for batch, value in self.pooled(values):
            if value is None:
                pen = "M"
                continue
            parts.append(f"{pen}{_short(self.x(batch))} {_short(self.y(value))}")
            if pen == "M":
                parts.append("h0")  # a dot, where both neighbours are unknown
            pen = "L"
        return "".join(parts)

    def bars(self, values: Points, *, above: bool) -> str:
        """Bars from zero, those above or those below it."""
        half = 0.4 * WIDTH * self.step / (self.last - self.first + 1)
        zero, parts = self.y(0.0), []
        for batch, value in self.pooled(values):
            if value is None or (value >= 0) is not above:
                continue
            left, top = _short(self.x(batch) - half), _short(self.y(value))
            parts.append(f"M{left} {_short(zero)}V{top}h{_short(2 * half)}V{_short(zero)}z")
        return "".join(parts)

    def spots(self, values: Mapping[str, Points], digits: int = 3) -> tuple[Spot, ...]:
        """What is known of each point, by the names of the lines."""
        lines = {name: self.pooled(points) for name, points in values.items()}
        wide = WIDTH * self.step / (self.last - self.first + 1)
        spots = []
        for place, start in enumerate(range(self.first, self.last + 1, self.step)):
            end = min(start + self.step - 1, self.last)
            told = [f"{name} {value:.{digits}f}" for name, line in lines.items()
                    if (value := line[place][1]) is not None]  # fmt: skip
            if told:
                batches = f"batch {start}" if end == start else f"batches {start} to {end}"
                spots.append(Spot(round(place * wide, 1), round(wide, 1),
                                  f"{batches}: {', '.join(told)}"))  # fmt: skip
        return tuple(spots)

    def across(self, value: float) -> str:
        """A line at a value."""
        return f"M0 {_short(self.y(value))}H{WIDTH:.0f}"

    def band(self, low: float, high: float) -> str:
        """Everything between two values."""
        top, bottom = _short(self.y(high)), _short(self.y(low))
        return f"M0 {top}H{WIDTH:.0f}V{bottom}H0z"

    def stretches(self, starts: Iterable[int]) -> str:
        """Full-height areas over these batches, a point's batches each; neighbours are joined."""
        parts: list[str] = []
        half = 0.5 * WIDTH / (self.last - self.first + 1)
        start = before = None
        for batch in [*sorted(starts), None]:
            if start is not None and before is not None and batch != before + self.step:
                end = min(before + self.step - 1, self.last)
                left, right = _short(self.x(start) - half), _short(self.x(end) + half)
                parts.append(f"M{left} 0H{right}V{HEIGHT:.0f}H{left}z")
                start = None
            start, before = batch if start is None else start, batch
        return "".join(parts)

    def start(self, batch: int) -> int:
        """The first of the batches that are one point with this one."""
        return batch - (batch - self.first) % self.step

    def marks(self, batches: Sequence[int]) -> str:
        """Lines from top to bottom."""
        return "".join(f"M{_short(self.x(batch))} 0V{HEIGHT:.0f}" for batch in batches)

    def pooled(self, values: Points) -> list[tuple[float, float | None]]:
        """Points in order, as many as can be seen."""
        means: dict[int, float] = {}
        for start, points in groupby(values, key=lambda pair: self.start(pair[0])):
            known = [value for _, value in points if value is not None]
            if known:
                means[start] = fmean(known)
        return [
            (fmean(range(start, min(start + self.step, self.last + 1))), means.get(start))
            for start in range(self.first, self.last + 1, self.step)
        ]


def frame_of(batches: Iterable[int], low: float, high: float) -> Frame:
    """For these batches and values between ``low`` and ``high``, the edges made round."""
    first, last = ends(batches)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    step = _round_step((high - low) / 4)
    low, high = step * floor(low / step + 1e-9), step * ceil(high / step - 1e-9)
    return Frame(first, last, low, high, step_of(first, last))


def ends(batches: Iterable[int]) -> tuple[int, int]:
    """The first and the last of some; of none, one that stands for them.

    >>> ends(iter([3, 4, 9])), ends([])
    ((3, 9), (1, 1))
    """
    first, last = 0, 0
    for place, batch in enumerate(batches):
        first, last = (min(first, batch), max(last, batch)) if place else (batch, batch)
    return (first, last) if (first, last) != (0, 0) else (1, 1)


def step_of(first: int, last: int, most: int = MOST_POINTS) -> int:
    """How many batches a point is of, so that there are no more than ``most`` points."""
    return ceil((last - first + 1) / most)


def _round_step(size: float) -> float:
    """The next round number: 1, 2, 2.5 or 5 times a power of ten."""
    if size <= 0:
        return 1.0
    power = 10.0 ** floor(log10(size))
    return next(step * power for step in STEPS if step * power >= size * (1 - 1e-9))


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


WHOLE = ("batch_idx", "state", "action", "rolled_back", "heal_reason")
FIGURES = tuple(field.name for field in fields(Row) if field.name not in WHOLE)


def thinned(rows: Iterable[Row], step: int) -> Iterator[Row]:
    """Each ``step`` rows as one, in order; with a step of 1 the rows as they are.

    Figures are means of what is known of them, state and action those of most, reasons are left
    out; a rollback in any of the rows is one.
    """
    if step == 1:
        yield from rows
        return
    left = iter(rows)
    while part := list(islice(left, step)):
        yield _one(part)


def _one(rows: Sequence[Row]) -> Row:
    figures: dict[str, Any] = {}
    for name in FIGURES:
        known = [value for row in rows if (value := getattr(row, name)) is not None]
        figures[name] = fmean(known) if known else None
    return Row(
        batch_idx=rows[len(rows) // 2].batch_idx,
        state=_most(row.state for row in rows),
        action=_most(row.action for row in rows),
        rolled_back=any(row.rolled_back for row in rows),
        **figures,
    )


def _most(words: Iterable[str]) -> str:
    return Counter(words).most_common(1)[0][0]
