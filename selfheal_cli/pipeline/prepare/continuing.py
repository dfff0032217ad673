"""The champion of earlier runs, as a run goes on from it."""

from __future__ import annotations

from dataclasses import dataclass

from selfheal_cli.errors import VersionNotFound
from selfheal_cli.model.network import Weights
from selfheal_cli.records import AliasMove, Base, Phase, VersionRecord
from selfheal_cli.registry.base import BASELINE, CHAMPION, Registry
from selfheal_cli.registry.journal import standing
from selfheal_cli.rollback.plan import champion_of
from selfheal_cli.rollback.verify import load_verified

MOST_BASELINES = 1_000  # that are looked through for the one on a base


@dataclass(frozen=True, slots=True)
class WarmStart:
    """The champion that a run goes on from: its checked weights, the move that made it one, and
    the version that has the adapter as trained.
    """

    champion: VersionRecord
    weights: Weights
    move: AliasMove | None
    baseline: VersionRecord


def continued(registry: Registry, champion: VersionRecord, baseline: VersionRecord) -> WarmStart:
    """To go on from a champion, once everything about it is checked."""
    last = standing(registry, champion.model).moves.get(CHAMPION)
    move = last if last is not None and last.target == champion.version else None
    return WarmStart(champion, load_verified(registry, champion), move, baseline)


def champion_on(registry: Registry, model: str, base: Base) -> WarmStart | None:
    """The champion of a model if it stands on this very base, with its baseline."""
    try:
        champion = champion_of(registry, model)
    except VersionNotFound:
        return None  # no such model yet
    if not isinstance(champion, VersionRecord):
        return None
    if registry.base(champion.base).sha256 != base.sha256:
        return None
    baseline = baseline_of(registry, champion)
    return continued(registry, champion, baseline) if baseline is not None else None


def baseline_of(registry: Registry, champion: VersionRecord) -> VersionRecord | None:
    """The version with the adapter as trained, on the champion's base."""
    number = registry.alias(champion.model, BASELINE)
    version = registry.any_version(champion.model, number) if number is not None else None
    if isinstance(version, VersionRecord) and version.base == champion.base:
        return version
    known = registry.versions(champion.model, phase=Phase.BASELINE, limit=MOST_BASELINES)
    return next((one for one in known if one.base == champion.base), None)
