"""The rooms of one stream, laid out in order: the same for a run and for a replay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

from selfheal_cli.config import RunConfig
from selfheal_cli.events.types import Kind
from selfheal_cli.heal.engine import LiveModel, Serving
from selfheal_cli.heal.recipe import Recipes
from selfheal_cli.heal.task import AdapterState, HealOutcome, HealTask
from selfheal_cli.pipeline.prepare.baseline import Prepared
from selfheal_cli.pipeline.record.recorder import Ledger
from selfheal_cli.pipeline.stream.batch import LabelFlow, Stream
from selfheal_cli.pipeline.stream.champion import NullWatcher
from selfheal_cli.pipeline.stream.healing import HealEvaluator, Healing
from selfheal_cli.pipeline.stream.monitoring import Diagnosing
from selfheal_cli.pipeline.stream.outside import Live, Outside
from selfheal_cli.pipeline.stream.rollback import AutoRollback
from selfheal_cli.pipeline.stream.snapshots import Snapshots
from selfheal_cli.records import Batch, Evaluation, Phase, Snapshot, VersionRecord
from selfheal_cli.registry.base import Lineage
from selfheal_cli.registry.memory import MemoryRegistry
from selfheal_cli.rollback.trust import Trust, Unverified
from selfheal_cli.scores import AnyScores, Scores
from selfheal_cli.sources.base import Source

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray


@dataclass(frozen=True, slots=True)
class Corridor:
    """A stream with the healing and the labels that belong to it."""

    stream: Stream
    healing: Healing
    flow: LabelFlow
    restore: AutoRollback


def serve(
    prepared: Prepared, on_publish: Callable[[Serving], None] = lambda serving: None
) -> LiveModel:
    """The network as trained, serving."""
    weights = prepared.network.adapter.state_dict()
    frozen = prepared.network.with_adapter(weights)
    serving = Serving(frozen, AdapterState(weights, {}), "", prepared.thresholds[0])
    return LiveModel(serving, on_publish)


def lay(
    config: RunConfig,
    source: Source,
    prepared: Prepared,
    live: LiveModel,
    ledger: Ledger,
    lineage: Lineage,
    outside: Outside,
    *,
    verdicts: bool = True,
) -> Corridor:
    """Join the rooms; without ``verdicts`` nobody diagnoses, which changes no heal."""
    flow = LabelFlow(config, prepared.label_watch, len(source.labels), ledger)
    snapshots = Snapshots(ledger, lineage.run_id)
    restore = AutoRollback(config, live, ledger, outside)
    appraisal = HealEvaluator(config, live, snapshots, flow.desk)
    healing = Healing(config, live, outside, appraisal, snapshots, restore, ledger, lineage.run_id)
    diagnosing = Diagnosing(config, prepared if verdicts else None, source.labels, ledger)
    stream = Stream(
        config,
        prepared,
        live,
        healing,
        appraisal,
        restore,
        snapshots,
        flow,
        diagnosing,
        ledger,
        outside,
        source.labels,
    )
    return Corridor(stream, healing, flow, restore)


MODEL = "replay"


class QuietLedger:
    """A `Ledger` that counts events, and keeps in memory the one version that a rollback could
    restore: the post-heal version with the highest F1.
    """

    def __init__(self, registry: MemoryRegistry, lineage: Lineage) -> None:
        self.pending = 0
        self.full = False
        self.counts: Counter[str] = Counter()
        self._registry = registry
        self._lineage = lineage
        self._unscored: dict[str, int] = {}  # versions by snapshot
        self._best: VersionRecord | None = None

    def note(self, kind: Kind, data: Mapping[str, Any]) -> None:
        """See `Ledger`."""
        self.counts[kind.value] += 1

    def keep(self, snapshot: Snapshot, adapter: bytes) -> None:
        """See `Ledger`."""
        if snapshot.phase is not Phase.POST_HEAL:
            return
        number = self._registry.add_version(self._lineage, snapshot, adapter, None).version
        if snapshot.evaluation is Evaluation.AWAITING:
            self._unscored[snapshot.id] = number
        else:
            self._rank(number)

    def _rank(self, number: int) -> None:
        """Forget the version, or the one that was best until now."""
        fresh = self._registry.version(MODEL, number)
        best = self._best
        if fresh.f1 is None or (best is not None and (best.f1 or 0.0) > fresh.f1):
            self._registry.delete_version(fresh)
            return
        if best is not None:
            self._registry.delete_version(best)
        self._best = fresh

    def is_kept(self, *, wait: bool) -> bool:
        """Memory is all there is."""
        return True

    def score_later(
        self, snapshot: str, batch: int, scores: AnyScores, metrics: Mapping[str, float]
    ) -> None:
        """See `Ledger`."""
        number = self._unscored.pop(snapshot, None)
        if number is not None:
            self._registry.score_version(self._lineage, number, batch, metrics, scores)
            self._rank(number)

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        """Nobody looks."""

    def point(self, alias: str, snapshot: str, reason: str, *, promotes: bool = False) -> None:
        """Nothing is served from here."""

    def restored(self, snapshot: str, version: int) -> None:
        """Versions are known by their numbers alone."""

    def arrival(self) -> Callable[[], None]:
        """All is written at once."""
        return lambda: None

    @property
    def trust(self) -> Trust:
        """Nobody else writes into its memory."""
        return Unverified()

    def catch_up(self, *, wait: bool = False) -> None:
        """All is written at once."""


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

    def __init__(self, config: RunConfig, source: Source, prepared: Prepared) -> None:
        registry = MemoryRegistry()
        base = registry.store_base(MODEL, prepared.base)
        lineage = Lineage(MODEL, MODEL, base, config.heal.recipe, str(config.labels), "1")
        self.ledger = QuietLedger(registry, lineage)
        self.live: LiveModel = serve(prepared)
        self._recipes = _Timed(prepared.network, prepared.anchor, config.heal)
        outside = Live(
            config, registry, lineage, self.ledger, NullWatcher(), self.live, self._recipes
        )
        self.corridor: Corridor = lay(
            config, source, prepared, self.live, self.ledger, lineage, outside, verdicts=False
        )
        nothing = Scores(0, 0, 0, 0)
        self.corridor.healing.baseline(nothing, Evaluation.HELD_OUT)

    def predict(self, x: FloatArray) -> FloatArray:
        """Probabilities by what serves now."""
        return self.live.predict(x)

    def step(self, batch: Batch) -> None:
        """Score, monitor, label, heal."""
        self.corridor.stream.step(batch)

    @property
    def learning(self) -> float:
        """Seconds in heals alone."""
        return self._recipes.spent

    def counts(self) -> dict[str, float]:
        """How often what happened, by kind of event."""
        return {name: float(count) for name, count in self.ledger.counts.items()}
