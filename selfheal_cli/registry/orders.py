"""What was ordered of a model, in its journal: holds, modes, proposals, four eyes, removals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Literal, get_args

from selfheal_cli.actor import same_person
from selfheal_cli.errors import ApprovalNeeded, ConfigurationError, ConflictError, RegistryError
from selfheal_cli.registry.base import CHAMPION, Registry
from selfheal_cli.registry.journal import (
    MAX_PROPOSALS,
    MAX_TEXT,
    EntryKind,
    Hold,
    JournalState,
    ModeOrder,
    Proposal,
    standing,
    write,
)

Mode = Literal["auto", "recommend", "shadow", "off"]
MODES: tuple[Mode, ...] = get_args(Mode)
AUTO: Mode = "auto"
CLEAN = "clean of labels taken back"  # what the reason of such a proposal begins with
REBUILT = "corrected labels"  # why a heal was asked for that learned without them
STANDS: Mapping[str, str] = {
    "auto": "heals serve within the budget, and are proposed beyond it",
    "recommend": "heals are proposed, and serve once somebody approves",
    "shadow": "heals are registered, and nothing is published",
    "off": "no heal is made",
}


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


def pause(registry: Registry, model: str, wanted: Hold, *, again: bool) -> bool:
    """Stop the healing of a model by the word of a run; False where it is stopped already, or, with
    ``again``, was stopped by this very word before.
    """
    told = asdict(wanted)
    if standing(registry, model).hold is not None or (
        again and any(one.data == told for one in registry.entries(model))
    ):
        return False
    hold(registry, model, wanted, actor=wanted.actor, at=wanted.at)
    return True


def known_mode(word: object) -> Mode:
    """A mode by its word; raises `ConfigurationError` for another word."""
    for mode in MODES:
        if word == mode:
            return mode
    raise ConfigurationError(f"mode {word!r}: {', '.join(MODES)} are known")


def mode_of(now: JournalState) -> str:
    """What the heals of a served model may do; `auto` where nobody has said anything."""
    return now.mode.mode if now.mode else AUTO


def set_mode(
    registry: Registry,
    model: str,
    mode: str,
    *,
    actor: str,
    at: str,
    reason: str,
    by_policy: bool = False,
) -> ModeOrder | None:
    """Order what a served model's heals may do; returns what stood before.

    A policy's word counts once, when it is new: what a person ordered since stays.
    """
    before: list[ModeOrder | None] = []

    def draft(now: JournalState, sequence: int) -> Mapping[str, Any]:
        before.append(now.mode)
        policy = mode if by_policy else now.mode.policy if now.mode else ""
        return asdict(ModeOrder(mode, actor, at, reason[:MAX_TEXT], policy, sequence))

    write(registry, model, EntryKind.MODE, draft, actor=actor, at=at)
    return before[-1]


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
        others = [one for one in before.proposals if one.is_open(wanted.at, wanted.after)]
        first = wanted.batch
        if wanted.snapshot:
            _require_alone(before, others, wanted, model)
            first = next((one.first for one in others if one.snapshot and one.first), first)
        if len(others) >= MAX_PROPOSALS:
            raise RegistryError(
                f"model '{model}' has {MAX_PROPOSALS} open proposals; approve or reject one first"
            )
        require_kept(before, model, wanted.target)
        reason = wanted.reason[:MAX_TEXT]
        return asdict(replace(wanted, sequence=sequence, reason=reason, first=first))

    who = {"actor": wanted.actor, "at": wanted.at}
    entry = write(registry, model, EntryKind.PROPOSED, draft, **who)
    return entry.standing.proposals[-1]


def proposed_before(registry: Registry, model: str, snapshot: str) -> Proposal | None:
    """The proposal of a heal's snapshot, open or not; None where there is none yet."""
    for entry in registry.entries(model):
        if entry.kind is EntryKind.PROPOSED and entry.data.get("snapshot") == snapshot:
            return Proposal(**entry.data)
    return None


