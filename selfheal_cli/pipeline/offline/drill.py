"""The drill: a rollback on a throw-away model, checked from outside."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from selfheal_cli.config import RunConfig
from selfheal_cli.errors import DrillFailed
from selfheal_cli.events.event import Event
from selfheal_cli.events.types import RolledBack
from selfheal_cli.pipeline.runs.run import Finished, RunContext, run
from selfheal_cli.records import digest
from selfheal_cli.registry.base import CHAMPION
from selfheal_cli.sources.base import Source


@dataclass(frozen=True, slots=True)
class Proof:
    """What the drill found; it is raised as `DrillFailed` where anything does not hold."""

    batch: int
    reason: str
    restored_version: int
    f1: float
    sha256: str
    adapter_bytes: int


def drill(config: RunConfig, source: Source, around: RunContext, *, keep: bool) -> Proof:
    """Stream until a rollback fires, then hold what serves against the registry's best.

    The model, its run and its files are removed again unless ``keep``. Raises `DrillFailed`.
    """
    fired: list[RolledBack] = []

    def watch(event: Event) -> None:
        if isinstance(event, RolledBack):
            fired.append(event)

    def stop() -> bool:
        return bool(fired) or around.stop()

    with tempfile.TemporaryDirectory() as folder:
        finished = run(
            config.model_copy(update={"export_dir": Path(folder, "export"), "plots": False}),
            source,
            replace(around, watchers=[*around.watchers, watch], stop=stop, workspace=Path(folder)),
        )
        try:
            if not fired:
                raise DrillFailed(
                    f"no rollback fired in {len(finished.view.rows)} batches with this policy; "
                    "lower rollback_f1_drop in it, or drill with --policy drill"
                )
            return _check(config, finished, around, fired[0])
        finally:
            if not keep:
                around.registry.delete_model(config.model_name)
                around.registry.delete_run(finished.run_id)


def _check(config: RunConfig, finished: Finished, around: RunContext, event: RolledBack) -> Proof:
    registry, model, view = around.registry, config.model_name, finished.view
    base = view.stored.base if view.stored else ""
    best = registry.best(model, base=base, run_id=finished.run_id)
    if best is None:
        raise DrillFailed(f"the registry names no best version of '{model}'")
    stored = registry.adapter(best)
    serving = (view.finished and view.finished.serving_sha256) or "unknown"
    champion = registry.alias(model, CHAMPION)
    if event.version != best.version:
        raise DrillFailed(
            f"v{event.version} was restored, but the registry's best is v{best.version}"
        )
    if serving != digest(stored):
        raise DrillFailed(
            f"what serves has sha256 {serving[:12]}…, v{best.version} has {digest(stored)[:12]}…"
        )
    if champion != best.version:
        raise DrillFailed(f"the champion is v{champion}, not the restored v{best.version}")
    return Proof(
        event.batch,
        event.reason,
        best.version,
        best.f1 or 0.0,
        digest(stored),
        len(stored),
    )
