"""Which rows are asked for a label: by lot, with a chance that is known of every row.

A row's lot is a keyed hash of its id, so that whoever asks draws the same rows, and a larger share
draws those of a smaller one and more. Where positives are rare, rows of a high score have a better
chance: of a hundred rows drawn alike none may be positive. What is drawn is weighed by the inverse
of its chance (Horvitz and Thompson 1952).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfheal_cli.records import FloatArray

    Wide = NDArray[np.float64]

RARE = 0.05  # mean score below which rows are drawn by score
CUTS = (0.9, 0.99)  # shares of the rows below the strata's edges, where positives are rare
ALIKE = 0.5  # of the labels that are drawn from all rows alike: scores may be wrong


@dataclass(frozen=True, slots=True)
class AskPlan:
    """How rows are drawn: stratum h has the scores from ``edges[h - 1]`` to before ``edges[h]``,
    and its rows the chance ``chances[h]``; ``key`` is that of the lots.
    """

    key: str
    share: float
    edges: tuple[float, ...]
    spread: tuple[float, ...]  # per stratum: chance beyond the one that all rows have, per share

    @classmethod
    def of(cls, key: str, share: float, probabilities: FloatArray) -> Self:
        """A plan that draws about ``share`` of rows that score like these, (n,) or (n, K)."""
        if probabilities.ndim > 1 or not len(probabilities) or probabilities.mean() >= RARE:
            return cls(key, share, (), (1.0,))
        score = probabilities.astype(np.float64)
        edges = tuple(np.unique(np.quantile(score, CUTS)).tolist())
        stratum = np.searchsorted(edges, score, side="right")
        rows = np.bincount(stratum, minlength=len(edges) + 1)
        variance = np.bincount(stratum, score * (1 - score), len(edges) + 1) / np.maximum(rows, 1)
        wanted = np.sqrt(variance)  # Neyman (1934)
        spread = wanted * len(score) / max(float(rows @ wanted), 1e-12)
        return cls(key, share, edges, tuple((ALIKE + (1 - ALIKE) * spread).tolist()))

    @property
    def chances(self) -> tuple[float, ...]:
        """Of each stratum's rows to be drawn."""
        return tuple(min(1.0, self.share * one) for one in self.spread)

    def with_share(self, share: float) -> AskPlan:
        """The same strata and lots, so that a larger share draws what this one draws, and more."""
        return AskPlan(self.key, share, self.edges, self.spread)

    def strata(self, probabilities: FloatArray) -> NDArray[np.intp]:
        """The stratum (n,) of each row."""
        if not self.edges:
            return np.zeros(len(probabilities), dtype=np.intp)
        score = probabilities.astype(np.float64)
        return np.searchsorted(np.array(self.edges), score, side="right")

    def lot_key(self) -> bytes:
        """What lots are keyed by."""
        return self.key.encode()[:64]

    def as_json(self) -> str:
        """As `from_json` reads it."""
        return json.dumps(
            {"key": self.key, "share": self.share, "edges": self.edges, "spread": self.spread}
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of `as_json`."""
        held: dict[str, Any] = json.loads(text)
        return cls(held["key"], held["share"], tuple(held["edges"]), tuple(held["spread"]))
