"""An alias as the journal has it: set, read back, and put right where its writer was interrupted.

A move is written into the journal first; then the alias is set, which MLflow does whatever was set
meanwhile. So whoever sets one looks at the journal afterwards, and what a writer left that was
killed or frozen in between is seen by the marks that are missing in the journal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from selfheal_cli.errors import (
    ApprovalNeeded,
    ConflictError,
    RegistryError,
    RegistryRestored,
)
from selfheal_cli.records import AliasMove, ForeignVersion
from selfheal_cli.registry.base import CANARY, CHAMPION, NOTHING, Registry
from selfheal_cli.registry.journal import (
    ATTEMPTS,
    MAX_TEXT,
    EntryKind,
    JournalState,
    Mark,
    standing,
    write,
)
from selfheal_cli.registry.lease import require_held
from selfheal_cli.registry.orders import require_kept, second_person

LATE = 20  # entries of the journal: who wrote an earlier move is not under way any more


@dataclass(frozen=True, slots=True)
class Unsettled:
    """An alias that is not what the journal's last ``move`` of it says, by no other tool's doing.

    The move was begun and not finished; or an earlier one was carried out ``late``, after it.
    """

    move: AliasMove
    reads: int | None
    late: bool

    def __str__(self) -> str:
        move = self.move
        to = f"v{move.target}" if move.target != NOTHING else "nothing"
        last = f"the move of '{move.alias}' to {to} by {move.actor} at {move.at}"
        reads = "nothing" if self.reads is None else f"v{self.reads}"
        if self.late:
            return f"{last} was undone by an earlier one, to {reads}, that was carried out late"
        return f"{last} was begun and not finished: it is {reads} still"


# is told of each that was put right
OnSettled = Callable[[Unsettled], None]


def untold(left: Unsettled) -> None:
    """For whoever has nobody to tell."""


def carry_out(registry: Registry, move: AliasMove, mark: Mark = Mark.CARRIED) -> None:
    """Set an alias as its last move in the journal has it, read it back, and mark the move.

    Whoever moved it later may have set it already; then the later move counts. Who carries out an
    earlier one late puts it right as well, but it is read before that: it is set again.
    """
    last = move
    for _ in range(ATTEMPTS):
        registry.set_alias(last.model, last.alias, last.target)
        now = standing(registry, last.model).moves[last.alias]
        if now == last:
            reads = registry.alias(last.model, last.alias)
            if (reads or NOTHING) == last.target:
                break
            now = standing(registry, last.model).moves[last.alias]
            if now == last and not _came_late(registry, last, reads):
                raise _moved_aside(last, reads)
        last = now
    else:
        raise _moved_aside(last, registry.alias(last.model, last.alias))
    registry.mark_move(move.model, move.sequence, mark)


def _came_late(registry: Registry, last: AliasMove, reads: int | None) -> bool:
    """Whether an alias reads as an earlier move had it."""
    return reads in _targets(registry, last.model, last.alias, last.sequence - LATE)


def _moved_aside(last: AliasMove, reads: int | None) -> RegistryError:
    return RegistryError(
        f"alias '{last.alias}' of '{last.model}' was set to v{last.target} and reads "
        f"v{reads}: another tool moves it; see 'selfheal audit'"
    )


def unsettled(
    registry: Registry, model: str, alias: str, now: JournalState | None = None
) -> Unsettled | None:
    """What an interrupted writer left of an alias, if one did; ``now`` is what the journal says."""
    now = now or standing(registry, model)
    last = now.moves.get(alias)
    left = [one for one in now.open if one.move.alias == alias]
    if last is None or not left:
        return None
    reads = registry.alias(model, alias)
    if (reads or NOTHING) == last.target:
        return None
    newest, oldest = left[-1], left[0].move.sequence
    if newest.move == last and not newest.finished and reads == last.source:
        return Unsettled(last, reads, late=False)
    if oldest < last.sequence and reads in _targets(registry, model, alias, oldest):
        return Unsettled(last, reads, late=True)
    return None


def settle(registry: Registry, model: str, now: JournalState | None = None) -> list[Unsettled]:
    """Finish what interrupted writers left, and undo what they did late; returns what it was."""
    now = now or standing(registry, model)
    settled = []
    for alias in sorted({one.move.alias for one in now.open}):
        left = unsettled(registry, model, alias, now)
        if left is None:
            continue
        carry_out(registry, left.move, Mark.FINISHED)
        for one in now.open if left.late else ():
            if one.move.alias == alias and one.move != left.move:
                registry.mark_move(model, one.move.sequence, Mark.CARRIED)  # it has come by now
        settled.append(left)
    return settled


def _targets(registry: Registry, model: str, alias: str, since: int) -> set[int]:
    """Where an alias was moved by entry ``since`` and those after it."""
    return {
        entry.data["target"]
        for entry in registry.entries(model)
        if entry.sequence >= since
        and entry.kind is EntryKind.MOVED
        and entry.data["alias"] == alias
    }


@dataclass(frozen=True, slots=True)
class Move:
    """A move that is wanted.

    ``after`` is the number of the last move of the alias that was known when it was decided: a
    later one by anybody else (another run, or a person) refuses it. None asks for no such thing.
    """

    model: str
    alias: str
    target: int
    actor: str
    at: str
    reason: str
    run: str = ""
    key: str = ""
    after: int | None = None
    proposal: int | None = None
    four_eyes: bool = False  # as the mover's own policy has it; the model's may be stricter
    promotes: bool = False  # puts a network in front that nobody healed: a hold forbids it
    lease: int = 0  # the number of the lease that a run moves under
    snapshot: str = ""  # what the target must be, where that is known


def move_alias(registry: Registry, wanted: Move) -> AliasMove:
    """Write a move into the journal, then set the alias and read it back.

    Raises `VersionNotFound` for an unknown version, `ConflictError` where somebody else moved the
    alias since ``after``, `ApprovalNeeded` where the model's policy wants a second person,
    `LeaseHeld` for a run whose ``lease`` was taken over. A move whose ``key`` is that of the
    alias's last move was made before: the alias is set again, and nothing new is written. What an
    interrupted writer left of the alias is settled first.
    """
    settled = False

    def draft(before: JournalState, sequence: int) -> Mapping[str, Any]:
        if _is_made(before, wanted):
            _require_lease(before, wanted)
            raise _Stands(before)
        if before.open and not settled:
            raise _Stands(before)
        # looked at in here: a prune that claimed it earlier has deleted it, and one that claims it
        # from now on writes the entry that this one was to be
        _require_lease(before, wanted)
        if wanted.target != NOTHING:
            _require_snapshot(registry.snapshot_of(wanted.model, wanted.target), wanted)
        require_kept(before, wanted.model, wanted.target)
        _require_not_overtaken(before, wanted)
        require_allowed(before, wanted)
        source = _source(registry, before, wanted)
        _require_own(registry, before, wanted, source)
        move = AliasMove(
            wanted.model,
            wanted.alias,
            source,
            wanted.target,
            wanted.actor,
            wanted.at,
            wanted.reason[:MAX_TEXT],
            sequence,
            wanted.run,
            wanted.key,
            wanted.proposal,
        )
        return move.as_dict()

    while True:
        try:
            entry = write(
                registry, wanted.model, EntryKind.MOVED, draft, actor=wanted.actor, at=wanted.at
            )
            move = entry.standing.moves[wanted.alias]
            break
        except _Stands as stands:
            if _is_made(stands.now, wanted):
                move = stands.now.moves[wanted.alias]
                break
            settle(registry, wanted.model, stands.now)
            settled = True
    carry_out(registry, move)
    return move


def _is_made(now: JournalState, wanted: Move) -> bool:
    """Whether the alias's last move is this one."""
    last = now.moves.get(wanted.alias)
    return last is not None and bool(wanted.key) and last.key == wanted.key


