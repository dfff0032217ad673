"""What is known when somebody looks: the server's own facts, and the healer's last word."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from time import time

from pydantic import BaseModel, ConfigDict, Field

from selfheal_cli.serve.standing import HEALER, Standing
from selfheal_cli.spool.board import Board

SILENT_SECONDS = 15.0  # after so long without a word the healer counts as down


class Facts(BaseModel):
    """What the scoring process knows of itself.

    ``version`` is what it answers with now, None while the registry has not numbered it.
    ``queue`` counts rows that are not on disk yet, ``unrecorded`` those that never will be, and
    ``conflicting`` those of them whose request id stood for other rows already; ``kept`` rows are
    in the spool, and ``unread`` of them no healer here has looked at; ``lost`` were forgotten
    before the healer read them. ``recording`` and ``following`` say what does not work there.
    ``started`` is in seconds since 1970.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    version: int | None = None
    snapshot: str = ""
    threshold: float | None = None
    queue: int = 0
    unrecorded: int = 0
    conflicting: int = 0
    kept: int = 0
    unread: int = 0
    lost: int = 0
    recording: str = ""
    following: str = ""
    started: float = 0.0


class Word(BaseModel):
    """The healer's last word, ``age`` seconds old; None where it never said one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    standing: Standing
    age: float | None

    @property
    def heals(self) -> bool:
        """Whether a run heals here, which reads the spool."""
        return self.age is not None and self.age < SILENT_SECONDS and self.standing.reads


class Seen(BaseModel):
    """The whole of it at one moment, ``at`` in seconds since 1970.

    ``age`` is the seconds since the healer's last word, None where it never said one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    server: Facts
    standing: Standing = Field(default_factory=Standing)
    age: float | None = None
    at: float

    @property
    def healer_up(self) -> bool:
        """Whether the healer has spoken lately."""
        return self.age is not None and self.age < SILENT_SECONDS

    @property
    def label_age(self) -> float | None:
        """Seconds since a label came last, None where none ever did."""
        return since(self.standing.labels_at, self.at)


def look(board: Board, facts: Callable[[], Facts], clock: Callable[[], float] = time) -> Seen:
    """Read the board once. Raises `NotWritten` where its file cannot be used."""
    now, server = clock(), facts()
    word = last_word(board, now)
    standing = word.standing
    if not word.heals:  # then nobody else counts them
        standing = standing.model_copy(update={"waiting": server.unread})
    return Seen(server=server, standing=standing, age=word.age, at=now)


def last_word(board: Board, now: float) -> Word:
    """What the healer said last. Raises `NotWritten` where the board cannot be used."""
    data, said = board.told(HEALER)
    return Word(standing=Standing(**data), age=max(0.0, now - said) if said else None)


def since(moment: str, now: float) -> float | None:
    """Seconds from an ISO 8601 time until ``now``; None for no time."""
    if not moment:
        return None
    return max(0.0, now - datetime.fromisoformat(moment).timestamp())
