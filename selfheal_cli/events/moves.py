"""What is said of the champion: rollbacks, moves, and what people decided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import ClassVar

from selfheal_cli.events.event import Action, Event
from selfheal_cli.records import AliasMove


class RollbackAsked(Action):
    """Heals went bad, the last of them ``heal_id``, and what came of asking for a better version.

    ``passed_over`` says of versions that looked better why they were not chosen.
    """

    heal_id: str


class HealingPaused(RollbackAsked, kind="healing-paused"):
    """The policy wants no rollback then: what serves stays, and healing stops until somebody
    releases it.
    """

    def __str__(self) -> str:
        return f"healing paused: {self.reason}"


class RolledBack(RollbackAsked, kind="rollback"):
    """An earlier version serves again; ``f1`` was measured on so many ``rows``.

    ``version`` is 0 where the registry had not numbered the snapshot by then.
    """

    from_snapshot: str
    to_snapshot: str
    version: int
    f1: float | None
    rows: int
    sha256: str
    passed_over: Sequence[str] = ()

    def __str__(self) -> str:
        return f"rolled back to {self.named}: {self.reason}"

    @property
    def named(self) -> str:
        """The version, as people are told of it."""
        return f"v{self.version}" if self.version else f"the version before ({self.to_snapshot})"


class RollbackFailed(RollbackAsked, kind="rollback-failed"):
    """The registry gave no version to go back to."""

    error: str

    @property
    def why(self) -> str:
        """What went wrong."""
        return self.error

    def __str__(self) -> str:
        return f"no rollback: {self.error}"


class RollbackDeclined(RollbackAsked, kind="rollback-declined"):
    """The registry's best version is no better than what serves."""

    version: int
    declined: str
    passed_over: Sequence[str] = ()

    @property
    def why(self) -> str:
        """Why what serves stays."""
        return self.declined

    def __str__(self) -> str:
        return f"no rollback: {self.declined}"


class AliasMoved(Event, kind="alias-moved"):
    """The run moved an alias."""

    is_action: ClassVar[bool] = True
    move: AliasMove = field(metadata={"flat": AliasMove, "decode": AliasMove})

    @property
    def why(self) -> str:
        """The move's reason."""
        return self.move.reason


class MoveRefused(Event, kind="move-refused"):
    """An alias was not moved, since somebody else had moved it."""

    is_action: ClassVar[bool] = True
    key: str
    alias: str
    reason: str

    @property
    def why(self) -> str:
        """Who came first."""
        return self.reason


class ProposalMade(Event, kind="proposed"):
    """A heal's version waits for a person's approval until ``expires``; ``proposal`` is its number
    in the journal.
    """

    is_action: ClassVar[bool] = True
    proposal: int
    snapshot: str
    version: int
    sha256: str
    expires: str
    reason: str

    @property
    def why(self) -> str:
        """What it is about."""
        return self.reason

    def __str__(self) -> str:
        return f"proposal {self.proposal}: v{self.version}, until {self.expires} ({self.reason})"


class DecidedOutside(Action):
    """Somebody decided about the model, and the run goes by it."""

    actor: str


class ChampionFollowed(DecidedOutside, kind="champion-followed"):
    """Somebody else moved the champion to ``version``: it serves, or there is an ``error``.

    ``move_sequence`` is the move's place in the journal.
    """

    from_snapshot: str
    version: int
    move_sequence: int = field(metadata={"name": "sequence"})
    to_snapshot: str = ""
    error: str = ""

    @property
    def why(self) -> str:
        """Why it is not followed, else why it was moved."""
        return self.error or self.reason

    def __str__(self) -> str:
        follows = "does not follow" if self.error else "follows"
        return f"{follows} v{self.version} of {self.actor}: {self.why}"


class HealingHeld(DecidedOutside, kind="healing-held"):
    """Healing pauses until it is released."""

    def __str__(self) -> str:
        return f"healing held by {self.actor}: {self.reason}"


class HealingReleased(DecidedOutside, kind="healing-released"):
    """Healing goes on."""

    def __str__(self) -> str:
        return f"healing allowed again: {self.reason}"


class ModeChanged(DecidedOutside, kind="mode-changed"):
    """The heals of a served model may do something else from here on; ``order`` is the number of
    the journal's entry.
    """

    mode: str
    order: int

    def __str__(self) -> str:
        return f"mode {self.mode} by {self.actor}: {self.reason}"
