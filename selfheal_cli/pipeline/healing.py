"""What a heal leads to: publish, snapshot, and roll back when heals go bad."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from selfheal_cli.config import RunConfig
from selfheal_cli.decide.health import Health
from selfheal_cli.errors import SelfhealError
from selfheal_cli.heal.engine import HealEngine, HealFailure
from selfheal_cli.heal.healer import AdapterState, HealOutcome, HealTask
from selfheal_cli.heal.live import LiveModel
from selfheal_cli.heal.loss import positive_weight
from selfheal_cli.history.events import Kind
from selfheal_cli.model.network import Weights
from selfheal_cli.monitor.prequential import score
from selfheal_cli.monitor.shadow import lift
from selfheal_cli.pipeline.ledger import Ledger
from selfheal_cli.records import (
    Batch,
    Conflicts,
    DriftReading,
    Evaluation,
    Phase,
    Scores,
    Snapshot,
)
from selfheal_cli.registry.base import BASELINE, CHAMPION, Lineage, Registry
from selfheal_cli.rollback import find_best, load_verified
from selfheal_cli.snapshot import digest, pack

if TYPE_CHECKING:
    from selfheal_cli.records import LabelArray


@dataclass(frozen=True, slots=True)
class Seen:
    """What was read of a batch, kept until its heal is done."""

    shadow: Scores
    reading: DriftReading
    conflicts: Conflicts


class Healing:
    """The live model's adapter from snapshot to snapshot."""

    def __init__(
        self,
        config: RunConfig,
        live: LiveModel,
        engine: HealEngine,
        registry: Registry,
        lineage: Lineage,
        ledger: Ledger,
    ) -> None:
        self._config = config
        self._live = live
        self._engine = engine
        self._registry = registry
        self._lineage = lineage
        self._ledger = ledger
        self._health = Health(config.policy)
        self._seen: dict[int, Seen] = {}
        self._snapshots = 0
        self.rollbacks = 0

    @property
    def in_flight(self) -> bool:
        """A heal is under way beside live scoring."""
        return self._engine.in_flight

    def baseline(self, scores: Scores, evaluation: Evaluation) -> None:
        """Snapshot the adapter as trained; it serves until the first heal."""
        reason = "trained on clean rows"
        snapshot = self._snapshot(
            self._live.serving.adapter.weights,
            phase=Phase.BASELINE,
            batch=0,
            scores=scores,
            evaluation=evaluation,
            reason=reason,
        )
        self._live.publish(self._live.serving.adapter, snapshot)
        for alias in (BASELINE, CHAMPION):
            self._ledger.point(alias, snapshot, reason)

    def request(self, batch: Batch, rule_label: LabelArray, seen: Seen, reason: str) -> None:
        """Ask for a heal on a batch's rows."""
        task = HealTask(
            heal_id=f"{self._lineage.run_id[:8]}-h{batch.index:05}",
            batch=batch.index,
            reason=reason,
            x=batch.rows.x,
            y=batch.rows.y,
            rule_label=rule_label,
            positive_share=seen.conflicts.positive_share,
        )
        self._seen[batch.index] = seen
        replaced = self._engine.submit(task)
        if replaced is not None:
            self._seen.pop(replaced.batch)
            self._ledger.note(
                Kind.HEAL_COALESCED,
                {
                    "heal_id": replaced.heal_id,
                    "batch": replaced.batch,
                    "reason": "newer rows came before it could start",
                    "replaced_by": task.heal_id,
                },
            )

    def settle(self, *, wait: bool = False) -> None:
        """Take the heals that are done: publish, snapshot, and roll back if they went bad."""
        while (outcome := self._engine.take(wait=wait)) is not None:
            if isinstance(outcome, HealFailure):
                self._seen.pop(outcome.task.batch)
                self._ledger.note(
                    Kind.HEAL_FAILED,
                    {
                        "heal_id": outcome.task.heal_id,
                        "batch": outcome.task.batch,
                        "reason": outcome.reason,
                        "worker_restarted": outcome.worker_restarted,
                    },
                )
            else:
                self._publish(outcome)

    def _publish(self, outcome: HealOutcome) -> None:
        task, threshold = outcome.task, self._config.threshold
        seen = self._seen.pop(task.batch)
        before = score(outcome.probabilities_before, task.y, threshold)
        after = score(outcome.probabilities_after, task.y, threshold)
        serving = self._live.serving
        first = self._snapshot(
            serving.adapter.weights,
            phase=Phase.PRE_HEAL,
            batch=task.batch,
            scores=before,
            evaluation=Evaluation.PREQUENTIAL,
            reason=task.reason,
            parent=serving.snapshot,
            heal_id=task.heal_id,
            extra=_readings(before, seen),
        )
        second = self._snapshot(
            outcome.after.weights,
            phase=Phase.POST_HEAL,
            batch=task.batch,
            scores=after,
            evaluation=Evaluation.IN_SAMPLE,
            reason=task.reason,
            parent=first,
            heal_id=task.heal_id,
            extra=_readings(after, seen),
        )
        self._live.publish(outcome.after, second)
        self._ledger.note(
            Kind.HEAL,
            {
                "heal_id": task.heal_id,
                "batch": task.batch,
                "reason": task.reason,
                "from_snapshot": first,
                "to_snapshot": second,
                "before": before.as_dict(),
                "after": after.as_dict(),
                "label_loss": outcome.label_loss,
                "rule_loss": outcome.rule_loss,
                "positive_weight": positive_weight(task.positive_share),
            },
        )
        self._ledger.point(CHAMPION, second, f"heal {task.heal_id}: {task.reason}")
        degraded = self._health.observe(after)
        if degraded is not None:
            self._roll_back(task, degraded)

    def _roll_back(self, task: HealTask, reason: str) -> None:
        """Restore what the registry calls best; the optimiser goes on as it is, as in the article.

        A version that cannot be restored is an event, and the healed weights go on serving.
        """
        self._ledger.catch_up(wait=True)
        lineage = self._lineage
        within = lineage.run_id if self._config.policy.rollback_candidates == "run" else None
        note = {"heal_id": task.heal_id, "batch": task.batch, "reason": reason}
        serving = self._live.serving
        try:
            best = find_best(self._registry, lineage.model, base=lineage.base, run_id=within)
            weights = load_verified(self._registry, best)
        except SelfhealError as exc:
            self._ledger.note(Kind.ROLLBACK_FAILED, {**note, "error": str(exc)})
            return
        restored = best.tags["selfheal.snapshot"]
        self._ledger.writer.knows(restored, best.version)
        self._live.publish(AdapterState(weights, serving.adapter.optimiser), restored)
        self.rollbacks += 1
        self._ledger.note(
            Kind.ROLLBACK,
            {
                **note,
                "from_snapshot": serving.snapshot,
                "to_snapshot": restored,
                "version": best.version,
                "f1": best.f1,
                "rows": best.eval_rows,
                "sha256": best.sha256,
            },
        )
        self._ledger.moved(
            self._registry.move_alias(
                lineage.model,
                CHAMPION,
                best.version,
                actor=self._ledger.actor,
                at=self._ledger.now(),
                reason=f"rollback: {reason}",
            )
        )

    def _snapshot(
        self,
        weights: Weights,
        *,
        phase: Phase,
        batch: int,
        scores: Scores,
        evaluation: Evaluation,
        reason: str,
        parent: str | None = None,
        heal_id: str | None = None,
        extra: Mapping[str, float] | None = None,
    ) -> str:
        self._snapshots += 1
        data = pack(weights)
        snapshot = Snapshot(
            id=f"{self._lineage.run_id[:8]}-s{self._snapshots:06}",
            phase=phase,
            batch=batch,
            sha256=digest(data),
            scores=scores,
            evaluation=evaluation,
            reason=reason,
            parent=parent,
            heal_id=heal_id,
            metrics={**scores.figures(), **(extra or {})},
        )
        self._ledger.keep(snapshot, data)
        return snapshot.id


def _readings(scores: Scores, seen: Seen) -> dict[str, float]:
    gained = lift(scores, seen.shadow)
    return {
        "lift_accuracy": gained.accuracy,
        "lift_f1": gained.f1,
        "drift_z": seen.reading.z,
        "conflicts": float(seen.conflicts.count),
    }
