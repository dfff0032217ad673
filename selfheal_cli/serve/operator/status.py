"""What the healer says of a model on the channel, and what an operator may order there."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from selfheal_cli.report.gains import FigureGain
from selfheal_cli.spool.control import ControlChannel

REPLICA = "replica:"  # each replica's topic begins so, where several share a log
HEALER = "healer"  # the healer's topic of the control channel


class _Reported(BaseModel):
    # on a shared log the healer may be of a later release, which says more
    model_config = ConfigDict(frozen=True, extra="ignore")


class Drift(_Reported):
    """The last reading of the sensitive feature, in training standard deviations."""

    feature: str
    z: float
    threshold: float
    drifting: bool


class Judged(_Reported):
    """Figures on ``rows`` rows whose labels have come, before anything learned from them."""

    rows: int
    figures: dict[str, float] = Field(default_factory=dict)


class Champion(_Reported):
    """What the alias points to: since when, by whom, why; and whether another tool registered it,
    so that it is not served.
    """

    version: int
    since: str
    by: str
    reason: str
    foreign: bool = False


class Candidate(_Reported):
    """A version that a rollback could restore."""

    version: int
    f1: float | None
    rows: int
    phase: str
    recipe: str
    at: str


class Happening(_Reported):
    """A heal, a rollback or a move, newest first; ``text`` is one line for a person."""

    at: str
    kind: str
    text: str


class SegmentDrifted(_Reported):
    """A segment that drifted in a column: how far its last rows are from its training rows, and
    the batch in which it was named.
    """

    by: str
    segment: str
    column: str
    effect: float
    evidence: float
    rows: int
    since: int


class Proposed(_Reported):
    """What waits for a person's approval, until ``expires`` where it does."""

    number: int
    version: int
    by: str
    at: str
    reason: str
    expires: str = ""
    approved_by: str = ""


class Trial(_Reported):
    """A canary: its ``version``, None before the registry has numbered it, answers a ``share`` of
    the requests, by column ``by`` or by their ids, ``since`` a time and no longer than ``until``.

    ``difference`` is the champion's log loss a row minus the canary's on ``rows`` labelled rows in
    ``batches``, ``low`` and ``high`` bound it at ``level``; it is promoted once ``low`` is above
    minus ``margin``, and withdrawn once ``high`` is below 0.
    """

    version: int | None
    snapshot: str
    share: float
    by: str
    since: str
    until: str
    margin: float
    level: float
    batches: int = 0
    rows: int = 0
    difference: float | None = None
    low: float | None = None
    high: float | None = None


class Stretch(_Reported):
    """``batches`` from ``batch`` on, the last of them gone through at ``at``: their mean drift
    reading, the labels that came for them, and the accuracy on these of live and shadow; and the
    share of requests that a canary was to answer, on average.
    """

    at: str
    batch: int
    batches: int
    z: float | None
    labels: int
    live: float | None
    shadow: float | None
    canary: float = 0.0


