"""A run's course so far, in so few stretches that it can be told twice a second."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

from selfheal_cli.config import Objective
from selfheal_cli.events.event import Event
from selfheal_cli.events.types import (
    BatchScored,
    CanaryBegan,
    CanaryEnded,
    CanaryOrdered,
    CanaryResumed,
    LabelsArrived,
    LabelsCorrected,
)
from selfheal_cli.report.gains import FEWEST, FigureGain, figure_gains
from selfheal_cli.scores import AnyScores
from selfheal_cli.serve.operator.status import Stretch

MOST = 100  # stretches; beyond, two become one


@dataclass(slots=True)
class _Sums:
    at: str = ""
    batches: int = 0
    z: float = 0.0
    labels: int = 0
    canary: float = 0.0
    judged: tuple[AnyScores, AnyScores] | None = None  # live and shadow, on the labels

    def add(self, other: _Sums) -> None:
        """Take another stretch, which came later."""
        self.at = other.at or self.at
        self.batches += other.batches
        self.z += other.z
        self.labels += other.labels
        self.canary += other.canary
        if self.judged is None or other.judged is None:
            self.judged = self.judged or other.judged
        else:
            self.judged = _plus(self.judged, other.judged)


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
        self._add(event.batch, _Sums(labels=event.rows, judged=(event.live, event.shadow)))

    def corrected(self, event: LabelsCorrected) -> None:
        """Rows had other labels than they were counted with."""
        place = (event.in_batch - 1) // self._step
        if event.in_batch < 1 or place >= len(self._sums):
            return
        if (judged := self._sums[place].judged) is not None:
            without = judged[0].minus(event.was), judged[1].minus(event.was_shadow)
            self._sums[place].judged = _plus(without, (event.live, event.shadow))

    def compared(self, objective: Objective) -> tuple[FigureGain, ...]:
        """What healing gives, against doing nothing: figure by figure, told from chance by the
        stretches. The figures that follow from counts.
        """
        known = [one.judged for one in self._sums if one.judged is not None]
        if not known:
            return ()
        live, shadow = reduce(_plus, known)
        without = [
            (live.minus(one), shadow.minus(other)) for one, other in known if len(known) >= FEWEST
        ]
        batches = sum(one.batches for one in self._sums)
        return tuple(figure_gains((live, shadow), without, objective, batches, None))

    def stretches(self) -> tuple[Stretch, ...]:
        """What is known of each."""
        return tuple(
            Stretch(
                at=one.at,
                batch=place * self._step + 1,
                batches=self._step,
                z=round(one.z / one.batches, 4) if one.batches else None,
                labels=one.labels,
                live=round(one.judged[0].accuracy, 4) if one.judged else None,
                shadow=round(one.judged[1].accuracy, 4) if one.judged else None,
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


def _plus(
    one: tuple[AnyScores, AnyScores], other: tuple[AnyScores, AnyScores]
) -> tuple[AnyScores, AnyScores]:
    return one[0].plus(other[0]), one[1].plus(other[1])
