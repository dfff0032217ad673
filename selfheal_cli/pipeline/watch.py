"""Standing watch over the network and the rules: what moved, and is a rule still a teacher?"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from selfheal_cli.config import RunConfig
from selfheal_cli.heal.recipe import KINDS
from selfheal_cli.history.events import Kind
from selfheal_cli.monitor.diagnosis import Advice, diagnose
from selfheal_cli.monitor.label_desk import Scored
from selfheal_cli.monitor.rule_health import RuleHealth
from selfheal_cli.pipeline.ledger import Ledger
from selfheal_cli.pipeline.prepare import Prepared, frozen_logit

if TYPE_CHECKING:
    from selfheal_cli.records import Columns

RECOVERED = 10  # batches in range before a stale rule counts as sound, or it would flicker
AGAIN = 10  # labelled batches after a change until the verdict is given once more


class Diagnosing:
    """Gives a verdict before the first heal and whenever drift changes; two classes only.

    Without ``prepared`` it gives none.
    """

    def __init__(
        self, config: RunConfig, prepared: Prepared | None, labels: Sequence[str], ledger: Ledger
    ) -> None:
        self._prepared = prepared
        self._labels = (labels[0], labels[1])
        self._ledger = ledger
        self._parts: deque[Scored] = deque(maxlen=config.heal.window)
        self._drifting: bool | None = None
        self._wait = 0  # labelled batches until a verdict may be given again
        self._reason = ""  # why one is due
        self.verdict: dict[str, Any] | None = None

    def observe(self, batch: int, learned: Sequence[Scored], *, drifting: bool) -> None:
        """Take what labels came, and judge where something changed; not more often than needed."""
        self._parts.extend(learned)
        if drifting != self._drifting and (drifting or self._drifting is not None):
            self._reason = "drift began" if drifting else "drift ended"
        self._drifting = drifting
        if not learned:
            return
        self._wait = max(0, self._wait - 1)
        undecided = self.verdict is not None and self.verdict["advice"] == Advice.UNDECIDED.value
        if undecided or (self._reason and not self._wait):
            self._judge(batch, self._reason or "more labels came")

    def before_heal(self, batch: int) -> None:
        """The first heal is about to be asked for."""
        if self.verdict is None:
            self._judge(batch, "before the first heal")

    def _judge(self, batch: int, reason: str) -> None:
        if self._prepared is None or self._prepared.reference is None or not self._parts:
            return
        reference, network = self._prepared.reference, self._prepared.network
        hidden = network.architecture.hidden
        features = np.concatenate([part.features for part in self._parts])
        found = diagnose(
            reference,
            self._labels,
            np.concatenate([part.x for part in self._parts]),
            features[:, :hidden],
            frozen_logit(network.predict_features(features)),
            np.concatenate([part.y for part in self._parts]),
        ).as_dict()
        if self.verdict is None or _gist(self.verdict) != _gist(found):
            self._ledger.note(Kind.DIAGNOSIS, {"batch": batch, "reason": reason} | found)
        self.verdict = found
        # the window still holds rows from before the change: look once more when they are gone
        self._reason = "the window is new" if reason.startswith("drift") else ""
        self._wait = AGAIN


def _gist(verdict: dict[str, Any]) -> tuple[Any, ...]:
    """What must change for a verdict to be worth repeating."""
    return tuple(verdict[name] for name in ("advice", "base_rate_moved", "inputs_moved"))


class RuleWatch:
    """The rules as they count now: stale ones left out or moved, as the policy says."""

    def __init__(self, config: RunConfig, prepared: Prepared, ledger: Ledger) -> None:
        self._health = RuleHealth(prepared.rule_calibration, z=config.policy.rule_rate_z)
        self._given = prepared.trained.rules
        self._ledger = ledger
        guarded = KINDS[config.heal.recipe].guarded
        self._treatment = config.policy.stale_rules if guarded else "keep"
        self._stale: frozenset[str] = frozenset()
        self._sound: dict[str, int] = {}  # batches in range again, of those that are stale
        self.rules = prepared.trained.rules
        self.several = len(self._given.rules) > 1  # then they vote, and may abstain

    def observe(self, batch: int, columns: Columns) -> None:
        """Take a batch; says which rules have become stale, and which are sound again."""
        self._health.observe(columns)
        found = {str(stale.rule): stale for stale in self._health.stale()}
        self._sound = {
            name: self._sound.get(name, 0) + 1 for name in self._stale if name not in found
        }
        recovered = {name for name, batches in self._sound.items() if batches >= RECOVERED}
        if not recovered and frozenset(found) <= self._stale:
            return
        for name in sorted(frozenset(found) - self._stale):
            rule = found[name].rule
            moved = self._health.reanchored(rule) if self._treatment == "reanchor" else None
            note = {"batch": batch, "treatment": self._treatment, "reason": str(found[name])}
            note |= {"now": str(moved)} if moved else {}
            self._ledger.note(Kind.RULE_STALE, note | found[name].as_dict())
        for name in sorted(recovered):
            reason = f"rule '{name}' fires as often as in training again"
            self._ledger.note(Kind.RULE_STALE, {"batch": batch, "rule": name, "reason": reason})
        self._stale = (self._stale | frozenset(found)) - recovered
        self._apply()

    def _apply(self) -> None:
        if self._treatment == "keep":
            return
        rules = []
        for rule in self._given.rules:
            if str(rule) not in self._stale:
                rules.append(rule)
            elif self._treatment == "reanchor":
                rules.append(self._health.reanchored(rule))
        self.rules = self._given.with_rules(rules)