class ModelStatus(_Reported):
    """How a model stands, by the process that heals or follows it. Times are ISO 8601 in UTC.

    ``state`` is HEALTHY, DRIFTING, HEALING or ROLLED_BACK where this process heals, FOLLOWING
    where another holds the lease (``holder``), WATCHING where healing is off (``error`` says why,
    or it was asked for), STARTING before the first batch; the server says BEHIND where rows wait
    and it does not come to them. ``heals`` counts by outcome: healed, rejected, refused, failed,
    coalesced. ``waiting`` counts rows that were answered and not looked at yet,
    ``pending_writes`` what the registry does not have yet. ``labels_at`` is when a label came
    last. ``read_to`` is the request up to which the spool was read, ``spool`` says why reading did
    not go on where it was left, and ``begun_anew`` how often. ``notes`` counts rows and values
    that healing could not take as they came. ``no_champion`` says why there is none. ``history``
    is the run's course, in stretches of equally many batches. ``segments`` are those that were
    named as drifted, the furthest first. ``mode`` is
    what heals may do, by whose word and why; empty until the registry was asked. ``allowed`` says
    it in words, with the budget.
    ``compared`` is what healing gives against the shadow, each figure with its interval.
    ``canary`` is what is tried beside the champion, ``as_trained`` what the frozen network got on
    rows that were held out of its training.
    """

    state: Literal[
        "STARTING",
        "HEALTHY",
        "DRIFTING",
        "HEALING",
        "ROLLED_BACK",
        "FOLLOWING",
        "WATCHING",
        "BEHIND",
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
    as_trained: Judged | None = None
    compared: tuple[FigureGain, ...] = ()
    champion: Champion | None = None
    candidates: tuple[Candidate, ...] = ()
    happenings: tuple[Happening, ...] = ()
    registry_away: str = ""
    read_to: int = 0
    spool: str = ""
    begun_anew: int = 0
    notes: dict[str, int] = Field(default_factory=dict)
    no_champion: str = ""
    mode: str = ""
    mode_by: str = ""
    mode_reason: str = ""
    allowed: str = ""
    proposals: tuple[Proposed, ...] = ()
    history: tuple[Stretch, ...] = ()
    segments: tuple[SegmentDrifted, ...] = ()
    canary: Trial | None = None
    canaries: dict[str, int] = Field(default_factory=dict)

    @property
    def reads(self) -> bool:
        """Whether the one who says so has a run that reads the spool, or is about to."""
        return self.state not in ("FOLLOWING", "WATCHING")

    def as_status(self) -> dict[str, Any]:
        """As it stands on the control channel."""
        return self.model_dump(mode="json")


def lifts(standing: ModelStatus) -> dict[str, float]:
    """Live minus shadow, of F1 and accuracy where both are known."""
    if standing.live is None or standing.shadow is None:
        return {}
    live, shadow = standing.live.figures, standing.shadow.figures
    return {
        name: live[name] - shadow[name]
        for name in ("f1", "accuracy")
        if name in live and name in shadow
    }


STALLED_SECONDS = 60.0  # for which rows wait before the healer counts as behind
SILENT_SECONDS = 15.0  # after so long without a word the healer counts as down


class ServerInfo(BaseModel):
    """What the scoring process knows of itself.

    ``version`` is what it answers with now, None while the registry has not numbered it.
    ``queue`` counts rows that are not on disk yet, ``unrecorded`` those that never will be, and
    ``conflicting`` those of them whose request id stood for other rows already; ``kept`` rows are
    in the spool, and ``unread`` of them no healer here has looked at; ``lost`` were forgotten
    before the healer read them, and for ``stalled`` seconds it has read none of those that wait.
    ``recording`` and ``following`` say what does not work there.
    ``started`` is in seconds since 1970. Of ``workers`` processes that score ``workers_up`` do;
    ``worker_restarts`` counts those that ended by themselves. ``canary_rows`` were answered by
    canaries, the one of which is ``canary_version`` where it has a number.
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
    stalled: float = 0.0
    recording: str = ""
    following: str = ""
    started: float = 0.0
    workers: int = 1
    workers_up: int = 1
    worker_restarts: int = 0
    canary_version: int | None = None
    canary_rows: int = 0


class ReplicaWord(BaseModel):
    """What one of the replicas that share a log said last, ``at`` in seconds since 1970.

    ``held_back`` says whose open transaction keeps the healer from rows of the log.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")  # a later release may say more

    name: str
    at: float
    version: int | None = None
    snapshot: str = ""
    queue: int = 0
    unrecorded: int = 0
    following: str = ""
    held_back: str = ""


class Word(BaseModel):
    """The healer's last word, ``age`` seconds old; None where it never said one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    standing: ModelStatus
    age: float | None

    @property
    def heals(self) -> bool:
        """Whether a run heals here, which reads the spool."""
        return self.age is not None and self.age < SILENT_SECONDS and self.standing.reads


class StatusSnapshot(BaseModel):
    """The whole of it at one moment, ``at`` in seconds since 1970.

    ``age`` is the seconds since the healer's last word, None where it never said one. ``replicas``
    are those that share a log, where one does.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    server: ServerInfo
    standing: ModelStatus = Field(default_factory=ModelStatus)
    age: float | None = None
    at: float
    replicas: tuple[ReplicaWord, ...] = ()

    @property
    def healer_up(self) -> bool:
        """Whether the healer has spoken lately."""
        return self.age is not None and self.age < SILENT_SECONDS

    @property
    def label_age(self) -> float | None:
        """Seconds since a label came last, None where none ever did."""
        return since(self.standing.labels_at, self.at)


def look(
    channel: ControlChannel,
    facts: Callable[[], ServerInfo],
    clock: Callable[[], float] | None = None,
) -> StatusSnapshot:
    """Read the channel once. Raises `StorageError` where its file cannot be used."""
    now, server = (clock or channel.now)(), facts()
    word = last_word(channel, now)
    standing = word.standing
    silent = word.age if word.age is not None else now - (server.started or now)
    if server.stalled > STALLED_SECONDS or (
        silent > SILENT_SECONDS and standing.reads and server.unread
    ):
        standing = standing.model_copy(update={"state": "BEHIND", "waiting": server.unread})
    elif not word.heals:  # then nobody else counts them
        standing = standing.model_copy(update={"waiting": server.unread})
    replicas = tuple(ReplicaWord(**said) for said in channel.statuses(REPLICA))
    return StatusSnapshot(server=server, standing=standing, age=word.age, at=now, replicas=replicas)


def last_word(channel: ControlChannel, now: float) -> Word:
    """What the healer said last. Raises `StorageError` where the channel cannot be used."""
    data, said = channel.status(HEALER)
    return Word(standing=ModelStatus(**data), age=max(0.0, now - said) if said else None)


def since(moment: str, now: float) -> float | None:
    """Seconds from an ISO 8601 time until ``now``; None for no time."""
    if not moment:
        return None
    return max(0.0, now - datetime.fromisoformat(moment).timestamp())
