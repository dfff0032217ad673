"""Audits the journal of a model, and its aliases against it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from selfheal_cli.audit.finding import Audit, ChainHead, ChainWatch
from selfheal_cli.errors import RegistryError, RegistryUnreachable
from selfheal_cli.events.run_record import RunRecord
from selfheal_cli.records import AliasMove
from selfheal_cli.registry.aliases import unsettled
from selfheal_cli.registry.base import NOTHING, Registry
from selfheal_cli.registry.journal import EntryKind


@dataclass(slots=True)
class JournalRecord:
    """What a journal says.

    ``moves`` by entry number, and the ``last`` one of each alias; the ``runs`` that had the lease
    and the ``pruned`` versions, each with its entry's number; the ``deleted`` runs; ``heads``: by
    run, the digests at which its log stood when it gave the lease back, with the entry's number;
    ``mark``: the last link.
    """

    moves: dict[int, AliasMove] = field(default_factory=dict)
    last: dict[str, AliasMove] = field(default_factory=dict)
    runs: dict[str, int] = field(default_factory=dict)
    heads: dict[str, dict[str, int]] = field(default_factory=dict)
    pruned: dict[int, int] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    mark: ChainHead = field(default_factory=ChainHead)


def audit_journal(
    audit: Audit, registry: Registry, model: str, signed: ChainHead | None = None
) -> JournalRecord:
    """Walk the journal; returns the part that can be read, even where another cannot."""
    where = f"journal of {model}"
    record = JournalRecord()
    watch = ChainWatch(audit, where, signed)
    try:
        for entry in registry.entries(model):
            before = watch.head
            if (entry.sequence, entry.previous) != (before.sequence + 1, before.digest):
                audit.report(
                    where, f"entry {entry.sequence} does not follow entry {before.sequence}"
                )
            watch.add(entry.sequence, entry.digest)
            audit.checked["journal entries"] += 1
            if entry.kind is EntryKind.MOVED:
                move = AliasMove(**entry.data)
                _audit_source(audit, move, record.last.get(move.alias), where)
                record.moves[entry.sequence] = record.last[move.alias] = move
            elif entry.kind is EntryKind.LEASED:
                record.runs.setdefault(entry.data["run"], entry.sequence)
            elif entry.kind is EntryKind.RELEASED and entry.data.get("log_head"):
                heads = record.heads.setdefault(entry.data["run"], {})
                heads[entry.data["log_head"]] = entry.sequence
            elif entry.kind is EntryKind.PRUNED:
                record.pruned |= dict.fromkeys(entry.data["versions"], entry.sequence)
            elif entry.kind is EntryKind.DELETED:
                record.deleted |= set(entry.data["runs"])
            elif entry.kind in (EntryKind.ERASED, EntryKind.REVOKED):
                audit.note(where, f"entry {entry.sequence}: {entry.data['reason']}")
            elif entry.kind is EntryKind.SPARED:
                for number in entry.data["versions"]:
                    record.pruned.pop(number, None)
    except RegistryUnreachable:
        raise
    except (RegistryError, TypeError, KeyError) as exc:
        audit.report(where, str(exc))
    record.mark = watch.end()
    return record


def audit_moves(
    audit: Audit, records: Iterable[RunRecord], moves: dict[int, AliasMove], model: str
) -> None:
    """Compare the moves in the logs of runs with the journal."""
    for record in records:
        for logged in record.moves:
            if moves.get(logged.sequence) != logged:
                audit.report(
                    f"journal of {model}",
                    f"entry {logged.sequence} is not the move of '{logged.alias}' to "
                    f"v{logged.target} that run {record.run_id} wrote down",
                )


def audit_targets(
    audit: Audit, journal: JournalRecord, present: Collection[int], model: str
) -> None:
    """Report versions that an alias was moved to and that are gone without a prune."""
    for sequence, move in journal.moves.items():
        known = move.target == NOTHING or move.target in present
        if not known and move.target not in journal.pruned:
            audit.report(
                f"{model} v{move.target}",
                f"was made {move.alias} by entry {sequence} of the journal and is gone; no "
                "'selfheal prune' removed it",
            )


def audit_aliases(audit: Audit, registry: Registry, journal: JournalRecord, model: str) -> None:
    """Report aliases that are not where selfheal last moved them; note those of other tools."""
    aliases = registry.aliases(model)
    for alias, number in sorted(aliases.items()):
        if alias not in journal.last:
            audit.note(f"{model}@{alias}", f"is v{number}: another tool's alias")
    for alias, move in journal.last.items():
        audit.checked["aliases"] += 1
        reads = aliases.get(alias)
        if (reads or NOTHING) == move.target:
            continue
        left = unsettled(registry, model, alias)
        if left is not None:
            audit.note(f"{model}@{alias}", f"{left}; the next command that moves it puts it right")
            continue
        shown = "gone" if reads is None else f"v{reads}"
        problem = f"is {shown}; the last move, by {move.actor} at {move.at}, set v{move.target}"
        audit.report(f"{model}@{alias}", f"{problem}: another tool moved it")


def _audit_source(audit: Audit, move: AliasMove, before: AliasMove | None, where: str) -> None:
    """Report a move that does not begin where the one before ended."""
    if before is not None and (move.source or NOTHING) != before.target:
        audit.report(
            where,
            f"'{move.alias}' was v{before.target} after entry {before.sequence} and v{move.source} "
            f"before entry {move.sequence}: another tool moved it in between",
        )
