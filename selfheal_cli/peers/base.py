"""What every peer does: predict, then learn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray, LabelArray


class Peer(Protocol):
    """A model of two classes that sees each batch before its labels."""

    def predict(self, x: FloatArray) -> FloatArray:
        """(n, inputs) to the probability of class 1, (n,) float32."""

    def learn(self, x: FloatArray, y: LabelArray) -> None:
        """Labels of rows that were predicted before, (n, inputs) and (n,)."""
