"""What people ordered of a model, in its journal: holds, proposals, four eyes, removals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from selfheal_cli.actor import same_person
from selfheal_cli.errors import ApprovalNeeded, ConflictError, RegistryError
from selfheal_cli.registry.base import Registry
from selfheal_cli.registry.journal import (
    MAX_PROPOSALS,
    MAX_TEXT,
    EntryKind,
    Hold,
    JournalState,
    Proposal,
    write,
)


def hold(
    registry: Registry, model: str, wanted: Hold | None, *, actor: str, at: str
) -> JournalState:
    """Stop the healing of a model, or with None allow it again; returns what stood before."""
    seen: list[JournalState] = []

    def draft(before: JournalState, sequence: int) -> Mapping[str, Any]:
        seen.append(before)
        return asdict(wanted) if wanted else {}

    kind = EntryKind.HELD if wanted else EntryKind.RESUMED
    write(registry, model, kind, draft, actor=actor, at=at)
    return seen[-1]


def require_kept(now: JournalState, model: str, version: int) -> None:
    """Raise `ConflictError` for a version that a prune is about to delete."""
    for removal in now.removals:
        if removal.version == version:
            raise ConflictError(
                f"{model} v{version} is being removed by the 'selfheal prune' of {removal.actor} "
                f"since {removal.at}; if that was interrupted, the next one decides anew"
            )


def open_proposal(now: JournalState, model: str, sequence: int) -> Proposal:
    """An open proposal by its number; raises `RegistryError` naming those that are open."""
    for proposal in now.proposals:
        if proposal.sequence == sequence:
            return proposal
    numbers = ", ".join(str(one.sequence) for one in now.proposals) or "none"
    raise RegistryError(f"model '{model}' has no open proposal {sequence}; open: {numbers}")


def propose(registry: Registry, model: str, wanted: Proposal) -> Proposal:
    """Write a proposal down; its number is given by the journal."""

    def draft(before: JournalState, sequence: int) -> Mapping[str, Any]:
        if len(before.proposals) >= MAX_PROPOSALS:
            raise RegistryError(
                f"model '{model}' has {MAX_PROPOSALS} open proposals; approve or reject one first"
            )
        require_kept(before, model, wanted.target)
        return asdict(replace(wanted, sequence=sequence, reason=wanted.reason[:MAX_TEXT]))

    who = {"actor": wanted.actor, "at": wanted.at}
    entry = write(registry, model, EntryKind.PROPOSED, draft, **who)
    return entry.standing.proposals[-1]


def reject(
    registry: Registry, model: str, sequence: int, *, actor: str, at: str, reason: str
) -> Proposal:
    """Close a proposal without carrying it out; its own author may do it as well."""
    closed: list[Proposal] = []

    def draft(before: JournalState, _: int) -> Mapping[str, Any]:
        closed.append(open_proposal(before, model, sequence))
        return {"proposal": sequence, "reason": reason[:MAX_TEXT]}

    write(registry, model, EntryKind.REJECTED, draft, actor=actor, at=at)
    return closed[-1]


def second_person(now: JournalState, model: str, proposal: int, actor: str) -> Proposal:
    """An open proposal, for somebody who did not make it."""
    proposed = open_proposal(now, model, proposal)
    if same_person(proposed.actor, actor):
        raise ApprovalNeeded(
            f"proposal {proposed.sequence} is {proposed.actor}'s own; somebody else must approve it"
        )
    return proposed


def set_four_eyes(
    registry: Registry,
    model: str,
    *,
    on: bool,
    actor: str,
    at: str,
    reason: str,
    proposal: int | None = None,
) -> None:
    """Have a model want two people for a move of its champion, or no more.

    Anybody may set the rule. To loosen it takes an open proposal by somebody else; raises
    `ApprovalNeeded`.
    """

    def draft(before: JournalState, _: int) -> Mapping[str, Any]:
        if before.four_eyes and not on:
            if proposal is None:
                raise ApprovalNeeded(
                    f"'{model}' wants two people, also to want that no more: propose it with "
                    "'selfheal four-eyes --off', and let somebody else run 'selfheal approve'"
                )
            if not second_person(before, model, proposal, actor).loosens:
                raise RegistryError(f"proposal {proposal} is a rollback, and loosens no rule")
        return {"on": on, "proposal": proposal, "reason": reason[:MAX_TEXT]}

    write(registry, model, EntryKind.FOUR_EYES, draft, actor=actor, at=at)
