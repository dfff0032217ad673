"""The rows that a server answered, as a stream: batches from where another run left off."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from selfheal_cli.records import Answers, Batch, LateLabels, Rows
from selfheal_cli.sources.base import Around, Source
from selfheal_cli.sources.contract import RangeViolations
from selfheal_cli.sources.encoding import Encoding, occurred
from selfheal_cli.spool.store import Cursor, Label, LoggedRequest, Spool, mark_of

if TYPE_CHECKING:
    from selfheal_cli.records import LabelArray


@dataclass(frozen=True, slots=True)
class Part:
    """Rows ``start`` to before ``stop`` of a request."""

    one: LoggedRequest
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class _Segment:
    """Rows of a request that stand in a batch from place ``at`` on."""

    start: int
    stop: int
    batch: int
    at: int


class RowIndex:
    """Remembers the latest ``keep`` rows; ``forgotten`` counts labels of older ones."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._segments: dict[int, list[_Segment]] = {}
        self._rows = 0
        self._oldest = 0  # requests up to here are forgotten
        self.forgotten = 0

    def note(self, batch: int, parts: Sequence[Part]) -> None:
        """A batch was made of these, in this order."""
        at = 0
        for part in parts:
            segment = _Segment(part.start, part.stop, batch, at)
            self._segments.setdefault(part.one.number, []).append(segment)
            at += len(part)
        self._rows += at
        while self._rows > self._keep:
            self._oldest = next(iter(self._segments))
            gone = self._segments.pop(self._oldest)
            self._rows -= sum(one.stop - one.start for one in gone)

    def late(self, labels: Sequence[Label]) -> LateLabels | None:
        """Labels by batch and place; those whose rows are in no batch yet are left out."""
        placed = [(*went, one.y) for one in labels if (went := self._where(one)) is not None]
        if not placed:
            return None
        batch, place, y = zip(*placed, strict=True)
        return LateLabels(np.array(batch), np.array(place), np.array(y, dtype=np.int8))

    def _where(self, label: Label) -> tuple[int, int] | None:
        self.forgotten += label.answered <= self._oldest
        for one in self._segments.get(label.answered, ()):
            if one.start <= label.place < one.stop:
                return one.batch, one.at + label.place - one.start
        return None


POLL_SECONDS = 0.05
READ_AT_ONCE = 500  # requests
BEHIND, CAUGHT_UP = 50, 5  # batches that wait when healing pauses, and when it goes on
WIDE = 10  # batches at most in one while so many wait: most of a batch's cost is not its rows'
LABELS_AT_ONCE = 10_000
LARGEST = float(np.finfo(np.float32).max)  # that a network takes
ENDLESS = "infinite values, and beyond 3.4e38, taken as missing"
OF_OTHERS = "rows of another model, or that cannot be read, left out"


@dataclass(frozen=True, slots=True)
class Pace:
    """How rows become batches: ``batch_size`` rows, or what came within ``max_wait`` seconds.

    ``now`` is a monotonic clock in seconds; ``wait`` waits some seconds and says whether the
    stream shall end.
    """

    batch_size: int
    max_wait: float
    now: Callable[[], float]
    wait: Callable[[float], bool]


