"""Sums by batch that add up over partitions of the rows: what most monitors read from.

A monitor over a partition of each batch's rows has sums of its own (`MonitorState`), and one that
is given them all says what it would say of the whole, in whatever order they are given.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from selfheal_cli.drift.monitor import BatchView, MonitorSetup, MonitorState, Reading
from selfheal_cli.errors import ConfigurationError

if TYPE_CHECKING:
    from selfheal_cli.drift.monitor import Sums


def added(states: Iterable[MonitorState]) -> MonitorState:
    """The sums of all, batch by batch; raises `ConfigurationError` where they are not alike."""
    given = list(states)
    if not given:
        raise ConfigurationError("merge: no state was given")
    odd = next((one.of for one in given if one.of != given[0].of), None)
    if odd is not None:
        raise ConfigurationError(
            f"merge: '{odd}' and '{given[0].of}' do not count the same: merge monitors of the same "
            "settings over the same training rows"
        )
    rows = np.concatenate([one.sums for one in given])
    numbers, places = np.unique(np.concatenate([one.numbers for one in given]), return_inverse=True)
    sums = np.zeros((len(numbers), rows.shape[1]), dtype=rows.dtype)
    np.add.at(sums, places, rows)
    return MonitorState(given[0].of, numbers.astype(np.int64), sums)


class BatchWindow:
    """The sums of the last batches that brought any, by their numbers."""

    def __init__(self, batches: int) -> None:
        self.batches = batches
        self._kept: dict[int, Sums] = {}

    def add(self, sums: Sums, number: int | None = None) -> None:
        """Take sums (k,) of a batch; without its number, of the one after the last."""
        if number is None:
            number = max(self._kept, default=0) + 1
        known = self._kept.get(number)
        self._kept[number] = sums if known is None else known + sums
        if len(self._kept) > self.batches:
            del self._kept[min(self._kept)]

    @property
    def numbers(self) -> list[int]:
        """The batches that are kept, in order."""
        return sorted(self._kept)

    @property
    def sums(self) -> Sums:
        """Each batch's (m, k), in order."""
        return np.stack([self._kept[number] for number in self.numbers])


class SummingMonitor(ABC):
    """A monitor that says what follows from sums by batch: it merges."""

    def __init__(self, setup: MonitorSetup, *reference: Sums) -> None:
        """``reference`` is what it compares with: others merge only with the same."""
        self.limits = setup.limits
        self._window = BatchWindow(setup.settings.window)
        parts = (np.ascontiguousarray(part).tobytes() for part in reference)
        told = hashlib.sha256(b"".join(parts)).hexdigest()[:12]
        self._of = f"{setup.settings} against {told}"

    def update(self, view: BatchView) -> Reading:
        """Take a batch, or a part of it."""
        self._window.add(self._sums(view), view.batch)
        return self._read(self._window.sums)

    def state(self) -> MonitorState:
        """What it counted of the batches in its window; raises `ConfigurationError` before any."""
        numbers = self._window.numbers
        if not numbers:
            raise ConfigurationError(f"monitor '{self._of}' has seen no batch yet")
        return MonitorState(self._of, np.array(numbers, dtype=np.int64), self._window.sums)

    def merge(self, states: Sequence[MonitorState]) -> Reading:
        """Take what monitors of the same kind counted of other rows; says what holds of all.

        Raises `ConfigurationError` for a state of another monitor.
        """
        own = [self.state()] if self._window.numbers else []
        whole = added([*own, *states])
        if whole.of != self._of:
            raise ConfigurationError(
                f"merge: a state of '{whole.of}' was given to '{self._of}': merge monitors of the "
                "same settings over the same training rows"
            )
        self._window = BatchWindow(self._window.batches)
        for number, sums in zip(whole.numbers.tolist(), whole.sums, strict=True):
            self._window.add(sums, number)
        return self._read(self._window.sums)

    @abstractmethod
    def _sums(self, view: BatchView) -> Sums:
        """What is counted of a batch (k,)."""

    @abstractmethod
    def _read(self, sums: Sums) -> Reading:
        """What the window's batches (m, k) say."""


class InOrder:
    """A monitor that goes value after value: what it says hangs on their order."""

    _of: str
    _why = "goes from value to value, so that what it says hangs on their order"

    def state(self) -> NoReturn:
        """Raises `ConfigurationError`: nothing of it can be added up."""
        raise ConfigurationError(
            f"monitor '{self._of}' {self._why}: it cannot be merged; let one look at all rows, or "
            "read each partition's by itself"
        )

    def merge(self, states: Sequence[MonitorState]) -> NoReturn:
        """As `state`."""
        self.state()
