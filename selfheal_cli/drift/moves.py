"""What moved, since when and by how much: looked at where a monitor alarms, and only there."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from selfheal_cli.drift.monitor import ERRORS, SCORES, BatchView, Level, Reading, TrainingSample
from selfheal_cli.drift.samples import apart_by, rows_between, without_missing
from selfheal_cli.drift.sentences import sentence_of
from selfheal_cli.drift.units import unit_of
from selfheal_cli.events.types import ColumnMoved

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfheal_cli.drift.samples import Values
    from selfheal_cli.records import LabelArray

KEPT = 10  # batches that a change is looked for in
AGAIN = 5  # batches until what was told is looked at again
SIGNIFICANT = 1e-4  # p-value at which something has moved on
RECOVERED = 10  # batches without an alarm until something counts as it was
MOST = 20  # moves that are followed at a time; the furthest are told first
BINS = 24
MOST_TEXTS = 8
ENDS = (0.01, 0.99)  # quantiles that a picture shows
QUANTILES = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}
# what of a column a monitor sees moving; of the others its values
ASPECTS = {"missing": "missing", "prediction-rate": "decisions"}
UNTOLD = ("conflicts",)  # the rules' own events tell of them

Key = tuple[str, str]  # aspect and column


@dataclass(frozen=True, slots=True)
class LoudMonitor:
    """A monitor's name, threshold and reading."""

    monitor: str
    threshold: float
    reading: Reading


@dataclass(slots=True)
class _Seen:
    """A batch: ``place`` (n,) as in `Scored`, ``y`` (n,) with -1 until a label came."""

    batch: int
    time: float | None
    view: BatchView
    place: NDArray[np.intp]
    y: LabelArray


@dataclass(slots=True)
class _Followed:
    """What was told last, and the values that it was told of; ``quiet`` counts calm batches."""

    move: ColumnMoved
    values: Values
    quiet: int = 0


