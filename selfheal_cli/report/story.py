"""A log folded into what its page tells: beside the rows, who moved what, and what drifted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import sqrt
from statistics import fmean
from typing import Any

from selfheal_cli.history.events import Event, Kind
from selfheal_cli.report.fold import RunView, SnapshotRow
from selfheal_cli.scores import AnyScores, scores_from

CHAMPION = "champion"
STRETCHES = 10  # of consecutive batches; what lies in one may hang together
STUDENT = 2.262  # 97.5 % point of Student's t with STRETCHES - 1 degrees of freedom

Pair = tuple[AnyScores, AnyScores]


@dataclass(frozen=True, slots=True)
class Gain:
    """A figure of the stream without and with healing; ``low`` and ``high`` are 95 % of the
    difference, None where there are too few batches to say.
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


@dataclass(frozen=True, slots=True)
class Drift:
    """The shift of one feature by batch: in training standard deviations, or a share of rows."""

    name: str
    numeric: bool
    shifts: Mapping[int, float]

    @property
    def mean(self) -> float:
        """Over the stream."""
        return fmean(self.shifts.values()) if self.shifts else 0.0

    @property
    def furthest(self) -> tuple[int, float]:
        """The batch that is furthest away, and how far."""
        return max(self.shifts.items(), key=lambda pair: abs(pair[1]), default=(0, 0.0))


@dataclass(slots=True)
class Story:
    """A run so far. `add` takes its events in order.

    ``scores`` holds live and shadow by batch, as they were before anything learned from it.
    """

    view: RunView = field(default_factory=RunView)
    scores: dict[int, Pair] = field(default_factory=dict)
    shifts: dict[int, Sequence[float]] = field(default_factory=dict)
    reasons: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    moves: list[Mapping[str, Any]] = field(default_factory=list)
    first: str = ""
    last: str = ""
    events: int = 0
    head: str = ""
    resumed: int = 0
    stopped: bool = False
    held: bool = False

    def add(self, event: Event) -> None:
        """Take the next event."""
        self.view.add(event)
        self.first, self.last = self.first or event.at, event.at
        self.events, self.head = self.events + 1, event.digest
        kind, data = event.kind, event.data
        if kind is Kind.BATCH or kind is Kind.LABELS:
            self._score(data)
            if "shifts" in data:
                self.shifts[data["batch"]] = data["shifts"]
        elif kind is Kind.SNAPSHOT:
            self.reasons[data["id"]] = data
        elif kind is Kind.ALIAS_MOVED and data["alias"] == CHAMPION:
            self.moves.append(data)
        elif kind in (Kind.HEALING_HELD, Kind.HEALING_RELEASED):
            self.held = kind is Kind.HEALING_HELD
        elif kind is Kind.RUN_RESUMED:
            self.resumed += 1
            self.view.finished = {}

    def _score(self, data: Mapping[str, Any]) -> None:
        if data["live"] is None:
            return
        live, shadow = scores_from(data["live"]), scores_from(data["shadow"])
        if data["batch"] in self.scores:
            before = self.scores[data["batch"]]
            live, shadow = before[0].plus(live), before[1].plus(shadow)
        self.scores[data["batch"]] = (live, shadow)

    @property
    def serving(self) -> SnapshotRow | None:
        """The snapshot that the run last made champion, as far as the registry has said."""
        if not self.moves:
            return None
        target = self.moves[-1]["target"]
        rows = self.view.snapshots.values()
        return next((row for row in rows if row.version == target), None)

    def drifts(self) -> list[Drift]:
        """Every feature that is watched, furthest from training first; none in logs of old."""
        found = []
        for place, feature in enumerate(self.view.trained.get("features", [])):
            shifts = {batch: values[place] for batch, values in sorted(self.shifts.items())}
            found.append(Drift(feature["name"], feature["kind"] == "numeric", shifts))
        return sorted(found, key=lambda one: -fmean(map(abs, one.shifts.values() or [0.0])))

    def gain(self, figure: Callable[[AnyScores], float]) -> Gain | None:
        """A figure over all rows whose labels came in the stream; None without any."""
        pairs = [pair for _, pair in sorted(self.scores.items()) if pair[0].rows]
        if not pairs:
            return None
        parts = [_sum(part) for part in _stretches(pairs)]
        live, shadow = _sum(parts)
        found = Gain(figure(shadow), figure(live), live.rows, len(pairs))
        if len(parts) < STRETCHES:
            return found
        error = _jackknife([figure(a) - figure(b) for a, b in _leaving_one_out(parts)])
        middle = found.difference
        low, high = middle - STUDENT * error, middle + STUDENT * error
        return Gain(found.shadow, found.live, found.rows, found.batches, low, high)


def tell(events: Iterable[Event]) -> Story:
    """A whole log."""
    story = Story()
    for event in events:
        story.add(event)
    return story


def _sum(pairs: Sequence[Pair]) -> Pair:
    live, shadow = pairs[0]
    for more, other in pairs[1:]:
        live, shadow = live.plus(more), shadow.plus(other)
    return live, shadow


def _stretches(pairs: Sequence[Pair]) -> list[Sequence[Pair]]:
    """Consecutive parts, nearly equal; each pair its own where there are fewer than wanted."""
    parts = min(STRETCHES, len(pairs))
    ends = [place * len(pairs) // parts for place in range(parts + 1)]
    return [pairs[start:end] for start, end in pairwise(ends)]


def _leaving_one_out(parts: Sequence[Pair]) -> list[Pair]:
    return [_sum([*parts[:place], *parts[place + 1 :]]) for place in range(len(parts))]


def _jackknife(without: Sequence[float]) -> float:
    """Standard error of a figure from its values without each part (Tukey)."""
    mean, count = fmean(without), len(without)
    return sqrt((count - 1) / count * sum((value - mean) ** 2 for value in without))
