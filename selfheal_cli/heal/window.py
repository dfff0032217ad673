"""The rows that heals learn from: the last labelled batches, a share of each held out."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from selfheal_cli.heal.task import HealRows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfheal_cli.records import FloatArray, LabelArray


class Window:
    """Rows of the last ``batches`` arrivals of labels (or, without labels, of rows)."""

    def __init__(self, batches: int, held_out_share: float, seed: int) -> None:
        self._parts: deque[HealRows] = deque(maxlen=batches)
        self._share = held_out_share
        self._seed = seed

    def __len__(self) -> int:
        return len(self._parts)

    def add(
        self, arrival: int, features: FloatArray, y: LabelArray, rule_label: LabelArray
    ) -> None:
        """Take rows of one arrival, or more of the last; which are held out depends on seed and
        arrival.
        """
        if self._parts and self._parts[-1].arrival[0] == arrival:
            last = self._parts.pop()
            features = np.concatenate([last.features, features])
            y = np.concatenate([last.y, y])
            rule_label = np.concatenate([last.rule_label, rule_label])
        steps = np.full(len(y), arrival, dtype=np.int32)
        held_out = self._held_out(len(y), arrival)
        self._parts.append(HealRows(features, y, rule_label, steps, held_out))

    def rows(self) -> HealRows:
        """All of them, oldest first."""
        if len(self._parts) == 1:
            return self._parts[0]
        return HealRows(
            *(
                np.concatenate([getattr(part, name) for part in self._parts])
                for name in HealRows.__slots__
            )
        )

    def clear(self) -> None:
        """Begin anew."""
        self._parts.clear()

    def _held_out(self, rows: int, arrival: int) -> NDArray[np.bool_]:
        chosen = np.zeros(rows, dtype=bool)
        count = round(rows * self._share)
        if count:
            order = np.random.default_rng((self._seed, arrival)).permutation(rows)
            chosen[order[:count]] = True
        return chosen
