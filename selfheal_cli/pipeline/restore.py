"""Automatic rollback: when heals go bad, back to what the registry calls best."""

from __future__ import annotations

from collections.abc import Callable

from selfheal_cli.config import RunConfig
from selfheal_cli.decide.health import Health
from selfheal_cli.errors import EventLogError, NothingToRestore, SelfhealError
from selfheal_cli.heal.gate import compare
from selfheal_cli.heal.live import LiveModel
from selfheal_cli.heal.recipe import KINDS
from selfheal_cli.heal.task import AdapterState, HealRows
from selfheal_cli.history.events import Kind
from selfheal_cli.model.network import Weights
from selfheal_cli.pipeline.follow import Others
from selfheal_cli.pipeline.ledger import Ledger
from selfheal_cli.pipeline.question import Best, Fallen, Question
from selfheal_cli.pipeline.snapshots import Completed
from selfheal_cli.records import AliasMove, VersionRecord
from selfheal_cli.registry.base import CHAMPION, Lineage, Registry
from selfheal_cli.rollback.select import Candidates
from selfheal_cli.rollback.verify import load_verified

ANSWERS = (Kind.ROLLBACK, Kind.ROLLBACK_DECLINED, Kind.ROLLBACK_FAILED)
FULL = "as many writes wait for the registry as may"


