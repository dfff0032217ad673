"""The rows that a server answered, as a stream of batches from a cursor on."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from selfheal_cli.labels.selection import lots_of
from selfheal_cli.records import Answers, Batch, LateLabels, OtherInputs, Rows
from selfheal_cli.sources.base import Around
from selfheal_cli.sources.contract import Contract, RangeViolations
from selfheal_cli.sources.encoding import Encoding, occurred
from selfheal_cli.spool.answer_log import AnswerLog
from selfheal_cli.spool.entries import NOBODY_ASKED, Cursor, Label, LoggedRequest, mark_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfheal_cli.records import LabelArray


@dataclass(frozen=True, slots=True)
class Part:
    """Rows ``start`` to before ``stop`` of a request."""

    request: LoggedRequest
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
    """Where the latest ``keep`` rows are, by batch and place, so that late labels find them.

    ``forgotten`` counts labels of older rows.
    """

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._segments: dict[int, list[_Segment]] = {}
        self._rows = 0
        self._oldest = 0  # requests up to here are forgotten
        self.forgotten = 0

    def note(self, batch: int, parts: Sequence[Part]) -> None:
        """Remember a batch by its parts, in their order."""
        at = 0
        for part in parts:
            segment = _Segment(part.start, part.stop, batch, at)
            self._segments.setdefault(part.request.number, []).append(segment)
            at += len(part)
        self._rows += at
        while self._rows > self._keep:
            self._oldest = next(iter(self._segments))
            gone = self._segments.pop(self._oldest)
            self._rows -= sum(segment.stop - segment.start for segment in gone)

    def late(self, labels: Sequence[Label]) -> LateLabels | None:
        """Labels by batch and place; those whose rows are in no batch yet are left out."""
        placed = [
            (*place, label.y) for label in labels if (place := self._where(label)) is not None
        ]
        if not placed:
            return None
        batch, place, y = zip(*placed, strict=True)
        return LateLabels(np.array(batch), np.array(place), np.array(y, dtype=np.int8))

    def _where(self, label: Label) -> tuple[int, int] | None:
        self.forgotten += label.answered <= self._oldest
        for segment in self._segments.get(label.answered, ()):
            if segment.start <= label.place < segment.stop:
                return segment.batch, segment.at + label.place - segment.start
        return None


POLL_SECONDS = 0.05
READ_AT_ONCE = 500  # requests
BEHIND, CAUGHT_UP = 50, 5  # waiting batches at which healing pauses, and at which it goes on
WIDE = 10  # batches in one while healing pauses: most of a batch's cost is independent of its rows
LABELS_AT_ONCE = 10_000
LARGEST = float(np.finfo(np.float32).max)  # number that a network takes
ENDLESS = "infinite values, and beyond 3.4e38, taken as missing"
OF_OTHERS = "rows of another model, or that cannot be read, left out"


@dataclass(frozen=True, slots=True)
class Pace:
    """When a batch is cut: at ``batch_size`` rows, or ``max_wait`` seconds after its first row.

    ``now`` is a monotonic clock in seconds; ``wait`` waits some seconds and returns whether to
    end the stream. A stream that is not ``served`` leaves no heal out, however many rows wait, and
    has batches of no rows for labels that come alone: as many as fill a batch, or at the end.
    """

    batch_size: int
    max_wait: float
    now: Callable[[], float]
    wait: Callable[[float], bool]
    served: bool = True


class NormalRows(Protocol):
    """What a spool is read beside: the rows that say what is normal."""

    @property
    def labels(self) -> tuple[str, ...]:
        """As `Source.labels`."""

    @property
    def contract(self) -> Contract | None:
        """As `Source.contract`."""

    def training(self) -> Iterator[Rows]:
        """As `Source.training`."""


class SpoolSource(Around):
    """A `Source` whose training rows are ``reference``'s and whose stream is the spool's.

    One threshold decided all rows of a batch, but those that a canary answered, which is among the
    snapshots that were ``tried``. A label counts with its row's batch if it is there
    by then, and is late otherwise; which of the two depends on the spool's own order alone, so
    that over a restart none is taken twice or lost. Before the stream ends, all rows that were
    answered by then are streamed; it also ends where another spool has taken this one's place.
    """

    batch_count = None

    def __init__(
        self,
        reference: NormalRows,
        encoding: Encoding,
        spool: AnswerLog,
        cursor: Cursor,
        pace: Pace,
        remember: int,
        *,
        draws: bool = False,
    ) -> None:
        self.labels = reference.labels
        self.encoding = encoding
        self._idle: Callable[[], bool] = lambda: False
        self._reference = reference
        self._spool = spool
        self._pace = pace
        self._remember = remember
        self._draws = draws  # whether rows are let through by lot
        self.contract = reference.contract
        self.tried: set[str] = set()
        self._beside: Encoding | None = None  # of what is tried on a base of its own
        self._unusual: Counter[str] = Counter()
        self._departures = RangeViolations(self.contract) if self.contract else None
        self._pending: deque[Part] = deque()
        self._is_behind = False
        self._since = 0.0  # when the oldest pending row was read
        self.begin(cursor)

    def begin(self, cursor: Cursor) -> None:
        """Set the cursor to read from; call it before `history` and `batches`."""
        self.cursor = replace(cursor, spool=cursor.spool or self._spool.identity())
        self._read_to, self._skip = cursor.answered, cursor.place
        self._pending.clear()
        self._index = RowIndex(self._remember)

    def attend(self, folder: Path, idle: Callable[[], bool]) -> None:
        """``idle`` is called while no row comes; True ends the stream."""
        self._idle = idle

    def make_beside(self, encoding: Encoding | None) -> None:
        """From the rows whose callers sent the columns."""
        self._beside = encoding

    def training(self) -> Iterator[Rows]:
        """The reference rows, encoded for the served network."""
        for rows in self._reference.training():
            yield Rows(self.encoding.encode(rows.columns), rows.y, rows.columns)

    def held_out(self) -> Mapping[str, Rows]:
        """Nothing: every row of the stream is scored before anything learns from it."""
        return {}

    def limit(self) -> None:
        """None: of real rows the best possible figures are not known."""

    def notes(self) -> Mapping[str, int]:
        """Counts of unusual values so far, and of labels that came too late for their rows."""
        strange = self._departures.notes() if self._departures else {}
        forgotten = {"labels of forgotten rows": self._index.forgotten}
        return occurred(dict(self._unusual) | forgotten | strange)

    def departures(self) -> Mapping[str, Mapping[str, int]]:
        """Counts of range violations so far, by column."""
        return self._departures.columns() if self._departures else {}

    def backlog(self) -> int:
        """Rows that were answered and are in no batch yet."""
        return self._spool.rows_beyond(self.cursor.answered) - self.cursor.place

    def behind(self) -> str:
        """Why healing should pause: more rows come than can be scored beside heals.

        Until few rows wait, batches are wider.
        """
        if not self._pace.served:
            return ""
        most = BEHIND if not self._is_behind else CAUGHT_UP
        limit = most * self._pace.batch_size
        rows = self._spool.rows_beyond(self.cursor.answered, limit)
        self._is_behind = rows >= limit
        return f"{rows} rows or more wait to be looked at" if self._is_behind else ""

    def history(self) -> Iterator[Batch]:
        """The latest rows before the cursor once more, with the labels that had come by then.

        Their batches count up to 0. Read it before `batches`, so that late labels find these rows.
        """
        place = self.cursor.place
        at = self._spool.first_within(self._remember, self.cursor.answered) - 1
        batches: list[list[Part]] = []
        while at <= self.cursor.answered and (some := self._spool.rows_after(at, READ_AT_ONCE)):
            at = some[-1].number
            for request in some:
                stop = len(request)
                if request.number > self.cursor.answered:
                    stop, place = place, 0  # of the one that was read in part
                if stop and self._is_ours(request):
                    self._add(Part(request, 0, stop), batches)
        for index, parts in enumerate(batches, 1 - len(batches)):
            batch = self._made_of(parts, index, self.cursor.labels, None)
            yield replace(batch, offsets=self._after(parts[-1], self.cursor.labels).as_dict())

    def _add(self, part: Part, batches: list[list[Part]]) -> None:
        """Add a part to the last of the batches where it has room, else to a new one."""
        last = batches[-1] if batches else []
        full = sum(map(len, last)) >= self._pace.batch_size
        if not last or full or self._is_apart(part, last):
            batches.append([part])
        else:
            last.append(part)

    def batches(self, start: int = 1) -> Iterator[Batch]:
        """The batches from the cursor on, each once it is full or old enough."""
        index, ending = start, False
        while True:
            self._read()
            while parts := self._cut(ending=ending):
                yield self._batch(index, parts)
                index += 1
                self._read()
            if not self._pace.served and (alone := self._alone(index, ending=ending)):
                yield alone
                index += 1
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
            for request in requests:
                start, self._skip = self._skip, 0
                part = Part(request, start, len(request))
                if not self._is_ours(request):
                    self._leave_out(part)
                elif len(part):
                    self._pending.append(part)

    def _is_ours(self, request: LoggedRequest) -> bool:
        """Whether a request has this model's columns and classes."""
        p = request.probabilities
        classes = p.shape[1] if p.ndim == 2 else 2
        return classes == len(self.labels) and request.columns.keys() >= set(self.encoding.names)

    def _leave_out(self, part: Part) -> None:
        self._unusual[OF_OTHERS] += len(part)
        if not self._pending:
            self.cursor = self._after(part, self.cursor.labels)

    def _cut(self, *, ending: bool) -> list[Part]:
        """The rows of the next batch; none where it is too early for one."""
        parts: list[Part] = []
        size, closed = 0, ending
        most = self._pace.batch_size * (WIDE if self._is_behind else 1)
        for part in self._pending:
            if size == most or self._is_apart(part, parts):
                closed = True
                break
            taken = min(len(part), most - size)
            parts.append(Part(part.request, part.start, part.start + taken))
            size += taken
        if size < self._pace.batch_size and not closed and not self._waited():
            return []
        for part in parts:
            first = self._pending.popleft()
            if part.stop < first.stop:
                self._pending.appendleft(Part(first.request, part.stop, first.stop))
        self._since = self._pace.now()
        return parts

    def _is_apart(self, part: Part, others: Sequence[Part]) -> bool:
        """Whether rows were decided by another threshold than those that they would stand with."""
        if part.request.snapshot in self.tried:
            return False
        beside = (one.request for one in others if one.request.snapshot not in self.tried)
        first = next(beside, part.request)
        return part.request.threshold != first.threshold

    def _waited(self) -> bool:
        """Whether the oldest row waited long enough."""
        return self._pace.now() - self._since >= self._pace.max_wait

    def _batch(self, index: int, parts: Sequence[Part]) -> Batch:
        labels_to, labels = self._new_labels()
        return self._made_of(parts, index, labels_to, self._index.late(labels))

    def _alone(self, index: int, *, ending: bool) -> Batch | None:
        """The labels of earlier rows, as a batch without rows, where they are enough for one."""
        wanted = 1 if ending else self._pace.batch_size
        if self._spool.labels_beyond(self.cursor.labels, wanted) < wanted:
            return None
        labels_to, labels = self._new_labels()
        self.cursor = replace(self.cursor, labels=labels_to)
        late = self._index.late(labels)
        if late is None:
            return None
        none = np.empty(0)
        rows = Rows(
            np.empty((0, self.encoding.width), np.float32), none.astype(np.int8),
            dict.fromkeys(self.encoding.names, none),
        )  # fmt: skip
        return Batch(index, rows, late=replace(late, alone=True), offsets=self.cursor.as_dict())

    def _new_labels(self) -> tuple[int, list[Label]]:
        """Those after the cursor, and the number of the last."""
        labels_to, labels = self.cursor.labels, list[Label]()
        while some := self._spool.labels_after(labels_to, LABELS_AT_ONCE):
            labels += some
            labels_to = some[-1].number
        return labels_to, labels

    def _made_of(
        self, parts: Sequence[Part], index: int, labels_to: int, late: LateLabels | None
    ) -> Batch:
        """A batch of the parts' rows, with their labels up to number ``labels_to``."""
        columns = {
            name: np.concatenate([p.request.columns[name][p.start : p.stop] for p in parts])
            for name in self.encoding.names
        }
        for name in self.encoding.numeric:
            endless = np.abs(columns[name]) > LARGEST
            columns[name][endless] = np.nan
            self._unusual[ENDLESS] += int(endless.sum()) if index > 0 else 0
        x = self.encoding.encode(columns, self._unusual if index > 0 else None)
        cleaned = self.encoding.cleaned(columns)
        self._index.note(index, parts)
        if index > 0:
            self.cursor = self._after(parts[-1], labels_to)
            if self._departures is not None:
                self._departures.add(cleaned)
        return Batch(
            index,
            Rows(x, self._classes(parts, labels_to), cleaned),
            late=late,
            answers=_answers(parts),
            offsets=self.cursor.as_dict(),
            lots=np.concatenate([lots_of(p.request.request, p.start, p.stop) for p in parts])
            if self._draws
            else None,
            at=np.repeat([part.request.at for part in parts], [len(part) for part in parts]),
            others=None if self._beside is None else _others(parts, self._beside),
        )

    def _classes(self, parts: Sequence[Part], labels_to: int) -> LabelArray:
        y = np.full(sum(map(len, parts)), -1, dtype=np.int8)
        starts: dict[int, tuple[int, Part]] = {}
        at = 0
        for part in parts:
            starts[part.request.number] = (at, part)
            at += len(part)
        for label in self._spool.labels_of(list(starts)):
            at, part = starts[label.answered]
            if label.number <= labels_to and part.start <= label.place < part.stop:
                y[at + label.place - part.start] = label.y
        return y

    def _after(self, last: Part, labels: int) -> Cursor:
        whole, number = last.stop == len(last.request), last.request.number
        mark = mark_of(last.request.request, last.request.at)
        answered, place = (number, 0) if whole else (number - 1, last.stop)
        return Cursor(answered, place, labels, self.cursor.spool, mark)


def _others(parts: Sequence[Part], encoding: Encoding) -> OtherInputs | None:
    """None where no row has the columns."""
    names, at = encoding.names, 0
    places: list[NDArray[np.intp]] = []
    having = [part for part in parts if part.request.columns.keys() >= set(names)]
    if not having:
        return None
    for part in parts:
        if any(part is one for one in having):
            places.append(np.arange(at, at + len(part)))
        at += len(part)
    columns = {
        name: np.concatenate(
            [part.request.columns[name][part.start : part.stop] for part in having]
        )
        for name in names
    }
    return OtherInputs(encoding.encode(columns), np.concatenate(places))


def _answers(parts: Sequence[Part]) -> Answers | None:
    """What callers were told; None for rows that nobody asked about."""
    limits = [part.request.threshold for part in parts]
    if limits[0] == NOBODY_ASKED:
        return None
    told = [part.request.probabilities[part.start : part.stop] for part in parts]
    if len(set(limits)) == 1:
        return Answers(np.concatenate(told), limits[0])
    return Answers(np.concatenate(told), np.repeat(limits, [len(part) for part in parts]))
