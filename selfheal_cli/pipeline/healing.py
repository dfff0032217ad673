"""What a heal leads to: published and watched, held back, or overtaken."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from selfheal_cli.config import RunConfig
from selfheal_cli.heal.live import LiveModel
from selfheal_cli.heal.recipe import KINDS
from selfheal_cli.heal.task import AdapterState, HealFailure, HealRows, HealTask
from selfheal_cli.history.events import Kind
from selfheal_cli.pipeline.appraisal import Appraisal, Appraised, Seen
from selfheal_cli.pipeline.ledger import Ledger
from selfheal_cli.pipeline.outside import Outside
from selfheal_cli.pipeline.restore import Restore
from selfheal_cli.pipeline.snapshots import Completed, Snapshots
from selfheal_cli.records import Evaluation, Phase, VersionRecord
from selfheal_cli.registry.base import BASELINE, CHAMPION
from selfheal_cli.scores import AnyScores


class Healing:
    """The live model's adapter from snapshot to snapshot."""

    def __init__(
        self,
        config: RunConfig,
        live: LiveModel,
        outside: Outside,
        appraisal: Appraisal,
        snapshots: Snapshots,
        restore: Restore,
        ledger: Ledger,
        run_id: str,
    ) -> None:
        self._config = config
        self._live = live
        self._baseline = live.serving
        self._assumed = False  # what serves rests on an assumption, not on labels
        self._now = 0
        self._outside = outside
        self._appraisal = appraisal
        self._snapshots = snapshots
        self._restore = restore
        self._ledger = ledger
        self._run_id = run_id
        self._seen: dict[int, Seen] = {}
        self._ready: Appraised | None = None

    @property
    def in_flight(self) -> bool:
        """A heal is under way beside live scoring."""
        return self._outside.heals.in_flight or self._ready is not None

    def baseline(self, scores: AnyScores, evaluation: Evaluation) -> None:
        """Snapshot the adapter as trained; it serves until the first heal."""
        reason = "trained on clean rows"
        serving = self._live.serving
        snapshot = self._snapshots.take(
            serving.adapter.weights,
            phase=Phase.BASELINE,
            batch=0,
            scores=scores,
            evaluation=evaluation,
            reason=reason,
            threshold=serving.threshold,
        )
        self._live.publish(serving.adapter, snapshot, serving.threshold)
        self._baseline = self._live.serving
        for alias in (BASELINE, CHAMPION):
            self._ledger.point(alias, snapshot, reason, promotes=True)

    def know_baseline(self, version: VersionRecord) -> None:
        """The version, of an earlier run, that has the adapter as trained."""
        snapshot = version.tags["selfheal.snapshot"]
        self._ledger.restored(snapshot, version.version)
        self._baseline = replace(self._baseline, snapshot=snapshot)

    def request(
        self, batch: int, recipe: str, rows: HealRows, seen: Seen, reason: str, share: float
    ) -> None:
        """Ask for a heal on rows; ``share`` is that of positives among the batch's conflicts."""
        heal_id = f"{self._run_id[:8]}-h{batch:05}"
        task = HealTask(heal_id, batch, reason, recipe, rows, share)
        self._seen[batch] = seen
        replaced = self._outside.heals.submit(task)
        if replaced is not None:
            self._seen.pop(replaced.batch)
            self._drop(replaced, "newer rows came before it could start", task.heal_id)

    def _drop(self, task: HealTask, reason: str, replaced_by: str | None) -> None:
        self._ledger.note(
            Kind.HEAL_COALESCED,
            {
                "heal_id": task.heal_id,
                "batch": task.batch,
                "reason": reason,
                "replaced_by": replaced_by,
            },
        )

    def settle(self, batch: int | None = None, *, wait: bool = False) -> None:
        """Take the heals that are done by ``batch``: publish them, or say why not.

        Nothing is published before its snapshots are on disk. A synchronous run waits for that,
        beside live scoring it is looked at again after the next batch.
        """
        self._now = self._now if batch is None else batch
        wait_for_disk = wait or self._config.heal.mode == "sync"
        while True:
            if self._ready is not None and not self._publish(self._ready, wait=wait_for_disk):
                return
            outcome = self._outside.heals.take(wait=wait)
            if outcome is None:
                return
            if isinstance(outcome, HealFailure):
                self._fail(outcome)
            elif self._restore.overtook(outcome.task.batch):
                self._seen.pop(outcome.task.batch)
                self._drop(outcome.task, "a rollback came before it was done", None)
            else:
                seen = self._seen.pop(outcome.task.batch)
                self._ready = self._appraisal.appraise(outcome, seen)

    def finish(self) -> None:
        """Wait for the heal that is under way, and for the rollback that it may lead to."""
        self.settle(wait=True)
        self._restore.settle(wait=True)

    def _fail(self, failure: HealFailure) -> None:
        task = failure.task
        self._seen.pop(task.batch)
        note = {"heal_id": task.heal_id, "batch": task.batch, "reason": failure.reason}
        if failure.refused:
            self._refuse(note)
            return
        note["worker_restarted"] = failure.worker_restarted
        self._ledger.note(Kind.HEAL_FAILED, note)

    def _refuse(self, note: dict[str, Any]) -> None:
        """A refuted assumption takes with it what it healed before: the trained weights serve."""
        trained = self._baseline
        if self._assumed:
            self._assumed = False
            self._live.publish(trained.adapter, trained.snapshot, trained.threshold)
            note["to_snapshot"] = trained.snapshot
            self._ledger.point(CHAMPION, trained.snapshot, f"refuted: {note['reason']}")
        self._ledger.note(Kind.HEAL_REFUSED, note)

    def _publish(self, ready: Appraised, *, wait: bool) -> bool:
        """Let a heal serve, if it is on disk and nothing overtook it; False while it is not."""
        if not self._outside.is_durable(wait=wait):
            return False
        self._ready = None
        task, serving = ready.outcome.task, self._live.serving
        if self._restore.overtook(task.batch):
            self._drop(task, "the champion was moved before it was published", None)
        elif ready.rejected:
            # the old weights go on serving; what the recipe learned of itself goes on as well
            state = AdapterState(serving.adapter.weights, ready.outcome.after.memory)
            self._live.publish(state, serving.snapshot, serving.threshold)
            self._ledger.note(Kind.HEAL_REJECTED, ready.told | {"rejected": ready.rejected})
        else:
            self._live.publish(ready.outcome.after, ready.snapshot, ready.threshold)
            self._assumed = KINDS[task.recipe].rows == "unlabelled"
            self._ledger.note(Kind.HEAL, ready.told)
            reason = f"heal {task.heal_id}: {task.reason}"
            self._ledger.point(CHAMPION, ready.snapshot, reason)
            if ready.healed.after is not None:
                heal = Completed(task.heal_id, task.batch, ready.healed.after)
                self._restore.observe(heal, task.rows, self._now)
        return True
