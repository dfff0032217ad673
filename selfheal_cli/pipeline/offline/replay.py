"""Makes a version again, from its run's rows, to see whether the same bytes come out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from selfheal_cli.config import RunConfig, recorded
from selfheal_cli.errors import EventLogError, VersionCorrupt
from selfheal_cli.events.log import read
from selfheal_cli.events.types import Kind
from selfheal_cli.heal.recipe import Recipes
from selfheal_cli.model.build import why_other_bytes
from selfheal_cli.model.network import use_one_thread
from selfheal_cli.pipeline.prepare.baseline import Prepared, prepare
from selfheal_cli.pipeline.prepare.rows import open_kept
from selfheal_cli.pipeline.prepare.wrapped import wrapped_of
from selfheal_cli.pipeline.record.recorder import scored_data, snapshot_data
from selfheal_cli.pipeline.record.replayed import RecordedEvents
from selfheal_cli.pipeline.runs.run import baseline_scores
from selfheal_cli.pipeline.stream.champion import ChampionWatcher
from selfheal_cli.pipeline.stream.outside import Live
from selfheal_cli.pipeline.stream.recorded import Recorded
from selfheal_cli.pipeline.stream.session import lay, serve
from selfheal_cli.records import Snapshot, VersionRecord, digest
from selfheal_cli.registry.base import Lineage, Registry
from selfheal_cli.rollback.trust import Trust, Unverified
from selfheal_cli.scores import AnyScores
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


class CheckLedger:
    """A `Ledger` that writes nothing: everything must be in the record already."""

    pending, full = 0, False

    def __init__(self, record: RecordedEvents, wanted: str) -> None:
        self.record = record
        self._wanted = wanted
        self.matched = 0

    def note(self, kind: Kind, data: Mapping[str, Any]) -> None:
        """See `Ledger`; raises `EventLogError` for what was not recorded."""
        if self.record.match(kind, data) is None:
            raise EventLogError(f"the record ends before snapshot {self._wanted} was taken")
        self.matched += 1

    def keep(self, snapshot: Snapshot, adapter: bytes) -> None:
        """See `Ledger`."""
        self.note(Kind.SNAPSHOT, snapshot_data(snapshot))
        if snapshot.id == self._wanted:
            raise _Reached(adapter, snapshot.batch)

    def is_kept(self, *, wait: bool) -> bool:
        """It was, by the record."""
        return True

    def score_later(
        self, snapshot: str, batch: int, scores: AnyScores, metrics: Mapping[str, float]
    ) -> None:
        """See `Ledger`."""
        self.note(Kind.SCORED, scored_data(snapshot, batch, scores))

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        """They are in the registry."""

    def point(self, alias: str, snapshot: str, reason: str, *, promotes: bool = False) -> None:
        """It was, by the record."""

    def restored(self, snapshot: str, version: int) -> None:
        """It was, by the record."""

    def arrival(self) -> Callable[[], None]:
        """There is nothing to write."""
        return lambda: None

    @property
    def trust(self) -> Trust:
        """What was gone back to is in the record."""
        return Unverified()

    def catch_up(self, *, wait: bool = False) -> None:
        """There is nothing to write."""


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
        config = recorded(started.data["config"], where=str(log))
        source = open_kept(config, log.parent, registry, version.run_id, into)
        prepared = prepare(config, source, lambda done, total: None, wrapped_of(config, registry))
        if prepared.base.sha256 != trained.data["base_sha256"]:
            raise VersionCorrupt(
                f"{where}: training again gives another base ({prepared.base.sha256[:12]}…, "
                f"recorded was {trained.data['base_sha256'][:12]}…): "
                f"{why_other_bytes(started.data)}"
            )
        matched = RecordedEvents(events, started=started.data)
        ledger = CheckLedger(matched, version.tags["selfheal.snapshot"])
        known = started.data["champion_move"]
        others = ChampionWatcher(registry, version.model, version.run_id, version.base, known)
        try:
            _go_through(config, source, prepared, registry, version, ledger, others)
        except _Reached as reached:
            _compare(registry, version, reached.adapter, where)
            return Rehealed(version.version, version.sha256, ledger.matched, reached.batch)
    raise EventLogError(f"{where}: its snapshot does not come about in the rows of its run")


def _go_through(
    config: RunConfig,
    source: Source,
    prepared: Prepared,
    registry: Registry,
    version: VersionRecord,
    ledger: CheckLedger,
    others: ChampionWatcher,
) -> None:
    """The run once more; raises `_Reached` at the wanted snapshot."""
    lineage = Lineage(
        version.model, version.run_id, version.base, config.heal.recipe, str(config.labels), ""
    )
    live = serve(prepared)
    recipes = Recipes(prepared.network, prepared.anchor, config.heal)
    world = Live(config, registry, lineage, ledger, others, live, recipes)
    outside = Recorded(ledger.record, world, others)
    corridor = lay(config, source, prepared, live, ledger, lineage, outside)
    try:
        corridor.healing.baseline(*baseline_scores(source, prepared))
        for batch in source.batches():
            corridor.stream.step(batch)
            corridor.stream.rest(batch.index)
        corridor.healing.finish()
    finally:
        world.close()


def _compare(registry: Registry, version: VersionRecord, adapter: bytes, where: str) -> None:
    sha256 = digest(adapter)
    if adapter != registry.adapter(version) or sha256 != version.sha256:
        raise VersionCorrupt(
            f"{where}: healing again gives sha256 {sha256[:12]}…, which is not what is stored; the "
            f"recorded one is {version.sha256[:12]}…"
        )
