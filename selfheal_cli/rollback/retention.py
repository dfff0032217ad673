"""Retention: which versions may be removed, why the others are kept, and their removal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

from selfheal_cli.config_policy import Retention
from selfheal_cli.errors import VersionNotFound
from selfheal_cli.records import AnyVersion, Phase, VersionRecord
from selfheal_cli.registry.base import NOTHING, Registry
from selfheal_cli.registry.journal import EntryKind, JournalState, Removal, standing, write

DAY_MS = 86_400_000
CLAIM_SECONDS = 60.0  # for the deletion of one version
ALL = 10_000_000


@dataclass(frozen=True, slots=True)
class Sorted:
    """All versions of a model: ``kept`` with the reason by number, and ``going``.

    ``begun`` are those of either that an interrupted prune had claimed; ``parents`` by number.
    """

    kept: Mapping[int, str]
    going: tuple[VersionRecord, ...]
    begun: frozenset[int] = frozenset()
    parents: Mapping[int, int | None] = field(default_factory=dict)


def sort_versions(
    versions: Sequence[VersionRecord], now: JournalState, retention: Retention, now_ms: int
) -> Sorted:
    """Apply a retention policy to all versions of a model.

    Kept whatever the policy says: versions that an alias points to or pointed to before, proposed
    ones, baselines, the best, those of a run under way, and the parents of kept ones.
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
    """Reasons to keep versions, the strongest first, each with the versions' numbers."""
    yield from _named(now)
    yield "an alias points to it", [v.version for v in versions if v.aliases]
    yield "baseline", [v.version for v in versions if v.phase is Phase.BASELINE]
    if now.lease is not None:
        of_run = [v.version for v in versions if v.run_id == now.lease.run]
        yield f"of run {now.lease.run}, which is under way", of_run
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
    """Versions that the journal names: an alias' present and last target, and proposals."""
    for alias, move in now.moves.items():
        yield f"is {alias}", [move.target] if move.target != NOTHING else []
        if move.source is not None:
            yield f"was {alias} before", [move.source]
    yield "is proposed", [proposal.target for proposal in now.proposals]


def look(
    registry: Registry, model: str, retention: Retention, clock: Callable[[], datetime]
) -> Sorted:
    """The versions as a prune would sort them now, with those that earlier prunes left."""
    versions, now = registry.versions(model, limit=ALL), standing(registry, model)
    split = sort_versions(versions, now, retention, round(clock().timestamp() * 1000))
    going = {version.version for version in split.going}
    begun = _begun(registry, model) & (going | split.kept.keys())
    busy = {claim.version: claim for claim in now.removals if not _is_over(claim, clock())}
    kept = {number: f"is being removed by {claim.actor}" for number, claim in busy.items()
            if number in going}  # fmt: skip
    left = tuple(version for version in split.going if version.version not in busy)
    spare = frozenset(begun - busy.keys())
    return replace(split, kept={**split.kept, **kept}, going=left, begun=spare)


@dataclass(frozen=True, slots=True)
class Pruned:
    """The result of a prune: the versions that it ``removed``, those that turned out to be needed
    (``stayed``, with the reason by number), and the bytes that it ``freed``.
    """

    removed: tuple[int, ...]
    stayed: Mapping[int, str]
    freed: int


def prune(
    registry: Registry,
    model: str,
    split: Sorted,
    *,
    actor: str,
    clock: Callable[[], datetime],
    run: str = "",
) -> Pruned:
    """Remove the versions that may go, one after another.

    Each is claimed in the journal first, by compare-and-set: a move of an alias to it that came
    before keeps it, and one that comes after is refused. Then it is checked whether it is needed
    by now. Of a ``run`` that is deleted, only aliases and proposals still need a version. What
    segments' adapters no version needs any more goes last, also those that an interrupted prune
    left.
    """
    spared = sorted(split.begun & split.kept.keys())
    if spared:
        data = {"versions": spared, "reason": "they are kept by now"}
        at = clock().isoformat(timespec="milliseconds")
        write(registry, model, EntryKind.SPARED, lambda *_: data, actor=actor, at=at)
    removed, stayed, freed = list[int](), dict[int, str](), 0
    pruner = _Pruner(registry, model, split, actor, clock, run)
    for version in split.going:
        why = pruner.claim(version, removed)
        if why:
            stayed[version.version] = why
            continue
        freed += registry.delete_version(version)
        removed.append(version.version)
    lease = standing(registry, model).lease
    freed += registry.clear_packs(model, "" if lease is None else lease.run)
    return Pruned(tuple(removed), stayed, freed)


