"""A run's course so far, in so few stretches that it can be told twice a second."""

from __future__ import annotations

from dataclasses import dataclass

from selfheal_cli.events.event import Event
from selfheal_cli.events.types import (
    BatchScored,
    CanaryBegan,
    CanaryEnded,
    CanaryOrdered,
    CanaryResumed,
    LabelsArrived,
)
from selfheal_cli.serve.operator.status import Stretch

MOST = 100  # stretches; beyond, two become one


@dataclass(slots=True)
class _Sums:
    at: str = ""
    batches: int = 0
    z: float = 0.0
    labels: int = 0
    live: float = 0.0
    shadow: float = 0.0
    canary: float = 0.0

    def add(self, other: _Sums) -> None:
        """Take another stretch, which came later."""
        self.at = other.at or self.at
        self.batches += other.batches
        self.z += other.z
        self.labels += other.labels
        self.live += other.live
        self.shadow += other.shadow
        self.canary += other.canary


class Course:
    """Sums by stretch of batches; what labels say counts for the batch that they are of."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._step = 1
        self._sums: list[_Sums] = []
        self._share = 0.0  # of the canary that is tried

    def scored(self, event: BatchScored) -> None:
        """A batch was gone through."""
        self._add(event.batch, _Sums(at=event.at, batches=1, z=event.z, canary=self._share))

    def tried(self, event: Event) -> None:
        """A canary begins, or ends."""
        match event:
            case CanaryBegan() | CanaryOrdered() | CanaryResumed():
                self._share = event.share
            case CanaryEnded():
                self._share = 0.0

    def labelled(self, event: LabelsArrived) -> None:
        """Labels came; those of an earlier run's rows, whose batches count down from 0, have no
        place in this one.
        """
        if event.batch < 1:
            return
        live, shadow = event.live, event.shadow
        right = live.accuracy * live.rows, shadow.accuracy * shadow.rows
        self._add(event.batch, _Sums("", 0, 0.0, event.rows, *right))

    def stretches(self) -> tuple[Stretch, ...]:
        """What is known of each."""
        return tuple(
            Stretch(
                at=one.at,
                batch=place * self._step + 1,
                batches=self._step,
                z=round(one.z / one.batches, 4) if one.batches else None,
                labels=one.labels,
                live=round(one.live / one.labels, 4) if one.labels else None,
                shadow=round(one.shadow / one.labels, 4) if one.labels else None,
                canary=round(one.canary / one.batches, 4) if one.batches else 0.0,
            )
            for place, one in enumerate(self._sums)
        )

    def _add(self, batch: int, sums: _Sums) -> None:
        while (batch - 1) // self._step >= self._most:
            for place in range(0, len(self._sums) - 1, 2):
                self._sums[place].add(self._sums[place + 1])
            self._sums = self._sums[::2]
            self._step *= 2
        place = (batch - 1) // self._step
        while len(self._sums) <= place:
            self._sums.append(_Sums())
        self._sums[place].add(sums)
