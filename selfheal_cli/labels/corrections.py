"""Labels that are told anew: of rows whose first label was learned from already."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from selfheal_cli.labels.queue import Scored
from selfheal_cli.records import LateLabels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfheal_cli.records import LabelArray


@dataclass(frozen=True, slots=True)
class Correction:
    """Rows of one batch as they were learned from, and what their labels ``y`` (n,) are now."""

    part: Scored
    y: LabelArray

    @property
    def corrected(self) -> Scored:
        """The rows with their labels as now known."""
        return replace(self.part, y=self.y)

    def __len__(self) -> int:
        return len(self.y)


class LabelledRows:
    """The latest ``keep`` rows whose label came back, so that a later one is told to be another.

    A row has the label that it was corrected to last.
    """

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._parts: dict[int, list[Scored]] = {}  # by batch
        self._rows = 0

    def add(self, part: Scored) -> None:
        """Rows whose labels came back."""
        self._parts.setdefault(part.batch, []).append(part)
        self._rows += len(part)
        while self._rows > self._keep and len(self._parts) > 1:
            oldest = self._parts.pop(next(iter(self._parts)))
            self._rows -= sum(map(len, oldest))

    def corrections(self, late: LateLabels) -> tuple[list[Correction], LateLabels | None]:
        """Those of the labels that are of rows here, where they say another class; the others."""
        rest = np.ones(len(late.y), dtype=np.bool_)
        corrections: list[Correction] = []
        for batch in np.unique(late.batch):
            for at, part in enumerate(self._parts.get(int(batch), ())):
                told = (late.batch == batch) & np.isin(late.place, part.place)
                if not told.any():
                    continue
                rest &= ~told
                correction = _of(part, late.place[told], late.y[told])
                if len(correction):
                    corrections.append(correction)
                    self._parts[int(batch)][at] = corrected(part, correction)
        if not rest.any():
            return corrections, None
        return corrections, replace(
            late, batch=late.batch[rest], place=late.place[rest], y=late.y[rest]
        )


def _of(part: Scored, place: NDArray[np.int64], y: LabelArray) -> Correction:
    """The rows of a part whose label is another one now; of several the last counts."""
    now = dict(zip(place.tolist(), y.tolist(), strict=True))
    wanted = np.array(
        [now.get(int(one), int(was)) for one, was in zip(part.place, part.y, strict=True)],
        dtype=np.int8,
    )
    other = wanted != part.y
    return Correction(part.where(other), wanted[other])


def corrected(part: Scored, correction: Correction) -> Scored:
    """A part with the labels of a correction of rows in it."""
    y = part.y.copy()
    now = dict(zip(correction.part.place.tolist(), correction.y.tolist(), strict=True))
    for row, place in enumerate(part.place.tolist()):
        y[row] = now.get(place, y[row])
    return replace(part, y=y)
