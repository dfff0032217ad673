"""Makes a version again, from its run's rows, to see whether the same bytes come out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from selfheal_cli.actor import clock
from selfheal_cli.config import RunConfig, recorded
from selfheal_cli.errors import EventLogError, VersionCorrupt
from selfheal_cli.events.event import Event
from selfheal_cli.events.log import read
from selfheal_cli.events.types import ModelTrained, RunStarted
from selfheal_cli.heal.recipe import Recipes
from selfheal_cli.model.build import why_other_bytes
from selfheal_cli.model.threads import use_one_thread
from selfheal_cli.pipeline.prepare.baseline import Prepared, prepare
from selfheal_cli.pipeline.prepare.rows import open_kept
from selfheal_cli.pipeline.prepare.wrapped import wrapped_of
from selfheal_cli.pipeline.record.recorder import RunRecorder, Writer
from selfheal_cli.pipeline.record.replayed import BESIDE
from selfheal_cli.pipeline.stream.champion import ChampionWatcher
from selfheal_cli.pipeline.stream.context import SessionContext, serve
from selfheal_cli.pipeline.stream.outside import Live
from selfheal_cli.pipeline.stream.recorded import Recorded
from selfheal_cli.pipeline.stream.session import Session, each
from selfheal_cli.records import Snapshot, VersionRecord, digest
from selfheal_cli.registry.base import Lineage, Registry
from selfheal_cli.sources.base import Source


@dataclass(frozen=True, slots=True)
class Rehealed:
    """A version that came out the same: by how many recorded events, over how many batches."""

    version: int
    sha256: str
    events: int
    batches: int


class _Reached(BaseException):  # not an error: the stream does not set the batch apart for it
    """The wanted snapshot was made again."""

    def __init__(self, adapter: bytes, batch: int) -> None:
        self.adapter, self.batch = adapter, batch


class _Matched:
    """Counts the stream's own events after the two that say how the run began."""

    def __init__(self) -> None:
        self.events = -2

    def __call__(self, event: Event) -> None:
        self.events += not isinstance(event, BESIDE)


class EndOfRecord:
    """A log that nothing may be appended to: everything is on record already."""

    def __init__(self, wanted: str) -> None:
        self._wanted = wanted

    def append(self, event: Event) -> Event:
        """Raises `EventLogError`."""
        raise EventLogError(f"the record ends before snapshot {self._wanted} was taken")

    def sync(self) -> None:
        """It is on disk."""


class Awaiting(Writer):
    """Registers nothing, and ends the walk at the wanted snapshot."""

    def __init__(self, wanted: str) -> None:
        self._wanted = wanted

    def add(self, snapshot: Snapshot, adapter: bytes) -> None:
        """Raises `_Reached` for the wanted one."""
        if snapshot.id == self._wanted:
            raise _Reached(adapter, snapshot.batch)


def reheal(registry: Registry, version: VersionRecord, log: Path, into: Path) -> Rehealed:
    """Train and heal again along a run's record until the version's snapshot is taken.

    Rows that only the registry has are fetched to ``into``.
    Raises `DataError` where the rows are gone, `EventLogError` where something else than recorded
    comes out on the way, `VersionCorrupt` where the version's bytes are others.
    """
    use_one_thread()
    where = f"{version.model} v{version.version}"
    with closing(read(log)) as events:
        started, trained = islice(events, 2)
        if not (isinstance(started, RunStarted) and isinstance(trained, ModelTrained)):
            raise EventLogError(f"{log}: it does not say how the run was begun")
        config = recorded(started.config, where=str(log), parts=started.parts)
        # the bytes are the same, and no cluster is needed
        heal = config.heal.model_copy(update={"engine": "local"})
        config = config.model_copy(update={"heal": heal})
        source = open_kept(config, log.parent, registry, version.run_id, into)
        prepared = prepare(config, source, lambda done, total: None, wrapped_of(config, registry))
        if prepared.base.sha256 != trained.base_sha256:
            raise VersionCorrupt(
                f"{where}: training again gives another base ({prepared.base.sha256[:12]}…, "
                f"recorded was {trained.base_sha256[:12]}…): "
                f"{why_other_bytes(started)}"
            )
        matched = _Matched()
        try:
            along = chain((started, trained), events)
            _go_through(config, source, prepared, registry, version, started, along, matched)
        except _Reached as reached:
            _compare(registry, version, reached.adapter, where)
            return Rehealed(version.version, version.sha256, matched.events, reached.batch)
    raise EventLogError(f"{where}: its snapshot does not come about in the rows of its run")


def _go_through(
    config: RunConfig,
    source: Source,
    prepared: Prepared,
    registry: Registry,
    version: VersionRecord,
    started: RunStarted,
    events: Iterator[Event],
    matched: _Matched,
) -> None:
    """The run once more; raises `_Reached` at the wanted snapshot."""
    lineage = Lineage(
        version.model, version.run_id, version.base, config.heal.recipe, str(config.labels), ""
    )
    wanted = version.tags["selfheal.snapshot"]
    writer = Awaiting(wanted)
    recorder = RunRecorder(EndOfRecord(wanted), writer, clock, "", [matched], recorded=events)
    for _ in range(2):  # how it began was checked before
        if recorder.record.expected is not None:
            recorder.note(recorder.record.expected)
    others = ChampionWatcher(
        registry, version.model, version.run_id, version.base, started.champion_move
    )
    live = serve(prepared)
    recipes = Recipes(prepared.network, prepared.anchor, config.heal)
    world = Live(config, registry, lineage, writer, others, live, recipes)
    outside = Recorded(recorder.record, world, others)
    session = Session(SessionContext(config, source, prepared, live, lineage, recorder, outside))
    try:
        session.begin()
        each(source.batches(), session.step)
        session.finish()
    finally:
        world.close()


def _compare(registry: Registry, version: VersionRecord, adapter: bytes, where: str) -> None:
    sha256 = digest(adapter)
    if adapter != registry.adapter(version) or sha256 != version.sha256:
        raise VersionCorrupt(
            f"{where}: healing again gives sha256 {sha256[:12]}…, which is not what is stored; the "
            f"recorded one is {version.sha256[:12]}…"
        )
