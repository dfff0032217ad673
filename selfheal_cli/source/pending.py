"""Lines of a feed that wait to be taken: so many rows of them, or those before known offsets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from selfheal_cli.source.feed import Feed, Line, Positions
from selfheal_cli.source.ndjson import Object, parse_object
from selfheal_cli.source.rejects import Rejects
from selfheal_cli.source.values import RowContract

LOOK_SECONDS = 0.2  # how often it is asked whether to stop
MOST_WAITING = 100_000  # lines; beyond, no more labels are read until rows come


@dataclass(frozen=True, slots=True)
class Taken:
    """A row or a label, and the line that it was in."""

    line: Line
    found: Object


class Pending:
    """Reads a feed. ``rows`` wait, the first since ``since``; ``upto`` is what was taken by now.

    What is taken together is in the order of partition and offset.
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
        """Take in what comes, after waiting for it so long at most."""
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
                self._rejects.add(line, self.place(line), str(exc))
        if self.rows and not before:
            self.since = self._clock()

    def place(self, line: Line) -> str:
        """Where a line is found, for messages."""
        return self._feed.place(line.partition, line.offset)

    def take_rows(self, rows: int) -> list[Taken]:
        """The oldest lines with so many rows among them; there must be as many."""
        at = 0
        while rows:
            rows -= not self._waiting[at].line.label
            at += 1
        return self._advance(self._waiting[:at], self._waiting[at:])

    def take_upto(self, upto: Positions, stop: Callable[[], bool]) -> list[Taken]:
        """The lines before ``upto``, read by then; fewer where the feed ends or is to stop."""
        while not self.ended and not stop():
            reached = self._feed.positions()
            if all(reached.get(name, 0) >= position for name, position in upto.items()):
                break
            self.read(LOOK_SECONDS)
        taken: list[Taken] = []
        rest: list[Taken] = []
        for one in self._waiting:
            before = one.line.offset < upto.get(one.line.partition, 0)
            (taken if before else rest).append(one)
        found = self._advance(taken, rest)
        self.upto |= upto
        return found

    def _advance(self, taken: Sequence[Taken], rest: list[Taken]) -> list[Taken]:
        self._waiting = rest
        self.rows -= sum(not one.line.label for one in taken)
        self.since = self._clock()
        for one in taken:
            self.upto[one.line.partition] = one.line.offset + 1
        return sorted(taken, key=lambda one: (one.line.partition, one.line.offset))
