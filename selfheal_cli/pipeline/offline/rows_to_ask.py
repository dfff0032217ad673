"""Rows that labels can be asked for: what a served model answered, and what a run went through."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from selfheal_cli.errors import DataError
from selfheal_cli.model.checkpoint import assemble
from selfheal_cli.pipeline.offline.rescore import walked
from selfheal_cli.pipeline.prepare.rows import open_kept
from selfheal_cli.registry.base import Registry
from selfheal_cli.registry.encoding import encoding_of
from selfheal_cli.rollback.plan import last_own, serving_version
from selfheal_cli.rollback.verify import load_verified
from selfheal_cli.spool.asking import ASKING, Answered, Asking, Place
from selfheal_cli.spool.entries import NOBODY_ASKED, Feedback
from selfheal_cli.spool.file import spool_path
from selfheal_cli.spool.places import place_of
from selfheal_cli.spool.store import Spool

if TYPE_CHECKING:
    from selfheal_cli.records import Batch, Columns, LabelArray

AT_ONCE = 500  # requests


class RowsToAsk(Protocol):
    """Rows in parts that are numbered in their order.

    ``where`` names them to people, ``key`` begins the lots' key, and ``names`` are the features;
    ``source`` is a number that another file in this one's place does not have.
    """

    where: str
    key: str
    source: int
    names: list[str]
    classes: tuple[str, ...]

    def open(self) -> Asking:
        """Which of these rows were asked for."""

    def parts(self, after: int) -> Iterator[Answered]:
        """Those behind the part numbered ``after``."""

    def columns(self, numbers: Iterable[int]) -> Iterator[tuple[int, Columns]]:
        """The values of some parts, in their order."""

    def keys(self, numbers: Sequence[int]) -> Mapping[Place, str]:
        """What callers named the rows of some parts; the last of a name alone has it."""

    def place_of(self, part: str, place: int) -> Place | None:
        """A row by the name of its part and its place in it; None where there is none."""

    def labels(self, asking: Asking) -> Mapping[Place, int]:
        """The labels that are known of rows that were asked for."""


class ServedRows:
    """What a model's server answered in this folder; raises `DataError` where none did."""

    def __init__(self, registry: Registry, model: str, log: str | None) -> None:
        place = place_of(model, log=log)
        if isinstance(place, Path) and not place.exists():
            raise DataError(
                f"'{model}' was not served in this folder: there are no rows to ask for; stand in "
                "the folder of its server, give the --log that it has, or --run RUN for rows of a "
                "run"
            )
        champion = serving_version(registry, model) or last_own(registry, model)
        base = registry.base(champion.base)
        self.where, self.key = f"'{model}'", f"{model} {champion.base}"
        self.names, self.classes = encoding_of(base).names, tuple(base.describe()["labels"])
        self._path, self.spool = spool_path(model), Spool(place)
        self.source = self.spool.identity()

    def open(self) -> Asking:
        """As `RowsToAsk.open`."""
        return Asking(self._path.with_name(ASKING))

    def parts(self, after: int) -> Iterator[Answered]:
        """As `RowsToAsk.parts`."""
        while requests := self.spool.rows_after(after, AT_ONCE):
            labels = _by_place(self.spool, [one.number for one in requests])
            for one in requests:
                after = one.number
                p = one.probabilities
                wide = p.shape[1] if p.ndim == 2 else 2
                ours = wide == len(self.classes) and one.columns.keys() >= set(self.names)
                if ours and one.threshold != NOBODY_ASKED:
                    y = _told(labels, one.number, len(one))
                    yield Answered(one.number, one.request, p, one.threshold, y)

    def columns(self, numbers: Iterable[int]) -> Iterator[tuple[int, Columns]]:
        """As `RowsToAsk.columns`."""
        for number in numbers:
            for request in self.spool.rows_after(number - 1, 1):
                if request.number == number:
                    yield number, request.columns

    def keys(self, numbers: Sequence[int]) -> Mapping[Place, str]:
        """As `RowsToAsk.keys`."""
        return {
            place: key
            for start in range(0, len(numbers), AT_ONCE)
            for place, key in self.spool.keys_of(numbers[start : start + AT_ONCE]).items()
        }

    def place_of(self, part: str, place: int) -> Place | None:
        """As `RowsToAsk.place_of`."""
        return self.spool.find(Feedback(0, part, place))

    def labels(self, asking: Asking) -> Mapping[Place, int]:
        """As `RowsToAsk.labels`."""
        numbers = sorted({one.part for one in asking.drawn()})
        known: dict[Place, int] = {}
        for start in range(0, len(numbers), AT_ONCE):
            known |= _by_place(self.spool, numbers[start : start + AT_ONCE])
        return known


class RunRows:
    """The rows of a run's batches, scored by the version that serves its model.

    Raises `DataError` where the rows are gone and were not kept.
    """

    def __init__(self, registry: Registry, log: Path, into: Path) -> None:
        run = walked(log)
        self._log, self._last = log, run.batch
        self._source = open_kept(run.config, log.parent, registry, run.run_id, into)
        version = serving_version(registry, run.model) or last_own(registry, run.model)
        base = registry.base(version.base)
        self.where, self.key = f"run {run.run_id}", f"{run.run_id}"
        self.source = int(run.run_id[:12], 16)
        self.names, self.classes = encoding_of(base).names, tuple(base.describe()["labels"])
        if self.classes != tuple(self._source.labels):
            raise DataError(
                f"{self.where}: '{run.model}' serves a model of other classes; ask for rows of its "
                "own run"
            )
        where = f"{run.model} v{version.version}"
        self._network = assemble(base, load_verified(registry, version), where=where)
        self._threshold = version.threshold

    def open(self) -> Asking:
        """As `RowsToAsk.open`."""
        return Asking(self._log.with_name(ASKING))

    def _batches(self, start: int) -> Iterator[Batch]:
        for batch in self._source.batches(start):
            if batch.index > self._last:
                return
            if len(batch.rows):
                yield batch

    def parts(self, after: int) -> Iterator[Answered]:
        """As `RowsToAsk.parts`."""
        for batch in self._batches(after + 1):
            p = self._network.predict(batch.rows.x)
            yield Answered(batch.index, str(batch.index), p, self._threshold, batch.rows.y)

    def columns(self, numbers: Iterable[int]) -> Iterator[tuple[int, Columns]]:
        """As `RowsToAsk.columns`."""
        wanted = set(numbers)
        for batch in self._batches(min(wanted, default=1)):
            if batch.index in wanted:
                yield batch.index, batch.rows.columns

    def keys(self, numbers: Sequence[int]) -> Mapping[Place, str]:
        """None: a run leaves out columns that name a row."""
        return {}

    def place_of(self, part: str, place: int) -> Place | None:
        """As `RowsToAsk.place_of`."""
        return (int(part), place) if part.isdecimal() and int(part) <= self._last else None

    def labels(self, asking: Asking) -> Mapping[Place, int]:
        """As `RowsToAsk.labels`."""
        known = asking.answers()
        wanted = {one.part for one in asking.drawn()}
        for batch in self._batches(min(wanted, default=1)):
            if batch.index in wanted:
                places = enumerate(batch.rows.y.tolist())
                known |= {(batch.index, place): y for place, y in places if y >= 0}
        return known


def _by_place(spool: Spool, numbers: Sequence[int]) -> dict[Place, int]:
    return {(one.answered, one.place): one.y for one in spool.labels_of(numbers) if one.y >= 0}


def _told(labels: Mapping[Place, int], number: int, rows: int) -> LabelArray:
    return np.array([labels.get((number, place), -1) for place in range(rows)], dtype=np.int8)
