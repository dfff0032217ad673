"""One batch after another through the rooms: score, monitor, decide, heal."""

from __future__ import annotations

from selfheal_cli.config import RunConfig
from selfheal_cli.decide.policy import decide
from selfheal_cli.decide.state import state_after
from selfheal_cli.heal.live import LiveModel
from selfheal_cli.history.events import Kind
from selfheal_cli.monitor.fidi import Fidi
from selfheal_cli.monitor.prequential import RunningScores, confusion
from selfheal_cli.monitor.shadow import lift
from selfheal_cli.pipeline.healing import Healing, Seen
from selfheal_cli.pipeline.ledger import Ledger
from selfheal_cli.pipeline.prepare import Prepared
from selfheal_cli.records import Batch, Conflicts, DriftReading, Scores


class Stream:
    """The running model. Scoring reads ``live``; everything else happens around it."""

    def __init__(
        self,
        config: RunConfig,
        prepared: Prepared,
        live: LiveModel,
        healing: Healing,
        ledger: Ledger,
    ) -> None:
        self._config = config
        self._prepared = prepared
        self._live = live
        self._healing = healing
        self._ledger = ledger
        self._fidi = Fidi(prepared.calibration, config.policy)
        self.live_scores = RunningScores(config.threshold)
        self.shadow_scores = RunningScores(config.threshold)

    def step(self, batch: Batch) -> None:
        """Score a batch with what serves now, then let the rooms look at it."""
        rows, policy = batch.rows, self._config.policy
        probabilities = self._live.predict(rows.x)
        shadow_probabilities = self._prepared.shadow.predict(rows.x)
        # counts alone: ranking a batch costs ten times its prediction, and a heal ranks its own
        live = confusion(probabilities >= self._config.threshold, rows.y)
        shadow = confusion(shadow_probabilities >= self._config.threshold, rows.y)
        self.live_scores.add(probabilities, rows.y)
        self.shadow_scores.add(shadow_probabilities, rows.y)
        verdict = self._prepared.rules.judge(rows.columns)
        conflicts = verdict.conflicts_with(probabilities, rows.y, policy.conflict_probability)
        reading = self._fidi.observe(rows.columns[self._fidi.calibration.feature])
        decision = decide(reading, conflicts, policy)
        rollbacks = self._healing.rollbacks
        if decision.heal:
            seen = Seen(shadow, reading, conflicts)
            self._healing.request(batch, verdict.label, seen, decision.reason)
        self._healing.settle()
        state = state_after(
            drifting=reading.drifting,
            in_flight=self._healing.in_flight,
            rolled_back=self._healing.rollbacks > rollbacks,
        )
        self._ledger.note(
            Kind.BATCH,
            {
                "batch": batch.index,
                "live": live.as_dict(),
                "shadow": shadow.as_dict(),
                "z": reading.z,
                "drifting": reading.drifting,
                "conflicts": conflicts.count,
                "positive_share": conflicts.positive_share,
                "heal_requested": decision.heal,
                "reason": decision.reason,
                "state": state.value,
                "pending_writes": self._ledger.writer.pending,
            },
        )
        self._log_metrics(batch.index, live, shadow, reading, conflicts)
        self._ledger.catch_up()

    def _log_metrics(
        self,
        batch: int,
        live: Scores,
        shadow: Scores,
        reading: DriftReading,
        conflicts: Conflicts,
    ) -> None:
        gained = lift(live, shadow)
        self._ledger.writer.log_metrics(
            {
                **{f"live_{name}": value for name, value in live.figures().items()},
                "shadow_accuracy": shadow.accuracy,
                "shadow_f1": shadow.f1,
                "live_lift_accuracy": gained.accuracy,
                "live_lift_f1": gained.f1,
                "drift_z": reading.z,
                "conflicts": float(conflicts.count),
                "pending_writes": float(self._ledger.writer.pending),
            },
            step=batch,
        )