class Restore:
    """Keeps the health of heals; restores, declines to, or says why it could not.

    A guarded recipe is asked first whether the version would do better on held-out rows, and
    afterwards everything that was learned of the heals begins anew and healing pauses.
    Beside live scoring the registry is asked from a thread: healing pauses until it has answered,
    and what it said is carried out before the next batch. ``behind`` says why healing should pause
    for now, if it should.
    """

    def __init__(
        self,
        config: RunConfig,
        live: LiveModel,
        registry: Registry,
        lineage: Lineage,
        ledger: Ledger,
        others: Others,
        behind: Callable[[], str] = lambda: "",
    ) -> None:
        self._policy = config.policy
        self._guarded = KINDS[config.heal.recipe].guarded
        self._live = live
        self._registry = registry
        self._lineage = lineage
        self._ledger = ledger
        self._others = others
        self._behind = behind
        self._beside = config.heal.mode == "async"
        self._asked: Question | None = None
        self._held = False
        self._health = Health(config.policy)
        self._quiet_until = 0
        self._last = 0  # batch of the last rollback of a guarded recipe
        self._batch = 0
        self.rollbacks = 0

    def paused(self, batch: int) -> bool:
        """Whether healing pauses: around a rollback, or until what holds it is over."""
        return batch <= self._quiet_until or self._held or self._asked is not None

    def overtook(self, batch: int) -> bool:
        """Whether a rollback came after a heal was asked for in ``batch``."""
        return batch <= self._last

    def follow(self, batch: int) -> None:
        """Take what others decided since the last batch: serve their champion, hold or go on."""
        self._batch = batch
        self._follow_hold(batch)
        expected = self._ledger.expected
        if expected is None:
            moved = self._others.take()
        elif expected.kind is Kind.FOLLOWED:
            moved = self._others.recall(expected.data)
        else:
            return
        if moved is None:
            return
        told = {"batch": batch, "from_snapshot": self._live.serving.snapshot}
        told |= {"version": moved.move.target, "sequence": moved.move.sequence}
        told |= {"actor": moved.move.actor, "reason": moved.move.reason}
        if moved.version is None:
            self._ledger.note(Kind.FOLLOWED, told | {"error": moved.error})
            return
        snapshot = moved.version.tags["selfheal.snapshot"]
        self._serve(moved.version, moved.weights, {})
        self._health, self._last = Health(self._policy), batch
        self._asked = None  # it was about what served before
        self._ledger.note(Kind.FOLLOWED, told | {"to_snapshot": snapshot})

    def begin_from(self, version: VersionRecord, weights: Weights, move: AliasMove | None) -> None:
        """Serve a champion of an earlier run from the first batch on; ``move`` made it one."""
        self._serve(version, weights, {})
        told = {"batch": 0, "from_snapshot": "", "version": version.version}
        told |= {"to_snapshot": self._live.serving.snapshot}
        told |= {"sequence": move.sequence if move else 0}
        told |= {"actor": move.actor if move else "another tool"}
        told |= {"reason": move.reason if move else "the champion when the run began"}
        self._ledger.note(Kind.FOLLOWED, told)

    def _follow_hold(self, batch: int) -> None:
        expected = self._ledger.expected
        if expected is None:
            hold = self._others.hold
            own = FULL if self._ledger.full else self._behind()
            reason = hold.reason if hold else own
            if bool(hold or reason) == self._held:
                return
            kind = Kind.HEALING_RELEASED if self._held else Kind.HEALING_HELD
            told: dict[str, object] = {"batch": batch, "actor": hold.actor if hold else "selfheal"}
            told["reason"] = reason or "nothing holds it any more"
        elif expected.kind in (Kind.HEALING_HELD, Kind.HEALING_RELEASED):
            kind, told = expected.kind, dict(expected.data)
        else:
            return
        self._held = kind is Kind.HEALING_HELD
        self._ledger.note(kind, told)

    def observe(self, heal: Completed, rows: HealRows, batch: int) -> None:
        """Take a heal's scores in ``batch``; where they have fallen, ask what to restore."""
        self._batch = batch
        reason = self._health.observe(heal.scores)
        if reason is None or self._asked is not None:
            return
        fallen = Fallen(heal.heal_id, heal.batch, reason)
        self._asked = Question(fallen, rows, self._finding(self._ledger.arrival()))
        if not self._beside:
            self.settle(wait=True)
        elif self._ledger.expected is None:
            self._asked.begin()

    def settle(self, *, wait: bool = False) -> None:
        """Carry out what the registry answered, if it was asked and has."""
        asked, expected = self._asked, self._ledger.expected
        if asked is None:
            return
        if expected is None:
            if not (wait or asked.begin().done()):
                return
        elif self._beside and expected.kind not in ANSWERS:
            return
        self._asked = None
        try:
            best = self._answer(asked)
        except SelfhealError as exc:
            self._note(Kind.ROLLBACK_FAILED, asked.fallen, {"error": str(exc)})
            return
        self._roll_back(best, asked)

    def _answer(self, asked: Question) -> Best:
        """The registry's answer; where a recorded run is gone through again, its answer then."""
        expected = self._ledger.expected
        if expected is None:
            try:
                return asked.begin().result()
            finally:
                self._ledger.catch_up()
        if expected.kind is Kind.ROLLBACK_FAILED:
            raise NothingToRestore(expected.data["error"])
        if "version" not in expected.data:
            raise EventLogError(
                f"event {expected.sequence}: recorded was '{expected.kind}', the same rows now "
                "give a rollback"
            )
        best = self._registry.version(self._lineage.model, expected.data["version"])
        passed_over = tuple(expected.data.get("passed_over", ()))
        return Best(best, load_verified(self._registry, best), passed_over)

    def _finding(self, arrival: Callable[[], None]) -> Callable[[], Best]:
        """How the best version is found, from any thread, once what was written has arrived."""
        lineage = self._lineage
        within = lineage.run_id if self._policy.rollback_candidates == "run" else None

        def find() -> Best:
            arrival()
            candidates = Candidates(
                self._registry, lineage.model, lineage.base, self._ledger.trust, run_id=within
            )
            best = candidates.best()
            weights = load_verified(self._registry, best)
            return Best(best, weights, tuple(candidates.passed_over))

        return find

    def _roll_back(self, best: Best, asked: Question) -> None:
        fallen, version = asked.fallen, best.version
        if self._guarded:
            self._health = Health(self._policy)
            gain, error = self._gain(best.weights, asked.rows)
            if error is not None and gain <= error:
                why = (
                    f"v{version.version} is not better on the held-out rows: its log loss is lower "
                    f"by {gain:.4f}, standard error {error:.4f}"
                )
                found = {"version": version.version, "declined": why, **_told(best)}
                self._note(Kind.ROLLBACK_DECLINED, fallen, found)
                return
            self._last = self._batch
            self._quiet_until = self._batch + self._policy.cooldown
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
        serving, version = self._live.serving, best.version
        restored = version.tags["selfheal.snapshot"]
        # the article keeps its optimiser
        self._serve(version, best.weights, {} if self._guarded else serving.adapter.memory)
        self.rollbacks += 1
        found = {
            "from_snapshot": serving.snapshot,
            "to_snapshot": restored,
            "version": version.version,
            "f1": version.f1,
            "rows": version.eval_rows,
            "sha256": version.sha256,
            **_told(best),
        }
        self._note(Kind.ROLLBACK, fallen, found)
        self._ledger.point(CHAMPION, restored, f"rollback: {fallen.reason}")

    def _serve(self, version: VersionRecord, weights: Weights, memory: Weights) -> None:
        snapshot = version.tags["selfheal.snapshot"]
        self._ledger.restored(snapshot, version.version)
        self._live.publish(AdapterState(weights, memory), snapshot, version.threshold)

    def _note(self, kind: Kind, fallen: Fallen, found: dict[str, object]) -> None:
        told = {"heal_id": fallen.heal_id, "batch": fallen.batch, "reason": fallen.reason}
        self._ledger.note(kind, told | found)


def _told(best: Best) -> dict[str, object]:
    """What was passed over on the way to the best version, if anything was."""
    return {"passed_over": list(best.passed_over)} if best.passed_over else {}
