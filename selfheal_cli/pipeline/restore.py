"""Automatic rollback: when heals go bad, back to what the registry calls best."""

from __future__ import annotations

from dataclasses import dataclass

from selfheal_cli.config import RunConfig
from selfheal_cli.decide.health import Health
from selfheal_cli.errors import SelfhealError
from selfheal_cli.heal.gate import compare
from selfheal_cli.heal.live import LiveModel
from selfheal_cli.heal.recipe import KINDS
from selfheal_cli.heal.task import AdapterState, HealRows
from selfheal_cli.history.events import Kind
from selfheal_cli.model.network import Weights
from selfheal_cli.pipeline.ledger import Ledger
from selfheal_cli.pipeline.snapshots import Completed
from selfheal_cli.records import VersionRecord
from selfheal_cli.registry.base import CHAMPION, Lineage, Registry
from selfheal_cli.rollback import find_best, load_verified


@dataclass(frozen=True, slots=True)
class Fallen:
    """A heal after which it was time to roll back, and why."""

    heal_id: str
    batch: int
    reason: str
    noticed: int  # the batch in which the labels told


class Restore:
    """Keeps the health of heals; restores, declines to, or says why it could not.

    A guarded recipe is asked first whether the version would do better on held-out rows, and
    afterwards everything that was learned of the heals begins anew and healing pauses.
    """

    def __init__(
        self,
        config: RunConfig,
        live: LiveModel,
        registry: Registry,
        lineage: Lineage,
        ledger: Ledger,
    ) -> None:
        self._policy = config.policy
        self._guarded = KINDS[config.heal.recipe].guarded
        self._live = live
        self._registry = registry
        self._lineage = lineage
        self._ledger = ledger
        self._health = Health(config.policy)
        self._quiet_until = 0
        self._last = 0  # batch of the last rollback of a guarded recipe
        self.rollbacks = 0

    def paused(self, batch: int) -> bool:
        """Whether healing pauses after a rollback."""
        return batch <= self._quiet_until

    def overtook(self, batch: int) -> bool:
        """Whether a rollback came after a heal was asked for in ``batch``."""
        return batch <= self._last

    def observe(self, heal: Completed, rows: HealRows, batch: int) -> None:
        """Take a heal's scores in ``batch``, and roll back where they have fallen."""
        reason = self._health.observe(heal.scores)
        if reason is not None:
            self._roll_back(Fallen(heal.heal_id, heal.batch, reason, batch), rows)

    def _roll_back(self, fallen: Fallen, rows: HealRows) -> None:
        self._ledger.catch_up(wait=True)
        lineage = self._lineage
        within = lineage.run_id if self._policy.rollback_candidates == "run" else None
        try:
            best = find_best(self._registry, lineage.model, base=lineage.base, run_id=within)
            weights = load_verified(self._registry, best)
        except SelfhealError as exc:
            self._note(Kind.ROLLBACK_FAILED, fallen, {"error": str(exc)})
            return
        if self._guarded:
            self._health = Health(self._policy)
            gain, error = self._gain(weights, rows)
            if error is not None and gain <= error:
                why = (
                    f"v{best.version} is not better on the held-out rows: its log loss is lower "
                    f"by {gain:.4f}, standard error {error:.4f}"
                )
                found = {"version": best.version, "declined": why}
                self._note(Kind.ROLLBACK_DECLINED, fallen, found)
                return
            self._last = fallen.noticed
            self._quiet_until = fallen.noticed + self._policy.cooldown
        self._restore(best, weights, fallen)

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

    def _restore(self, best: VersionRecord, weights: Weights, fallen: Fallen) -> None:
        serving = self._live.serving
        restored = best.tags["selfheal.snapshot"]
        self._ledger.restored(restored, best.version)
        memory = {} if self._guarded else serving.adapter.memory  # the article keeps its optimiser
        self._live.publish(AdapterState(weights, memory), restored, best.threshold)
        self.rollbacks += 1
        found = {
            "from_snapshot": serving.snapshot,
            "to_snapshot": restored,
            "version": best.version,
            "f1": best.f1,
            "rows": best.eval_rows,
            "sha256": best.sha256,
        }
        self._note(Kind.ROLLBACK, fallen, found)
        self._ledger.moved(
            self._registry.move_alias(
                self._lineage.model,
                CHAMPION,
                best.version,
                actor=self._ledger.actor,
                at=self._ledger.now(),
                reason=f"rollback: {fallen.reason}",
            )
        )

    def _note(self, kind: Kind, fallen: Fallen, found: dict[str, object]) -> None:
        told = {"heal_id": fallen.heal_id, "batch": fallen.batch, "reason": fallen.reason}
        self._ledger.note(kind, told | found)