class SpoolSource(Around):
    """A `Source` whose training rows are ``reference``'s and whose stream is the spool's.

    One threshold decided all rows of a batch. A label counts with its row's batch if it is there
    by then, and is late otherwise; which of the two hangs on the spool's own order alone, so that
    over a restart none is taken twice or lost. When the stream shall end, what was answered by
    then is streamed first; it also ends where another spool has taken this one's place. ``idle`` is
    called while nothing comes.
    """

    batch_count = None

    def __init__(
        self,
        reference: Source,
        encoding: Encoding,
        spool: Spool,
        cursor: Cursor,
        pace: Pace,
        remember: int,
    ) -> None:
        self.labels = reference.labels
        self.encoding = encoding
        self._idle: Callable[[], bool] = lambda: False
        self._reference = reference
        self._spool = spool
        self._pace = pace
        self._remember = remember
        self.contract = reference.contract
        self._unusual: Counter[str] = Counter()
        self._departures = RangeViolations(self.contract) if self.contract else None
        self._pending: deque[Part] = deque()
        self._is_behind = False
        self._since = 0.0  # when the oldest pending row was read
        self.begin(cursor)

    def begin(self, cursor: Cursor) -> None:
        """Read on from here; to be said before `history` and `batches`."""
        self.cursor = replace(cursor, spool=cursor.spool or self._spool.identity())
        self._read_to, self._skip = cursor.answered, cursor.place
        self._pending.clear()
        self._went = RowIndex(self._remember)

    def attend(self, folder: Path, idle: Callable[[], bool]) -> None:
        """``idle`` is called while no row comes; True ends the stream."""
        self._idle = idle

    def training(self) -> Iterator[Rows]:
        """The reference rows, as the served network takes them."""
        for rows in self._reference.training():
            yield Rows(self.encoding.encode(rows.columns), rows.y, rows.columns)

    def held_out(self) -> Mapping[str, Rows]:
        """Nothing: every row of the stream is scored before anything learns from it."""
        return {}

    def limit(self) -> None:
        """Nobody knows the best that can be done on real rows."""

    def notes(self) -> Mapping[str, int]:
        """What was unusual so far, and labels that came too late to find their rows."""
        strange = self._departures.notes() if self._departures else {}
        forgotten = {"labels of forgotten rows": self._went.forgotten}
        return occurred(dict(self._unusual) | forgotten | strange)

    def departures(self) -> Mapping[str, Mapping[str, int]]:
        """See `Source`."""
        return self._departures.columns() if self._departures else {}

    def backlog(self) -> int:
        """Rows that were answered and are in no batch yet."""
        return self._spool.rows_beyond(self.cursor.answered) - self.cursor.place

    def behind(self) -> str:
        """Why healing should pause: more rows come than can be looked at beside heals.

        Until few wait the batches are wider.
        """
        most = BEHIND if not self._is_behind else CAUGHT_UP
        wanted = most * self._pace.batch_size
        rows = self._spool.rows_beyond(self.cursor.answered, wanted)
        self._is_behind = rows >= wanted
        return f"{rows} rows or more wait to be looked at" if self._is_behind else ""

    def history(self) -> Iterator[Batch]:
        """The latest rows before the cursor once more, with the labels that had come by then.

        Their batches count up to 0. To be walked before `batches`: labels find these rows too.
        """
        place = self.cursor.place
        at = self._spool.first_within(self._remember, self.cursor.answered) - 1
        batches: list[list[Part]] = []
        while at <= self.cursor.answered and (some := self._spool.rows_after(at, READ_AT_ONCE)):
            at = some[-1].number
            for one in some:
                stop = len(one)
                if one.number > self.cursor.answered:
                    stop, place = place, 0  # of the one that was read in part
                if stop and self._is_ours(one):
                    self._add(Part(one, 0, stop), batches)
        for index, parts in enumerate(batches, 1 - len(batches)):
            yield self._made_of(parts, index, self.cursor.labels, None)

    def _add(self, part: Part, batches: list[list[Part]]) -> None:
        """To the last of the batches if it belongs there, else to a new one."""
        last = batches[-1] if batches else []
        full = sum(map(len, last)) >= self._pace.batch_size
        if not last or full or last[0].one.threshold != part.one.threshold:
            batches.append([part])
        else:
            last.append(part)

    def batches(self, start: int = 1) -> Iterator[Batch]:
        """Batches as they fill, from the cursor on."""
        index, ending = start, False
        while True:
            self._read()
            while parts := self._cut(ending=ending):
                yield self._batch(index, parts)
                index += 1
                self._read()
            if ending or self._spool.identity() != self.cursor.spool:
                return
            ending = self._idle() or self._pace.wait(POLL_SECONDS)

    def _read(self) -> None:
        wide = WIDE if self.behind() else 1
        while sum(map(len, self._pending)) < wide * self._pace.batch_size:
            requests = self._spool.rows_after(self._read_to, READ_AT_ONCE)
            if not requests:
                return
            if not self._pending:
                self._since = self._pace.now()
            self._read_to = requests[-1].number
            for one in requests:
                start, self._skip = self._skip, 0
                if self._is_ours(one):
                    self._pending += [Part(one, start, len(one))] if start < len(one) else []
                else:
                    self._leave_out(one, start)

    def _is_ours(self, one: LoggedRequest) -> bool:
        """Whether a request has this model's columns and classes."""
        width = one.probabilities.shape[1] if one.probabilities.ndim == 2 else 2
        return width == len(self.labels) and one.columns.keys() >= set(self.encoding.names)

    def _leave_out(self, one: LoggedRequest, start: int) -> None:
        self._unusual[OF_OTHERS] += len(one) - start
        if not self._pending:
            self.cursor = self._after(Part(one, start, len(one)), self.cursor.labels)

    def _cut(self, *, ending: bool) -> list[Part]:
        """The rows of the next batch; none where it is too early for one."""
        parts: list[Part] = []
        size, closed = 0, ending
        most = self._pace.batch_size * (WIDE if self._is_behind else 1)
        for part in self._pending:
            if size == most or part.one.threshold != self._pending[0].one.threshold:
                closed = True
                break
            taken = min(len(part), most - size)
            parts.append(Part(part.one, part.start, part.start + taken))
            size += taken
        if size < self._pace.batch_size and not closed and not self._waited():
            return []
        for part in parts:
            first = self._pending.popleft()
            if part.stop < first.stop:
                self._pending.appendleft(Part(first.one, part.stop, first.stop))
        self._since = self._pace.now()
        return parts

    def _waited(self) -> bool:
        """Whether the oldest row waited long enough."""
        return self._pace.now() - self._since >= self._pace.max_wait

    def _batch(self, index: int, parts: Sequence[Part]) -> Batch:
        looked_at, labels = self.cursor.labels, list[Label]()
        while some := self._spool.labels_after(looked_at, LABELS_AT_ONCE):
            labels += some
            looked_at = some[-1].number
        return self._made_of(parts, index, looked_at, self._went.late(labels))

    def _made_of(
        self, parts: Sequence[Part], index: int, looked_at: int, late: LateLabels | None
    ) -> Batch:
        """A batch of rows, labelled as far as labels up to ``looked_at`` know."""
        columns = {
            name: np.concatenate([one.one.columns[name][one.start : one.stop] for one in parts])
            for name in self.encoding.names
        }
        for name in self.encoding.numeric:
            endless = np.abs(columns[name]) > LARGEST
            columns[name][endless] = np.nan
            self._unusual[ENDLESS] += int(endless.sum()) if index > 0 else 0
        answered = [part.one.probabilities[part.start : part.stop] for part in parts]
        x = self.encoding.encode(columns, self._unusual if index > 0 else None)
        cleaned = self.encoding.cleaned(columns)
        self._went.note(index, parts)
        if index > 0:
            self.cursor = self._after(parts[-1], looked_at)
            if self._departures is not None:
                self._departures.add(cleaned)
        return Batch(
            index,
            Rows(x, self._classes(parts, looked_at), cleaned),
            late=late,
            answers=Answers(np.concatenate(answered), parts[0].one.threshold),
            offsets=self.cursor.as_dict(),
        )

    def _classes(self, parts: Sequence[Part], looked_at: int) -> LabelArray:
        y = np.full(sum(map(len, parts)), -1, dtype=np.int8)
        starts: dict[int, tuple[int, Part]] = {}
        at = 0
        for part in parts:
            starts[part.one.number] = (at, part)
            at += len(part)
        for label in self._spool.labels_of(list(starts)):
            at, part = starts[label.answered]
            if label.number <= looked_at and part.start <= label.place < part.stop:
                y[at + label.place - part.start] = label.y
        return y

    def _after(self, last: Part, labels: int) -> Cursor:
        whole, number = last.stop == len(last.one), last.one.number
        mark = mark_of(last.one.request, last.one.at)
        answered, place = (number, 0) if whole else (number - 1, last.stop)
        return Cursor(answered, place, labels, self.cursor.spool, mark)
