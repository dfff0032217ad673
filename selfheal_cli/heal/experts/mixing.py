"""How much each expert counts: by its log loss on rows before it learned from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]

BLOCK = 100  # labelled rows that forgetting is stated by
# of losses in the weights, and the share of them that is left after a block of rows
RATES = np.array([0.1, 0.2, 0.5, 1.0, 0.2, 0.05])
MEMORIES = np.array([0.9, 0.8, 0.8, 0.8, 0.95, 0.99])
OVER_RATE, OVER_MEMORY = 0.2, 0.9  # of the mixture of those mixtures
MOST_BEHIND = 50.0  # nats: an expert further behind could not come back when the stream changes


class Mixing:
    """Exponential weights (Vovk 1990) at several rates, and weights over these: no rate to choose.

    ``losses`` (rates, experts) and ``over`` (rates,) are discounted sums of log losses over
    labelled rows. The first expert is ``ahead`` by so many nats, whatever it lost.
    """

    def __init__(self, experts: int, state: Mapping[str, Matrix], ahead: float = 0.0) -> None:
        self._ahead = np.array([ahead] + [0.0] * (experts - 1))
        self._losses = state.get("losses", np.zeros((len(RATES), experts)))
        self._over = state.get("over", np.zeros(len(RATES)))

    def state(self) -> dict[str, Matrix]:
        """What `Mixing` begins from again."""
        return {"losses": self._losses, "over": self._over}

    def observe(self, chances: Matrix, labelled: float) -> None:
        """Take each expert's probability of what came true, (experts, n), before it learned.

        The n rows stand for ``labelled`` ones: those among them that were held out count alike.
        """
        rows, each = labelled / BLOCK, labelled / max(1, chances.shape[1])
        mixed = self._by_rate() @ chances
        over = OVER_MEMORY**rows * self._over - each * np.log(mixed).sum(axis=1)
        losses = (MEMORIES**rows)[:, None] * self._losses - each * np.log(chances).sum(axis=1)
        # only differences count
        self._over = over - over.min()
        self._losses = np.minimum(losses - losses.min(axis=1, keepdims=True), MOST_BEHIND)

    def shares(self) -> Matrix:
        """Weights (experts,) that sum to 1."""
        shares: Matrix = _weights(OVER_RATE * self._over) @ self._by_rate()
        return shares

    def _by_rate(self) -> Matrix:
        return _weights(RATES[:, None] * (self._losses - self._ahead))


def _weights(losses: Matrix) -> Matrix:
    """``exp(-losses)`` that sum to 1 over the last axis."""
    powers = np.exp(losses.min(axis=-1, keepdims=True) - losses)
    weights: Matrix = powers / powers.sum(axis=-1, keepdims=True)
    return weights
