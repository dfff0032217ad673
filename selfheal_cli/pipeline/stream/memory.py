"""A session that leaves nothing behind: its log and its registry are in memory."""

from __future__ import annotations

from collections import Counter, deque
from copy import deepcopy
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

from selfheal_cli.actor import clock
from selfheal_cli.config import RunConfig
from selfheal_cli.events.event import Event
from selfheal_cli.events.types import SegmentsDrifted, SnapshotScored, SnapshotTaken
from selfheal_cli.heal.engine import LiveModel
from selfheal_cli.heal.recipe import Recipes
from selfheal_cli.heal.task import AdapterState, HealOutcome, HealTask
from selfheal_cli.pipeline.prepare.baseline import Prepared
from selfheal_cli.pipeline.record.recorder import RunRecorder, Writer
from selfheal_cli.pipeline.stream.champion import NullWatcher
from selfheal_cli.pipeline.stream.context import SessionContext, serve
from selfheal_cli.pipeline.stream.outside import Live
from selfheal_cli.pipeline.stream.session import Session
from selfheal_cli.records import (
    Batch,
    Evaluation,
    Phase,
    Snapshot,
    VersionRecord,
)
from selfheal_cli.registry.base import Lineage
from selfheal_cli.registry.memory import MemoryRegistry
from selfheal_cli.scores import AnyScores
from selfheal_cli.sources.base import Source

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray

MODEL = "replay"
SERVED = 3  # versions: what serves, what served before, and one that is on its way
NAMED = "segments named as drifted"
AT = "1970-01-01T00:00:00.000+00:00"


class CountingLog:
    """Keeps of events how many there were of each kind, and how many segments were named."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._named: set[str] = set()

    def append(self, event: Event) -> Event:
        """Count one; snapshots are no event of the stream's."""
        self.counts[event.kind] += not isinstance(event, (SnapshotTaken, SnapshotScored))
        if isinstance(event, SegmentsDrifted):
            self._named |= {one["segment"] for one in event.segments}
            self.counts[NAMED] = len(self._named)
        return replace(event, at=AT)

    def sync(self) -> None:
        """Nothing is on disk."""


class RestorableInMemory(Writer):
    """Keeps what a rollback could restore: the baseline, the post-heal version of the highest F1,
    and the latest that served.
    """

    def __init__(self, registry: MemoryRegistry, lineage: Lineage) -> None:
        self._registry = registry
        self._lineage = lineage
        self._unscored: dict[str, int] = {}  # versions by snapshot
        self._best: VersionRecord | None = None
        self._baseline: int | None = None
        self._latest: deque[int] = deque()

    def add(self, snapshot: Snapshot, adapter: bytes) -> None:
        """Keep what may serve."""
        if snapshot.phase not in (Phase.BASELINE, Phase.POST_HEAL):
            return
        number = self._registry.add_version(self._lineage, snapshot, adapter, None).version
        self._keep(number)
        if snapshot.phase is Phase.BASELINE:
            self._baseline = number
        if snapshot.phase is Phase.POST_HEAL and snapshot.evaluation is Evaluation.AWAITING:
            self._unscored[snapshot.id] = number
        elif snapshot.phase is Phase.POST_HEAL:
            self._rank(number)

    def score(
        self, snapshot: str, batch: int, metrics: dict[str, float], scores: AnyScores
    ) -> None:
        """Now it is known whether it is the best."""
        number = self._unscored.pop(snapshot, None)
        if number is not None:
            self._registry.score_version(self._lineage, number, batch, metrics, scores)
            self._rank(number)

    def knows(self, snapshot: str, version: int) -> None:
        """It serves again."""
        self._keep(version)

    def _rank(self, number: int) -> None:
        """Make the version the best, if it is."""
        fresh, best = self._registry.version(MODEL, number), self._best
        if fresh.f1 is None or (best is not None and (best.f1 or 0.0) > fresh.f1):
            self._forget(number)
            return
        self._best = fresh
        if best is not None:
            self._forget(best.version)

    def _keep(self, number: int) -> None:
        self._latest.append(number)
        if len(self._latest) > SERVED:
            self._forget(self._latest.popleft())

    def _forget(self, number: int) -> None:
        """Let go of a version, unless something still needs it."""
        always = (self._best.version if self._best else None, self._baseline)
        if number not in always and number not in (*self._latest, *self._unscored.values()):
            self._registry.delete_version(self._registry.version(MODEL, number))


class _Timed(Recipes):
    """Recipes that say how long they took."""

    spent = 0.0

    def heal(self, before: AdapterState, task: HealTask) -> HealOutcome:
        """See `Recipes`."""
        start = perf_counter()
        try:
            return super().heal(before, task)
        finally:
            self.spent += perf_counter() - start


class Replay:
    """One recipe on one stream; ``live`` is what serves after each step."""

    def __init__(
        self, config: RunConfig, source: Source, prepared: Prepared, log: CountingLog | None = None
    ) -> None:
        self.config = config
        self._shared = (config, source, prepared)
        registry = MemoryRegistry()
        base = registry.store_base(MODEL, prepared.base)
        lineage = Lineage(MODEL, MODEL, base, config.heal.recipe, str(config.labels), "1")
        self._log, writer = log or CountingLog(), RestorableInMemory(registry, lineage)
        recorder = RunRecorder(self._log, writer, clock, MODEL)
        self.live: LiveModel = serve(prepared)
        self._recipes = _Timed(prepared.network, prepared.anchor, config.heal)
        world = Live(config, registry, lineage, writer, NullWatcher(), self.live, self._recipes)
        context = SessionContext(config, source, prepared, self.live, lineage, recorder, world)
        self._session = Session(context, verdicts=False)
        self._session.begin()

    def copied(self, log: CountingLog) -> Replay:
        """The same session once more, which goes its own way from here and writes to ``log``.

        What never changes is shared: configuration, source, and what training prepared.
        """
        memo: dict[int, Any] = {id(one): one for one in self._shared}
        return deepcopy(self, memo | {id(self._log): log})

    def predict(self, x: FloatArray) -> FloatArray:
        """Probabilities by what serves now."""
        return self.live.predict(x)

    def step(self, batch: Batch) -> None:
        """Score, monitor, label, heal."""
        self._session.step(batch)

    @property
    def learning(self) -> float:
        """Seconds in heals alone."""
        return self._recipes.spent

    def counts(self) -> dict[str, float]:
        """How often what happened, by kind of event."""
        return {name: float(count) for name, count in self._log.counts.items()}
