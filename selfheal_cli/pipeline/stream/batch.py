"""One batch after another through the rooms: score, monitor, label, decide, heal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from selfheal_cli.config import RunConfig
from selfheal_cli.decide import Decision, decide, state_after
from selfheal_cli.drift.fidi import Fidi
from selfheal_cli.drift.figures import batch_figures
from selfheal_cli.errors import DataError, SelfhealError
from selfheal_cli.events.types import Kind
from selfheal_cli.heal.engine import LiveModel
from selfheal_cli.heal.recipe import KINDS, label_free
from selfheal_cli.heal.task import HealRows, Window
from selfheal_cli.labels.estimate import estimate
from selfheal_cli.labels.quarantine import LabelWatch
from selfheal_cli.labels.queue import DelayedLabels, LabelJoiner, LabelQueue, Scored
from selfheal_cli.metrics import RunningScores, classify, counts
from selfheal_cli.pipeline.prepare.baseline import Prepared
from selfheal_cli.pipeline.record.recorder import Ledger
from selfheal_cli.pipeline.stream.answering import answer
from selfheal_cli.pipeline.stream.champion import ChampionMove
from selfheal_cli.pipeline.stream.healing import BatchReading, HealEvaluator, Healing
from selfheal_cli.pipeline.stream.monitoring import Diagnosing, Monitoring, RuleWatch
from selfheal_cli.pipeline.stream.outside import Change, HoldChange, Outside
from selfheal_cli.pipeline.stream.rollback import AutoRollback
from selfheal_cli.pipeline.stream.snapshots import Snapshots
from selfheal_cli.records import Batch, Conflicts, DriftReading, LateLabels
from selfheal_cli.scores import AnyScores

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray, LabelArray


def make_desk(config: RunConfig) -> LabelQueue:
    """The desk that the label regime wants."""
    if config.labels.regime == "arriving":
        return LabelJoiner(config.batch_size, config.labels.keep)
    return DelayedLabels(config.labels)


class LabelFlow:
    """The desk, the watch over label rates, and the windows of rows."""

    def __init__(self, config: RunConfig, watch: LabelWatch, classes: int, ledger: Ledger) -> None:
        self._full = config.labels.regime == "full"
        self._guarded = KINDS[config.heal.recipe].guarded
        self._watch = watch
        self._classes = classes
        self._ledger = ledger
        self._step = 0
        self.desk = make_desk(config)
        heal = config.heal
        self.labelled = Window(heal.window, heal.held_out, config.seed)
        self.unlabelled = Window(heal.window, 0.0, config.seed)
        self.quarantined_rows = 0

    def take(
        self, scored: Scored, now: float | None, late: LateLabels | None = None
    ) -> tuple[list[Scored], list[Scored]]:
        """Hand in a scored batch; get the labels that came: (to learn from, held back)."""
        self._step += 1
        unknown = np.full(len(scored), -1, dtype=np.int8)
        self.unlabelled.add(self._step, scored.features, unknown, scored.rule_label)
        arrived = self.desk.take(scored, now, late)
        learned: list[Scored] = []
        held_back: list[Scored] = []
        for part in arrived:
            (learned if self._plausible(part) else held_back).append(part)
        for part in learned:
            self.labelled.add(self._step, part.features, part.y, part.rule_label)
        if not self._full:
            for part in arrived:
                self._note(part)
        return learned, held_back

    def recall(self, features: FloatArray, y: LabelArray, rule_label: LabelArray) -> None:
        """Rows (n, features) whose labels came to an earlier run: to learn from once more."""
        self._step += 1
        self.labelled.add(self._step, features, y, rule_label)

    def _plausible(self, part: Scored) -> bool:
        verdict = self._watch.judge(part.y)
        if not (verdict.implausible or verdict.believed):
            return True
        held = verdict.implausible and self._guarded
        self._ledger.note(
            Kind.QUARANTINED,
            {"batch": part.batch, "rows": len(part), "held_back": held} | verdict.as_dict(),
        )
        self.quarantined_rows += len(part) if held else 0
        return not held

    def _note(self, part: Scored) -> None:
        live = counts(classify(part.probabilities, part.threshold), part.y, self._classes)
        shadow = counts(classify(part.shadow, part.shadow_threshold), part.y, self._classes)
        self._ledger.note(
            Kind.LABELS,
            {
                "batch": part.batch,
                "rows": len(part),
                "live": live.as_dict(),
                "shadow": shadow.as_dict(),
            },
        )


# batches that an assumption must hold on before it heals, and labelled ones that overrule it
ENOUGH = 5
MOST_APART = 3  # batches in a row that cannot be gone through before the stream ends
LONGEST_REASON = 200
APART = "rows of batches that could not be gone through"


class Stream:
    """The running model. Scoring reads ``live``; everything else happens around it.

    ``live_scores`` and ``shadow_scores`` hold every row whose label has come; `finish` adds those
    that the source knows though they were not allowed to come. They are for the table at the end.
    """

    def __init__(
        self,
        config: RunConfig,
        prepared: Prepared,
        live: LiveModel,
        healing: Healing,
        appraisal: HealEvaluator,
        restore: AutoRollback,
        snapshots: Snapshots,
        flow: LabelFlow,
        diagnosing: Diagnosing,
        ledger: Ledger,
        outside: Outside,
        labels: Sequence[str],
    ) -> None:
        self._config = config
        self._prepared = prepared
        self._live = live
        self._healing = healing
        self._appraisal = appraisal
        self._restore = restore
        self._snapshots = snapshots
        self._flow = flow
        self._ledger = ledger
        self._outside = outside
        self._never = config.labels.regime == "none"
        self._full = config.labels.regime == "full"
        self._kind = KINDS[config.heal.recipe]
        self._free = label_free(config.heal)
        self._fidi = Fidi(prepared.trained.calibration, config.policy)
        self._rules = RuleWatch(config, prepared, ledger)
        self._monitors = Monitoring(config, prepared.sample, ledger)
        self._diagnosing = diagnosing
        self._classes = len(labels)
        self.live_scores = RunningScores(self._classes)
        self.shadow_scores = RunningScores(self._classes)
        self.left_out: Counter[str] = Counter()  # rows that nothing was learned from, by reason
        self.last = 0  # batch that was taken last
        self._apart = 0  # batches in a row that could not be gone through

    def idle(self) -> None:
        """Nothing to score: take what others decided, and what is done meanwhile."""
        self.follow(self.last)
        self._restore.settle()
        self._healing.settle()
        self._ledger.catch_up()

    def step(self, batch: Batch) -> None:
        """Score a batch with what serves now, then let the rooms look at it.

        One that cannot be gone through is set apart with its cause, and the stream goes on; raises
        `DataError` after `MOST_APART` of them in a row.
        """
        try:
            self._step(batch)
        except Exception as exc:
            if isinstance(exc, SelfhealError) and not isinstance(exc, DataError):
                raise
            self._set_apart(batch, exc)
        else:
            self._apart = 0

    def _set_apart(self, batch: Batch, cause: Exception) -> None:
        self._apart += 1
        self.left_out[APART] += len(batch.rows)
        kind = "" if isinstance(cause, SelfhealError) else f"{type(cause).__name__}: "
        reason = f"{kind}{str(cause).partition(chr(10))[0][:LONGEST_REASON]}"
        told = {"batch": batch.index, "rows": len(batch.rows), "reason": reason}
        self._ledger.note(Kind.BATCH_SET_APART, told)
        self._ledger.log_metrics({"rows_left_out": float(self.left_out.total())}, batch.index)
        if self._apart >= MOST_APART:
            raise DataError(
                f"batch {batch.index}: {reason}; {self._apart} batches in a row could not be gone "
                "through, so that the run ends: look at the rows, and at the model, and start anew"
            ) from cause

    def _step(self, batch: Batch) -> None:
        self.last = batch.index
        self.follow(batch.index)
        if batch.offsets:
            taken = {"batch": batch.index, "rows": len(batch.rows), "offsets": dict(batch.offsets)}
            self._ledger.note(Kind.ROWS_TAKEN, taken)
        if not len(batch.rows):
            return
        rollbacks = self._restore.rollbacks
        self._restore.settle(batch.index)
        answered = answer(batch, self._prepared, self._live)
        batch = answered.batch
        self.left_out.update(answered.left_out)
        rules = self._rules.rules.judge(batch.rows.columns)
        self._appraisal.remember(answered.features)
        self._rules.observe(batch.index, batch.rows.columns)
        scored = Scored.of(
            batch, answered.features, answered.answers, answered.shadow,
            self._prepared.thresholds[1], rules.label,
        )  # fmt: skip
        learned, held_back = self._flow.take(scored, batch.now, batch.late)
        for part in [scored] if self._never else learned:
            self._count(part)
        reading = self._fidi.observe(self._fidi.calibration.values(batch.rows.columns))
        known = scored.y if self._full else np.full(len(scored), -1, dtype=np.int8)
        least = self._config.policy.conflict_probability
        conflicts = rules.conflicts_with(scored.probabilities, known, least)
        for heal in self._snapshots.labels_came(learned, held_back):
            if len(self._flow.labelled):
                self._restore.observe(heal, self._flow.labelled.rows(), batch.index)
        watched = self._monitors.observe(scored, batch.rows.columns, conflicts, learned)
        drifting = reading.drifting or watched.drifting
        self._diagnosing.observe(batch.index, learned, drifting=drifting)
        decision = decide(reading, conflicts, self._config.policy, watched.reasons)
        live, shadow = (
            counts(classify(p, t), known, self._classes)
            for p, t in (
                (scored.probabilities, scored.threshold),
                (scored.shadow, scored.shadow_threshold),
            )
        )
        seen = BatchReading(reading.z, conflicts.count, shadow if shadow.rows else None)
        asked = self._ask(batch.index, decision, learned, conflicts, seen)
        self._healing.settle(batch.index)
        state = state_after(
            drifting=drifting,
            in_flight=self._healing.in_flight,
            rolled_back=self._restore.rollbacks > rollbacks,
        )
        told: dict[str, Any] = {"state": state.value, "heal_requested": asked}
        told |= {"reason": decision.reason}
        told |= {"abstained": rules.abstained} if self._rules.several else {}
        told |= {"left_out": dict(answered.left_out)} if answered.left_out else {}
        told |= watched.told()
        self._note(batch.index, scored, live, shadow, reading, conflicts, told)

    def follow(self, batch: int) -> None:
        """Carry out what others decided before ``batch``."""
        for change in self._outside.changes(batch, held=self._restore.held):
            self._carry_out(batch, change)

    def rest(self, batch: int) -> None:
        """Carry out what is known to have come between ``batch`` and the next one."""
        for change in self._outside.meanwhile(batch):
            self._carry_out(batch + 1, change)

    def _carry_out(self, batch: int, change: Change) -> None:
        if isinstance(change, HoldChange):
            self._restore.hold(batch, change)
        elif isinstance(change, ChampionMove):
            self._restore.follow(batch, change)
        else:  # the stream was stopped here, after the heals that were under way
            self._ledger.note(Kind.STREAM_STOPPED, {"batch": batch - 1})
            self._healing.finish()

    def finish(self) -> None:
        """The stream is over: count the rows whose labels are still on their way."""
        for part in self._flow.desk.waiting:
            self._count(part)

    def _count(self, part: Scored) -> None:
        self.live_scores.add(part.probabilities, part.threshold, part.y)
        self.shadow_scores.add(part.shadow, part.shadow_threshold, part.y)

    def _ask(
        self,
        batch: int,
        decision: Decision,
        learned: Sequence[Scored],
        conflicts: Conflicts,
        seen: BatchReading,
    ) -> bool:
        """Ask for a heal where there is a reason and there are rows; True if it was."""
        chosen = self._rows_to_heal_on(decision, learned)
        if chosen is None or self._restore.paused(batch):
            return False
        recipe, rows = chosen
        reason = decision.reason if decision.heal else "new labels"
        if recipe == self._free:
            reason = f"{decision.reason}, no labels: {self._config.heal.assume} is assumed"
        self._diagnosing.before_heal(batch)
        self._healing.request(batch, recipe, rows, seen, reason, conflicts.positive_share)
        return True

    def _rows_to_heal_on(
        self, decision: Decision, learned: Sequence[Scored]
    ) -> tuple[str, HealRows] | None:
        name = self._config.heal.recipe
        if self._kind.rows == "batch":
            if not (decision.heal and learned):
                return None
            last = learned[-1]
            steps = np.full(len(last), last.batch, dtype=np.int32)
            none = np.zeros(len(last), dtype=bool)
            return name, HealRows(last.features, last.y, last.rule_label, steps, none)
        labelled = self._flow.labelled
        if self._free is not None and len(labelled) < ENOUGH:
            unlabelled = self._flow.unlabelled
            return (self._free, unlabelled.rows()) if len(unlabelled) >= ENOUGH else None
        return (name, labelled.rows()) if learned else None

    def _note(
        self,
        batch: int,
        scored: Scored,
        live: AnyScores,
        shadow: AnyScores,
        reading: DriftReading,
        conflicts: Conflicts,
        told: dict[str, Any],
    ) -> None:
        known = live.rows > 0
        pending = self._ledger.pending
        estimates = {} if known else estimate(scored.probabilities, scored.threshold).figures()
        data = {
            "batch": batch,
            "rows": len(scored),
            "live": live.as_dict() if known else None,
            "shadow": shadow.as_dict() if known else None,
            "estimates": estimates,
            "z": reading.z,
            "drifting": reading.drifting,
            "conflicts": conflicts.count,
            "positive_share": conflicts.positive_share,
            "shifts": self._prepared.shifts.of(scored.x),
            "pending_writes": pending,
            **told,
        }
        self._ledger.note(Kind.BATCH, data)
        figures = batch_figures(data)
        if self.left_out:
            figures["rows_left_out"] = float(self.left_out.total())
        self._ledger.log_metrics({**figures, "pending_writes": float(pending)}, step=batch)
        self._ledger.catch_up()
