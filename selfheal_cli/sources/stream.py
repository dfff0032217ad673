"""Unbounded sources: the first rows, or a table, train; then batches come until the run stops."""

from __future__ import annotations

import tempfile
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from selfheal_cli.config import SegmentSettings
from selfheal_cli.config_sources import KafkaSettings, UnboundedSettings
from selfheal_cli.errors import DataError
from selfheal_cli.records import Batch, Rows
from selfheal_cli.sources.base import Around, labelled
from selfheal_cli.sources.contract import Contract, RangeViolations, schema_violations
from selfheal_cli.sources.feed import Feed, FeedLine, Keeping, Past, Positions
from selfheal_cli.sources.fit import Fitted, fit
from selfheal_cli.sources.joining import LabelJoin
from selfheal_cli.sources.ndjson import NdjsonTable, Object, as_frame, parse_object
from selfheal_cli.sources.profile import profile
from selfheal_cli.sources.rejects import Rejects
from selfheal_cli.sources.segment import NONE, with_segment
from selfheal_cli.sources.values import RowContract
from selfheal_cli.sources.violation import UNREADABLE

if TYPE_CHECKING:
    from selfheal_cli.sources.table_file import TableFile


LOOK_SECONDS = 0.2  # between two checks whether to stop
MOST_WAITING = 100_000  # lines; beyond, no more labels are read until rows come


@dataclass(frozen=True, slots=True)
class Taken:
    """A row or a label, and the line that it was in."""

    line: FeedLine
    fields: Object


class Pending:
    """The lines of a feed that wait for their batch.

    ``rows`` of them are rows, the first waiting since ``since`` (seconds of the clock); ``upto``
    are the positions after the lines that were taken. Lines that are taken together are in the
    order of partition and offset.
    """

    def __init__(
        self,
        feed: Feed,
        rejects: Rejects,
        begin: Positions,
        clock: Callable[[], float],
        contract: RowContract,
    ) -> None:
        self._contract = contract
        self._feed, self._rejects, self._clock = feed, rejects, clock
        self._waiting: list[Taken] = []
        self.rows = 0
        self.since = 0.0
        self.ended = False
        self.upto: dict[str, int] = dict(begin)

    def read(self, seconds: float) -> None:
        """Read the lines that have come, after waiting ``seconds`` at most."""
        lines = self._feed.read(seconds, labels=len(self._waiting) < MOST_WAITING)
        if lines is None:
            self.ended = True
            return
        before = self.rows
        for line in lines:
            text = line.text.strip()
            if not text:
                continue
            try:
                self._waiting.append(Taken(line, parse_object(text, self._contract)))
                self.rows += not line.label
            except ValueError as exc:
                shown = line.text.decode("utf-8", "replace")
                place = self.place(line)
                self._rejects.add(place, line.offset + 1, str(exc), UNREADABLE, shown)
        if self.rows and not before:
            self.since = self._clock()

    def place(self, line: FeedLine) -> str:
        """Where a line is found, for messages."""
        return self._feed.place(line.partition, line.offset)

    def take_rows(self, rows: int) -> list[Taken]:
        """Take the oldest lines that hold ``rows`` rows; so many must wait."""
        at = 0
        while rows:
            rows -= not self._waiting[at].line.label
            at += 1
        return self._advance(self._waiting[:at], self._waiting[at:])

    def take_upto(self, upto: Positions, stop: Callable[[], bool]) -> list[Taken]:
        """Take the lines before ``upto``, reading on until then; fewer where the feed ends or
        ``stop`` says so.
        """
        while not self.ended and not stop():
            reached = self._feed.positions()
            if all(reached.get(name, 0) >= position for name, position in upto.items()):
                break
            self.read(LOOK_SECONDS)
        taken: list[Taken] = []
        rest: list[Taken] = []
        for waiting in self._waiting:
            before = waiting.line.offset < upto.get(waiting.line.partition, 0)
            (taken if before else rest).append(waiting)
        lines = self._advance(taken, rest)
        self.upto |= upto
        return lines

    def _advance(self, taken: Sequence[Taken], rest: list[Taken]) -> list[Taken]:
        self._waiting = rest
        self.rows -= sum(not line.line.label for line in taken)
        self.since = self._clock()
        for line in taken:
            self.upto[line.line.partition] = line.line.offset + 1
        # the order in which partitions answer must not decide the order of rows in a batch
        return sorted(taken, key=lambda line: (line.line.partition, line.line.offset))


KEPT = "rows.jsonl"


