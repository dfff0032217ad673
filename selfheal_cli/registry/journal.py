"""The journal of a model: every move of an alias, lease, hold and proposal, in one order.

MLflow keeps no history of its aliases and cannot compare and set. The one thing that every store
of it does atomically is to log a parameter, which can be written once and never changed. So entry
number n of the journal is a parameter called n: of all who want to write it one succeeds, and the
others see by whom they were overtaken. Each entry holds the digest of the one before, and what
stands after it, so that the last entry alone says what serves and who holds the lease.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Iterator, Mapping
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


@dataclass(frozen=True, slots=True)
class Lease:
    """The one run that heals a model. ``four_eyes`` is its policy's word on moves by hand."""

    run: str
    holder: str
    since: str
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class Proposal:
    """A rollback that waits for a second person; ``after`` is the champion's move it builds on."""

    target: int
    sha256: str
    actor: str
    at: str
    reason: str
    after: int
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class Hold:
    """Healing was stopped from outside."""

    actor: str
    at: str
    reason: str


@dataclass(frozen=True, slots=True)
class Standing:
    """What holds after an entry. ``moves`` has each alias's last move."""

    moves: Mapping[str, AliasMove] = field(default_factory=dict)
    lease: Lease | None = None
    hold: Hold | None = None
    proposals: tuple[Proposal, ...] = ()
    four_eyes: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the journal; ``digest`` covers the whole of it."""

    sequence: int
    kind: EntryKind
    at: str
    actor: str
    data: Mapping[str, Any]
    standing: Standing
    previous: str
    nonce: str

    def as_text(self) -> str:
        """The entry as it is stored."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @property
    def digest(self) -> str:
        """sha256 of the entry as it is stored."""
        return hashlib.sha256(self.as_text().encode()).hexdigest()


def parse_entry(text: str, where: str) -> Entry:
    """An entry from its text; raises `RegistryError` naming ``where`` if it is none."""
    try:
        found = json.loads(text)
        standing = found["standing"]
        return Entry(
            found["sequence"],
            EntryKind(found["kind"]),
            found["at"],
            found["actor"],
            found["data"],
            Standing(
                {alias: AliasMove(**move) for alias, move in standing["moves"].items()},
                Lease(**standing["lease"]) if standing["lease"] else None,
                Hold(**standing["hold"]) if standing["hold"] else None,
                tuple(Proposal(**one) for one in standing["proposals"]),
                standing["four_eyes"],
            ),
            found["previous"],
            found["nonce"],
        )
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise RegistryError(f"{where}: not an entry of a journal ({exc})") from exc


class JournalStore(Protocol):
    """Where entries are kept, each number written once."""

    def last_entry(self, model: str) -> Entry | None:
        """The latest entry, None where nothing was written."""

    def put_entry(self, model: str, entry: Entry) -> Entry:
        """Store the entry unless its number is taken; returns what stands there."""

    def entries(self, model: str) -> Iterator[Entry]:
        """All entries, oldest first."""


# from the standing before and the entry's number: the entry's data, and the standing after it
Draft = Callable[[Standing, int], tuple[Mapping[str, Any], Standing]]


def standing(store: JournalStore, model: str) -> Standing:
    """What holds now."""
    last = store.last_entry(model)
    return last.standing if last else Standing()


def write(
    store: JournalStore, model: str, kind: EntryKind, draft: Draft, *, actor: str, at: str
) -> Entry:
    """Append an entry. ``draft`` sees what stands and raises where that forbids the entry.

    It is asked again whenever somebody else's entry came first.
    """
    for _ in range(ATTEMPTS):
        last = store.last_entry(model)
        sequence = last.sequence + 1 if last else 1
        data, after = draft(last.standing if last else Standing(), sequence)
        previous = last.digest if last else GENESIS
        entry = Entry(sequence, kind, at, actor, data, after, previous, uuid.uuid4().hex)
        if len(entry.as_text()) > MAX_ENTRY:
            raise RegistryError(
                f"journal of '{model}': the entry is longer than {MAX_ENTRY} characters; "
                "settle open proposals with 'selfheal approve' or 'selfheal reject'"
            )
        if store.put_entry(model, entry) == entry:
            return entry
    raise RegistryError(f"journal of '{model}': {ATTEMPTS} others were faster; try again")


def with_move(before: Standing, move: AliasMove) -> Standing:
    """The standing after an alias was moved; a proposal that it carries out is closed."""
    return replace(
        before,
        moves={**before.moves, move.alias: move},
        proposals=without(before.proposals, move.proposal),
    )


def without(proposals: tuple[Proposal, ...], sequence: int | None) -> tuple[Proposal, ...]:
    """The proposals but one."""
    return tuple(one for one in proposals if one.sequence != sequence)
