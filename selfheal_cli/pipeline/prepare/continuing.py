"""The champion of earlier runs, and their settings, as a run goes on from them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from selfheal_cli.config import RunConfig, recorded
from selfheal_cli.errors import (
    ConfigurationError,
    RegistryError,
    RegistryUnreachable,
    VersionNotFound,
)
from selfheal_cli.events.archive import LOG_NAME, run_folder
from selfheal_cli.events.log import read
from selfheal_cli.events.types import RunStarted
from selfheal_cli.model.network import Weights
from selfheal_cli.records import AliasMove, Base, Phase, VersionRecord
from selfheal_cli.registry.base import BASELINE, CHAMPION, HEAL, Registry
from selfheal_cli.registry.journal import EntryKind, standing
from selfheal_cli.rollback.plan import champion_of
from selfheal_cli.rollback.verify import load_verified

SPENT_SECONDS = 3_600.0  # after which a move of the champion counts no longer
MOST_BASELINES = 1_000  # that are looked through for the one on a base


@dataclass(frozen=True, slots=True)
class Spent:
    """What heals of earlier runs left of a served model's budget: the ages in seconds of their
    latest ``moves``, and the version on the champion's base that a person ``approved`` last, with
    its checked weights; None where nobody did, or another base was trained since.
    """

    moves: tuple[float, ...] = ()
    approved: VersionRecord | None = None
    weights: Weights = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WarmStart:
    """The champion that a run goes on from: its checked weights, the move that made it one, and
    the version that has the adapter as trained.
    """

    champion: VersionRecord
    weights: Weights
    move: AliasMove | None
    baseline: VersionRecord
    spent: Spent = Spent()


def continued(registry: Registry, champion: VersionRecord, baseline: VersionRecord) -> WarmStart:
    """To go on from a champion, once everything about it is checked."""
    last = standing(registry, champion.model).moves.get(CHAMPION)
    move = last if last is not None and last.target == champion.version else None
    return WarmStart(champion, load_verified(registry, champion), move, baseline)


def spent(registry: Registry, champion: VersionRecord, now: datetime) -> Spent:
    """By the journal of the champion's model: the heals of served runs. A move that was made later
    than now, by a clock that was put back since, counts as made now.
    """
    ages, chosen = dict[str, list[float]](), 0
    for entry in registry.entries(champion.model):
        if entry.kind is not EntryKind.MOVED or entry.data["alias"] != CHAMPION:
            continue
        move = AliasMove(**entry.data)
        age = max(0.0, (now - datetime.fromisoformat(entry.at)).total_seconds())
        if not move.run:
            chosen = move.target
        elif move.reason.startswith(HEAL) and age < SPENT_SECONDS:
            ages.setdefault(move.run, []).append(age)
    moves = (age for run, own in ages.items() if _is_served(registry, run) for age in own)
    latest = tuple(sorted(moves, reverse=True))
    try:
        approved = registry.version(champion.model, chosen) if chosen else None
    except VersionNotFound:
        approved = None  # it was removed, or is another tool's
    if approved is None or approved.base != champion.base:
        return Spent(latest)
    return Spent(latest, approved, load_verified(registry, approved))


def _is_served(registry: Registry, run_id: str) -> bool:
    try:
        return registry.run_tags(run_id).get("selfheal.kind") == "serve"
    except RegistryUnreachable:
        raise
    except RegistryError:
        return True  # it was deleted


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


def recorded_config(
    registry: Registry, champion: VersionRecord, workspace: Path,
    elsewhere: Callable[[str], Mapping[str, Any]] = lambda run: {},
) -> RunConfig:  # fmt: skip
    """Of the run that a version is from, as of `config_of_run`."""
    who = f"{champion.model} v{champion.version}"
    return config_of_run(registry, champion.run_id, who, workspace, elsewhere)


def config_of_run(
    registry: Registry, run_id: str, who: str, workspace: Path,
    elsewhere: Callable[[str], Mapping[str, Any]] = lambda run: {},
) -> RunConfig:  # fmt: skip
    """By the run's log, here or in the registry, or by the log that machines share, ``elsewhere``.

    Raises `ConfigurationError` where none of them knows by what ``who`` was healed.
    """
    where = f"run {run_id}"
    with tempfile.TemporaryDirectory() as into:
        path = run_folder(run_id, workspace) / LOG_NAME
        try:
            path = path if path.exists() else registry.run_file(run_id, LOG_NAME, Path(into))
            first = next(read(path), None)
        except RegistryError as exc:
            told = elsewhere(run_id)
            if told:
                return recorded(told["config"], where=where, parts=told["parts"])
            raise ConfigurationError(
                f"{who}: its run's log is neither here nor in the registry, so that nobody knows "
                f"what it was healed by ({exc})"
            ) from exc
    if not isinstance(first, RunStarted):
        raise ConfigurationError(f"{where}: its log does not say how it was begun")
    return recorded(first.config, where=where, parts=first.parts)


def latest_config(registry: Registry, model: str, workspace: Path) -> RunConfig | None:
    """Of the run that last had the model's lease; None where none had. Raises
    `ConfigurationError` where nobody knows it any more.
    """
    entries = registry.entries(model)
    runs = [one.data["run"] for one in entries if one.kind is EntryKind.LEASED]
    return config_of_run(registry, runs[-1], f"'{model}'", workspace) if runs else None
