"""A served model that is watched and not healed: no lease, no log, nothing in the registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from selfheal_cli.actor import clock, now_text
from selfheal_cli.events.event import Event
from selfheal_cli.heal.recipe import Recipes
from selfheal_cli.pipeline.record.recorder import RunRecorder, Watcher
from selfheal_cli.pipeline.record.replayed import run_started
from selfheal_cli.pipeline.runs.run import trained_event
from selfheal_cli.pipeline.runs.serving import ServedRun
from selfheal_cli.pipeline.stream.champion import NullWatcher
from selfheal_cli.pipeline.stream.context import SessionContext, StreamState, serve
from selfheal_cli.pipeline.stream.memory import MODEL, RestorableInMemory
from selfheal_cli.pipeline.stream.outside import Live
from selfheal_cli.pipeline.stream.session import Session, each
from selfheal_cli.registry.base import Lineage
from selfheal_cli.registry.memory import MemoryRegistry
from selfheal_cli.spool.entries import Cursor
from selfheal_cli.spool.store import Spool

LOOKED_BACK = 20_000  # rows that were answered before: of more it would be told late what comes now


class PassingLog:
    """Keeps no event."""

    def append(self, event: Event) -> Event:
        """As a log gives it back."""
        return replace(event, at=now_text())

    def sync(self) -> None:
        """Nothing is on disk."""


def latest(spool: Spool) -> Cursor:
    """From where a spool is watched: of rows that were answered before, the latest."""
    last = spool.last()
    return Cursor(max(0, spool.first_within(LOOKED_BACK, last) - 1))


def watch_served(served: ServedRun, cursor: Cursor, see: Watcher, stop: Callable[[], bool]) -> None:
    """Monitors, frozen baseline and labels of what is answered, told to ``see`` as the events of a
    run that heals nothing. ``stop`` is asked after each batch and while none comes.
    """
    config, prepared = served.config, served.prepared
    registry = MemoryRegistry()
    base = registry.store_base(MODEL, prepared.base)
    lineage = Lineage(MODEL, MODEL, base, config.heal.recipe, str(config.labels), "1")
    writer = RestorableInMemory(registry, lineage)
    recorder = RunRecorder(PassingLog(), writer, clock, MODEL, [see])
    live = serve(prepared)
    recipes = Recipes(prepared.network, prepared.anchor, config.heal)
    world = Live(config, registry, lineage, writer, NullWatcher(), live, recipes)
    adapter = prepared.network.architecture.adapter
    served.source.begin(cursor)
    recorder.note(run_started("", config.model_name, MODEL, 0, config, adapter))
    recorder.note(trained_event(served.source, prepared, base))
    session = Session(
        SessionContext(
            config, served.source, prepared, live, lineage, recorder, world, StreamState(mode="off")
        )
    )
    session.begin()
    try:
        served.source.attend(Path(), stop)
        each(served.source.batches(), session.step, stop)
    finally:
        served.source.close()
        world.close()
