"""The journal of a model: every move of an alias, lease, hold and proposal, in one order.

MLflow keeps no history of its aliases and cannot compare and set. The one thing that every store
of it does atomically is to log a parameter, which can be written once and never changed. So entry
number n of the journal is a parameter called n: of all who want to write it one succeeds, and the
others see by whom they were overtaken. Each entry holds the digest of the one before and what it
did itself; what stands is folded from them, beginning at a checkpoint. Entries of selfheal 0.1.0
hold the whole standing as well, and are stored again as they were read.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Protocol

from selfheal_cli.errors import RegistryError
from selfheal_cli.records import AliasMove

GENESIS = "0" * 64
MAX_ENTRY = 5_500  # characters; MLflow takes 6,000
MAX_TEXT = 300  # characters of a reason
MAX_PROPOSALS = 5
ATTEMPTS = 100
WAITS = "proposed"  # what is told of a proposal that waits begins with
LEARNED_MORE = "has learned more"  # what the reason of one that took another's place ends with
STORED = ("sequence", "kind", "at", "actor", "data", "previous", "nonce")  # of each entry


class EntryKind(StrEnum):
    """What an entry tells."""

    MOVED = "alias-moved"
    LEASED = "leased"
    RELEASED = "lease-released"
    HELD = "healing-held"
    RESUMED = "healing-released"
    PROPOSED = "proposed"
    REJECTED = "proposal-rejected"
    PRUNED = "pruned"
    SPARED = "prune-withdrawn"
    FOUR_EYES = "four-eyes"
    MODE = "mode-set"
    APPROVED = "proposal-approved"  # by the first of two people
    REVOKED = "labels-revoked"  # those that one name told; data: by, since, labels
    ERASED = "rows-erased"  # of a person; data: rows, and nothing that names it
    DELETED = "deleted"  # runs, or the whole model: what is here of them is about to go


class Mark(StrEnum):
    """What is said of a move after it was written down."""

    CARRIED = "carried"  # by its writer: the alias was set
    FINISHED = "finished"  # by another: what its writer left was done


@dataclass(frozen=True, slots=True)
class Lease:
    """The one run that heals a model. ``four_eyes`` is its policy's word on moves by hand."""

    run: str
    holder: str
    since: str
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class Proposal:
    """A rollback that waits for a second person; ``after`` is the champion's move it builds on.

    One that ``loosens`` is no rollback: it would have one person be enough from then on. One with a
    ``snapshot`` is a heal's: made by a run, of what it judged, until it ``expires`` (ISO 8601,
    UTC); ``approved_by`` is the first person where two are wanted. It was made in a ``batch`` of
    its run, and stands for those since the ``first`` one that waited.
    """

    target: int
    sha256: str
    actor: str
    at: str
    reason: str
    after: int
    sequence: int = 0
    loosens: bool = False
    snapshot: str = ""
    expires: str = ""
    approved_by: str = ""
    batch: int = 0
    first: int = 0

    def reason_of(self, approval: str = "") -> str:
        """Why a move that comes of it is made, with what who approves it says."""
        more = f"; {approval}" if approval else ""
        return f"{self.reason} (proposed by {self.actor}{more})"

    def is_open(self, at: str, champion: int) -> bool:
        """Whether it can still be approved at a time, ``champion`` being the number of the
        champion's last move. A person's stays until somebody closes it.
        """
        return not self.snapshot or (at < self.expires and self.after == champion)


@dataclass(frozen=True, slots=True)
class ModeOrder:
    """What the heals of a served model may do, by whose word; ``policy`` is what the policy of the
    latest server that had a word on it said: the same word again orders nothing.
    """

    mode: str
    actor: str
    at: str
    reason: str
    policy: str = ""
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class Removal:
    """A version that somebody's prune is about to delete: no alias can be moved there any more."""

    version: int
    actor: str
    at: str
    sequence: int


@dataclass(frozen=True, slots=True)
class Hold:
    """Healing was stopped from outside; or paused by a ``run``, which keeps nobody from anything
    else.
    """

    actor: str
    at: str
    reason: str
    run: str = ""


@dataclass(frozen=True, slots=True)
class Fence:
    """A holder was taken for dead: of what it registers under its ``lease``, nothing counts that
    is later than ``versions``, the last version when it was taken over; ``by`` is the new lease.
    """

    lease: int
    versions: int
    by: int


@dataclass(frozen=True, slots=True)
class OpenMove:
    """A move that was written down, of which its writer did not say that the alias was set.

    ``finished`` where somebody else saw to that: then the writer may still do it, late.
    """

    move: AliasMove
    finished: bool = False