class _Pruner:
    """Claims versions, one at a time, for one prune."""

    def __init__(
        self, registry: Registry, model: str, split: Sorted, actor: str,
        clock: Callable[[], datetime], run: str,
    ) -> None:  # fmt: skip
        self._registry = registry
        self._run = run
        self._model = model
        self._actor = actor
        self._clock = clock
        self._parents = dict(split.parents)

    def claim(self, version: VersionRecord, removed: Sequence[int]) -> str:
        """Claim a version in the journal; returns why it is kept, or empty where it may go."""
        at = self._clock().isoformat(timespec="milliseconds")

        def draft(before: JournalState, sequence: int) -> Mapping[str, Any]:
            why = self._needed(version, before)
            if why:
                raise _Stays(why)
            removal = Removal(version.version, self._actor, at, sequence)
            return asdict(removal) | {"versions": [version.version], "done": list(removed)}

        try:
            entry = write(
                self._registry, self._model, EntryKind.PRUNED, draft, actor=self._actor, at=at
            )
        except _Stays as stays:
            return str(stays)
        # a process that was suspended in between may have lost its claim to another prune
        claim = entry.standing.removals[-1]
        held = claim in standing(self._registry, self._model).removals
        return "" if held else "another prune took it up"

    def _needed(self, version: VersionRecord, now: JournalState) -> str:
        """Why a version that could go when it was listed is kept now; empty where it can go."""
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
        pinned = self._pinned(version, now)
        if number in pinned:
            return pinned[number]
        children = (pin for pin in pinned if not self._run and self._parent(pin) == number)
        return next((f"parent of v{child}" for child in children), "")

    def _pinned(self, version: VersionRecord, now: JournalState) -> dict[int, str]:
        """Why versions may not go, by number, as far as it may concern this one."""
        if self._run:
            named = ((pin, why) for why, pins in _named(now) for pin in pins)
            return {pin: why for pin, why in named if why.startswith("is ")}
        pinned = {pin: why for why, numbers in _named(now) for pin in numbers}
        if now.lease is not None and version.run_id == now.lease.run:
            pinned[version.version] = f"of run {now.lease.run}, which is under way"
        best = self._registry.best(self._model, base=version.base)
        if best is not None:
            pinned.setdefault(best.version, "best of its base")
        return pinned

    def _parent(self, number: int) -> int | None:
        if number not in self._parents:
            try:
                version = self._registry.any_version(self._model, number)
            except VersionNotFound:
                return None
            self._parents[number] = _parent_of(version)
        return self._parents[number]


class _Stays(Exception):
    """Raised while a claim is drafted: the version is needed by now."""


def _begun(registry: Registry, model: str) -> set[int]:
    """Versions that were claimed in the journal and not spared since."""
    numbers: set[int] = set()
    for entry in registry.entries(model):
        if entry.kind is EntryKind.PRUNED:
            numbers |= set(entry.data["versions"])
        elif entry.kind is EntryKind.SPARED:
            numbers -= set(entry.data["versions"])
    return numbers


def _is_over(removal: Removal, now: datetime) -> bool:
    """Whether a claim has expired: its prune was interrupted before it deleted the version."""
    return (now - datetime.fromisoformat(removal.at)).total_seconds() > CLAIM_SECONDS


def _parent_of(version: AnyVersion) -> int | None:
    known = version.tags.get("selfheal.parent") if isinstance(version, VersionRecord) else None
    return int(known) if known is not None else None