@dataclass(slots=True)
class Moves:
    """Follows what monitors alarm about; a function of the sample and the batches."""

    sample: TrainingSample
    _kept: deque[_Seen] = field(default_factory=lambda: deque(maxlen=KEPT))
    _first_errors: list[Values] = field(default_factory=list)
    _followed: dict[Key, _Followed] = field(default_factory=dict)

    def observe(
        self, batch: int, time: float | None, view: BatchView, place: NDArray[np.intp]
    ) -> None:
        """Take a batch, before it is asked what moved; labels come by `learn`."""
        self._kept.append(_Seen(batch, time, view, place, np.full(len(place), -1, dtype=np.int8)))
        if len(view.errors) and len(self._first_errors) < KEPT:
            self._first_errors.append(view.errors > 0)

    def learn(self, batch: int, place: NDArray[np.intp], y: LabelArray) -> None:
        """Labels (m,) of a batch's rows have come."""
        for seen in self._kept:
            if seen.batch == batch:
                seen.y[np.isin(seen.place, place)] = y[np.isin(place, seen.place)]

    def told(self, alarms: Sequence[LoudMonitor]) -> Iterator[ColumnMoved]:
        """What is to be written down after a batch."""
        loud = self._loud(alarms)
        for key, alarm in loud.items():
            if key in self._followed:
                self._followed[key].quiet = 0
            elif len(self._followed) < MOST:
                move, values = self._move(key, alarm, self._reference(key))
                self._followed[key] = _Followed(move, values)
                yield move
        for key, followed in list(self._followed.items()):
            if key not in loud:
                yield from self._calm(key, followed)
            elif self._now > followed.move.batch and not (self._now - followed.move.batch) % AGAIN:
                yield from self._look_again(key, followed, loud[key])

    @property
    def still(self) -> bool:
        """Whether more errors are made than at first, though their monitor was told of it."""
        return any(aspect == ERRORS for aspect, _ in self._followed)

    @property
    def _now(self) -> int:
        return self._kept[-1].batch

    def _loud(self, alarms: Sequence[LoudMonitor]) -> dict[Key, LoudMonitor]:
        """Each thing that moved with the alarm that shows it furthest, furthest first."""
        loud: dict[Key, tuple[float, LoudMonitor]] = {}
        for alarm in alarms:
            name = alarm.monitor.partition(":")[0]
            if name in UNTOLD or alarm.reading.level is not Level.ALARM:
                continue
            for one in alarm.reading.alarming:
                aspect = one.feature if one.feature in (SCORES, ERRORS) else "values"
                key = (ASPECTS.get(name, aspect), one.feature)
                if key not in loud or one.effect > loud[key][0]:
                    reading = replace(alarm.reading, value=one.effect, p=one.p)
                    loud[key] = (one.effect, replace(alarm, reading=reading))
        ranked = sorted(loud.items(), key=lambda pair: -pair[1][0])
        return {key: alarm for key, (_, alarm) in ranked}

    def _calm(self, key: Key, followed: _Followed) -> Iterator[ColumnMoved]:
        followed.quiet += 1
        if followed.quiet < RECOVERED:
            return
        fresh = self._of_window(key, min(RECOVERED, len(self._kept)))
        effect, p = apart_by(self._reference(key), fresh)
        # a change detector is quiet about what stays as it has become
        if effect >= followed.move.threshold and p <= SIGNIFICANT:
            return
        del self._followed[key]
        seen = self._kept[max(0, len(self._kept) - RECOVERED)]
        values = self._of_window(key, len(self._kept))
        back = replace(
            followed.move, batch=self._now, since=seen.batch, time=seen.time, back=True,
            rows=len(values), now=_figures(values), unit=None, edges=(), shares_before=(),
            shares_now=(),
        )  # fmt: skip
        yield replace(back, reason=sentence_of(back))

    def _look_again(
        self, key: Key, followed: _Followed, alarm: LoudMonitor
    ) -> Iterator[ColumnMoved]:
        """Tell once more where the rows since then are unlike those that were told of."""
        last = followed.move
        fresh = self._of_window(key, min(AGAIN, len(self._kept)))
        effect, p = apart_by(followed.values, fresh)
        moved_on = effect >= alarm.threshold and p <= SIGNIFICANT
        unsure = (
            last.unit is None
            and self._now == last.batch + AGAIN
            and self._kept[0].batch <= last.since
        )
        if moved_on:
            move, values = self._move(key, alarm, followed.values)
            # on its way back it is far from what was told, and no longer from training
            if apart_by(self._reference(key), values)[0] < alarm.threshold:
                return
        elif unsure:
            move, values = self._move(key, alarm, self._reference(key), since=last.since)
            if move.unit is None:
                return
        else:
            return
        self._followed[key] = _Followed(move, values)
        yield move

    def _move(
        self, key: Key, alarm: LoudMonitor, against: Values, since: int | None = None
    ) -> tuple[ColumnMoved, Values]:
        """What moved away from ``against`` (n,), and when; the figures are against training."""
        batches = self._since(key, against)
        if since is not None:
            batches = sum(seen.batch >= since for seen in self._kept)
        values, reference = self._of_window(key, batches), self._reference(key)
        first, numeric = self._kept[-batches], values.dtype == np.float64
        texts = _told_texts(reference, values) if values.dtype == np.object_ else ()
        edges = _edges(reference, values) if numeric else np.empty(0)
        alone = all(other == key or other[0] != "values" for other in self._followed)
        move = ColumnMoved(
            batch=self._now, reason="", monitor=alarm.monitor, column=key[1], aspect=key[0],
            since=first.batch, rows=len(values), before=_figures(reference, texts),
            now=_figures(values, texts), effect=alarm.reading.value, p=alarm.reading.p,
            threshold=alarm.threshold, time=first.time,
            unit=self._unit(key[1], batches) if numeric and alone and key[0] == "values" else None,
            edges=[round(edge, 6) for edge in edges.tolist()],
            shares_before=_shares(reference, edges), shares_now=_shares(values, edges),
        )  # fmt: skip
        return replace(move, reason=sentence_of(move)), values

    def _since(self, key: Key, against: Values) -> int:
        """How many of the last batches are least like ``against``: the change began with them."""
        best, batches = -1.0, 1
        parts: list[Values] = []
        for count, seen in enumerate(reversed(self._kept), start=1):
            parts.append(self._of(key, seen))
            values = np.concatenate(parts)
            strength = apart_by(against, values)[0] * sqrt(rows_between(len(against), len(values)))
            if strength > best:
                best, batches = strength, count
        return batches

    def _of_window(self, key: Key, batches: int) -> Values:
        return np.concatenate([self._of(key, seen) for seen in list(self._kept)[-batches:]])

    def _of(self, key: Key, seen: _Seen) -> Values:
        aspect, column = key
        if aspect == "missing":
            return np.asarray(pd.isna(seen.view.columns[column]))
        if aspect == "decisions":
            return np.asarray(seen.view.classes == self.sample.labels.index(column))
        if aspect == ERRORS:
            return np.asarray(seen.view.errors > 0)
        if aspect == SCORES:
            return seen.view.values(SCORES)
        return without_missing(seen.view.columns[column])

    def _reference(self, key: Key) -> Values:
        """The training rows' values (n,); of errors, those of the first labelled batches."""
        aspect, column = key
        if aspect == "missing":
            return np.asarray(pd.isna(self.sample.rows.columns[column]))
        if aspect == "decisions":
            return np.asarray(self.sample.classes == self.sample.labels.index(column))
        if aspect == ERRORS:
            return np.concatenate(self._first_errors)
        if aspect == SCORES:
            return self.sample.values(SCORES)
        return without_missing(self.sample.rows.columns[column])

    def _unit(self, column: str, batches: int) -> Any:
        """The map to another unit, asked of all rows and of each class whose labels are there."""
        kept = list(self._kept)[-batches:]
        old, y_old = self.sample.rows.columns[column], self.sample.rows.y
        new = np.concatenate([seen.view.columns[column] for seen in kept])
        y_new = np.concatenate([seen.y for seen in kept])
        classes = range(len(self.sample.labels))
        before = [old, *(old[y_old == label] for label in classes)]
        now = [new, *(new[y_new == label] for label in classes)]
        return unit_of([*map(without_missing, before)], [*map(without_missing, now)])


