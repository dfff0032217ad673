"""Evidence, segment by segment, that rows are no longer like the segment's own earlier ones.

Every value lies in a cell. Its rank among all earlier values of its segment, training's with them,
with ties broken by lot, is uniform as long as they are exchangeable, whatever their distribution
and however few they are (Vovk, Gammerman and Shafer 2005): so is each of the next ones, and
independently. A bet against that (a mixture over ways in which ranks may move) therefore wins by
chance with a factor of e or more at most once in e cases, however long and often it is looked at.
Each segment bets on windows of its own last rows; what a window won is kept, with weights that sum
to 1, so that evidence adds up over time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import gammaln, logsumexp, ndtri

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Counts = NDArray[np.int32]
    Codes = NDArray[np.intp]

CELLS = 11  # of a value; the last is a missing one's
BINS = 10  # of a rank
COARSE = 5  # of them, for bets on any histogram
MOVES = (0.25, 0.5, 1.0, 1.5)  # of ranks, in standard deviations
SPREADS = (-0.3, 0.15, 0.3)
LEAST = 50  # rows; with fewer in training a segment's first ones are its reference, too
AT_ONCE = 2_000_000  # numbers


class SegmentEvidence:
    """Counts of s segments and d targets, such as columns; rows come in the order of the stream.

    ``rows`` (s,) are those that came. Windows hold ``window`` rows of a segment, and begin every
    half of it.
    """

    def __init__(self, targets: int, window: int) -> None:
        self._half = max(window // 2, 1)
        self._targets = targets
        self._known = 0
        self._arrays: dict[str, NDArray[Any]] = {
            "rows": np.zeros(0, dtype=np.int64),
            "halves": np.zeros(0, dtype=np.int64),  # that are full
            "reference": np.zeros((0, targets, CELLS), dtype=np.int32),
            "earlier": np.zeros((0, targets, CELLS), dtype=np.int32),
            # of the half before, and of this one
            "cells": np.zeros((0, 2, targets, CELLS), dtype=np.int32),
            "bins": np.zeros((0, 2, targets, BINS), dtype=np.int32),
            "kept": np.zeros((0, targets)),  # what full windows won, as a logarithm
            "won": np.zeros((0, targets)),
        }

    def grow(self, segments: int) -> None:
        """There are so many segments now."""
        room = len(self._arrays["rows"])
        if segments > room:
            for name, array in self._arrays.items():
                fill = -np.inf if name == "kept" else 0
                more = np.full((max(segments, 2 * room) - room, *array.shape[1:]), fill)
                self._arrays[name] = np.concatenate([array, more.astype(array.dtype)])
        self._known = segments

    def _of(self, name: str) -> NDArray[Any]:
        return self._arrays[name][: self._known]

    @property
    def rows(self) -> NDArray[np.int64]:
        """Rows of the stream by segment (s,)."""
        return self._of("rows")

    @property
    def won(self) -> Floats:
        """By segment and target (s, d): the logarithm of the factor by which bets have won."""
        return self._of("won")

    @property
    def window(self) -> Counts:
        """Counts (s, d, k) of each segment's last rows."""
        counts: Counts = self._of("cells").sum(axis=1, dtype=np.int32)
        return counts

    @property
    def reference(self) -> Counts:
        """Counts (s, d, k) of what they are compared with."""
        return self._of("reference")

    def learn(self, counts: Counts) -> None:
        """Take the training rows of the first segments (s, d, k)."""
        self._of("reference")[: len(counts)] += counts
        self._of("earlier")[: len(counts)] += counts

    def update(self, codes: Codes, cells: NDArray[np.int8], lots: Floats) -> None:
        """Take rows: segments (n,), cells (n, d), and a lot in [0, 1) each."""
        step = max(1, AT_ONCE // (self._targets * CELLS))
        for at in range(0, len(codes), step):
            part = slice(at, at + step)
            order = np.argsort(codes[part], kind="stable")
            self._update(codes[part][order], cells[part][order], lots[part][order])

    def _update(self, codes: Codes, cells: NDArray[np.int8], lots: Floats) -> None:
        """Rows in the order of their segments."""
        halves = (self.rows[codes] + _within(codes)) // self._half - self._of("halves")[codes]
        for half in range(int(halves.max(initial=0)) + 1):
            now = halves == half
            if half:
                self._begin_half(np.unique(codes[now]))
            self._bet(codes[now], cells[now], lots[now])
        touched = np.unique(codes)
        self._arrays["won"][touched] = self._winnings(touched)

    def _begin_half(self, codes: Codes) -> None:
        """The window that ends is kept; another begins with the rows that come now."""
        arrays = self._arrays
        arrays["kept"][codes] = np.logaddexp(arrays["kept"][codes], self._older(codes))
        for name in ("cells", "bins"):
            arrays[name][codes, 0] = arrays[name][codes, 1]
            arrays[name][codes, 1] = 0
        arrays["halves"][codes] += 1

    def _bet(self, codes: Codes, cells: NDArray[np.int8], lots: Floats) -> None:
        arrays, targets = self._arrays, np.arange(self._targets)
        within = _within(codes)
        marks = (cells[:, :, None] == np.arange(CELLS)).astype(np.int32)
        ahead = np.cumsum(marks, axis=0) - marks  # rows above this one, in this block
        starts = np.flatnonzero(within == 0)
        first = np.repeat(starts, np.diff(np.append(starts, len(codes))))
        before = arrays["earlier"][codes] + ahead - ahead[first]
        place = cells[:, :, None].astype(np.intp)
        equal = np.take_along_axis(before, place, axis=2)[:, :, 0]
        less = np.take_along_axis(np.cumsum(before, axis=2), place, axis=2)[:, :, 0] - equal
        ranks = (less + lots[:, None] * (equal + 1)) / (before.sum(axis=2) + 1)
        bins = np.minimum((ranks * BINS).astype(np.intp), BINS - 1)
        rows = codes[:, None]
        short = arrays["reference"][codes].sum(axis=2) < LEAST
        np.add.at(arrays["reference"], (rows, targets, cells), short)
        np.add.at(arrays["earlier"], (rows, targets, cells), 1)
        np.add.at(arrays["cells"][:, 1], (rows, targets, cells), 1)
        np.add.at(arrays["bins"][:, 1], (rows, targets, bins), 1)
        np.add.at(arrays["rows"], codes, 1)

    def _older(self, codes: Codes) -> Floats:
        """What the window of two halves has won, of segments that have one."""
        halves = self._of("halves")[codes]
        won = _capital(self._of("bins")[codes].sum(axis=1)) + _weight(halves - 1)[:, None]
        return np.where(halves[:, None] > 0, won, -np.inf)

    def _winnings(self, codes: Codes) -> Floats:
        newer = _capital(self._of("bins")[codes, 1]) + _weight(self._of("halves")[codes])[:, None]
        parts = [self._of("kept")[codes], self._older(codes), newer]
        return np.asarray(np.logaddexp.reduce(parts))


def _within(codes: Codes) -> NDArray[np.intp]:
    """Each row's place (n,) among those of its segment; ``codes`` (n,) are sorted."""
    starts = np.flatnonzero(np.r_[True, codes[1:] != codes[:-1]]) if len(codes) else codes
    lengths = np.diff(np.append(starts, len(codes)))
    return np.arange(len(codes)) - np.repeat(starts, lengths)


def _weight(window: NDArray[np.int64]) -> Floats:
    """The share of the first stake that goes to a window, as a logarithm; they sum to 1."""
    place = np.maximum(window, 0) + 1.0
    return np.asarray(-np.log(place * (place + 1)))


def _bets() -> Floats:
    """Densities of a rank's bin over the uniform one (g, b), as logarithms.

    Ranks that move up or down by some strength, and those that spread or gather.
    """
    scores = ndtri((np.arange(BINS) + 0.5) / BINS)
    tilts = [by * scores for by in (*MOVES, *(-by for by in MOVES))]
    tilts += [by * (scores**2 - 1) for by in SPREADS]
    return np.array([tilt - np.log(np.mean(np.exp(tilt))) for tilt in tilts])


BETS = _bets()


def _capital(bins: Counts) -> Floats:
    """What one becomes by betting on ranks (..., b), as a logarithm: half of it on all histograms
    alike, the other half in equal parts on some ways to move.
    """
    coarse = bins.reshape(*bins.shape[:-1], COARSE, -1).sum(axis=-1)
    rows = coarse.sum(axis=-1)
    won = gammaln(COARSE) - gammaln(rows + COARSE) + gammaln(coarse + 1.0).sum(axis=-1)
    on_histograms = won + rows * np.log(COARSE)
    on_moves = logsumexp(bins @ BETS.T, axis=-1) - np.log(len(BETS))
    return np.asarray(np.logaddexp(on_histograms, on_moves) - np.log(2))
