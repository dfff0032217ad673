"""An alias as the journal has it: set, read back, and put right where its writer was interrupted.

A move is written into the journal first; then the alias is set, which MLflow does whatever was set
meanwhile. So whoever sets one looks at the journal afterwards, and what a writer left that was
killed or frozen in between is seen by the marks that are missing in the journal.
"""

from __future__ import annotations

from dataclasses import dataclass

from selfheal_cli.errors import RegistryError
from selfheal_cli.records import AliasMove
from selfheal_cli.registry.base import Registry
from selfheal_cli.registry.journal import ATTEMPTS, EntryKind, Mark, Standing, standing


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
        last = f"the move of '{move.alias}' to v{move.target} by {move.actor} at {move.at}"
        reads = "nothing" if self.reads is None else f"v{self.reads}"
        if self.late:
            return f"{last} was undone by an earlier one, to {reads}, that was carried out late"
        return f"{last} was begun and not finished: it is {reads} still"


def carry_out(registry: Registry, move: AliasMove, mark: Mark = Mark.CARRIED) -> None:
    """Set an alias as its last move in the journal has it, read it back, and mark the move.

    Whoever moved it later may have set it already; then the later move counts.
    """
    last = move
    for _ in range(ATTEMPTS):
        registry.set_alias(last.model, last.alias, last.target)
        now = standing(registry, last.model).moves[last.alias]
        if now.sequence == last.sequence:
            break
        last = now
    reads = registry.alias(move.model, move.alias)
    if reads != last.target and standing(registry, move.model).moves[move.alias] == last:
        raise RegistryError(
            f"alias '{move.alias}' of '{move.model}' was set to v{last.target} and reads "
            f"v{reads}: another tool moves it; see 'selfheal audit'"
        )
    registry.mark_move(move.model, move.sequence, mark)


def unsettled(
    registry: Registry, model: str, alias: str, now: Standing | None = None
) -> Unsettled | None:
    """What an interrupted writer left of an alias, if one did; ``now`` is what the journal says."""
    now = now or standing(registry, model)
    last = now.moves.get(alias)
    left = [one for one in now.open if one.move.alias == alias]
    if last is None or not left:
        return None
    reads = registry.alias(model, alias)
    if reads == last.target:
        return None
    newest, oldest = left[-1], left[0].move.sequence
    if newest.move == last and not newest.finished and reads == last.source:
        return Unsettled(last, reads, late=False)
    if oldest < last.sequence and reads in _targets(registry, model, alias, oldest):
        return Unsettled(last, reads, late=True)
    return None


def settle(registry: Registry, model: str, now: Standing | None = None) -> list[Unsettled]:
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
