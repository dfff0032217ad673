"""Segments of the rows, by the value of one column: which of them drifted, and in what.

Each segment is compared with its own training rows (`segment_evidence`). Which are named is
controlled over all segments and columns together: of those named, no more than the agreed share is
expected to be named by chance (Benjamini and Hochberg 1995, on the reciprocals of what bets have
won, which holds however they depend: Wang and Ramdas 2022).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import log
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control

from selfheal_cli.drift.merging import added
from selfheal_cli.drift.monitor import ERRORS, MonitorState, TrainingSample
from selfheal_cli.drift.segment_evidence import CELLS, SegmentEvidence
from selfheal_cli.events.types import DriftedSegment, SegmentSlice
from selfheal_cli.segment_keys import keys_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfheal_cli.records import Columns

    Cells = NDArray[np.int8]
    Codes = NDArray[np.intp]
    Mask = NDArray[np.bool_]

MISSING = CELLS - 1
NEW, OTHER = CELLS - 2, CELLS - 3  # texts that training lacks, and those that are rare in it
KEPT = 1_000_000  # rows whose labels may still come
LARGEST = 20  # segments that are told of though they did not drift
MOST_PAIRS = 500_000  # of a segment and a column: about 120 MB


@dataclass(frozen=True, slots=True)
class ColumnCells:
    """The cells of a column: between the ``edges`` of numbers, or one for each of the ``texts``."""

    edges: NDArray[np.float64] | None
    texts: tuple[str, ...] = ()
    rare: frozenset[str] = frozenset()

    @classmethod
    def of(cls, sample: TrainingSample, name: str) -> ColumnCells:
        """By a sample of the training rows."""
        if name not in sample.categories:
            inner = np.arange(1, OTHER + 2) / (OTHER + 2)
            values = sample.values(name)
            return cls(np.unique(np.quantile(values, inner)) if len(values) else np.empty(0))
        values = sample.rows.columns[name]
        counts = pd.Series(values[~pd.isna(values)]).value_counts()
        ranked = sorted(counts.items(), key=lambda pair: (-pair[1], str(pair[0])))
        known = [str(text) for text, _ in ranked]
        return cls(
            None, tuple(known[:OTHER]), frozenset([*known[OTHER:], *sample.categories[name]])
        )

    def place(self, values: NDArray[Any]) -> Cells:
        """The cell of each value (n,)."""
        if self.edges is not None:
            cells = np.searchsorted(self.edges, values, side="left")
            return np.where(np.isnan(values.astype(np.float64)), MISSING, cells).astype(np.int8)
        places, distinct = pd.factorize(values)
        known = {text: place for place, text in enumerate(self.texts)}
        told = [known.get(text, OTHER if text in self.rare else NEW) for text in distinct]
        return np.array([*told, MISSING], dtype=np.int8)[places]


@dataclass(frozen=True, slots=True)
class SegmentReference:
    """The training rows by segment: ``counts`` (s, d, k) of the ``columns``' cells."""

    by: str
    names: tuple[str, ...]
    columns: Mapping[str, ColumnCells]
    counts: NDArray[np.int32]

    def cells(self, columns: Columns) -> Cells:
        """The cells (n, d) of rows."""
        return np.stack([one.place(columns[name]) for name, one in self.columns.items()], axis=1)

    def with_rows(self, columns: Columns) -> SegmentReference:
        """With further training rows; those without a segment are left out."""
        places, distinct = pd.factorize(keys_of(columns[self.by]))
        known = {name: code for code, name in enumerate(self.names)}
        names = [*self.names, *(name for name in distinct if name not in known)]
        codes = np.array([known.get(name, -1) for name in distinct], dtype=np.intp)
        codes[codes < 0] = np.arange(len(self.names), len(names))
        counts = np.zeros((len(names), *self.counts.shape[1:]), dtype=np.int32)
        counts[: len(self.names)] = self.counts
        keyed = places >= 0
        rows = codes[places[keyed]][:, None]
        np.add.at(counts, (rows, np.arange(len(self.columns)), self.cells(columns)[keyed]), 1)
        return replace(self, names=tuple(names), counts=counts)

    @property
    def most(self) -> int:
        """Segments that can be told apart with so many columns."""
        return most_segments(len(self.columns))


