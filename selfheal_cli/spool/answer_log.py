"""What a served model needs of a log, and of the board that says which version serves."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Event
from typing import Any, Protocol

from selfheal_cli.spool.control import Published
from selfheal_cli.spool.entries import (
    Corrects,
    Cursor,
    Feedback,
    Joined,
    Kept,
    Label,
    LoggedRequest,
)


class AnswerLog(Protocol):
    """Answered requests and the labels told of them, in one order: what is read up to a cursor
    stays what it was, and nothing comes before it any more.

    Any thread may call. Raises `StorageError` where the log cannot be used; what is in it stays.
    """

    @property
    def shared(self) -> bool:
        """Whether replicas on other machines write into it, too."""

    def identity(self) -> int:
        """A number of this log; one that takes its place, or is restored, has another."""

    def append(self, answers: Sequence[LoggedRequest], /) -> Kept:
        """Keep answered requests, all or none, and each id once."""

    def label(
        self,
        labels: Sequence[Feedback],
        caller: str = "",
        at: float = 0.0,
        corrects: Corrects | None = None,
    ) -> Joined:
        """Join labels to their rows, or correct them."""

    def rows_after(self, number: int, limit: int) -> list[LoggedRequest]:
        """Requests after a number, in the log's order."""

    def labels_after(self, number: int, limit: int) -> list[Label]:
        """Labels after a number, in the log's order."""

    def labels_of(self, requests: Sequence[int]) -> list[Label]:
        """Labels of the rows of some requests."""

    def labels_beyond(self, number: int, limit: int) -> int:
        """Number of labels after a number, counted up to ``limit``."""

    def rows_beyond(self, number: int, requests: int = 2**62) -> int:
        """Number of rows after a number, of so many requests at most."""

    def first_within(self, rows: int, last: int) -> int:
        """The first of the latest requests up to ``last`` that have at most ``rows`` rows."""

    def holds(self, cursor: Cursor) -> bool:
        """Whether this is the log that was read up to a cursor."""

    def here(self, cursor: Cursor) -> Cursor | None:
        """A cursor of this log, or of one that this is a copy of, in this one; else None."""

    def committed(self, run: str, batch: int) -> tuple[Cursor, str] | None:
        """Up to where it was read, by which run; see `Spool.committed`."""

    def forget(self, keep_rows: int, before: int | None = None) -> int:
        """Trim it to the latest rows, of those before a number."""


class Bulletin(Protocol):
    """Which version serves, as the one process says that asks the registry."""

    def identity(self) -> int:
        """As `AnswerLog.identity`."""

    def current(self) -> tuple[int, int | None]:
        """Sequence and version number of what serves; (0, None) where there is nothing."""

    def published(self) -> Published | None:
        """What serves, if anything does."""

    def after(self, seen: int) -> Published | None:
        """What serves, where it was published after ``seen``."""

    def status(self, topic: str) -> tuple[dict[str, Any], float]:
        """What was said last on a topic, and when; ({}, 0.0) where nothing was."""

    def wait(self, seconds: float, stop: Event) -> None:
        """Wait so long at most for something to be published, or for ``stop``."""
