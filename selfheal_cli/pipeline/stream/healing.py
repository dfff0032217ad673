"""What a heal leads to: published and watched, held back, or overtaken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from selfheal_cli.events.types import (
    HealCoalesced,
    HealFailed,
    HealJudged,
    HealLearned,
    HealRefuted,
    HealRejected,
    HealWithheld,
    ModeChanged,
)
from selfheal_cli.heal.gate import Judgement
from selfheal_cli.heal.publishing import Publishing
from selfheal_cli.heal.recipe import kind_of
from selfheal_cli.heal.task import AdapterState, HealFailure, HealOutcome, HealRows, HealTask
from selfheal_cli.model.network import SelfHealingNetwork, Weights
from selfheal_cli.pipeline.prepare.continuing import Spent
from selfheal_cli.pipeline.stream.allowance import FREE, Allowance, Permission
from selfheal_cli.pipeline.stream.champion import ChampionMove
from selfheal_cli.pipeline.stream.context import SessionContext
from selfheal_cli.pipeline.stream.evaluating import BatchReading, EvaluatedHeal, HealEvaluator
from selfheal_cli.pipeline.stream.outside import SELFHEAL, HoldChange, ModeChange
from selfheal_cli.pipeline.stream.parts import PartsOfHeal, SegmentParts
from selfheal_cli.pipeline.stream.rollback import AutoRollback
from selfheal_cli.pipeline.stream.snapshots import Completed, Snapshots
from selfheal_cli.pipeline.stream.trying import Canaries
from selfheal_cli.records import Evaluation, Phase, VersionRecord
from selfheal_cli.registry.base import BASELINE, CHAMPION, HEAL
from selfheal_cli.scores import AnyScores

if TYPE_CHECKING:
    pass


class Healing:
    """The live model's adapter from snapshot to snapshot."""

    def __init__(
        self,
        run: SessionContext,
        evaluator: HealEvaluator,
        snapshots: Snapshots,
        rollback: AutoRollback,
        on_healed: Callable[[HealTask], None],
        parts: SegmentParts | None,
    ) -> None:
        self._config = run.config
        self._live = run.live
        self._state = run.state
        self._outside = run.outside
        self._recorder = run.recorder
        self._run_id = run.lineage.run_id
        self._evaluator = evaluator
        self._snapshots = snapshots
        self._rollback = rollback
        self._on_healed = on_healed  # told of each heal that gave something
        self._parts = parts  # of heals, where segments have adapters of their own
        self._baseline = run.live.serving
        self.assumed = False  # what serves rests on an assumption, not on labels
        self._seen: dict[int, BatchReading] = {}
        self._ready: EvaluatedHeal | None = None
        self._publishing = Publishing(run.config.policy, run.config.batch_size)
        self._allowance = Allowance(run) if run.config.is_served else None
        self._kept: SelfHealingNetwork | None = None  # what was judged last, and does not serve
        self._hours = run.config.policy.proposal_hours
        self.canaries = Canaries(run, self._allowance, self._propose, self._forget)

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
            self._recorder.point(alias, snapshot, reason, promotes=True)

    def know_baseline(self, version: VersionRecord) -> None:
        """The version, of an earlier run, that has the adapter as trained."""
        snapshot = version.tags["selfheal.snapshot"]
        self._recorder.restored(snapshot, version.version)
        self._baseline = replace(self._baseline, snapshot=snapshot)

    def request(
        self, batch: int, recipe: str, rows: HealRows, seen: BatchReading, reason: str, share: float
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
        self._recorder.note(
            HealCoalesced(
                heal_id=task.heal_id, batch=task.batch, reason=reason, replaced_by=replaced_by
            )
        )

    def settle(self, *, wait: bool = False) -> None:
        """Take the heals that are done: publish them, or say why not.

        Nothing is published before its snapshots are on disk. A synchronous run waits for that,
        beside live scoring it is looked at again after the next batch.
        """
        wait_for_disk = wait or self._config.heal.mode == "sync"
        self.canaries.end_if_overtaken()
        while True:
            if self._ready is not None and not self._publish(self._ready, wait=wait_for_disk):
                return
            outcome = self._outside.heals.take(wait=wait)
            if outcome is None:
                return
            if isinstance(outcome, HealFailure):
                self._fail(outcome)
            elif outcome.task.batch <= self._state.overtaken:
                self._seen.pop(outcome.task.batch)
                self._drop(outcome.task, "a rollback came before it was done", None)
            else:
                self._take(outcome, self._seen.pop(outcome.task.batch))

    def _take(self, outcome: HealOutcome, seen: BatchReading) -> None:
        """Learn from a heal, and have it judged if it changes enough to be published."""
        network, threshold = self._evaluator.candidate(outcome)
        self._on_healed(outcome.task)
        if self._parts is not None:
            self._take_parts(outcome, self._parts.of(outcome, self._kept, threshold), seen)
            return
        if kind_of(outcome.task.recipe).remembers:
            before = self._live.serving.threshold
            change = self._publishing.change(outcome, before, threshold, self._kept)
            needed = self._publishing.needed(change)
            if change < needed:
                self._learn(outcome, change, needed)
                return
        self._judge(outcome, seen, network, threshold)

    def _take_parts(self, outcome: HealOutcome, parts: PartsOfHeal, seen: BatchReading) -> None:
        """As `_take`, of segments' own adapters and all rows', each for itself."""
        serving, needed = self._live.serving, 0.0
        if kind_of(outcome.task.recipe).remembers:
            needed = self._publishing.needed(parts.changes)
        if parts.changes >= needed:
            full = replace(parts.full, probabilities_before=parts.alone.probabilities_after)
            network, threshold = self._evaluator.candidate(full)
            judgement = self._evaluator.judge(full, network)
            if not (judgement.rejected and parts.fresh):
                self._judge(parts.full, seen, network, threshold, judgement)
                return
        if not parts.fresh:
            self._learn(outcome, parts.changes, needed)
            return
        network = serving.network.with_adapter(parts.alone.after.weights)
        judgement = self._evaluator.judge(parts.alone, network, rows=False)
        self._judge(parts.alone, seen, network, serving.threshold, judgement)

    def _judge(
        self, outcome: HealOutcome, seen: BatchReading, network: SelfHealingNetwork,
        threshold: float, judgement: Judgement | None = None,
    ) -> None:  # fmt: skip
        permission = FREE
        if self._allowance is not None:
            permission = self._allowance.ask(outcome, network, threshold)
        self._ready = self._evaluator.evaluate(
            outcome, seen, network, threshold, permission, judgement
        )

    def _learn(self, outcome: HealOutcome, change: float, needed: float) -> None:
        """What was published goes on serving, and what was learned goes on as well."""
        task = outcome.task
        self._remember(outcome)
        self._recorder.note(
            HealLearned(
                heal_id=task.heal_id, batch=task.batch, reason=task.reason,
                change=change, needed=needed,
            )
        )  # fmt: skip

    def _remember(self, outcome: HealOutcome) -> None:
        """Serve the old weights with what the recipe knows by now."""
        serving = self._live.serving
        state = AdapterState(serving.adapter.weights, outcome.after.memory)
        self._live.publish(state, serving.snapshot, serving.threshold, serving.network)

    def take_over(self, memory: Weights, batch: int) -> None:
        """Go on from what the recipe remembers once wrong labels are put right; the heal of this
        batch carries it to what serves. Those that are under way learned from the wrong ones.
        """
        serving = self._live.serving
        state = AdapterState(serving.adapter.weights, memory)
        self._live.publish(state, serving.snapshot, serving.threshold, serving.network)
        self._state.overtaken = max(self._state.overtaken, batch - 1)

    def follow(self, moved: ChampionMove) -> None:
        """Somebody else moved the champion, and it serves by now."""
        self._kept = None
        if self._allowance is not None and moved.is_elsewhere:
            self._state.leaves, self._state.overtaken = True, moved.batch
        if self._allowance is not None and moved.version is not None and not moved.move.run:
            self._allowance.approve(moved.version.version)

    def hold(self, change: HoldChange) -> None:
        """Healing was stopped: a person's word is about what is tried, too."""
        if change.held and change.actor != SELFHEAL:
            self.canaries.hold(f"healing is held by {change.actor}: {change.reason}")

    def go_on(self, spent: Spent) -> None:
        """Take over what earlier runs spent of the budget."""
        if self._allowance is not None:
            self._allowance.go_on(spent)

    def change_mode(self, change: ModeChange) -> None:
        """Let heals do something else from here on."""
        self._state.mode = change.mode
        self._recorder.note(
            ModeChanged(
                batch=change.batch, mode=change.mode, actor=change.actor, reason=change.reason,
                order=change.order,
            )
        )  # fmt: skip
        self.canaries.change_mode(change)

    def _forget(self) -> None:
        """The next heal is held against what serves."""
        self._kept = None

    def _propose(self, snapshot: str, reason: str) -> None:
        self._state.proposed.add(snapshot)
        self._recorder.propose(snapshot, reason, self._hours, self._state.batch)

    def _withhold(
        self, ready: EvaluatedHeal, permission: Permission, *, propose: bool = True
    ) -> None:
        """What served goes on; what was learned is kept, and proposed where the mode has it."""
        event = ready.event
        proposed = propose and permission.mode in ("auto", "recommend")
        self._remember(ready.outcome)
        self._kept = ready.network
        self._recorder.note(
            HealWithheld.of(
                event, mode=permission.mode, withheld=permission.why, proposed=proposed,
                changed=permission.changed, changed_in_all=permission.changed_in_all,
            )
        )  # fmt: skip
        if proposed:
            changed = f"{permission.changed:.1%} of decisions change"
            if permission.mode != "recommend":
                said = changed in permission.why
                changed = permission.why if said else f"{changed}; {permission.why}"
            reason = f"{HEAL}{event.heal_id}: {event.reason}; {changed}{_judged(event)}"
            self._propose(event.to_snapshot, reason)

    def finish(self) -> None:
        """Wait for the heal that is under way, and for the rollback that it may lead to."""
        self.settle(wait=True)
        self._rollback.settle(wait=True)

    def _fail(self, failure: HealFailure) -> None:
        task = failure.task
        self._seen.pop(task.batch)
        if failure.refused:
            self._refuse(task, failure.reason)
            return
        self._recorder.note(
            HealFailed(
                heal_id=task.heal_id, batch=task.batch, reason=failure.reason,
                worker_restarted=failure.worker_restarted,
            )
        )  # fmt: skip

    def _refuse(self, task: HealTask, reason: str) -> None:
        """A refuted assumption takes with it what it healed before: the trained weights serve."""
        trained, again = self._baseline, ""
        if self.assumed:
            self.assumed = False
            self._live.publish(trained.adapter, trained.snapshot, trained.threshold)
            again = trained.snapshot
            self._recorder.point(CHAMPION, again, f"refuted: {reason}")
        self._recorder.note(
            HealRefuted(heal_id=task.heal_id, batch=task.batch, reason=reason, to_snapshot=again)
        )

    def _publish(self, ready: EvaluatedHeal, *, wait: bool) -> bool:
        """Let a heal serve, if it is on disk and nothing overtook it; False while it is not."""
        if not self._outside.is_durable(wait=wait):
            return False
        self._ready = None
        task, event = ready.outcome.task, ready.event
        permission = ready.permission
        if self._allowance is not None:
            permission = self._allowance.still(permission)
        if task.batch <= self._state.overtaken:
            self._drop(task, "the champion was moved before it was published", None)
        elif isinstance(event, HealRejected):
            self._remember(ready.outcome)
            self._recorder.note(event)
        elif self.canaries.now is not None:
            tried = f"canary {self.canaries.now.served.snapshot} is being tried"
            self._withhold(ready, replace(permission, why=tried), propose=False)
        elif permission.why:
            self._withhold(ready, permission)
        elif self.canaries.wanted:
            self._remember(ready.outcome)  # what was learned goes on
            self._kept = ready.network
            self.canaries.try_heal(ready)
        else:
            if self._allowance is not None:
                self._allowance.spend()
            self._kept = None
            after = ready.outcome.after
            self._live.publish(after, event.to_snapshot, event.threshold, ready.network)
            self.assumed = kind_of(task.recipe).rows == "unlabelled"
            self._recorder.note(event)
            reason = f"{HEAL}{task.heal_id}: {task.reason}"
            self._recorder.point(CHAMPION, event.to_snapshot, reason)
            if event.after is not None:
                heal = Completed(task.heal_id, task.batch, event.after)
                self._rollback.observe(heal, task.rows)
        return True


def _judged(event: HealJudged) -> str:
    """What a person may go by who is to approve a heal."""
    before, after = event.before, event.after
    if before is None or after is None or event.evaluation is not Evaluation.HELD_OUT:
        return ""
    return (
        f"; on {after.rows:,} labelled rows that it did not learn from "
        f"{before.accuracy:.1%} were right, and {after.accuracy:.1%} are with it"
    )
