"""Deletion of a run or of a whole model: the plan, what forbids it, and its carrying out."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from selfheal_cli.errors import RegistryError, VersionNotFound
from selfheal_cli.events.archive import LOG_NAME, run_folder
from selfheal_cli.events.log import read
from selfheal_cli.events.types import RunStarted
from selfheal_cli.records import VersionRecord
from selfheal_cli.registry.base import CHAMPION, Registry
from selfheal_cli.registry.journal import EntryKind, JournalState, Lease, standing, write
from selfheal_cli.rollback.retention import ALL, Sorted, prune
from selfheal_cli.workspace import WORKSPACE

Alive = Callable[[Lease], bool]  # whether the process that holds a lease is running


@dataclass(frozen=True, slots=True)
class Deletion:
    """What goes: ``runs`` with their ``versions`` and ``folders``, the ``model`` itself where it is
    ``whole``. ``refused`` says why it may not; ``serving`` is the version that serves of these.
    """

    model: str
    runs: tuple[str, ...]
    versions: tuple[VersionRecord, ...]
    folders: tuple[Path, ...]
    whole: bool
    serving: int | None = None
    refused: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``; versions by number alone."""
        return {
            "model": self.model,
            "whole": self.whole,
            "runs": self.runs,
            "versions": sorted(version.version for version in self.versions),
            "folders": [str(folder) for folder in self.folders],
            "serving": self.serving,
            "refused": self.refused,
        }


def plan_run(registry: Registry, run: str, alive: Alive, workspace: Path = WORKSPACE) -> Deletion:
    """What goes with a run; raises `RegistryError` where the registry knows none such."""
    model = registry.run_tags(run).get("selfheal.model")
    if model is None:
        raise RegistryError(f"run {run} is none of selfheal's: it names no model")
    versions, now = _versions(registry, model), standing(registry, model)
    own = tuple(version for version in versions if version.run_id == run)
    named = [f"v{v.version} is {' and '.join(v.aliases)}" for v in own if v.aliases]
    serving = next((v.version for v in own if CHAMPION in v.aliases), None)
    refused = _under_way(now, (run,), alive)
    if not refused and named:
        refused = (
            f"{', '.join(named)} of '{model}': 'selfheal rollback --to VERSION' of another run "
            f"first, or 'selfheal delete {model}'"
        )
    return Deletion(model, (run,), own, _folders((run,), workspace), False, serving, refused)


def plan_model(
    registry: Registry,
    model: str,
    alive: Alive,
    workspace: Path = WORKSPACE,
    *,
    serving_too: bool = False,
) -> Deletion:
    """What goes with a model, where a version of it serves only if ``serving_too``.

    Raises `VersionNotFound` where there is no such model.
    """
    if model not in registry.models():
        raise VersionNotFound(f"no registered model '{model}'; see 'selfheal doctor'")
    versions, now = _versions(registry, model), standing(registry, model)
    leased = [e.data["run"] for e in registry.entries(model) if e.kind is EntryKind.LEASED]
    runs = tuple(dict.fromkeys([*leased, *(v.run_id for v in reversed(versions))]))
    serving, refused = registry.alias(model, CHAMPION), _under_way(now, runs, alive)
    if not refused and serving is not None and not serving_too:
        refused = f"v{serving} of '{model}' serves; --serving deletes it all the same"
    folders = _folders(runs, workspace)
    return Deletion(model, runs, tuple(versions), folders, True, serving, refused)


def delete(registry: Registry, plan: Deletion, *, actor: str, clock: Callable[[], datetime]) -> int:
    """Carry a plan out, the journal's entry first; returns the bytes that came back.

    It can be interrupted and done again. Raises `RegistryError` where something still needs a
    version by now.
    """
    at = clock().isoformat(timespec="milliseconds")

    def draft(before: JournalState, sequence: int) -> Mapping[str, Any]:
        if before.lease is not None and before.lease.run in plan.runs:
            raise RegistryError(f"run {before.lease.run} has begun to heal '{plan.model}'")
        return {"model": plan.model if plan.whole else "", "runs": list(plan.runs[:MOST_NAMED])}

    write(registry, plan.model, EntryKind.DELETED, draft, actor=actor, at=at)
    if plan.whole:
        freed = sum(registry.delete_version(version) for version in plan.versions)
        registry.delete_model(plan.model)
    else:
        split = Sorted({}, plan.versions)
        done = prune(registry, plan.model, split, actor=actor, clock=clock, run=plan.runs[0])
        freed = done.freed
        if done.stayed:
            number, why = next(iter(done.stayed.items()))
            raise RegistryError(f"v{number} of '{plan.model}' stays: it {why}; the run stays")
    for run in plan.runs:
        registry.delete_run(run)
    for folder in plan.folders:
        freed += sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        shutil.rmtree(folder)
    return freed


MOST_NAMED = 100  # runs in an entry of the journal


def _versions(registry: Registry, model: str) -> list[VersionRecord]:
    return registry.versions(model, limit=ALL)


def _under_way(now: JournalState, runs: Sequence[str], alive: Alive) -> str:
    lease = now.lease
    if lease is None or lease.run not in runs or not alive(lease):
        return ""
    return f"run {lease.run} of {lease.holder} is under way: stop it first"


def _folders(runs: Sequence[str], workspace: Path) -> tuple[Path, ...]:
    """Working files and exports of runs, where they are here."""
    places = []
    for run in runs:
        folder = run_folder(run, workspace)
        log = folder / LOG_NAME
        first = next(read(log), None) if log.exists() else None
        places.append(folder)
        if isinstance(first, RunStarted) and "export_dir" in first.config:
            places.append(Path(first.config["export_dir"], "runs", run))
    return tuple(place for place in places if place.is_dir())
