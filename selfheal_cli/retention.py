"""RETENTION: which versions may go, why the others stay, and their removal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from selfheal_cli.config import Retention
from selfheal_cli.errors import VersionNotFound
from selfheal_cli.records import Phase, VersionRecord
from selfheal_cli.registry.base import Registry
from selfheal_cli.registry.journal import EntryKind, Standing, standing, write

DAY_MS = 86_400_000
AT_ONCE = 300  # numbers in one entry of the journal
ALL = 10_000_000


@dataclass(frozen=True, slots=True)
class Sorted:
    """What stays, each with why, and what may go; both by version."""

    kept: Mapping[int, str]
    going: tuple[VersionRecord, ...]


def sort_versions(
    versions: Sequence[VersionRecord], now: Standing, retention: Retention, now_ms: int
) -> Sorted:
    """Apply a retention policy to all versions of a model.

    Never to go: what an alias points to, what served before it, what is proposed, the baselines,
    the best, the latest of a run under way, and the parents of what is kept.
    """
    kept: dict[int, str] = {}
    for why, numbers in _reasons(versions, now, retention, now_ms):
        for number in numbers:
            kept.setdefault(number, why)
    known = {version.version: version for version in versions}
    for number in list(kept):
        parent = known[number].tags.get("selfheal.parent") if number in known else None
        if parent is not None and int(parent) in known:
            kept.setdefault(int(parent), f"parent of v{number}")
    kept = {number: why for number, why in sorted(kept.items()) if number in known}
    going = tuple(known[number] for number in sorted(known) if number not in kept)
    return Sorted(kept, going)


def _reasons(
    versions: Sequence[VersionRecord], now: Standing, retention: Retention, now_ms: int
) -> Iterator[tuple[str, list[int]]]:
    """Reasons to stay, the strongest first, each with its versions."""
    for alias, move in now.moves.items():
        yield f"is {alias}", [move.target]
        if move.source is not None:
            yield f"was {alias} before", [move.source]
    yield "an alias points to it", [v.version for v in versions if v.aliases]
    yield "is proposed", [proposal.target for proposal in now.proposals]
    yield "baseline", [v.version for v in versions if v.phase is Phase.BASELINE]
    if now.lease is not None:
        own = [v.version for v in versions if v.run_id == now.lease.run]
        yield f"of run {now.lease.run}, which is under way", own
    healed = [v for v in versions if v.phase is Phase.POST_HEAL and v.f1 is not None]
    healed.sort(key=lambda v: (-(v.f1 or 0.0), -v.version))
    # the very best of each base stays whatever the policy says: a rollback asks for it
    bests = {v.base: v.version for v in reversed(healed)}
    yield "best of its base", list(bests.values())
    yield "among the best", [v.version for v in healed[: retention.keep_best]]
    latest = sorted((v.version for v in versions), reverse=True)
    yield "among the latest", latest[: retention.keep_last]
    young = now_ms - retention.keep_days * DAY_MS
    yield "young", [v.version for v in versions if v.created_ms > young]


def prune(
    registry: Registry, model: str, going: Sequence[VersionRecord], *, actor: str, at: str
) -> int:
    """Write into the journal what goes, then remove it; returns the bytes that came back.

    A removal that was interrupted is finished by the next one: what the journal says is gone and
    is still there goes first.
    """
    begun = unfinished(registry, model)
    came_back = sum(registry.delete_version(version) for version in begun)
    done = {version.version for version in begun}
    left = [version for version in going if version.version not in done]
    for start in range(0, len(left), AT_ONCE):
        part = left[start : start + AT_ONCE]
        numbers = [version.version for version in part]
        write(
            registry,
            model,
            EntryKind.PRUNED,
            lambda before, sequence, numbers=numbers: {"versions": numbers},  # type: ignore[misc]
            actor=actor,
            at=at,
        )
        came_back += sum(registry.delete_version(version) for version in part)
    return came_back


def unfinished(registry: Registry, model: str) -> list[VersionRecord]:
    """Versions that the journal says were pruned, and that are there."""
    found = []
    for entry in registry.entries(model):
        if entry.kind is EntryKind.PRUNED:
            for number in entry.data["versions"]:
                try:
                    found.append(registry.version(model, number))
                except VersionNotFound:
                    continue
    return found


def all_versions(registry: Registry, model: str) -> tuple[list[VersionRecord], Standing]:
    """Everything that a retention policy is applied to."""
    return registry.versions(model, limit=ALL), standing(registry, model)