def _require_alone(
    now: JournalState, others: Sequence[Proposal], wanted: Proposal, model: str
) -> None:
    """Raise `ConflictError` where a heal's proposal has no use: another one's is open, or the
    champion has moved.
    """
    champion = now.moves.get(CHAMPION)
    if champion is not None and champion.sequence != wanted.after:
        raise ConflictError(
            f"the champion of '{model}' was moved to v{champion.target} by {champion.actor} since "
            f"v{wanted.target} was judged"
        )
    for waiting in others:
        if waiting.snapshot and not supersedes(wanted, waiting):
            raise ConflictError(
                f"proposal {waiting.sequence} of '{model}', v{waiting.target}, is open until "
                f"{waiting.expires}: v{wanted.target} waits"
            )


def supersedes(wanted: Proposal, waiting: Proposal) -> bool:
    """Whether the newer proposal knows all that the one that waits does, and much more.

    A heal without labels that were taken back, where the last version before them waits; and a
    later heal, unless one of two people approved the one that waits. While nobody looks, each
    stands twice as many batches as the one before: whoever is told is told a few times a day.
    """
    if not (wanted.batch and waiting.batch):
        return waiting.reason.startswith(CLEAN) and REBUILT in wanted.reason
    if waiting.approved_by:
        return False
    if run_of(wanted) != run_of(waiting):  # whose healer has ended
        return True
    return wanted.batch - waiting.first >= max(1, 2 * (waiting.batch - waiting.first))


def run_of(proposal: Proposal) -> str:
    """The run, shortened, that a heal's proposal is of."""
    return proposal.snapshot.partition("-")[0]


def approve_first(
    registry: Registry, model: str, sequence: int, *, actor: str, at: str, reason: str
) -> None:
    """The first of two people who approve a heal's proposal; the second carries it out."""

    def draft(before: JournalState, _: int) -> Mapping[str, Any]:
        require_fresh(open_proposal(before, model, sequence), at)
        return {"proposal": sequence, "by": actor, "reason": reason[:MAX_TEXT]}

    write(registry, model, EntryKind.APPROVED, draft, actor=actor, at=at)


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


def second_person(
    now: JournalState, model: str, proposal: int, actor: str, at: str, *, four_eyes: bool = False
) -> Proposal:
    """An open proposal, for somebody who did not make it; of a heal's, which nobody made, for
    anybody, and with ``four_eyes`` for the second one to approve it.
    """
    proposed = open_proposal(now, model, proposal)
    if proposed.snapshot:
        require_fresh(proposed, at)
        if four_eyes and not needs_no_other(proposed, actor):
            raise ApprovalNeeded(
                f"'{model}' wants two people for a move of its champion, and proposal "
                f"{proposed.sequence} has the approval of {proposed.approved_by or 'nobody'}: "
                "somebody else must approve it, too"
            )
    elif same_person(proposed.actor, actor):
        raise ApprovalNeeded(
            f"proposal {proposed.sequence} is {proposed.actor}'s own; somebody else must approve it"
        )
    return proposed


def require_fresh(proposed: Proposal, at: str) -> None:
    """Raise `ConflictError` where a proposal has expired by then."""
    if proposed.expires and at >= proposed.expires:
        raise ConflictError(
            f"proposal {proposed.sequence} expired at {proposed.expires}: what v{proposed.target} "
            "was judged on is too old; reject it, and the next heal is proposed"
        )


def needs_no_other(proposed: Proposal, actor: str) -> bool:
    """Whether somebody else than this person has approved a heal's proposal."""
    return bool(proposed.approved_by) and not same_person(proposed.approved_by, actor)


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
            if not second_person(before, model, proposal, actor, at).loosens:
                raise RegistryError(f"proposal {proposal} is a rollback, and loosens no rule")
        return {"on": on, "proposal": proposal, "reason": reason[:MAX_TEXT]}

    write(registry, model, EntryKind.FOUR_EYES, draft, actor=actor, at=at)


def note_labels(
    registry: Registry,
    model: str,
    kind: Literal[EntryKind.REVOKED, EntryKind.ERASED],
    told: Mapping[str, Any],
    *,
    actor: str,
    at: str,
) -> None:
    """Write down that labels were taken back, or that rows were erased; ``told`` has a reason."""
    data = {**told, "reason": str(told["reason"])[:MAX_TEXT]}
    write(registry, model, kind, lambda *_: data, actor=actor, at=at)