class _Stands(Exception):
    """What is seen to before a move is written: the move itself, or what another one left."""

    def __init__(self, now: JournalState) -> None:
        super().__init__()
        self.now = now


def _source(registry: Registry, before: JournalState, wanted: Move) -> int | None:
    """What the alias points to now; another than the last move's target if another tool moved it.

    Who made the last move writes it down first and sets the alias then: until that is done the
    alias reads as it did before.
    """
    reads = registry.alias(wanted.model, wanted.alias)
    last = before.moves.get(wanted.alias)
    under_way = last is not None and any(one.move == last for one in before.open)
    return last.target if last is not None and under_way and reads == last.source else reads


def _require_snapshot(target: str | None, wanted: Move) -> None:
    """The version that is meant: a registry that was restored may give its number to another."""
    if wanted.snapshot and target != wanted.snapshot:
        snapshot = target or "another tool's"
        raise RegistryRestored(
            f"'{wanted.model}' v{wanted.target} is {snapshot}, and {wanted.snapshot} was "
            "registered under that number: the registry was restored from an earlier state; begin "
            "a new run"
        )


def _require_own(
    registry: Registry, before: JournalState, wanted: Move, source: int | None
) -> None:
    """A run takes the champion from no other tool; a person may."""
    last = before.moves.get(wanted.alias)
    by_run = last is not None and last.run and last.target == source
    if not wanted.run or wanted.alias != CHAMPION or source is None or by_run:
        return
    serving = registry.any_version(wanted.model, source)
    if isinstance(serving, ForeignVersion):
        raise ConflictError(
            f"'{wanted.alias}' of '{wanted.model}' is {serving}: a run takes nothing from another "
            f"tool; 'selfheal rollback --to {wanted.target}' does"
        )


