"""What every source offers to the rooms behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from selfheal_cli.records import Batch, Limit, Rows
from selfheal_cli.source.encoding import Encoding


class Source(Protocol):
    """Rows in time order: a part to train on, then a stream.

    ``labels`` names the target's values in the order of the classes; of two, the second is the
    positive. ``batch_count`` is None when nobody knows.
    """

    @property
    def encoding(self) -> Encoding:
        """How raw columns become the network's inputs, fitted on the training part alone."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The target's values; ``Rows.y`` holds positions in it."""

    @property
    def batch_count(self) -> int | None:
        """Batches in the stream."""

    def training(self) -> Iterator[Rows]:
        """The training part, in blocks that fit in memory; may be asked for again."""

    def batches(self, start: int = 1) -> Iterator[Batch]:
        """The stream from batch ``start`` on."""

    def held_out(self) -> Mapping[str, Rows]:
        """Rows that no network trains on, by stage; empty where the stream is the only judge."""

    def limit(self) -> Limit | None:
        """The best that any model can do on the stream, where the generator is known."""

    def notes(self) -> Mapping[str, int]:
        """Counts of what was not as in training (missing values, unseen categories) so far."""
