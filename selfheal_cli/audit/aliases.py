"""The journal of a model, and its aliases against it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from selfheal_cli.audit.chain import ChainWatch, Mark
from selfheal_cli.audit.finding import Audit
from selfheal_cli.audit.run_log import RunRecord
from selfheal_cli.errors import RegistryError, RegistryUnreachable
from selfheal_cli.records import AliasMove
from selfheal_cli.registry.base import Registry
from selfheal_cli.registry.journal import EntryKind


@dataclass(slots=True)
class JournalRecord:
    """What a journal says: its moves by number, the versions that were pruned, its last link."""

    moves: dict[int, AliasMove] = field(default_factory=dict)
    pruned: set[int] = field(default_factory=set)
    mark: Mark = field(default_factory=Mark)


def audit_journal(
    audit: Audit, registry: Registry, model: str, signed: Mark | None = None
) -> JournalRecord:
    """Walk the journal; what of it holds is returned, even where the rest does not."""
    where = f"journal of {model}"
    record = JournalRecord()
    last: dict[str, AliasMove] = {}
    watch = ChainWatch(audit, where, signed)
    try:
        for entry in registry.entries(model):
            before = watch.mark
            if (entry.sequence, entry.previous) != (before.sequence + 1, before.digest):
                audit.found(
                    where, f"entry {entry.sequence} does not follow entry {before.sequence}"
                )
            watch.see(entry.sequence, entry.digest)
            audit.checked["journal entries"] += 1
            if entry.kind is EntryKind.MOVED:
                move = AliasMove(**entry.data)
                _audit_source(audit, move, last.get(move.alias), where)
                record.moves[entry.sequence] = last[move.alias] = move
            elif entry.kind is EntryKind.PRUNED:
                record.pruned |= set(entry.data["versions"])
    except RegistryUnreachable:
        raise
    except (RegistryError, TypeError, KeyError) as exc:
        audit.found(where, str(exc))
    record.mark = watch.end()
    _audit_aliases(audit, registry.aliases(model), last, model)
    return record


def audit_moves(
    audit: Audit, records: Iterable[RunRecord], moves: dict[int, AliasMove], model: str
) -> None:
    """Moves that runs wrote into their logs against the journal."""
    for record in records:
        for data in record.moves:
            found = moves.get(data["sequence"])
            if found is None or found.as_dict() != dict(data):
                audit.found(
                    f"journal of {model}",
                    f"entry {data['sequence']} is not the move of '{data['alias']}' to "
                    f"v{data['target']} that run {record.run_id} wrote down",
                )


def _audit_source(audit: Audit, move: AliasMove, before: AliasMove | None, where: str) -> None:
    """Each move must begin where the one before ended."""
    if before is not None and move.source != before.target:
        audit.found(
            where,
            f"'{move.alias}' was v{before.target} after entry {before.sequence} and v{move.source} "
            f"before entry {move.sequence}: another tool moved it in between",
        )


def _audit_aliases(
    audit: Audit, aliases: dict[str, int], last: dict[str, AliasMove], model: str
) -> None:
    for alias, move in last.items():
        audit.checked["aliases"] += 1
        found = aliases.get(alias)
        if found != move.target:
            shown = "gone" if found is None else f"v{found}"
            audit.found(
                f"{model}@{alias}",
                f"is {shown}; the last move, by {move.actor} at {move.at}, set v{move.target}: "
                "another tool moved it",
            )
