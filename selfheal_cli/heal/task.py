"""A heal's input and output: rows, task, outcome or failure, and the window that rows come from."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from selfheal_cli.errors import HealError
from selfheal_cli.model.checkpoint import Packed
from selfheal_cli.model.network import Weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfheal_cli.records import FloatArray, LabelArray


@dataclass(frozen=True, slots=True)
class AdapterState:
    """An adapter's weights, and its recipe's state from heal to heal.

    ``memory`` belongs to the recipe: Adam's moments, or the losses of competing experts; empty
    before the first heal and after a rollback. These tensors are never changed in place.
    """

    weights: Weights
    memory: Weights


@dataclass(frozen=True, slots=True)
class HealRows:
    """Rows to heal on.

    ``features`` (n, features) float32 of the frozen backbone, computed once per row; ``y`` (n,) the
    labels, -1 where unknown; ``rule_label`` (n,), -1 where the rules abstain; ``arrival`` (n,)
    int32 the step at which the rows' labels came, rising; ``held_out`` (n,) bool, rows that no
    heal ever learns from, so that it can be judged by them; ``weight`` (n,) for how many rows each
    stands where it is judged, None for itself alone.
    """

    features: FloatArray
    y: LabelArray
    rule_label: LabelArray
    arrival: NDArray[np.int32]
    held_out: NDArray[np.bool_]
    weight: FloatArray | None = None

    def __len__(self) -> int:
        return len(self.y)

    def where(self, chosen: NDArray[np.bool_] | slice) -> HealRows:
        """The chosen rows."""
        return HealRows(
            self.features[chosen],
            self.y[chosen],
            self.rule_label[chosen],
            self.arrival[chosen],
            self.held_out[chosen],
            None if self.weight is None else self.weight[chosen],
        )

    @property
    def learnable(self) -> HealRows:
        """The labelled rows that a heal may learn from."""
        chosen = ~self.held_out & (self.y >= 0)
        return self if chosen.all() else self.where(chosen)


@dataclass(frozen=True, slots=True)
class HealTask:
    """A heal to be done: by which recipe, on which rows, in which batch and why.

    ``positive_share`` is the share of true positives among the batch's conflicts.
    """

    heal_id: str
    batch: int
    reason: str
    recipe: str
    rows: HealRows
    positive_share: float = 0.0


@dataclass(frozen=True, slots=True)
class HealOutcome:
    """The adapter after a heal.

    Probabilities of the task's n rows before and after it are (n,) or (n, K); ``measured`` are
    the recipe's own figures by name. ``packed`` is the adapter as bytes, where the heal worker has
    made them.
    """

    task: HealTask
    after: AdapterState
    probabilities_before: FloatArray
    probabilities_after: FloatArray
    measured: Mapping[str, float] = field(default_factory=dict)
    packed: Packed | None = None


@dataclass(frozen=True, slots=True)
class HealFailure:
    """A heal that gave no weights; the old ones stay.

    ``refused``: the recipe's assumption did not hold on the rows.
    """

    task: HealTask
    reason: str
    worker_restarted: bool = False
    refused: bool = False


def require_finite(weights: Weights, task: HealTask, advice: str) -> None:
    """Raise `HealError` naming the first tensor that is not finite."""
    for name, value in weights.items():
        if not bool(torch.isfinite(value).all()):
            raise not_finite(name, task, advice)


def not_finite(name: str, task: HealTask, advice: str) -> HealError:
    """What is said where a heal came to a value that is no number."""
    return HealError(
        f"heal {task.heal_id} of batch {task.batch}: {name} is not finite; the old weights stay; "
        f"{advice}"
    )


class Window:
    """Rows of the last ``batches`` arrivals of labels (or, without labels, of rows)."""

    def __init__(self, batches: int, held_out_share: float, seed: int) -> None:
        self._parts: deque[HealRows] = deque(maxlen=batches)
        self._share = held_out_share
        self._seed = seed

    def __len__(self) -> int:
        return len(self._parts)

    def add(
        self,
        arrival: int,
        features: FloatArray,
        y: LabelArray,
        rule_label: LabelArray,
        weight: FloatArray | None = None,
    ) -> None:
        """Take rows of a new arrival, or more rows of the last one.

        ``features`` (n, features), ``y``, ``rule_label`` and ``weight`` (n,) as in `HealRows`; no
        rows are no arrival, such as where labels come alone.
        """
        if not len(y):
            return
        # labels of one step may come in several parts; the window counts steps, not parts
        if self._parts and self._parts[-1].arrival[0] == arrival:
            last = self._parts.pop()
            features = np.concatenate([last.features, features])
            y = np.concatenate([last.y, y])
            rule_label = np.concatenate([last.rule_label, rule_label])
            weight = None if weight is None else np.concatenate([_weights(last), weight])
        steps = np.full(len(y), arrival, dtype=np.int32)
        held_out = self._held_out(len(y), arrival)
        self._parts.append(HealRows(features, y, rule_label, steps, held_out, weight))

    def rows(self) -> HealRows:
        """All rows of the window, oldest first."""
        if len(self._parts) == 1:  # nothing to copy
            return self._parts[0]
        weighted = any(part.weight is not None for part in self._parts)
        parts = {
            name: np.concatenate([getattr(part, name) for part in self._parts])
            for name in HealRows.__slots__
            if name != "weight"
        }
        weight = np.concatenate(list(map(_weights, self._parts))) if weighted else None
        return HealRows(**parts, weight=weight)

    def clear(self) -> None:
        """Drop all rows."""
        self._parts.clear()

    def _held_out(self, rows: int, arrival: int) -> NDArray[np.bool_]:
        chosen = np.zeros(rows, dtype=bool)
        count = round(rows * self._share)
        # seeded by the arrival: a resumed run holds out the same rows without having drawn before
        if count:
            order = np.random.default_rng((self._seed, arrival)).permutation(rows)
            chosen[order[:count]] = True
        return chosen


def _weights(rows: HealRows) -> FloatArray:
    return np.ones(len(rows), dtype=np.float32) if rows.weight is None else rows.weight
