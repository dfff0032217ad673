"""Looks at what a heal gave: scores it before and after, judges it, and writes both down."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from selfheal_cli.decide import RECENT, threshold_for
from selfheal_cli.events.types import HealJudged, HealPublished, HealRejected
from selfheal_cli.heal.gate import Judgement, collapsed, judge
from selfheal_cli.heal.recipe import kind_of
from selfheal_cli.heal.task import HealOutcome, HealTask
from selfheal_cli.labels.estimate import estimate
from selfheal_cli.labels.queue import LabelQueue
from selfheal_cli.metrics import lift, score
from selfheal_cli.model.network import SelfHealingNetwork
from selfheal_cli.pipeline.stream.allowance import Permission
from selfheal_cli.pipeline.stream.context import SessionContext
from selfheal_cli.pipeline.stream.snapshots import Snapshots, before_the_heal, figures_of
from selfheal_cli.records import Evaluation, Phase
from selfheal_cli.scores import AnyScores

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray


@dataclass(frozen=True, slots=True)
class BatchReading:
    """What was read of a batch, kept until its heal is done.

    ``shadow`` is None where the batch's labels had not come.
    """

    drift_z: float
    conflicts: int
    shadow: AnyScores | None = None

    def metrics(self, scores: AnyScores | None) -> dict[str, float]:
        """By metric name, as they go with a snapshot; ``scores`` must be of the shadow's rows."""
        metrics = {"drift_z": self.drift_z, "conflicts": float(self.conflicts)}
        if scores is None or self.shadow is None:
            return metrics
        gained = lift(scores, self.shadow)
        return {"lift_accuracy": gained.accuracy, "lift_f1": gained.f1} | metrics


class NoReading(BatchReading):
    """Labels came alone: nothing was read when their heal was asked for."""

    def metrics(self, scores: AnyScores | None) -> dict[str, float]:
        """None."""
        return {}


@dataclass(frozen=True, slots=True)
class Healed:
    """Scores before and after a heal, on the rows that ``evaluation`` names."""

    before: AnyScores | None
    after: AnyScores | None
    evaluation: Evaluation
    estimates: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class EvaluatedHeal:
    """A heal whose snapshots are written down, and which is published once they are on disk."""

    outcome: HealOutcome
    event: HealJudged
    network: SelfHealingNetwork
    permission: Permission


