"""A log folded into what its page tells: beside the rows, who moved what, and what drifted."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from math import fsum
from statistics import fmean
from typing import Any

from selfheal_cli.events.event import Event
from selfheal_cli.events.shelf import Shelved
from selfheal_cli.events.state import LATEST, Pair, RunView, SnapshotRow
from selfheal_cli.events.types import (
    AliasMoved,
    BatchScored,
    HealPublished,
    LabelsArrived,
    SnapshotTaken,
)
from selfheal_cli.records import AliasMove
from selfheal_cli.report.charts import ends, step_of
from selfheal_cli.report.experts import ExpertShares
from selfheal_cli.report.gains import jackknife
from selfheal_cli.scores import AnyScores

BLOCK = 1_000  # values that are added up at once, without rounding between them


@dataclass(frozen=True, slots=True)
class DriftSeries:
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

    def told(self, name: str, *, numeric: bool) -> DriftSeries:
        """Everything so far."""
        self._end_block()
        self._end_point()
        count = max(self._count, 1)
        mean, size = self._sum / count, self._size / count
        batches = (self.first, self._last)
        return DriftSeries(
            name, numeric, mean, size, self._furthest, self._span, batches, self._shifts
        )

    def _end_block(self) -> None:
        self._sum = fsum([self._sum, *self._block])
        self._size = fsum([self._size, *map(abs, self._block)])
        self._block.clear()

    def _end_point(self) -> None:
        if self._point:
            self._shifts[self._start] = fmean(self._point)
            self._point.clear()


CHAMPION = "champion"
STRETCHES = 10  # of consecutive batches; what lies in one may hang together
STUDENT = 2.262  # 97.5 % point of Student's t with STRETCHES - 1 degrees of freedom


@dataclass(frozen=True, slots=True)
class Gain:
    """A figure of the stream without and with healing; ``low`` and ``high`` are an interval of
    the difference, None where there are too few batches to say.
    """

    shadow: float
    live: float
    rows: int
    batches: int
    low: float | None = None
    high: float | None = None

    @property
    def difference(self) -> float:
        """With healing minus without."""
        return self.live - self.shadow

    @property
    def chance(self) -> bool:
        """Whether the difference may be chance."""
        return self.low is not None and self.high is not None and self.low <= 0 <= self.high


@dataclass(slots=True)
class RunSummary:
    """A run so far. `add` takes its events in order.

    ``reasons`` holds what a snapshot was judged on, and its threshold; ``moves`` the latest moves
    of the champion, of ``moved`` in all; ``labelled`` counts the batches that `parts` are of.
    """

    view: RunView = field(default_factory=RunView)
    moves: deque[AliasMove] = field(default_factory=lambda: deque(maxlen=LATEST))
    moved: int = 0
    labelled: int = 0
    experts: ExpertShares = field(default_factory=ExpertShares)
    shifts: MutableMapping[int, Sequence[float]] = field(init=False)
    reasons: MutableMapping[str, Mapping[str, Any]] = field(init=False)
    _parts: list[Pair] | None = None

    def __post_init__(self) -> None:
        self.shifts = Shelved(self.view.shelf, int)
        self.reasons = Shelved(self.view.shelf, str)

    def add(self, event: Event) -> None:
        """Take the next event."""
        self.view.apply(event)
        match event:
            case BatchScored():
                self._parts = None
                if event.shifts is not None:
                    self.shifts[event.batch] = event.shifts
            case LabelsArrived():
                self._parts = None
            case SnapshotTaken():
                judged_on = {"evaluation": event.evaluation, "threshold": event.threshold}
                self.reasons[event.id] = judged_on
            case HealPublished():
                self.experts.add(event)
            case AliasMoved() if event.move.alias == CHAMPION:
                self.moves.append(event.move)
                self.moved += 1

    @property
    def scores(self) -> Mapping[int, Pair]:
        """Live and shadow by batch, as they were before anything learned from it."""
        return self.view.by_batch.scores

    @property
    def serving(self) -> SnapshotRow | None:
        """The snapshot that the run last made champion, as far as the registry has said."""
        if not self.moves:
            return None
        target = self.moves[-1].target
        rows = self.view.snapshots.values()
        return next((row for row in rows if row.version == target), None)

    def drifts(self) -> list[DriftSeries]:
        """Every feature that is watched, furthest from training first; none in logs of old."""
        features = (self.view.trained and self.view.trained.features) or ()
        first, last = ends(self.shifts)
        folds = [DriftFold(first, step_of(first, last)) for _ in features]
        for batch, values in self.shifts.items():
            for one, value in zip(folds, values, strict=True):
                one.add(batch, value)
        drifts = [
            one.told(feature["name"], numeric=feature["kind"] == "numeric")
            for one, feature in zip(folds, features, strict=True)
        ]
        return sorted(drifts, key=lambda one: -one.size)

    def parts(self) -> list[Pair]:
        """Consecutive stretches of the batches whose labels came, nearly equal: live and shadow.

        Each batch is its own where there are fewer than stretches are wanted.
        """
        if self._parts is None:
            self.labelled = sum(pair[0].rows > 0 for pair in self.scores.values())
            self._parts = self._add_up(self.labelled)
        return self._parts

    def _add_up(self, count: int) -> list[Pair]:
        wanted = min(STRETCHES, count)
        starts = {place * count // wanted for place in range(wanted)}
        parts: list[Pair] = []
        place = 0
        for pair in self.scores.values():
            if not pair[0].rows:
                continue
            if place in starts:
                parts.append(pair)
            else:
                parts[-1] = _sum([parts[-1], pair])
            place += 1
        return parts

    def gain(self, figure: Callable[[AnyScores], float]) -> Gain | None:
        """A figure over all rows whose labels came in the stream; None without any."""
        parts = self.parts()
        if not parts:
            return None
        live, shadow = _sum(parts)
        gain = Gain(figure(shadow), figure(live), live.rows, self.labelled)
        if len(parts) < STRETCHES:
            return gain
        error = jackknife([figure(a) - figure(b) for a, b in _leaving_one_out(parts)])
        middle = gain.difference
        low, high = middle - STUDENT * error, middle + STUDENT * error
        return Gain(gain.shadow, gain.live, gain.rows, gain.batches, low, high)


def tell(events: Iterable[Event]) -> RunSummary:
    """A whole log."""
    story = RunSummary()
    for event in events:
        story.add(event)
    return story


def _sum(pairs: Sequence[Pair]) -> Pair:
    live, shadow = pairs[0]
    for more, other in pairs[1:]:
        live, shadow = live.plus(more), shadow.plus(other)
    return live, shadow


def _leaving_one_out(parts: Sequence[Pair]) -> list[Pair]:
    return [_sum([*parts[:place], *parts[place + 1 :]]) for place in range(len(parts))]
