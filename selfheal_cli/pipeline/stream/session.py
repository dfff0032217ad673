"""One loop: batch after batch is scored, its labels taken, monitors read, healed, written down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from selfheal_cli.decide import Decision, State, decide, state_after
from selfheal_cli.drift.fidi import Fidi
from selfheal_cli.drift.figures import batch_figures
from selfheal_cli.errors import DataError, SelfhealError
from selfheal_cli.events.types import BatchScored, BatchSetApart, RowsTaken, StreamStopped
from selfheal_cli.heal.recipe import kind_of, label_free
from selfheal_cli.heal.recipes.unmoved import has_moved
from selfheal_cli.heal.task import HealRows
from selfheal_cli.kinds import UNSEEN
from selfheal_cli.labels.corrections import Correction
from selfheal_cli.labels.estimate import estimate
from selfheal_cli.labels.queue import Scored
from selfheal_cli.metrics import RunningScores, classify, counts, score
from selfheal_cli.pipeline.prepare.baseline import Prepared
from selfheal_cli.pipeline.prepare.continuing import WarmStart
from selfheal_cli.pipeline.stream.batch import AnsweredBatch, LabelFlow, answer
from selfheal_cli.pipeline.stream.canary import TriedBefore
from selfheal_cli.pipeline.stream.candidates import CandidateWatch
from selfheal_cli.pipeline.stream.champion import ChampionMove
from selfheal_cli.pipeline.stream.context import SessionContext
from selfheal_cli.pipeline.stream.evaluating import BatchReading, HealEvaluator, NoReading
from selfheal_cli.pipeline.stream.healing import Healing
from selfheal_cli.pipeline.stream.monitoring import Diagnosing, Monitoring, RuleWatch, Watched
from selfheal_cli.pipeline.stream.ordered import OrderedCanary
from selfheal_cli.pipeline.stream.outside import (
    CanaryWithdrawn,
    Change,
    HoldChange,
    ModeChange,
)
from selfheal_cli.pipeline.stream.parts import segment_parts
from selfheal_cli.pipeline.stream.relearning import Relearned
from selfheal_cli.pipeline.stream.rollback import AutoRollback
from selfheal_cli.pipeline.stream.snapshots import Snapshots
from selfheal_cli.pipeline.stream.stretches import ServedFirst, Stretches
from selfheal_cli.records import (
    Batch,
    Conflicts,
    DriftReading,
    Evaluation,
)
from selfheal_cli.registry.orders import REBUILT
from selfheal_cli.rules.ruleset import RuleVerdict
from selfheal_cli.scores import AnyScores
from selfheal_cli.sources.base import Source

# batches that an assumption must hold on before it heals, and labelled ones that overrule it
ENOUGH = 5
MOST_APART = 3  # batches in a row that cannot be gone through before the stream ends
LONGEST_REASON = 200
NOTHING_READ = Decision(heal=False, reason="")
LOST = "rows that had to go before their label could count: raise labels.keep"
APART = "rows of batches that could not be gone through"


@dataclass(frozen=True, slots=True)
class Readings:
    """What was read of one batch; ``live`` and ``shadow`` count rows whose labels came with it."""

    drift: DriftReading
    conflicts: Conflicts
    watched: Watched
    drifting: bool
    decision: Decision
    live: AnyScores
    shadow: AnyScores


def never() -> bool:
    """Nobody stops the stream."""
    return False


def each(
    batches: Iterable[Batch],
    step: Callable[[Batch], None],
    stop: Callable[[], bool] = never,
) -> bool:
    """Every batch, until told to stop after one; returns whether it was."""
    for batch in batches:
        step(batch)
        if stop():
            return True
    return False


class Session:
    """A running model: made from its context, begun, stepped by anyone, and finished.

    Scoring reads what serves; everything else happens around it. Without ``verdicts`` nobody
    diagnoses, which changes no heal. ``live_scores`` and ``shadow_scores`` hold every row whose
    label has come; `count_waiting` adds those that the source knows though they were not allowed to
    come. They are for the table at the end, as the ``stretches`` are for its verdict.
    """

    def __init__(self, run: SessionContext, *, verdicts: bool = True) -> None:
        self.run = run
        config, classes = run.config, len(run.source.labels)
        self.flow = LabelFlow(run)
        self._snapshots = Snapshots(run.recorder, run.lineage.run_id)
        self._rollback = AutoRollback(run)
        self._evaluator = HealEvaluator(run, self._snapshots, self.flow.labels)
        self._monitors = Monitoring(run)
        parts = segment_parts(run, self._monitors.segments)
        self.healing = Healing(
            run, self._evaluator, self._snapshots, self._rollback, self.flow.healed, parts
        )
        self._diagnosing = Diagnosing(run, self._monitors.segments, verdicts=verdicts)
        self._rules = RuleWatch(run)
        self._fidi = Fidi(run.prepared.trained.calibration, config.policy)
        paired = config.heal.better_by == "paired"
        self._candidates = CandidateWatch(run) if paired else None
        self.stretches = Stretches(classes) if paired else None
        self._never = config.labels.regime == "none"
        self._full = config.labels.regime == "full"
        self._kind = kind_of(config.heal.recipe)
        self._plain = run.prepared.network.architecture.plain
        self._free = label_free(config.heal)
        self._classes = classes
        self.live_scores = RunningScores(classes)
        self.shadow_scores = RunningScores(classes)
        self.left_out: Counter[str] = Counter()  # rows that nothing was learned from, by reason
        self._drifting = False  # as the batch before was read
        self._relearned = False  # this batch's labels corrected others
        self._apart = 0  # batches in a row that could not be gone through
        self._last: Scored | None = None  # the rows that came last

    def begin(self, continued: WarmStart | None = None, tried: TriedBefore | None = None) -> None:
        """What serves first: the network as trained, or the champion that is gone on from, and what
        was ``tried`` beside it.

        What came before the stream is learned from again, and waits for its labels.
        """
        self.healing.canaries.begin_from(tried)
        # a worker takes seconds to begin, which no batch should wait for
        _ = self.run.outside.heals
        for batch in self.run.source.history():
            with suppress(Exception):  # it is left out, and was counted when it first came
                self._recall(batch)
        if continued is None:
            self.healing.baseline(*baseline_scores(self.run.source, self.run.prepared))
        else:
            self.healing.know_baseline(continued.baseline)
            self.healing.go_on(continued.spent)
            self._rollback.begin_from(continued.champion, continued.weights, continued.move)
            if self._candidates is not None:
                self._candidates.go_on_from(continued)
            if self.stretches is not None:
                serving, number = self.run.live.serving, continued.champion.version
                first = ServedFirst(number, serving.network, serving.threshold)
                self.stretches.hold_against(first)
        if tried is not None:
            self.healing.canaries.resume(tried)
        self._rest()

    def go_through(self, folder: Path, stop: Callable[[], bool], held: Callable[[], bool]) -> bool:
        """The source from its first batch to its last, or until ``stop``; returns whether it was.

        What the source keeps goes to ``folder``; ``held`` says whether the run still has its
        model's lease. One that has no end is not stopped between batches that are there, but while
        it is quiet.
        """
        source, stopped = self.run.source, False

        def idle() -> bool:
            nonlocal stopped
            self.idle()
            stopped = stopped or stop()
            return stopped

        def step(batch: Batch) -> None:
            self.step(batch)
            source.settle(self.run.recorder.sync, held)

        try:
            source.attend(folder, idle)
            until = never if source.endless else stop
            stopped = each(source.batches(), step, until) or stopped
        finally:
            source.close()
        if stopped:
            self.run.recorder.stop(self.run.state.batch)
        return stopped

    def idle(self) -> None:
        """Nothing to score: take what others changed, and what is done meanwhile."""
        self._follow(self.run.state.batch)
        self._rollback.settle()
        self.healing.settle()
        self.run.recorder.catch_up()

    def step(self, batch: Batch) -> None:
        """Score a batch with what serves now, then let every stage look at it.

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
        self._rest()

    def finish(self) -> None:
        """Wait for the heals that are under way, and for what they lead to."""
        self.healing.finish()
        if self._monitors.segments is not None:
            self._monitors.segments.finish()

    def _set_apart(self, batch: Batch, cause: Exception) -> None:
        self._apart += 1
        self.left_out[APART] += len(batch.rows)
        kind = "" if isinstance(cause, SelfhealError) else f"{type(cause).__name__}: "
        reason = f"{kind}{str(cause).partition(chr(10))[0][:LONGEST_REASON]}"
        apart = BatchSetApart(batch=batch.index, rows=len(batch.rows), reason=reason)
        self.run.recorder.note(apart)
        self.run.recorder.log_metrics({"rows_left_out": float(self.left_out.total())}, batch.index)
        if self._apart >= MOST_APART:
            raise DataError(
                f"batch {batch.index}: {reason}; {self._apart} batches in a row could not be gone "
                "through, so that the run ends: look at the rows, and at the model, and start anew"
            ) from cause

    def _step(self, batch: Batch) -> None:
        """One way: score, take labels, read the monitors, decide, heal, roll back, record."""
        self.run.state.batch = batch.index
        self._follow(batch.index)
        if batch.offsets:
            offsets, rows = dict(batch.offsets), len(batch.rows)
            self.run.recorder.note(RowsTaken(batch=batch.index, rows=rows, offsets=offsets))
        if not len(batch.rows):
            if batch.late is not None and batch.late.alone:
                self._learn_late(batch)
            return
        self._rollback.settle()
        answered = answer(batch, self.run.prepared, self.run.live)
        self.left_out.update(answered.left_out)
        self._evaluator.remember(answered.features)
        columns = answered.batch.rows.columns
        verdict = self._rules.judge(batch.index, columns)
        scored = self.flow.select(_scored(answered, self.run.prepared, verdict), answered.batch)
        learned = self._take_labels(scored, batch)
        self._hold_against_others(batch.index, learned)
        read = self._read(scored, answered.batch, verdict, learned)
        self._last = scored
        asked = self._ask(read, learned)
        self.healing.settle()
        self._record(scored, read, verdict, dict(answered.left_out), asked=asked)

    def _learn_late(self, batch: Batch) -> None:
        """Labels that came while no rows did: learned from as those that come with rows."""
        if self._last is None:
            return  # no row waits for a label
        none = np.zeros(len(self._last), dtype=np.bool_)
        learned = self._take_labels(replace(self._last.where(none), batch=batch.index), batch)
        self._hold_against_others(batch.index, learned)
        anew = learned or self._relearned
        chosen = self._rows_to_heal_on(NOTHING_READ, learned) if anew else None
        if chosen is not None and not self.run.state.paused:
            self._diagnosing.before_heal(batch.index)
            seen = NoReading(0.0, 0)
            self.healing.request(batch.index, *chosen, seen, "new labels", 0.0)
        self.healing.settle()
        self.run.recorder.catch_up()

    def _hold_against_others(self, batch: int, learned: Sequence[Scored]) -> None:
        """What other versions would have lost on rows whose labels came."""
        if self._candidates is not None:
            alarm = self._candidates.observe(batch, learned)
            if alarm is not None:
                self._rollback.brake(alarm)

    def _take_labels(self, scored: Scored, batch: Batch) -> list[Scored]:
        """Rows whose labels came with a batch, to learn from; heals whose labels are complete."""
        came = self.flow.take(scored, batch.now, batch.late)
        self._relearned = bool(came.relearned and came.relearned.rows)
        if came.relearned is not None:
            self._take_over(came.relearned, batch.index)
        for correction in came.corrections:
            self._count_anew(correction)
        for part in [scored] if self._never else came.learned:
            self._count(part)
        if self.flow.labels.lost:
            self.left_out[LOST] = self.flow.labels.lost
        for heal in self._snapshots.labels_came(came.learned, came.held_back):
            if len(self.flow.labelled):
                self._rollback.observe(heal, self.flow.labelled.rows())
        if self.healing.canaries.wanted:
            self.healing.canaries.observe(scored, batch, self.flow.may, came.held_back)
        return came.learned

    def _read(
        self, scored: Scored, batch: Batch, verdict: RuleVerdict, learned: Sequence[Scored]
    ) -> Readings:
        """What monitors say of a batch, and what follows by the policy."""
        policy, columns = self.run.config.policy, batch.rows.columns
        reading = self._fidi.observe(self._fidi.calibration.values(columns))
        known = scored.y if self._full else np.full(len(scored), -1, dtype=np.int8)
        conflicts = verdict.conflicts_with(scored.probabilities, known, policy.conflict_probability)
        watched = self._monitors.observe(scored, columns, conflicts, learned, batch.now)
        drifting = reading.drifting or watched.drifting
        began = watched.began or (drifting and not self._drifting)
        self._drifting = drifting
        if began:
            self._rollback.drift_began()
        self._diagnosing.observe(scored.batch, learned, drifting=drifting, since=watched.since)
        decision = decide(reading, conflicts, policy, watched.reasons)
        live = classify(scored.probabilities, scored.threshold)
        shadow = classify(scored.shadow, scored.shadow_threshold)
        return Readings(
            reading,
            conflicts,
            watched,
            drifting,
            decision,
            counts(live, known, self._classes),
            counts(shadow, known, self._classes),
        )

    def _follow(self, batch: int) -> None:
        """Carry out what others changed before ``batch``."""
        for change in self.run.outside.changes(
            batch, held=self.run.state.held, mode=self.run.state.mode
        ):
            self._carry_out(change)

    def _rest(self) -> None:
        """Carry out what is known to have come before the next batch."""
        for change in self.run.outside.meanwhile():
            self._carry_out(change)

    def _carry_out(self, change: Change) -> None:
        if isinstance(change, HoldChange):
            self._rollback.hold(change)
            self.healing.hold(change)
        elif isinstance(change, ChampionMove):
            self._rollback.follow(change)
            self.healing.follow(change)
        elif isinstance(change, ModeChange):
            self.healing.change_mode(change)
        elif isinstance(change, CanaryWithdrawn):
            self.healing.canaries.withdraw(change)
        elif isinstance(change, OrderedCanary):
            self.healing.canaries.order(change)
        else:  # the stream was stopped here, after the heals that were under way
            self.run.recorder.note(StreamStopped(batch=change.batch))
            self.finish()

    def count_waiting(self) -> None:
        """The stream is over: count the rows whose labels are still on their way."""
        for part in self.flow.labels.countable:
            self._count(part)

    def _count(self, part: Scored) -> None:
        self.live_scores.add(part.probabilities, part.threshold, part.y)
        self.shadow_scores.add(part.shadow, part.shadow_threshold, part.y)
        if self.stretches is not None:
            self.stretches.add(part)

    def _take_over(self, relearned: Relearned, batch: int) -> None:
        """Go on with what the recipe would remember, had the labels been right at once."""
        for part in relearned.released:
            self._count(part)
        for part in relearned.withdrawn:
            self.live_scores = self.live_scores.without(part.probabilities, part.threshold, part.y)
            self.shadow_scores = self.shadow_scores.without(
                part.shadow, part.shadow_threshold, part.y
            )
        if relearned.state is not None and self._kind.remembers:
            self.healing.take_over(relearned.state.memory, batch)

    def _count_anew(self, correction: Correction) -> None:
        """Rows whose label is another one than they were counted with."""
        was, now = correction.part, correction.corrected
        self.live_scores = self.live_scores.without(was.probabilities, was.threshold, was.y)
        self.shadow_scores = self.shadow_scores.without(was.shadow, was.shadow_threshold, was.y)
        self.live_scores.add(now.probabilities, now.threshold, now.y)
        self.shadow_scores.add(now.shadow, now.shadow_threshold, now.y)
        if self.stretches is not None:
            self.stretches.correct(was, now)
        if self._candidates is not None:
            self._candidates.correct(was, now)

    def _ask(self, read: Readings, learned: Sequence[Scored]) -> bool:
        """Ask for a heal where there is a reason and there are rows; True if it was."""
        chosen = self._rows_to_heal_on(read.decision, learned)
        if chosen is None or self.run.state.paused:
            return False
        recipe, rows = chosen
        batch, decision = self.run.state.batch, read.decision
        reason = decision.reason if decision.heal else "new labels"
        reason = REBUILT if self._relearned else reason
        if self._rollback.pause_was_ended():
            reason += "; drift began, so that the pause after a rollback is over"
        if recipe == self._free:
            reason = self._without_labels(decision.reason)
        self._diagnosing.before_heal(batch)
        shadow = read.shadow if read.shadow.rows else None
        seen = BatchReading(read.drift.z, read.conflicts.count, shadow)
        self.healing.request(batch, recipe, rows, seen, reason, read.conflicts.positive_share)
        return True

    def _rows_to_heal_on(
        self, decision: Decision, learned: Sequence[Scored]
    ) -> tuple[str, HealRows] | None:
        name = self.run.config.heal.recipe
        if self._kind.rows == "batch":
            if not (decision.heal and learned):
                return None
            last = learned[-1]
            steps = np.full(len(last), last.batch, dtype=np.int32)
            none = np.zeros(len(last), dtype=bool)
            return name, HealRows(last.features, last.y, last.rule_label, steps, none)
        labelled = self.flow.labelled
        if self._free is not None and len(labelled) < ENOUGH:
            return self._unlabelled_rows(self._free)
        return (name, labelled.rows()) if learned or self._relearned else None

    def _without_labels(self, why: str) -> str:
        """The reason of a heal that rests on an assumption, and what it cannot see."""
        heal = self.run.config.heal
        reason = f"{why}, no labels: {heal.assume} is assumed"
        if heal.assume_strictly and heal.assume is not None:
            reason += f"; nobody could tell: {UNSEEN[heal.assume]}"
        return reason

    def _unlabelled_rows(self, recipe: str) -> tuple[str, HealRows] | None:
        """Without labels nothing heals before the inputs say that something moved, but a heal that
        serves is taken back once they say it no more.
        """
        if len(self.flow.unlabelled) < ENOUGH:
            return None
        rows = self.flow.unlabelled.rows()
        strictly = self.run.config.heal.assume_strictly
        if (
            strictly
            and not self.healing.assumed
            and not has_moved(self.run.prepared.anchor, rows.features[:, : self._plain])
        ):
            return None
        return recipe, rows

    def _record(
        self,
        scored: Scored,
        read: Readings,
        verdict: RuleVerdict,
        left_out: dict[str, int],
        *,
        asked: bool,
    ) -> None:
        """The batch's event, and its figures for the registry's run."""
        recorder, known = self.run.recorder, read.live.rows > 0
        estimates = {} if known else estimate(scored.probabilities, scored.threshold).figures()
        event = BatchScored(
            batch=scored.batch, rows=len(scored), live=read.live if known else None,
            shadow=read.shadow if known else None, estimates=estimates, z=read.drift.z,
            drifting=read.drift.drifting, conflicts=read.conflicts.count,
            positive_share=read.conflicts.positive_share,
            shifts=self.run.prepared.shifts.of(scored.x), pending_writes=recorder.pending,
            state=self._state(read).value, heal_requested=asked, reason=read.decision.reason,
            abstained=verdict.abstained if self._rules.several else None,
            left_out=left_out, monitors=read.watched.told(),
        )  # fmt: skip
        recorder.note(event)
        figures = batch_figures(event)
        if self.left_out:
            figures["rows_left_out"] = float(self.left_out.total())
        figures["pending_writes"] = float(event.pending_writes)
        recorder.log_metrics(figures, step=event.batch)
        recorder.catch_up()

    def _state(self, read: Readings) -> State:
        return state_after(
            drifting=read.drifting,
            in_flight=self.healing.in_flight,
            rolled_back=self.run.state.rolled_back == self.run.state.batch,
        )

    def _recall(self, batch: Batch) -> None:
        """Learn from rows of an earlier run; those without a label wait for it."""
        answered = answer(batch, self.run.prepared, self.run.live)
        batch = answered.batch
        verdict = self.run.prepared.trained.rules.judge(batch.rows.columns)
        scored = _scored(answered, self.run.prepared, verdict)
        self._last = scored = self.flow.select(scored, batch)
        self.flow.recall(scored)
        self.healing.canaries.trial.recall(scored, batch, self.flow.may)


def baseline_scores(source: Source, prepared: Prepared) -> tuple[AnyScores, Evaluation]:
    """On rows held out from training where there are some, else on training rows."""
    if prepared.trained.held_out is not None:
        x, y = prepared.trained.held_out
        evaluation = Evaluation.HELD_OUT
    else:
        beside = source.held_out().get("clean")
        rows = next(iter(source.training())) if beside is None else beside
        x, y = rows.x, rows.y
        evaluation = Evaluation.IN_SAMPLE if beside is None else Evaluation.HELD_OUT
    return score(prepared.network.predict(x), y, prepared.thresholds[0]), evaluation


def _scored(answered: AnsweredBatch, prepared: Prepared, verdict: RuleVerdict) -> Scored:
    return Scored.of(
        answered.batch, answered.features, answered.answers, answered.shadow,
        prepared.thresholds[1], verdict.label, prepared.network.architecture.inputs,
    )  # fmt: skip
