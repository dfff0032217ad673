"""ROLLBACK: find the version to restore, check it, move the alias."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from selfheal_cli.errors import NothingToRestore, VersionCorrupt
from selfheal_cli.model.network import Weights
from selfheal_cli.records import AliasMove, VersionRecord
from selfheal_cli.registry.base import CHAMPION, Registry
from selfheal_cli.snapshot import assemble, unpack


@dataclass(frozen=True, slots=True)
class Plan:
    """What serves now, what would, and why it was chosen."""

    serving: VersionRecord | None
    target: VersionRecord
    criterion: str


def find_best(
    registry: Registry, model: str, *, base: str, run_id: str | None = None
) -> VersionRecord:
    """The post-heal version with the highest F1 on this base; raises `NothingToRestore`."""
    found = registry.best(model, base=base, run_id=run_id)
    if found is None:
        within = f" of run {run_id}" if run_id else ""
        raise NothingToRestore(
            f"model '{model}' has no post-heal version{within} on the base that serves; "
            "a heal must come first: see 'selfheal snapshots --phase post-heal'"
        )
    return found


def load_verified(registry: Registry, version: VersionRecord) -> Weights:
    """The adapter's weights, after its hash, its fit to the base and its values were checked.

    Raises `VersionCorrupt` naming the version and what does not hold.
    """
    where = f"{version.model} v{version.version}"
    weights = unpack(registry.adapter(version), sha256=version.sha256, where=where)
    assemble(registry.base(version.base), weights, where=where)
    broken = [name for name, value in weights.items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise VersionCorrupt(f"{where}: weight '{broken[0]}' is not finite; use another version")
    return weights


def plan_best(registry: Registry, model: str) -> Plan:
    """To the highest-F1 post-heal version that shares the base of what serves."""
    serving = serving_version(registry, model)
    known = [serving] if serving else registry.versions(model, limit=1)
    if not known:
        raise NothingToRestore(f"model '{model}' has no version; run 'selfheal run' first")
    target = find_best(registry, model, base=known[0].base)
    return Plan(serving, target, "highest F1 of the post-heal versions on this base")


def plan_version(registry: Registry, model: str, number: int) -> Plan:
    """To a version that somebody named."""
    return Plan(serving_version(registry, model), registry.version(model, number), "named")


def plan_previous(registry: Registry, model: str) -> Plan:
    """To what served before; raises `NothingToRestore` where nothing did."""
    serving = serving_version(registry, model)
    move = registry.last_move(model, serving.version) if serving else None
    if serving is None or move is None or move.source is None:
        raise NothingToRestore(f"model '{model}': nothing is recorded to have served before")
    return Plan(serving, registry.version(model, move.source), "what served before")


def serving_version(registry: Registry, model: str) -> VersionRecord | None:
    """The champion, if there is one; raises `VersionNotFound` for an unknown model."""
    number = registry.alias(model, CHAMPION)
    if number is None:
        registry.versions(model, limit=1)
        return None
    return registry.version(model, number)


def execute(registry: Registry, plan: Plan, *, actor: str, at: str, reason: str) -> AliasMove:
    """Check the target, then move the alias to it."""
    load_verified(registry, plan.target)
    return registry.move_alias(
        plan.target.model, CHAMPION, plan.target.version, actor=actor, at=at, reason=reason
    )