def _require_lease(before: JournalState, wanted: Move) -> None:
    """A run's move counts only under the lease that it still holds."""
    if wanted.lease:
        require_held(before.lease, wanted.model, wanted.run, wanted.lease)


def _require_not_overtaken(before: JournalState, wanted: Move) -> None:
    last = before.moves.get(wanted.alias)
    if wanted.after is None or last is None or last.sequence <= wanted.after:
        return
    if wanted.alias == CANARY and wanted.run:  # runs move it one after the other
        return
    if wanted.run and last.run == wanted.run:
        return
    raise ConflictError(
        f"'{wanted.alias}' of '{wanted.model}' was moved to v{last.target} by {last.actor} at "
        f"{last.at} ({last.reason}) since this move to v{wanted.target} was planned; look again "
        "with 'selfheal champion'"
    )


def require_allowed(before: JournalState, wanted: Move) -> None:
    """Raise what forbids a move of the champion: `ConflictError` by a hold where it promotes a
    network that was not healed, and for a person four eyes without a proposal by somebody else.
    """
    if wanted.alias != CHAMPION:
        return
    if wanted.promotes and before.hold is not None and not before.hold.run:
        held = before.hold
        raise ConflictError(
            f"'{wanted.model}' is held by {held.actor} since {held.at} ({held.reason}): no new "
            "network becomes its champion until 'selfheal release'"
        )
    if wanted.run:
        return
    if wanted.proposal is None:
        if before.four_eyes or wanted.four_eyes:
            raise ApprovalNeeded(
                f"'{wanted.model}' wants two people for a move of its champion: propose it with "
                "'selfheal rollback --propose', and let somebody else run 'selfheal approve'"
            )
        return
    proposal = second_person(
        before, wanted.model, wanted.proposal, wanted.actor, wanted.at,
        four_eyes=before.four_eyes or wanted.four_eyes,
    )  # fmt: skip
    if proposal.target != wanted.target:
        raise RegistryError(f"proposal {proposal.sequence} is for v{proposal.target}")


def champion_at(registry: Registry, model: str, at: str) -> AliasMove | None:
    """The move by which something served at a time (ISO 8601, UTC), None before the first.

    Entries count in their order: where a clock was set back, the later entry is the later one.
    """
    latest, move = "", None
    for entry in registry.entries(model):
        latest = max(latest, entry.at)
        if latest > at:
            break
        move = entry.standing.moves.get(CHAMPION)
    return move