def _figures(values: Values, texts: Sequence[str] = ()) -> Mapping[str, float]:
    """Quantiles of numbers, shares of ``texts``, or the one share."""
    if not len(values):
        return {}
    if values.dtype == np.bool_:
        return {"share": round(float(values.mean()), 6)}
    if values.dtype == np.object_:
        return {text: round(float(np.mean(values == text)), 6) for text in texts}
    quantiles = np.quantile(values, list(QUANTILES.values()))
    return dict(zip(QUANTILES, (float(f"{one:.6g}") for one in quantiles), strict=True))


def _told_texts(before: Values, now: Values) -> list[str]:
    """The categories whose shares differ most."""
    shares = [pd.Series(part).value_counts(normalize=True) for part in (before, now)]
    moved = shares[1].sub(shares[0], fill_value=0.0).abs()
    ranked = sorted(moved.items(), key=lambda pair: (-pair[1], str(pair[0])))
    return [str(name) for name, _ in ranked[:MOST_TEXTS]]


def _edges(before: Values, now: Values) -> Values:
    """Edges (k + 1,) of equal bins over what nearly all rows have."""
    if not (len(before) and len(now)):
        return np.empty(0)
    ends = np.quantile(before, ENDS), np.quantile(now, ENDS)
    low, high = min(ends[0][0], ends[1][0]), max(ends[0][1], ends[1][1])
    return np.linspace(low, high, BINS + 1) if high > low else np.empty(0)


def _shares(values: Values, edges: Values) -> list[float]:
    """Shares (k,) of the values in each bin, those beyond in the outermost."""
    if not (len(edges) and len(values)):
        return []
    counts = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0]
    return [round(share, 5) for share in (counts / len(values)).tolist()]
