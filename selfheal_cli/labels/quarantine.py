"""Quarantine: batches whose shares of the classes are implausible; no heal learns from them.

A flipped column or a broken join shows in the share of a class before it shows anywhere else. A
base rate that really moved is believed when it stays.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from selfheal_cli.errors import DataError
from selfheal_cli.records import LabelVerdict

if TYPE_CHECKING:
    from selfheal_cli.records import LabelArray

Shares = NDArray[np.float64]  # one a class

MEMORY = 0.9  # weight of the earlier batches in the moving average over accepted ones
RECENT = 20  # accepted batches whose spread counts beside the training's
FEWEST = 10  # blocks before their spread says anything
MAD_TO_SD = 1.4826  # of a normal distribution
MAD_EFFICIENCY = 0.37  # rows that it is worth, of those that a standard deviation would need


class LabelWatch:
    """Compares each batch's shares of the classes with training's and the last accepted batches'.

    ``training`` are the training labels (n,) in blocks of any size, in their order; ``z`` is the
    distance beyond which a batch is implausible, ``limit`` the number of such batches in a row
    after which the new rate is believed. Where it ``returns``, a rate as in training is plausible
    whatever came since. Raises `DataError` without training labels.

    >>> watch = LabelWatch([np.repeat([0, 1], [850, 150])], classes=2, batch_size=1000)
    >>> watch.judge(np.repeat(np.int8([0, 1]), [15, 85])).implausible
    True
    """

    def __init__(
        self,
        training: Iterable[NDArray[Any]],
        classes: int,
        batch_size: int,
        z: float = 6.0,
        limit: int = 8,
        *,
        returns: bool = False,
    ) -> None:
        blocks = [_logits(_counts(labels, classes)) for labels in _cut(training, batch_size)]
        if not blocks:
            raise DataError("no training labels to hold a batch's labels against")
        self._classes, self._z, self._limit = classes, z, limit
        self._reference: Shares = np.mean(blocks, axis=0)
        self._first = self._reference if returns else None
        self._trained = _between(blocks, batch_size)
        self._batch_size = batch_size
        self._recent: deque[Shares] = deque(maxlen=RECENT)
        self._streak: list[Shares] = []

    def judge(self, y: LabelArray) -> LabelVerdict:
        """Take a batch's labels (n,); an empty batch is plausible and changes nothing."""
        if not len(y):
            return self._verdict(_share(self._reference), np.zeros(self._classes), rows=0)
        counts = _counts(y, self._classes)
        observed = _logits(counts)
        z = self._distance(observed, counts)
        if self._first is not None and np.abs(z).max() > self._z:
            recent, self._reference = self._reference, self._first
            again = self._distance(observed, counts)
            if np.abs(again).max() > self._z:
                self._reference = recent
            else:
                z = again
                self._recent.clear()
        expected = _share(self._reference)
        verdict = self._verdict(expected, z, rows=len(y), counts=counts)
        if np.abs(z).max() <= self._z:
            self._streak.clear()
            self._reference = MEMORY * self._reference + (1 - MEMORY) * observed
            self._recent.append(observed)
        elif verdict.believed:
            self._reference = np.mean([*self._streak, observed], axis=0)
            self._streak.clear()
            self._recent.clear()
        else:
            self._streak.append(observed)
        return verdict

    def _distance(self, observed: Shares, counts: NDArray[np.int64]) -> Shares:
        """Of a batch's logits from the reference, in standard errors."""
        # a stream may vary more from batch to batch than its training rows did
        between = np.maximum(self._trained, _between(self._recent, self._batch_size))
        error = np.sqrt(between + _binomial(counts, _share(self._reference)))
        distance: Shares = (observed - self._reference) / error
        return distance

    def _verdict(
        self, expected: Shares, z: Shares, *, rows: int, counts: NDArray[np.int64] | None = None
    ) -> LabelVerdict:
        # of two classes the positive is the one that people speak of
        label = 1 if self._classes == 2 else int(np.abs(z).argmax())
        share = float(expected[label]) if counts is None else float(counts[label] / rows)
        far = bool(np.abs(z).max() > self._z)
        believed = far and len(self._streak) + 1 >= self._limit
        shares = (
            f"class {label} is {share:.1%} of {rows} labels, {expected[label]:.1%} was expected"
        )
        if believed:
            reason = f"{shares}; believed, as {self._limit} such batches came in a row"
        elif far:
            reason = f"{shares}: out of all proportion (|z| {abs(z[label]):.1f} > {self._z:g})"
        else:
            reason = f"{shares}: plausible"
        return LabelVerdict(
            implausible=far and not believed,
            label=label,
            share=share,
            expected=float(expected[label]),
            z=float(z[label]),
            believed=believed,
            reason=reason,
        )


def _cut(blocks: Iterable[NDArray[Any]], size: int) -> Iterable[NDArray[Any]]:
    """The labels in consecutive blocks of ``size``; a last, shorter one only if it is the first."""
    pending: NDArray[Any] = np.empty(0, dtype=np.int8)
    whole = False
    for block in blocks:
        pending = np.concatenate([pending, block])
        while len(pending) >= size:
            yield pending[:size]
            pending, whole = pending[size:], True
    if len(pending) and not whole:
        yield pending


def _counts(y: NDArray[Any], classes: int) -> NDArray[np.int64]:
    return np.bincount(y.astype(np.int64), minlength=classes)[:classes]


def _logits(counts: NDArray[np.int64]) -> Shares:
    """Logit of each class's share, one against the rest, kept finite by half a row."""
    return np.asarray(np.log((counts + 0.5) / (counts.sum() - counts + 0.5)))


def _share(logits: Shares) -> Shares:
    return np.asarray(1 / (1 + np.exp(-logits)))


def _binomial(counts: NDArray[np.int64], expected: Shares) -> Shares:
    """Sampling variance of a batch's logits, at the expected or at the observed shares if larger.

    Under a reference of 15 %, a batch with no positive at all would be 12 standard deviations
    away, because the logit's steps grow towards 0; two rows added to either side keep it at 5.
    """
    rows = counts.sum()
    observed = (counts + 2) / (rows + 4)
    under_expected = 1 / (rows * expected * (1 - expected))
    under_observed = 1 / (rows * observed * (1 - observed))
    return np.asarray(np.maximum(under_expected, under_observed))


def _between(logits: Iterable[Shares], rows: int) -> Shares | float:
    """Variance (classes,) between batches beyond sampling; robust, so few odd ones do not widen it.

    It is taken one standard error lower than estimated: of a dozen batches it is known so badly
    that chance alone could make anything plausible.
    """
    stack = np.array(list(logits))
    if len(stack) < FEWEST:
        return 0.0
    middle = np.median(stack, axis=0)
    spread = MAD_TO_SD * np.median(np.abs(stack - middle), axis=0)
    share = _share(middle)
    error = sqrt(2 / (MAD_EFFICIENCY * len(stack)))  # of the squared spread, relative
    lower = max(0.0, 1 - error) * spread**2
    return np.asarray(np.maximum(lower - 1 / (rows * share * (1 - share)), 0.0))
