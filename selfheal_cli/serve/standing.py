"""What the healer says of a model on the board, and what an operator may order there."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

HEALER = "healer"  # the board's topic


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Drift(_Told):
    """The last reading of the sensitive feature, in training standard deviations."""

    feature: str
    z: float
    threshold: float
    drifting: bool


class Judged(_Told):
    """Figures on ``rows`` rows whose labels have come, before anything learned from them."""

    rows: int
    figures: dict[str, float] = Field(default_factory=dict)


class Champion(_Told):
    """What the alias points to: since when, by whom, why; and whether another tool registered it,
    so that it is not served.
    """

    version: int
    since: str
    by: str
    reason: str
    foreign: bool = False


class Candidate(_Told):
    """A version that a rollback could restore."""

    version: int
    f1: float | None
    rows: int
    phase: str
    recipe: str
    at: str


class Happening(_Told):
    """A heal, a rollback or a move, newest first; ``text`` is one line for a person."""

    at: str
    kind: str
    text: str


class Standing(_Told):
    """How a model stands, by the process that heals or follows it. Times are ISO 8601 in UTC.

    ``state`` is HEALTHY, DRIFTING, HEALING or ROLLED_BACK where this process heals, FOLLOWING
    where another holds the lease (``holder``), WATCHING where healing is off (``error`` says why,
    or it was asked for), STARTING before the first batch. ``heals`` counts by outcome: healed,
    rejected, refused, failed, coalesced. ``waiting`` counts rows that were answered and not looked
    at yet, ``pending_writes`` what the registry does not have yet. ``labels_at`` is when a label
    came last. ``read_to`` is the request up to which the spool was read, ``spool`` says why reading
    did not go on where it was left, and ``begun_anew`` how often. ``notes`` counts rows and values
    that healing could not take as they came. ``no_champion`` says why there is none.
    """

    state: Literal[
        "STARTING", "HEALTHY", "DRIFTING", "HEALING", "ROLLED_BACK", "FOLLOWING", "WATCHING"
    ] = "STARTING"
    pid: int = 0
    run_id: str = ""
    holder: str = ""
    held_by: str = ""
    held_reason: str = ""
    error: str = ""
    batch: int = 0
    rows: int = 0
    waiting: int = 0
    pending_writes: int = 0
    drift: Drift | None = None
    monitors: dict[str, float] = Field(default_factory=dict)
    alarms: tuple[str, ...] = ()
    conflicts: int = 0
    heals: dict[str, int] = Field(default_factory=dict)
    rollbacks: int = 0
    labels: int = 0
    labels_unknown: int = 0
    labels_at: str = ""
    live: Judged | None = None
    shadow: Judged | None = None
    champion: Champion | None = None
    candidates: tuple[Candidate, ...] = ()
    happenings: tuple[Happening, ...] = ()
    registry_away: str = ""
    read_to: int = 0
    spool: str = ""
    begun_anew: int = 0
    notes: dict[str, int] = Field(default_factory=dict)
    no_champion: str = ""

    @property
    def reads(self) -> bool:
        """Whether the one who says so has a run that reads the spool, or is about to."""
        return self.state not in ("FOLLOWING", "WATCHING")

    def as_told(self) -> dict[str, Any]:
        """As it stands on the board."""
        return self.model_dump(mode="json")
