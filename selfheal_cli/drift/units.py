"""Whether a number looks like the same thing in another unit: an affine map of what it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import log, sqrt
from typing import TYPE_CHECKING

import numpy as np

from selfheal_cli.drift.monitor import CONSTANT
from selfheal_cli.drift.samples import ks_of_values
from selfheal_cli.events.types import Unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

LEAST_ROWS = 200  # fewer would look like any map
LEAST_OF_CLASS = 20
LEAST_APART = 0.3  # Kolmogorov-Smirnov distance; a change of unit is no small matter
LEAST_FACTOR = 1.5  # of a map that is none of those below; growth of a third is growth
LEAST_OFFSET = 5.0  # sd of training, of one that scales nothing
FITS = 0.01  # p-value of the mapped training rows being of the same distribution
SNAP = 0.1  # ratio of factors, in logarithms, up to which a known unit is tried first
PLACES = np.arange(0.05, 0.951, 0.05)
# factor and offset, each with its inverse below: temperatures, lengths, weights, speed, money, time
_ONE_WAY = (
    (1.8, 32.0), (1.0, 273.15), (10.0, 0.0), (100.0, 0.0), (1000.0, 0.0), (1e6, 0.0), (60.0, 0.0),
    (3600.0, 0.0), (24.0, 0.0), (1.609344, 0.0), (2.54, 0.0), (3.28084, 0.0), (2.20462, 0.0),
    (3.6, 0.0),
)  # fmt: skip
KNOWN = (*_ONE_WAY, *((1 / factor, -offset / factor) for factor, offset in _ONE_WAY))


def unit_of(before: Sequence[Floats], now: Sequence[Floats]) -> Unit | None:
    """The map from training's values to the new ones, by class; None where it is none.

    ``before`` and ``now`` hold all values (n,), then those of each class that has some. Both
    classes must have moved by the same map, and far.
    """
    if min(len(before[0]), len(now[0])) < LEAST_ROWS:
        return None
    if before[0].std() <= CONSTANT or ks_of_values(before[0], now[0])[0] < LEAST_APART:
        return None
    for factor, offset in _maps(before[0], now[0]):
        pairs = [
            (old, new)
            for old, new in zip(before, now, strict=True)
            if min(len(old), len(new)) >= LEAST_OF_CLASS
        ]
        if all(ks_of_values(factor * old + offset, new)[1] > FITS for old, new in pairs):
            return Unit(factor=factor, offset=offset)
    return None


def _maps(before: Floats, now: Floats) -> Iterator[tuple[float, float]]:
    """Maps that are worth a try: known ones near the fitted one, then that."""
    old, new = np.quantile(before, PLACES), np.quantile(now, PLACES)
    if old.std() <= CONSTANT or new.std() <= CONSTANT:
        return
    factor = float(new.std() / old.std())
    offset = float(new.mean() - factor * old.mean())
    close = [one for one in KNOWN if abs(log(one[0] / factor)) < SNAP]
    yield from sorted(close, key=lambda one: abs(log(one[0] / factor)))
    step = float(new.mean() - old.mean())
    if abs(log(factor)) >= log(LEAST_FACTOR):
        error = factor / sqrt(2 * len(now))
        near_zero = abs(offset) < 2 * error * abs(old.mean())
        yield _rounded(factor), 0.0 if near_zero else _rounded(offset)
    elif abs(step) >= LEAST_OFFSET * before.std():
        yield 1.0, _rounded(step)


def _rounded(value: float) -> float:
    """To three digits: more are not known."""
    return float(f"{value:.3g}")
