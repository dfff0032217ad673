"""What every source offers to the rooms behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

from selfheal_cli.records import Batch, Limit, Rows
from selfheal_cli.source.contract import Contract
from selfheal_cli.source.encoding import Encoding

REJECTS = "rejects.ndjson"  # in a run's folder: lines that could not be taken


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

    @property
    def contract(self) -> Contract | None:
        """What every row must be; None where rows are drawn, not read."""

    def departures(self) -> Mapping[str, Mapping[str, int]]:
        """Counts of values that training did not have the like of, by column, so far."""

    def notes(self) -> Mapping[str, int]:
        """Counts of what was not as in training (missing values, unseen categories) so far."""


@runtime_checkable
class Unbounded(Protocol):
    """What a `Source` has beside that whose rows keep coming; it is read once.

    ``begin`` and ``stream`` say, by partition, where it was read from and where its stream began.
    """

    begin: Mapping[str, int]
    stream: Mapping[str, int]

    def attend(self, folder: Path, idle: Callable[[], bool]) -> None:
        """The stream is about to begin; what is put aside or kept goes to ``folder``.

        ``idle`` is called several times a second while nothing comes; True ends the stream.
        """

    def settle(self) -> None:
        """The batches that were given are scored, and that is on disk."""

    def close(self) -> None:
        """No more is read."""