class HealEvaluator:
    """Looks at outcomes of heals; what serves stays as it is."""

    def __init__(self, run: SessionContext, snapshots: Snapshots, labels: LabelQueue) -> None:
        self._config = run.config
        self._live = run.live
        self._frozen = run.live.serving.network
        self._snapshots = snapshots
        self._labels = labels
        self._recent: deque[FloatArray] = deque()
        self._carries = run.config.heal.pre_heal == "figures"

    def remember(self, features: FloatArray) -> None:
        """Keep the latest rows that were scored: the threshold for F1 is chosen by them."""
        if self._config.objective.kind != "f1":
            return
        self._recent.append(features)
        while sum(map(len, self._recent)) - len(self._recent[0]) >= RECENT:
            self._recent.popleft()

    def candidate(self, outcome: HealOutcome) -> tuple[SelfHealingNetwork, float]:
        """The healed network, and the threshold that goes with it."""
        network = self._live.serving.network.with_adapter(outcome.after.weights)
        return network, self._threshold(network, outcome)

    def evaluate(
        self,
        outcome: HealOutcome,
        seen: BatchReading,
        network: SelfHealingNetwork,
        threshold: float,
        permission: Permission,
        judgement: Judgement | None = None,
    ) -> EvaluatedHeal:
        """Score a `candidate` before and after, judge it where it was not, and write both
        snapshots down.
        """
        task, serving = outcome.task, self._live.serving
        healed = self._score(outcome, serving.threshold, threshold)
        if judgement is None:
            judgement = self.judge(outcome, network)
        first = self._snapshot(task, Phase.PRE_HEAL, outcome, healed, seen, serving.snapshot)
        parent = serving.snapshot if self._carries else first
        second = self._snapshot(
            task,
            Phase.REJECTED if judgement.rejected else Phase.POST_HEAL,
            outcome,
            healed,
            seen,
            parent,
            threshold=threshold,
            rejected=judgement.rejected,
        )
        if healed.evaluation is Evaluation.AWAITING:
            waiting = self._labels.waiting
            before = (serving.network, serving.threshold)
            alone = None if self._carries else ""
            self._snapshots.await_labels(first, task.batch, *before, waiting, carried=alone)
            heal_id = None if judgement.rejected or permission.why else task.heal_id
            after = (network, threshold)
            carried = first if self._carries else ""
            self._snapshots.await_labels(second, task.batch, *after, waiting, heal_id, carried)
        event = self._event(outcome, healed, judgement, parent, second, threshold)
        return EvaluatedHeal(outcome, event, network, permission)

    def judge(
        self, outcome: HealOutcome, network: SelfHealingNetwork, *, rows: bool = True
    ) -> Judgement:
        """What the gate says of a heal that gave this network; without ``rows`` only whether it
        has collapsed.
        """
        kind = kind_of(outcome.task.recipe)
        if not kind.guarded:
            return Judgement("", 0)
        if not rows:
            return Judgement(collapsed(self._frozen, network, outcome), 0)
        tolerance = self._config.policy.gate_tolerance
        return judge(self._frozen, network, outcome, tolerance, kind.slack)

    def _labels_to_come(self) -> bool:
        """Whether a new adapter can be scored on rows that were scored and wait for labels."""
        regime = self._config.labels.regime
        if self._config.labels.negative_after is not None:  # they come weeks after the heal
            return False
        if regime in ("timed", "arriving"):  # they may all have come with their rows, or never do
            return any(bool((part.y >= 0).any()) for part in self._labels.waiting)
        return regime != "full"

    def _threshold(self, network: SelfHealingNetwork, outcome: HealOutcome) -> float:
        """By the latest rows under the healed adapter."""
        if self._recent:
            recent = network.predict_features(np.concatenate(self._recent))
        else:
            recent = outcome.probabilities_after
        return threshold_for(self._config.objective, recent)

    def _score(self, outcome: HealOutcome, before: float, after: float) -> Healed:
        """On held-out rows where there are any; on none while labels are awaited."""
        rows, kind = outcome.task.rows, kind_of(outcome.task.recipe)
        if kind.rows == "unlabelled":
            estimates = estimate(outcome.probabilities_after, after).figures()
            late = self._config.labels.regime != "none"
            return Healed(
                None, None, Evaluation.AWAITING if late else Evaluation.ESTIMATED, estimates
            )
        if kind.guarded and self._labels_to_come():
            return Healed(None, None, Evaluation.AWAITING, {})
        chosen, evaluation = rows.held_out & (rows.y >= 0), Evaluation.HELD_OUT
        if not chosen.any():
            chosen, evaluation = rows.y >= 0, Evaluation.IN_SAMPLE
        y = rows.y[chosen]
        return Healed(
            score(outcome.probabilities_before[chosen], y, before),
            score(outcome.probabilities_after[chosen], y, after),
            evaluation,
            {},
        )

    def _snapshot(
        self,
        task: HealTask,
        phase: Phase,
        outcome: HealOutcome,
        healed: Healed,
        seen: BatchReading,
        parent: str,
        *,
        threshold: float | None = None,
        rejected: str = "",
    ) -> str:
        before = phase is Phase.PRE_HEAL
        scores = healed.before if before else healed.after
        evaluation = healed.evaluation
        if before and evaluation is Evaluation.IN_SAMPLE:
            evaluation = Evaluation.PREQUENTIAL  # nothing had learned from the batch yet
        if evaluation is Evaluation.HELD_OUT:
            seen = replace(seen, shadow=None)  # other rows than the shadow's
        serving = self._live.serving
        extra = seen.metrics(scores)
        if not before:
            extra |= healed.estimates
            if self._carries:
                extra |= before_the_heal(figures_of(healed.before) | seen.metrics(healed.before))
        return self._snapshots.take(
            serving.adapter.weights if before else outcome.after.weights,
            phase=phase,
            batch=task.batch,
            scores=scores,
            evaluation=evaluation,
            reason=task.reason,
            threshold=serving.threshold if threshold is None else threshold,
            parent=parent,
            heal_id=task.heal_id,
            rejected=rejected,
            extra=extra,
            packed=None if before else outcome.packed,
            same_as=serving.snapshot if before and self._carries else "",
            carries=not before and self._carries,
        )

    def _event(
        self,
        outcome: HealOutcome,
        healed: Healed,
        judgement: Judgement,
        first: str,
        second: str,
        threshold: float,
    ) -> HealJudged:
        """What is written down of it once it is published, or was rejected."""
        task, rejected = outcome.task, judgement.rejected
        kind = partial(HealRejected, rejected=rejected) if rejected else HealPublished
        return kind(
            heal_id=task.heal_id,
            batch=task.batch,
            reason=task.reason,
            recipe=task.recipe,
            from_snapshot=first,
            to_snapshot=second,
            before=healed.before,
            after=healed.after,
            evaluation=healed.evaluation,
            threshold=threshold,
            own_rows=bool((task.rows.arrival == task.batch).all()),
            gate={"worse_by": judgement.worse_by, "error": judgement.error},
            more=outcome.measured,
        )
