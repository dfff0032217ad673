"""What the linear experts knew when a row was scored whose label came later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]

KEPT = 32  # arrivals of labels; of rows that are later still, the oldest of them counts


class PastBatches:
    """Coefficients (states, columns, experts, margins) by the step after which each held.

    The first is that of the frozen network, which none of them corrects.
    """

    def __init__(self, shape: tuple[int, int, int], state: Mapping[str, Any]) -> None:
        self._theta = state.get("theta", np.zeros((1, *shape)))
        self._steps = state.get("steps", np.array([-1], dtype=np.int64))

    def state(self) -> dict[str, Any]:
        """What `PastBatches` begins from again."""
        return {"theta": self._theta, "steps": self._steps}

    def add(self, step: int, theta: Matrix) -> None:
        """What holds from the next step on, (columns, experts, margins)."""
        self._theta = np.concatenate([self._theta[-KEPT + 1 :], theta[None]])
        self._steps = np.append(self._steps[-KEPT + 1 :], step)

    def moves(self, a: Matrix, scored: NDArray[np.int32]) -> Matrix:
        """What each expert added to the margins of rows ``a`` (n, columns) at the step ``scored``
        (n,): (experts, n, margins).
        """
        place = np.maximum(np.searchsorted(self._steps, scored, side="left") - 1, 0)
        moved = np.empty((len(a), *self._theta.shape[2:]))
        for one in np.unique(place):
            rows = place == one
            moved[rows] = np.tensordot(a[rows], self._theta[one], axes=1)
        return np.moveaxis(moved, 0, 1)
