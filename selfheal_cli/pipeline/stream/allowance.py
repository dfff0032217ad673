"""Whether a heal of a served model may serve by itself: by the model's mode, and by its budget."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

from selfheal_cli.config_policy import Policy
from selfheal_cli.heal.task import HealOutcome
from selfheal_cli.metrics import classify
from selfheal_cli.model.network import SelfHealingNetwork
from selfheal_cli.pipeline.prepare.continuing import Spent
from selfheal_cli.pipeline.stream.context import SessionContext
from selfheal_cli.registry.orders import STANDS

if TYPE_CHECKING:
    from selfheal_cli.records import LabelArray

HOUR = 3_600.0  # seconds
ROWS = 2_000  # the latest of a heal's rows, on which decisions are compared


@dataclass(frozen=True, slots=True)
class Permission:
    """What a heal may do: serve, or for a reason (``why``) be proposed or only be registered.

    ``changed`` and ``changed_in_all`` are shares of decisions that are others than those of what
    serves, and than those of what a person approved last; None where nobody asked.
    """

    mode: str = "auto"
    why: str = ""
    changed: float | None = None
    changed_in_all: float | None = None


FREE = Permission()  # of who is not served


def limits_of(policy: Policy) -> str:
    """The budget as a sentence's end; empty where nothing is limited."""
    moves, change, in_all = policy.budget_moves, policy.budget_change, policy.budget_change_in_all
    said = [
        "" if moves is None else f"{moves} heals an hour",
        "" if change is None else f"{change:.0%} of decisions changed by one",
        "" if in_all is None else f"{in_all:.0%} by all since a person approved one",
    ]
    return f"at most {', '.join(filter(None, said))}" if any(said) else ""


class Allowance:
    """Keeps the account of a served model's heals.

    ``clock`` gives seconds, and never goes back.
    """

    def __init__(self, run: SessionContext, clock: Callable[[], float] = monotonic) -> None:
        policy = run.config.policy
        self._limits = policy.budget_moves, policy.budget_change, policy.budget_change_in_all
        self._state, self._live, self._clock = run.state, run.live, clock
        self._moves: deque[float] = deque()
        self._approved = run.live.serving.network, run.live.serving.threshold
        self._named = "the baseline"

    def go_on(self, spent: Spent) -> None:
        """Take over what earlier runs spent, and what a person approved by then."""
        self._moves.extend(self._clock() - age for age in spent.moves)
        if spent.approved is not None:
            network = self._live.serving.network.with_adapter(spent.weights)
            self._approved = network, spent.approved.threshold
            self._named = f"v{spent.approved.version}"

    def approve(self, version: int) -> None:
        """A person made what serves by now the champion."""
        serving = self._live.serving
        self._approved, self._named = (serving.network, serving.threshold), f"v{version}"

    def spend(self) -> None:
        """A heal was published."""
        self._moves.append(self._clock())

    def spent(self) -> str:
        """Why no heal may be published now, whatever it changes; empty where one may."""
        most, now = self._limits[0], self._clock()
        while self._moves and self._moves[0] <= now - HOUR:
            self._moves.popleft()
        if most is None or len(self._moves) < most:
            return ""
        return (
            f"beyond the budget: {len(self._moves)} heals were published within the hour, as many "
            "as may be without a person's approval (budget_moves)"
        )

    def ask(
        self, outcome: HealOutcome, network: SelfHealingNetwork, threshold: float
    ) -> Permission:
        """What a heal may do that gave this network."""
        mode = self._state.mode
        if mode == "auto" and self._limits == (None, None, None):
            return FREE
        latest = slice(-ROWS, None)
        features = outcome.task.rows.features[latest]
        then, now = outcome.probabilities_before[latest], outcome.probabilities_after[latest]
        before = classify(then, self._live.serving.threshold)
        after = classify(now, threshold)
        approved, its_threshold = self._approved
        first = classify(approved.predict_features(features), its_threshold)
        changed, in_all = _share(before, after), _share(first, after)
        why = STANDS[mode] if mode != "auto" else self._beyond(changed, in_all)
        return Permission(mode, why, changed, in_all)

    def still(self, permission: Permission) -> Permission:
        """The same by the mode that holds by now: what a heal was refused, it stays refused."""
        mode = self._state.mode
        if permission.why or mode == "auto":
            return permission
        return Permission(mode, STANDS[mode], permission.changed, permission.changed_in_all)

    def _beyond(self, changed: float, in_all: float) -> str:
        """Which part of the budget a heal is beyond, empty if none."""
        _, change, change_in_all = self._limits
        if spent := self.spent():
            return spent
        if change is not None and changed > change:
            return (
                f"beyond the budget: {changed:.1%} of decisions change, {change:.1%} may without a "
                "person's approval (budget_change)"
            )
        if change_in_all is not None and in_all > change_in_all:
            return (
                f"beyond the budget: {in_all:.1%} of decisions are others than those of "
                f"{self._named}, {change_in_all:.1%} may be without a person's approval "
                "(budget_change_in_all)"
            )
        return ""


def _share(one: LabelArray, other: LabelArray) -> float:
    """Of rows (n,) that are decided otherwise."""
    return float((one != other).mean()) if len(one) else 0.0
