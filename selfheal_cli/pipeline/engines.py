"""The heal engine that a run wants: in place, in a worker, or along a record first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selfheal_cli.config import RunConfig
from selfheal_cli.heal.engine import HealEngine, InlineEngine
from selfheal_cli.heal.live import LiveModel
from selfheal_cli.heal.recipe import Recipes
from selfheal_cli.pipeline.ledger import Ledger
from selfheal_cli.pipeline.prepare import Prepared


def make_engine(
    config: RunConfig, prepared: Prepared, live: LiveModel, ledger: Ledger
) -> HealEngine:
    """The engine; while a recorded run is gone through, the record says when heals were done."""
    recipes = Recipes(prepared.network, prepared.anchor, config.heal)
    if config.heal.mode == "sync":
        return InlineEngine(live, recipes)

    def start() -> HealEngine:
        from selfheal_cli.heal.worker_engine import WorkerEngine

        return WorkerEngine(live, recipes)

    def ended(heal_id: str) -> Mapping[str, Any] | None:
        expected = ledger.expected
        if expected is None or expected.data.get("heal_id") != heal_id:
            return None
        return expected.data

    if ledger.expected is None:
        return start()
    from selfheal_cli.heal.recorded_engine import RecordedEngine

    return RecordedEngine(live, recipes, start, ended, lambda: ledger.expected is None)
