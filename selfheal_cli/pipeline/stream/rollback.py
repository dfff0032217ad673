"""Automatic rollback: when heals go bad, back to what the registry calls best."""

from __future__ import annotations

from dataclasses import replace

from selfheal_cli.decide import Health
from selfheal_cli.errors import SelfhealError
from selfheal_cli.events import types as events
from selfheal_cli.heal.gate import compare
from selfheal_cli.heal.recipe import kind_of
from selfheal_cli.heal.recipes.segmented import still_known
from selfheal_cli.heal.task import AdapterState, HealRows
from selfheal_cli.model.network import Weights
from selfheal_cli.pipeline.stream.candidates import Alarm
from selfheal_cli.pipeline.stream.champion import ChampionMove
from selfheal_cli.pipeline.stream.context import Fallen, SessionContext
from selfheal_cli.pipeline.stream.outside import Best, HoldChange
from selfheal_cli.pipeline.stream.snapshots import Completed
from selfheal_cli.records import AliasMove, VersionRecord
from selfheal_cli.registry.base import CHAMPION


class AutoRollback:
    """Keeps the health of heals; restores, declines to, or says why it could not.

    A guarded recipe is asked first whether the version would do better on held-out rows, and
    afterwards everything that was learned of the heals begins anew and healing pauses.
    Beside live scoring the answer is not waited for: healing pauses until it has come, and it is
    carried out before the next batch.
    """

    def __init__(self, run: SessionContext) -> None:
        self._policy = run.config.policy
        self._paired = run.config.heal.better_by == "paired"
        kind = kind_of(run.config.heal.recipe)
        self._guarded = kind.guarded
        self._unlearns = kind.guarded and kind.unlearns
        self._beside = run.config.heal.mode == "async"
        self._live = run.live
        self._recorder = run.recorder
        self._outside = run.outside
        self._state = run.state
        self._health = Health(run.config.policy)
        self._ended = False  # drift began in a pause, and nothing was healed since

    def pause_was_ended(self) -> bool:
        """Whether the heal that is asked for is the first after a pause that drift ended; once."""
        ended, self._ended = self._ended, False
        return ended

    def drift_began(self) -> None:
        """What is to be learned is new: a pause after a rollback is over, where the policy says so.

        What moved with the rollback's own batch is what led to it.
        """
        state = self._state
        pauses = state.rolled_back < state.batch <= state.quiet_until
        if pauses and self._policy.cooldown_until == "drift":
            state.quiet_until, self._ended = state.batch - 1, True

    def follow(self, moved: ChampionMove) -> None:
        """Serve the champion that somebody else set."""
        followed = events.ChampionFollowed(
            batch=moved.batch, from_snapshot=self._live.serving.snapshot,
            version=moved.move.target, move_sequence=moved.move.sequence,
            actor=moved.move.actor, reason=moved.move.reason, error=moved.error,
        )  # fmt: skip
        if moved.version is not None:
            snapshot = moved.version.tags["selfheal.snapshot"]
            # what was learned goes with a proposal that was approved, and with what one segment's
            # return left alone
            now = self._live.serving.adapter
            proposed = snapshot in self._state.proposed
            kept = now.memory if proposed else still_known(now, moved.weights)
            self._serve(Best.of(moved.version, moved.weights), kept)
            self._health = Health(self._policy)
            self._state.overtaken = moved.batch
            self._state.fallen = None  # it was about what served before
            followed = replace(followed, to_snapshot=snapshot)
        self._recorder.note(followed)

    def hold(self, change: HoldChange) -> None:
        """Stop healing, or go on with it."""
        self._state.held = change.held
        self._state.pausing = False
        kind = events.HealingHeld if change.held else events.HealingReleased
        self._recorder.note(kind(batch=change.batch, actor=change.actor, reason=change.reason))

    def begin_from(self, version: VersionRecord, weights: Weights, move: AliasMove | None) -> None:
        """Serve a champion of an earlier run from the first batch on; ``move`` made it one."""
        self._serve(Best.of(version, weights), {})
        self._recorder.note(
            events.ChampionFollowed(
                batch=0, from_snapshot="", version=version.version,
                to_snapshot=self._live.serving.snapshot,
                move_sequence=move.sequence if move else 0,
                actor=move.actor if move else "another tool",
                reason=move.reason if move else "the champion when the run began",
            )
        )  # fmt: skip

    def observe(self, heal: Completed, rows: HealRows) -> None:
        """Take a heal's scores; where they have fallen, ask what to restore."""
        if self._paired:
            return
        reason = self._health.observe(heal.scores)
        if reason is None or self._state.fallen is not None:
            return
        if self._policy.when_worse == "pause":
            self._pause(heal.heal_id, heal.batch, reason)
            return
        self._state.fallen = Fallen(heal.heal_id, heal.batch, reason, rows)
        self._recorder.send_steps()
        self._outside.ask_best()
        if not self._beside:
            self.settle(wait=True)

    def brake(self, alarm: Alarm) -> None:
        """Go back to what an alarm names, at once; unless a rollback was only just carried out."""
        if self._state.paused or self._state.batch <= self._state.quiet_until:
            return
        if self._policy.when_worse == "pause":
            self._pause("", self._state.batch, alarm.reason)
            return
        self._state.fallen = Fallen("", self._state.batch, alarm.reason)
        self._recorder.send_steps()
        self._outside.ask_best(alarm.to)
        if not self._beside:
            self.settle(wait=True)

    def _pause(self, heal_id: str, batch: int, reason: str) -> None:
        """Heal no more until somebody decides; heals that are under way come too late."""
        if self._state.pausing:
            return
        self._health = Health(self._policy)
        self._state.pausing, self._state.overtaken = True, batch
        self._recorder.note(events.HealingPaused(heal_id=heal_id, batch=batch, reason=reason))
        self._recorder.pause(f"paused: {reason}")

    def settle(self, *, wait: bool = False) -> None:
        """Carry out what the registry answered, if it was asked and has."""
        fallen = self._state.fallen
        if fallen is None:
            return
        try:
            best = self._outside.best(wait=wait)
        except SelfhealError as exc:
            self._state.fallen = None
            self._recorder.catch_up()
            self._recorder.note(
                events.RollbackFailed(
                    heal_id=fallen.heal_id, batch=fallen.batch, reason=fallen.reason, error=str(exc)
                )
            )
            return
        if best is not None:
            self._state.fallen = None
            self._recorder.catch_up()
            self._roll_back(best, fallen)

    def _roll_back(self, best: Best, fallen: Fallen) -> None:
        if self._guarded:
            self._health = Health(self._policy)
            gain, error = self._gain(best.weights, fallen.rows) if fallen.rows else (0.0, None)
            if error is not None and gain <= error:
                why = (
                    f"v{best.version} is not better on the held-out rows: its log loss is lower "
                    f"by {gain:.4f}, standard error {error:.4f}"
                )
                self._recorder.note(
                    events.RollbackDeclined(
                        heal_id=fallen.heal_id, batch=fallen.batch, reason=fallen.reason,
                        version=best.version, declined=why, passed_over=best.passed_over,
                    )
                )  # fmt: skip
                return
            self._state.overtaken = self._state.batch
            self._state.quiet_until = self._state.batch + self._policy.cooldown
        self._restore(best, fallen)

    def _gain(self, weights: Weights, rows: HealRows) -> tuple[float, float | None]:
        """By how much the version's log loss is lower than that of what serves, and the standard
        error of it; no error without labelled rows.
        """
        chosen = rows.held_out & (rows.y >= 0)
        if not chosen.any():
            return 0.0, None
        held, network = rows.where(chosen), self._live.serving.network
        now = network.predict_features(held.features)
        then = network.with_adapter(weights).predict_features(held.features)
        worse_by, error = compare(now, then, held.y, held.arrival)
        return -worse_by, error

    def _restore(self, best: Best, fallen: Fallen) -> None:
        serving = self._live.serving
        # the article keeps its optimiser, and an ensemble weighs its experts by what they lost
        self._serve(best, {} if self._unlearns else serving.adapter.memory)
        self._state.rolled_back = self._state.batch
        self._recorder.note(
            events.RolledBack(
                heal_id=fallen.heal_id, batch=fallen.batch, reason=fallen.reason,
                from_snapshot=serving.snapshot, to_snapshot=best.snapshot, version=best.version,
                f1=best.f1, rows=best.rows, sha256=best.sha256,
                passed_over=best.passed_over,
            )
        )  # fmt: skip
        self._recorder.point(CHAMPION, best.snapshot, f"rollback: {fallen.reason}")

    def _serve(self, version: Best, memory: Weights) -> None:
        if version.version:
            self._recorder.restored(version.snapshot, version.version)
        self._live.publish(
            AdapterState(version.weights, memory), version.snapshot, version.threshold
        )