class UnboundedSource(Around):
    """A `Source` over a `Feed`, read once.

    A batch is full, or what has come ``max_wait`` seconds after its first row. Within a batch rows
    are in the order of partition and offset, so that it is the same whenever it is read again:
    ``past`` says which lines were taken together before. Without ``live`` that is all.
    """

    def __init__(
        self,
        settings: UnboundedSettings,
        feed: Feed,
        table: TableFile | None,
        *,
        batch_size: int,
        batches: int | None,
        past: Past | None = None,
        keeping: Keeping | None = None,
        live: bool = True,
        clock: Callable[[], float] = time.monotonic,
        contract: RowContract = 2,
        segments: SegmentSettings = NONE,
    ) -> None:
        self._row_contract, self._segments = contract, segments
        self._settings, self._feed, self._clock = settings, feed, clock
        self._batch_size, self._past, self._live = batch_size, past or Past(), live
        self.batch_count = batches
        self._rejects = Rejects(settings.max_rejects)
        self._keeping = keeping
        self._idle: Callable[[], bool] = lambda: False
        self._stopped = False
        self._begin: Positions = dict(self._past.begin or feed.positions())
        self._pending = Pending(feed, self._rejects, self._begin, clock, contract)
        self._fitted = self._fit(table or self._first_rows())
        self._stream: Positions = dict(self._pending.upto)
        self._seen = RangeViolations(self._fitted.contract)
        self._join: LabelJoin | None = None
        if isinstance(settings, KafkaSettings) and settings.key is not None:
            labels = self._fitted.labels
            self._join = LabelJoin(settings.key, settings.target, labels, contract)
        self.encoding, self.labels = self._fitted.encoding, self._fitted.labels

    endless = True

    def positions(self) -> Mapping[str, Positions]:
        """By partition: where it was read from, and where its stream began."""
        return {"begin": self._begin, "stream": self._stream}

    @property
    def contract(self) -> Contract:
        """What every row must be."""
        return self._fitted.contract

    def attend(self, folder: Path, idle: Callable[[], bool]) -> None:
        """Rejects, and rows where they are kept, go to ``folder`` from now on.

        ``idle`` is called several times a second while nothing comes; True ends the stream.
        """
        self._idle = idle
        self._rejects.to(folder)
        if self._keeping is not None:
            self._keeping.to(folder / KEPT)

    def settle(self, keep: Callable[[], None], held: Callable[[], bool]) -> None:
        """Positions are committed once the batches are on disk as scored."""
        keep()
        self._feed.commit(self._pending.upto, held)

    def close(self) -> None:
        """No more is read."""
        self._feed.close()
        if self._keeping is not None:
            self._keeping.close()

    def training(self) -> Iterator[Rows]:
        """The training part, in blocks."""
        for frame in self._table.chunks(self._fitted.numeric):
            yield labelled(self._fitted.block(frame).rows)

    def batches(self, start: int = 1) -> Iterator[Batch]:
        """Those that are on record first; then what comes, until it ends or is to stop."""
        index = 0
        for index, (rows, upto) in enumerate(self._past.taken, 1):
            batch = self._batch(index, self._pending.take_upto(upto, self._stop))
            if self._stopped:
                return
            self._require_rows(index, rows, len(batch.rows) if batch else 0)
            if batch is not None and index >= start:
                yield batch
        while self._live and (self.batch_count is None or index < self.batch_count):
            taken = self._await_rows()
            if taken is None:
                return
            batch = self._batch(index + 1, taken)
            if batch is not None:
                index += 1
                yield batch

    def held_out(self) -> Mapping[str, Rows]:
        """Nothing: every row of the stream is scored before anything learns from it."""
        return {}

    def limit(self) -> None:
        """None: of real rows the best possible figures are not known."""

    def notes(self) -> Mapping[str, int]:
        """Counts so far of unusual values, of rejects, and of labels that joined no row."""
        joined = self._join.notes() if self._join else {}
        return {**self._seen.notes(), **self._rejects.notes(), **joined}

    def departures(self) -> Mapping[str, Mapping[str, int]]:
        """Counts of range violations so far, by column."""
        return self._seen.columns()

    def _fit(self, table: TableFile) -> Fitted:
        settings = self._settings
        if isinstance(settings, KafkaSettings) and settings.key in table.columns:
            settings = settings.model_copy(update={"drop": (*settings.drop, settings.key)})
        profiled = profile(table, settings, self._rejects)
        self._table = table = profiled.table
        self.remarks = profiled.remarks
        rows = profiled.rows
        if rows < self._batch_size:
            raise DataError(
                f"{table.where}: {rows} rows to train on; at least one batch of "
                f"{self._batch_size} is needed: give more, or a smaller --batch-size"
            )
        profiled.target.require_trained(rows)
        fitted = fit(table, profiled, table.chunks(profiled.numeric), settings)
        return with_segment(fitted, table, settings, self._segments)

    def _first_rows(self) -> NdjsonTable:
        """The rows to train on, in a temporary file, which goes with the table."""
        pending = self._pending
        if self._past.stream:
            taken = pending.take_upto(self._past.stream, self._stop)
        else:
            needed = self._settings.train_rows
            while pending.rows < needed and not pending.ended:
                pending.read(LOOK_SECONDS)
            if pending.rows < needed:
                raise DataError(
                    f"{self._feed.where}: ended after {pending.rows} rows; {needed} train the "
                    "network: give fewer with source.train_rows, or a table with source.train"
                )
            taken = pending.take_rows(needed)
        rows = [row.line for row in taken if not row.line.label]
        with tempfile.NamedTemporaryFile(
            "wb", prefix="selfheal-rows-", suffix=".ndjson", delete=False
        ) as spool:
            spool.writelines(line.text.strip() + b"\n" for line in rows)
        path = Path(spool.name)

        def place(row: int) -> str:
            return pending.place(rows[row - 1])

        try:
            table = NdjsonTable(path, self._feed.where, place, self._row_contract)
        except BaseException:
            path.unlink()
            raise
        weakref.finalize(table, path.unlink, missing_ok=True)
        return table

    def _await_rows(self) -> list[Taken] | None:
        """The lines of the next batch; None where there will be none."""
        pending = self._pending
        while pending.rows < self._batch_size:
            left = self._settings.max_wait - (self._clock() - pending.since)
            if pending.rows and left <= 0:
                break
            if pending.ended or self._stop():
                return pending.take_rows(pending.rows) if pending.rows else None
            pending.read(min(LOOK_SECONDS, left) if pending.rows else LOOK_SECONDS)
        return pending.take_rows(min(pending.rows, self._batch_size))

    def _stop(self) -> bool:
        """Whether to stop; once that is so, nothing more is read."""
        self._stopped = self._stopped or self._idle()
        return self._stopped

    def _batch(self, index: int, taken: list[Taken]) -> Batch | None:
        """The rows among the lines as a batch; None where none is left."""
        rows = self._valid([line for line in taken if not line.line.label])
        if not rows:
            return None
        late = None
        if self._join is not None:
            late = self._join.late(index, [line.fields for line in taken if line.line.label])
            self._join.remember(index, rows)
        frame = as_frame(rows, self._columns(), self._row_contract)
        for name in self.encoding.names if self._row_contract == 1 else ():
            if name in self._fitted.numeric:
                frame[name] = frame[name].astype("float64")
        block = self._fitted.block(frame, self._seen)
        return Batch(index, block.rows, late=late, offsets=dict(self._pending.upto))

    def _valid(self, taken: list[Taken]) -> list[Object]:
        """The rows without a schema violation; the others are put aside.

        Raises `DataError` for the first violation where the settings allow none.
        """
        rows = [row.fields for row in taken]
        if not rows:
            return []
        violations = schema_violations(
            self.contract,
            self._settings.target,
            self._fitted.labels,
            rows,
            as_frame(rows, self._columns(), self._row_contract),
            self._row_contract,
            unlabelled=self._settings.unlabelled,
        )
        for violation in violations:
            line = taken[violation.row].line
            place = self._pending.place(line)
            if not self._settings.reject_misfits:
                raise DataError(
                    f"{place}, {violation.reason}; training rows were otherwise: correct what "
                    "sends it, or put such rows aside with source.reject_misfits"
                )
            text = line.text.decode("utf-8", "replace")
            self._rejects.add(place, line.offset + 1, violation.reason, violation.kind, text)
        wrong = {violation.row for violation in violations}
        return [fields for row, fields in enumerate(rows) if row not in wrong]

    def _columns(self) -> list[str]:
        return [*self._fitted.encoding.names, *self._fitted.beside, self._settings.target]

    def _require_rows(self, index: int, recorded: int, left: int) -> None:
        if left < recorded:
            raise DataError(
                f"{self._feed.where}: of the {recorded} rows of batch {index} {left} are left; "
                "the others are gone, so that the run can be neither resumed nor replayed"
            )