@dataclass(frozen=True, slots=True)
class JournalState:
    """What holds after an entry. ``moves`` has each alias's last move."""

    moves: Mapping[str, AliasMove] = field(default_factory=dict)
    lease: Lease | None = None
    hold: Hold | None = None
    proposals: tuple[Proposal, ...] = ()
    four_eyes: bool = False
    removals: tuple[Removal, ...] = ()
    fences: tuple[Fence, ...] = ()
    mode: ModeOrder | None = None
    open: tuple[OpenMove, ...] = field(default=(), compare=False)  # not by the entries alone

    def is_fenced(self, lease: int, version: int) -> bool:
        """Whether a version was registered under a lease that somebody else had by then."""
        return any(one.lease == lease and version > one.versions for one in self.fences)

    def marked(self, marks: Mapping[int, Mark]) -> JournalState:
        """With what was said of open moves since, by their numbers."""
        left = [one for one in self.open if marks.get(one.move.sequence) is not Mark.CARRIED]
        done = [replace(one, finished=True) if one.move.sequence in marks else one for one in left]
        return replace(self, open=tuple(done))

    def as_dict(self) -> dict[str, Any]:
        """The standing as JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> JournalState:
        """What `as_dict` gave, or what an entry of 0.1.0 holds."""
        return cls(
            {alias: AliasMove(**move) for alias, move in data["moves"].items()},
            Lease(**data["lease"]) if data["lease"] else None,
            Hold(**data["hold"]) if data["hold"] else None,
            tuple(Proposal(**one) for one in data["proposals"]),
            data["four_eyes"],
            tuple(Removal(**one) for one in data.get("removals", ())),
            tuple(Fence(**one) for one in data.get("fences", ())),
            ModeOrder(**data["mode"]) if data.get("mode") else None,
            tuple(
                OpenMove(AliasMove(**one["move"]), one["finished"]) for one in data.get("open", ())
            ),
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the journal; ``digest`` covers the whole of what is stored.

    ``standing`` is what holds after it, folded from the entries; 0.1.0 stored it with each, and
    what was ``stored`` then is part of the digest.
    """

    sequence: int
    kind: EntryKind
    at: str
    actor: str
    data: Mapping[str, Any]
    standing: JournalState
    previous: str
    nonce: str
    stored: Mapping[str, Any] | None = None

    def as_text(self) -> str:
        """The entry as it is stored."""
        text = {name: getattr(self, name) for name in STORED}
        if self.stored is not None:
            text["standing"] = self.stored
        return json.dumps(text, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @property
    def digest(self) -> str:
        """sha256 of the entry as it is stored."""
        return hashlib.sha256(self.as_text().encode()).hexdigest()


def parse_entry(text: str, where: str, before: JournalState) -> Entry:
    """An entry from its text and what stood before it; raises `RegistryError` naming ``where`` if
    it is none.
    """
    try:
        stored = json.loads(text)
        kind, data = EntryKind(stored["kind"]), stored["data"]
        whole = stored.get("standing")
        after = fold(before, kind, data) if whole is None else JournalState.from_dict(whole)
        return Entry(
            stored["sequence"],
            kind,
            stored["at"],
            stored["actor"],
            data,
            after,
            stored["previous"],
            stored["nonce"],
            whole,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise RegistryError(f"{where}: not an entry of a journal ({exc})") from exc


def fold(before: JournalState, kind: EntryKind, data: Mapping[str, Any]) -> JournalState:
    """What stands after an entry."""
    changes: dict[str, Any] = {}
    match kind:
        case EntryKind.MOVED:
            move = AliasMove(**data)
            changes["moves"] = {**before.moves, move.alias: move}
            changes["proposals"] = without(before.proposals, move.proposal)
            changes["open"] = (*before.open, OpenMove(move))
        case EntryKind.LEASED:
            if before.lease is not None and "versions" in data:
                fence = Fence(before.lease.sequence, data["versions"], data["sequence"])
                changes["fences"] = (*before.fences, fence)
            changes["lease"] = Lease(**{key: data[key] for key in Lease.__slots__})
            changes["four_eyes"] = data["four_eyes"]
        case EntryKind.RELEASED:
            held = before.lease
            if held is not None and (held.run, held.sequence) == (data["run"], data["lease"]):
                changes["lease"] = None
        case EntryKind.HELD:
            changes["hold"] = Hold(**data)
        case EntryKind.RESUMED:
            changes["hold"] = None
        case EntryKind.PROPOSED | EntryKind.APPROVED | EntryKind.REJECTED:
            changes["proposals"] = _proposals(before.proposals, kind, data)
        case EntryKind.PRUNED:
            removal = Removal(**{key: data[key] for key in Removal.__slots__})
            over = {removal.version, *data["done"]}
            changes["removals"] = (*_but(before.removals, over), removal)
        case EntryKind.SPARED:
            changes["removals"] = _but(before.removals, set(data["versions"]))
        case EntryKind.MODE:
            changes["mode"] = ModeOrder(**data)
        case EntryKind.FOUR_EYES:
            changes["four_eyes"] = data["on"]
            changes["proposals"] = without(before.proposals, data["proposal"])
    return replace(before, **changes)


def _proposals(
    known: tuple[Proposal, ...], kind: EntryKind, data: Mapping[str, Any]
) -> tuple[Proposal, ...]:
    if kind is EntryKind.PROPOSED:
        proposal = Proposal(**data)
        left = (one for one in known if one.is_open(proposal.at, proposal.after))
        return (*left, proposal)
    if kind is EntryKind.REJECTED:
        return without(known, data["proposal"])
    return tuple(
        replace(one, approved_by=data["by"]) if one.sequence == data["proposal"] else one
        for one in known
    )


def without(proposals: tuple[Proposal, ...], sequence: int | None) -> tuple[Proposal, ...]:
    """The proposals but one."""
    return tuple(one for one in proposals if one.sequence != sequence)


def _but(removals: tuple[Removal, ...], versions: Set[int]) -> tuple[Removal, ...]:
    """The removals of other versions."""
    return tuple(one for one in removals if one.version not in versions)


def _told_of(before: JournalState, entry: Entry) -> tuple[dict[int, str], set[int]]:
    """What an entry leaves to be told at versions of their proposals, and which wait."""
    now = entry.standing
    champion = now.moves["champion"].sequence if "champion" in now.moves else 0
    told, waiting = dict[int, str](), set[int]()
    for one in before.proposals:
        if not one.loosens:
            told[one.target] = f"{_ending(one, entry, champion)}; proposal {one.sequence}"
    for one in now.proposals:
        if one.loosens or not one.is_open(entry.at, champion):
            continue
        waiting.add(one.target)
        until = f" until {one.expires}" if one.expires else ""
        first = f", approved by {one.approved_by}" if one.approved_by else ""
        told[one.target] = f"{WAITS} by {one.actor}{until}{first}; proposal {one.sequence}"
    return told, waiting


def _ending(proposal: Proposal, entry: Entry, champion: int) -> str:
    """How a proposal ended that waits no more after an entry; ``champion`` is its last move."""
    mine = entry.data.get("proposal") == proposal.sequence
    if mine and entry.kind is EntryKind.MOVED:
        return f"approved by {entry.actor}"
    if mine and not str(entry.data.get("reason")).endswith(LEARNED_MORE):
        return f"rejected by {entry.actor}: {entry.data.get('reason')}"
    if mine:
        return f"superseded: {entry.data['reason']}"
    return "expired" if proposal.after == champion else "superseded: the champion was moved"


class JournalStore(Protocol):
    """Where entries are kept, each number written once."""

    def last_entry(self, model: str) -> Entry | None:
        """The latest entry, None where nothing was written."""

    def put_entry(self, model: str, entry: Entry) -> bool:
        """Store the entry unless its number is taken by another; returns whether it is stored."""

    def entries(self, model: str) -> Iterator[Entry]:
        """All entries, oldest first."""

    def mark_move(self, model: str, sequence: int, mark: Mark) -> None:
        """Say of a move that its alias was set; `JournalState.open` tells of the others."""

    def show_proposals(self, model: str, told: Mapping[int, str], waiting: Set[int]) -> None:
        """Show at versions, by their numbers, what became of proposing them: for whoever browses
        them, and nobody reads it back. Others than those ``waiting`` wait no more. Raises nothing:
        the next entry beside a proposal tries again.
        """


# from the standing before and the entry's number: the entry's data
Draft = Callable[[JournalState, int], Mapping[str, Any]]


def standing(store: JournalStore, model: str) -> JournalState:
    """What holds now."""
    last = store.last_entry(model)
    return last.standing if last else JournalState()


def write(
    store: JournalStore, model: str, kind: EntryKind, draft: Draft, *, actor: str, at: str
) -> Entry:
    """Append an entry. ``draft`` sees what stands and raises where that forbids the entry.

    It is asked again whenever somebody else's entry came first.
    """
    for _ in range(ATTEMPTS):
        last = store.last_entry(model)
        before, sequence = (last.standing, last.sequence + 1) if last else (JournalState(), 1)
        data = draft(before, sequence)
        previous = last.digest if last else GENESIS
        after = fold(before, kind, data)
        entry = Entry(sequence, kind, at, actor, data, after, previous, uuid.uuid4().hex)
        size = len(entry.as_text())
        if size > MAX_ENTRY:
            raise RegistryError(
                f"journal of '{model}': entry {sequence} ({kind}) has {size} characters, of which "
                f"a journal takes {MAX_ENTRY}; give shorter names and reasons"
            )
        if store.put_entry(model, entry):
            told, waiting = _told_of(before, entry)
            if told:
                store.show_proposals(model, told, waiting)
            return entry
    raise RegistryError(f"journal of '{model}': {ATTEMPTS} others were faster; try again")
