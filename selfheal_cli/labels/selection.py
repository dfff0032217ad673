"""Labels of some rows alone: what was declined never gets one, but for rows let through by lot."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from selfheal_cli.errors import RuleError
from selfheal_cli.labels.queue import Scored
from selfheal_cli.metrics import classify
from selfheal_cli.rules.conditions import RuleTable, leaves, unknown
from selfheal_cli.rules.parser import parse_condition

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from selfheal_cli.records import Columns, FloatArray, Threshold

    Mask = NDArray[np.bool_]

DECISION, SCORE = "decision", "score"  # names that a condition has beside the rows' columns
LOT = 2.0**64


class LabelSelection:
    """Which rows may get a label: those where ``condition`` is true, and a ``share`` of the others;
    without a condition the share alone.

    ``decision`` is the class that the row got, ``score`` its probability of two classes. Raises
    `RuleError` for a condition that is none, or names what the rows have not.

    >>> selection = LabelSelection("decision = 0", 0.0)
    >>> p = np.array([0.2, 0.9], np.float32)
    >>> selection.let_through({}, p, 0.5).tolist()
    [True, False]
    """

    def __init__(self, condition: str | None, share: float, names: Collection[str] = ()) -> None:
        self._condition = None if condition is None else parse_condition(condition)
        self._share = share
        for leaf in leaves(self._condition) if names and self._condition else ():
            known = [DECISION, SCORE, *names]
            if leaf.feature not in known:
                raise RuleError(f"labels.only_when '{condition}': {unknown(leaf.feature, known)}")

    @property
    def weight(self) -> int:
        """For how many rows one that was let through by lot stands."""
        return round(1 / self._share) if self._share else 1

    def let_through(
        self, columns: Columns, probabilities: FloatArray, threshold: Threshold
    ) -> Mask:
        """Rows (n,) where the condition is true; what is unknown is not let through."""
        if self._condition is None:
            return np.zeros(len(probabilities), dtype=np.bool_)
        table: dict[str, Any] = dict(columns)
        table[DECISION] = classify(probabilities, threshold).astype(np.float64)
        if probabilities.ndim == 1:
            table[SCORE] = probabilities.astype(np.float64)
        return self._condition.holds(RuleTable(table))

    def chosen(self, lots: NDArray[np.float64]) -> Mask:
        """Rows (n,) that go through whatever they are, by their lots (n,) in [0, 1)."""
        return np.asarray(lots < self._share)

    def select(
        self, scored: Scored, columns: Columns, lots: NDArray[np.float64]
    ) -> tuple[Scored, Mask]:
        """The rows with weights, and which of them (n,) may get a label; no other has one."""
        through = self.let_through(columns, scored.probabilities, scored.threshold)
        by_lot = ~through & self.chosen(lots)
        may = through | by_lot
        y = np.where(may, scored.y, -1).astype(np.int8)
        weight = np.where(by_lot, self.weight, 1).astype(np.float32) if self._share else None
        return replace(scored, y=y, weight=weight), may


def lots_of(request: str, start: int, stop: int, key: bytes = b"") -> NDArray[np.float64]:
    """Numbers in [0, 1) of the rows from ``start`` on of a request: whoever knows its id and the
    place draws the same. Those of another ``key`` (64 bytes at most) have nothing to do with them.
    """
    return np.array(
        [
            int.from_bytes(
                hashlib.blake2b(f"{request}\n{place}".encode(), digest_size=8, key=key).digest()
            )
            / LOT
            for place in range(start, stop)
        ]
    )


def seeded_lots(seed: int, batch: int, places: NDArray[np.intp]) -> NDArray[np.float64]:
    """Numbers in [0, 1) of rows that no request names, by their places (n,) in a batch."""
    longest = int(places.max()) + 1 if len(places) else 0
    draws = np.random.default_rng((seed, 1, abs(batch), int(batch < 0))).random(longest)
    return np.asarray(draws[places])