def most_segments(columns: int) -> int:
    """Segments that memory is there for."""
    return max(1, MOST_PAIRS // max(columns, 1))


@dataclass(slots=True)
class _Tally:
    """By segment (s, 3): rows with a label, and those that live and shadow were wrong on."""

    counts: NDArray[np.int64]

    def add(self, codes: Codes, live: Mask, shadow: Mask, segments: int) -> None:
        if segments > len(self.counts):
            more = np.zeros((max(segments, 2 * len(self.counts)) - len(self.counts), 3), np.int64)
            self.counts = np.concatenate([self.counts, more])
        np.add.at(self.counts, codes, np.stack([np.ones(len(codes), np.int64), live, shadow], 1))


class SegmentWatch:
    """Every segment's rows against its own training rows; deterministic by the seed.

    ``unkeyed`` counts rows without a segment, ``beyond`` those of segments for which there was no
    place left: both are the whole's alone.
    """

    def __init__(
        self, reference: SegmentReference, *, window: int, threshold: float, rate: float,
        most: int, seed: int,
    ) -> None:  # fmt: skip
        self.reference = reference
        self.threshold, self.rate = threshold, rate
        self._most, self._seed = min(most, reference.most), seed
        self._codes = {name: code for code, name in enumerate(reference.names)}
        self._names = list(reference.names)
        self._inputs = SegmentEvidence(len(reference.columns), window)
        self._errors = SegmentEvidence(1, window)  # of the frozen model, which no heal moves
        self._targets = (*reference.columns, ERRORS)
        ordered = [one.edges is not None for one in reference.columns.values()]
        self._ordered = np.array([*ordered, True])
        self._grow()
        self._inputs.learn(reference.counts)
        self._tally = _Tally(np.zeros((len(self._names), 3), np.int64))
        self._recent: dict[int, tuple[NDArray[np.int32], NDArray[np.int32]]] = {}
        self._kept = 0  # rows in them
        self._named: dict[tuple[int, int], int] = {}  # since which batch
        self.unkeyed = self.beyond = 0

    def observe(self, batch: int, columns: Columns, place: NDArray[np.intp]) -> None:
        """Take a batch's rows, with their places in it; without the column none has a segment."""
        if self.reference.by not in columns:
            self.unkeyed += len(place)
            return
        codes = self._code(keys_of(columns[self.reference.by]))
        self._recent[batch] = (place.astype(np.int32), codes.astype(np.int32))
        self._kept += len(codes)
        while self._kept > KEPT and len(self._recent) > 1:
            self._kept -= len(self._recent.pop(min(self._recent))[0])
        lots = np.random.default_rng([self._seed, batch]).random(len(codes))
        known = codes >= 0
        if known.any():
            cells = self.reference.cells(columns)
            self._inputs.update(codes[known], cells[known], lots[known])

    def learn(self, batch: int, place: NDArray[np.intp], live: Mask, shadow: Mask) -> None:
        """Labels of a batch's rows came: where what served, and the frozen model, were wrong."""
        codes = self._codes_of(batch, place)
        live, shadow, codes = live[codes >= 0], shadow[codes >= 0], codes[codes >= 0]
        if not len(codes):
            return
        self._tally.add(codes, live, shadow, len(self._names))
        lots = np.random.default_rng([self._seed, batch, len(codes)]).random(len(codes))
        self._errors.update(codes, shadow[:, None].astype(np.int8), lots)

    def _codes_of(self, batch: int, place: NDArray[np.intp]) -> Codes:
        """Segments (n,) of rows of an earlier batch, -1 where none is known."""
        places, coded = self._recent.get(batch, (np.empty(0, np.int32), np.empty(0, np.int32)))
        codes: Codes = np.full(len(place), -1, dtype=np.intp)
        known = np.isin(place, places)
        codes[known] = coded[np.searchsorted(places, place[known])]
        return codes

    def of(self, segment: str, batch: int, place: NDArray[np.intp]) -> Mask:
        """Which rows (n,) of an earlier batch are of a segment."""
        of: Mask = self._codes_of(batch, place) == self._codes[segment]
        return of

    def newly_named(self, batch: int) -> list[DriftedSegment]:
        """Segments with a column that drifted by what is known now and was not named before, those
        that moved furthest first.
        """
        chance = np.exp(-np.maximum(self._won, 0.0))
        small = false_discovery_control(chance.ravel()).reshape(chance.shape) <= self.rate
        pairs = [
            (int(code), int(target)) for code, target in np.argwhere(small)
            if (int(code), int(target)) not in self._named
        ]  # fmt: skip
        fresh = [
            pair for pair, effect in zip(pairs, self._effects(pairs), strict=True)
            if effect >= self.threshold
        ]  # fmt: skip
        self._named |= dict.fromkeys(fresh, batch)
        return self._told(fresh)

    def drifted(self) -> list[DriftedSegment]:
        """All that were named, by how far they are from their training rows now."""
        return self._told(list(self._named))

    def slices(self) -> list[SegmentSlice]:
        """The segments that drifted and the largest others: rows, and how often who was wrong."""
        drifted = {name: place for place, name in enumerate(
            dict.fromkeys(one["segment"] for one in self.drifted()))}  # fmt: skip
        largest = np.argsort(-self._inputs.rows, kind="stable")[:LARGEST]
        others = [self._names[code] for code in largest if self._names[code] not in drifted]
        return [self._slice(name) for name in (*drifted, *others)]

    def whole(self) -> dict[str, float]:
        """By column: how far the rows of all segments' windows together are from training's."""
        window, reference = (
            self._sum(counts) for counts in (self._inputs.window, self._inputs.reference)
        )
        effects = _apart(reference, window, self._ordered[:-1])
        return dict(zip(self._targets, effects.round(6).tolist(), strict=False))

    @property
    def names(self) -> Sequence[str]:
        """Those that there are so far."""
        return self._names

    @property
    def segments(self) -> int:
        """How many there are."""
        return len(self._names)

    @property
    def pairs(self) -> int:
        """Segments times columns, which are controlled together."""
        return len(self._names) * len(self._targets)

    def _sum(self, counts: NDArray[np.int32]) -> NDArray[np.int64]:
        """Of all segments (d, k): each one's counts are those of a partition."""
        flat = counts.reshape(len(counts), -1).astype(np.int64)
        state = MonitorState(self.reference.by, np.zeros(len(counts), np.int64), flat)
        return np.asarray(added([state]).sums.reshape(counts.shape[1:]))

    def _slice(self, name: str) -> SegmentSlice:
        code = self._codes[name]
        labelled, live, shadow = (
            self._tally.counts[code].tolist() if code < len(self._tally.counts) else (0, 0, 0)
        )
        columns = [self._targets[target] for segment, target in self._named if segment == code]
        return {
            "segment": name, "rows": int(self._inputs.rows[code]), "labelled": labelled,
            "wrong": live, "shadow_wrong": shadow, "drifted": columns,
        }  # fmt: skip

    @property
    def _won(self) -> NDArray[np.float64]:
        return np.concatenate([self._inputs.won, self._errors.won], axis=1)

    def _told(self, pairs: Sequence[tuple[int, int]]) -> list[DriftedSegment]:
        won, effects = self._won, self._effects(pairs)
        rows = np.stack([self._inputs.rows, self._errors.rows])
        last = len(self._targets) - 1
        told: list[DriftedSegment] = [
            {
                "segment": self._names[code], "column": self._targets[target],
                "effect": round(float(effect), 6), "rows": int(rows[int(target == last), code]),
                "evidence": round(float(won[code, target]) / log(10), 3),
                "since": self._named[code, target],
            }
            for (code, target), effect in zip(pairs, effects, strict=True)
        ]  # fmt: skip
        return sorted(told, key=lambda one: (-one["effect"], one["segment"], one["column"]))

    def _effects(self, pairs: Sequence[tuple[int, int]]) -> NDArray[np.float64]:
        """How far each pair's last rows are from what they are compared with."""
        if not pairs:
            return np.empty(0)
        codes, targets = np.array(pairs).T
        of_errors = targets == len(self._targets) - 1
        column = np.where(of_errors, 0, targets)
        reference, window = (
            np.where(of_errors[:, None], errors[codes, 0], inputs[codes, column])
            for inputs, errors in (
                (self._inputs.reference, self._errors.reference),
                (self._inputs.window, self._errors.window),
            )
        )
        return _apart(reference, window, self._ordered[targets])

    def _code(self, keys: NDArray[Any]) -> Codes:
        """Segments (n,), -1 for rows that have none."""
        places, distinct = pd.factorize(keys)
        codes = np.full(len(distinct) + 1, -1, dtype=np.intp)
        for place, name in enumerate(distinct):
            if name not in self._codes and len(self._names) < self._most:
                self._codes[name] = len(self._names)
                self._names.append(str(name))
            codes[place] = self._codes.get(name, -1)
        missing = places < 0
        self.unkeyed += int(missing.sum())
        told: Codes = codes[places]
        self.beyond += int((told < 0).sum() - missing.sum())
        self._grow()
        return told

    def _grow(self) -> None:
        for evidence in (self._inputs, self._errors):
            evidence.grow(len(self._names))


def _apart(reference: NDArray[Any], window: NDArray[Any], ordered: Mask) -> NDArray[np.float64]:
    """Distances (m,) of counts (m, k): Kolmogorov-Smirnov's of ordered cells, else the share of
    rows that would have to move; 0 where one has no rows.
    """
    sizes = [np.maximum(part.sum(axis=1, keepdims=True), 1) for part in (reference, window)]
    shares = reference / sizes[0] - window / sizes[1]
    distance = np.where(
        ordered, np.abs(np.cumsum(shares, axis=1)).max(axis=1), np.abs(shares).sum(axis=1) / 2
    )
    return np.where((reference.sum(axis=1) > 0) & (window.sum(axis=1) > 0), distance, 0.0)
