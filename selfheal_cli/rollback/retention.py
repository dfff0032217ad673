"""RETENTION: which versions may go, why the others stay, and their removal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

from selfheal_cli.config import Retention
from selfheal_cli.errors import VersionNotFound
from selfheal_cli.records import AnyVersion, Phase, VersionRecord
from selfheal_cli.registry.base import Registry
from selfheal_cli.registry.journal import EntryKind, JournalState, Removal, standing, write

DAY_MS = 86_400_000
CLAIM_SECONDS = 60.0  # for the deletion of one version
ALL = 10_000_000


@dataclass(frozen=True, slots=True)
class Sorted:
    """What stays, each with why, and what may go; both by version.

    ``begun`` are those of both that an interrupted prune had meant to remove.
    """

    kept: Mapping[int, str]
    going: tuple[VersionRecord, ...]
    begun: frozenset[int] = frozenset()
    parents: Mapping[int, int | None] = field(default_factory=dict)


def sort_versions(
    versions: Sequence[VersionRecord], now: JournalState, retention: Retention, now_ms: int
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
    parents = {version.version: _parent_of(version) for version in versions}
    for number in list(kept):
        parent = parents.get(number)
        if parent is not None and parent in known:
            kept.setdefault(parent, f"parent of v{number}")
    kept = {number: why for number, why in sorted(kept.items()) if number in known}
    going = tuple(known[number] for number in sorted(known) if number not in kept)
    return Sorted(kept, going, parents=parents)


def _reasons(
    versions: Sequence[VersionRecord], now: JournalState, retention: Retention, now_ms: int
) -> Iterator[tuple[str, list[int]]]:
    """Reasons to stay, the strongest first, each with its versions."""
    yield from _named(now)
    yield "an alias points to it", [v.version for v in versions if v.aliases]
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


def _named(now: JournalState) -> Iterator[tuple[str, list[int]]]:
    """Versions that the journal names as what serves, served or is to."""
    for alias, move in now.moves.items():
        yield f"is {alias}", [move.target]
        if move.source is not None:
            yield f"was {alias} before", [move.source]
    yield "is proposed", [proposal.target for proposal in now.proposals]


def look(
    registry: Registry, model: str, retention: Retention, clock: Callable[[], datetime]
) -> Sorted:
    """What would stay and what would go now, of what earlier prunes left as well."""
    versions, now = registry.versions(model, limit=ALL), standing(registry, model)
    split = sort_versions(versions, now, retention, round(clock().timestamp() * 1000))
    going = {version.version for version in split.going}
    begun = _begun(registry, model) & (going | split.kept.keys())
    busy = {one.version: one for one in now.removals if not _is_over(one, clock())}
    kept = {number: f"is being removed by {one.actor}" for number, one in busy.items()
            if number in going}  # fmt: skip
    left = tuple(version for version in split.going if version.version not in busy)
    spare = frozenset(begun - busy.keys())
    return replace(split, kept={**split.kept, **kept}, going=left, begun=spare)


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a prune did: the versions that it removed, those that turned out to be needed, each
    with why, and the bytes that came back.
    """

    removed: tuple[int, ...]
    stayed: Mapping[int, str]
    freed: int


def prune(
    registry: Registry, model: str, split: Sorted, *, actor: str, clock: Callable[[], datetime]
) -> Pruned:
    """Remove what may go, one version after another.

    Each is claimed in the journal first, by compare-and-set: whoever moved an alias there before
    keeps it, and whoever comes after is refused. It is asked then whether it is needed by now.
    """
    spared = sorted(split.begun & split.kept.keys())
    if spared:
        data = {"versions": spared, "reason": "they are kept by now"}
        at = clock().isoformat(timespec="milliseconds")
        write(registry, model, EntryKind.SPARED, lambda *_: data, actor=actor, at=at)
    removed, stayed, freed = list[int](), dict[int, str](), 0
    pruner = _Pruner(registry, model, split, actor, clock)
    for version in split.going:
        why = pruner.claim(version, removed)
        if why:
            stayed[version.version] = why
            continue
        freed += registry.delete_version(version)
        removed.append(version.version)
    return Pruned(tuple(removed), stayed, freed)


class _Pruner:
    """Claims versions, one at a time, for one prune."""

    def __init__(
        self, registry: Registry, model: str, split: Sorted, actor: str,
        clock: Callable[[], datetime],
    ) -> None:  # fmt: skip
        self._registry = registry
        self._model = model
        self._actor = actor
        self._clock = clock
        self._parents = dict(split.parents)

    def claim(self, version: VersionRecord, removed: Sequence[int]) -> str:
        """Write down that a version goes; returns why it stays, if it does."""
        at = self._clock().isoformat(timespec="milliseconds")

        def draft(before: JournalState, sequence: int) -> Mapping[str, Any]:
            why = self._needed(version, before)
            if why:
                raise _Stays(why)
            removal = Removal(version.version, self._actor, at, sequence)
            return asdict(removal) | {"versions": [version.version], "done": list(removed)}

        who = {"actor": self._actor, "at": at}
        try:
            entry = write(self._registry, self._model, EntryKind.PRUNED, draft, **who)
        except _Stays as stays:
            return str(stays)
        # a process that was frozen in between may have lost its claim to another prune
        mine = entry.standing.removals[-1]
        kept = mine in standing(self._registry, self._model).removals
        return "" if kept else "another prune took it up"

    def _needed(self, version: VersionRecord, now: JournalState) -> str:
        """Why a version stays that could go when it was looked at; empty where it still can."""
        number = version.version
        try:
            fresh = self._registry.version(self._model, number)
        except VersionNotFound:
            return "is gone already"
        if fresh.aliases:
            return f"is {fresh.aliases[0]}"
        if (fresh.metrics.get("f1"), fresh.tags) != (version.metrics.get("f1"), version.tags):
            return "was given other figures since it was looked at"
        for removal in now.removals:
            if removal.version == number and not _is_over(removal, self._clock()):
                return f"is being removed by {removal.actor}"
        pinned = {one: why for why, numbers in _named(now) for one in numbers}
        if now.lease is not None and version.run_id == now.lease.run:
            pinned[number] = f"of run {now.lease.run}, which is under way"
        best = self._registry.best(self._model, base=version.base)
        if best is not None:
            pinned.setdefault(best.version, "best of its base")
        if number in pinned:
            return pinned[number]
        children = (one for one in pinned if self._parent(one) == number)
        return next((f"parent of v{child}" for child in children), "")

    def _parent(self, number: int) -> int | None:
        if number not in self._parents:
            try:
                version = self._registry.any_version(self._model, number)
            except VersionNotFound:
                return None
            self._parents[number] = _parent_of(version)
        return self._parents[number]


class _Stays(Exception):
    """A version is needed by now."""


def _begun(registry: Registry, model: str) -> set[int]:
    """Versions that the journal says go, and that nobody withdrew."""
    numbers: set[int] = set()
    for entry in registry.entries(model):
        if entry.kind is EntryKind.PRUNED:
            numbers |= set(entry.data["versions"])
        elif entry.kind is EntryKind.SPARED:
            numbers -= set(entry.data["versions"])
    return numbers


def _is_over(removal: Removal, now: datetime) -> bool:
    """Whether a prune had its time to delete a version that it claimed, and was interrupted."""
    return (now - datetime.fromisoformat(removal.at)).total_seconds() > CLAIM_SECONDS


def _parent_of(version: AnyVersion) -> int | None:
    known = version.tags.get("selfheal.parent") if isinstance(version, VersionRecord) else None
    return int(known) if known is not None else None
