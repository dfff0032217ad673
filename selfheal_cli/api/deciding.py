"""What a program decides of its model's heals: the mode, and what they propose."""

from __future__ import annotations

from abc import abstractmethod

from selfheal_cli.actor import actor, now_text
from selfheal_cli.api.replica import Replica
from selfheal_cli.registry.base import CHAMPION
from selfheal_cli.registry.journal import Proposal, standing
from selfheal_cli.registry.orders import Mode, known_mode, mode_of, reject, set_mode
from selfheal_cli.rollback.plan import By, approve, plan_proposed

ASKED = "asked for by the program"


class HealDecisions:
    """The part of `SelfHealing` that speaks of modes and proposals."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The registered model's."""

    @abstractmethod
    def _here(self) -> Replica:
        """The replica of this process."""

    @property
    def mode(self) -> str:
        """What heals may do: ``auto``, ``recommend``, ``shadow`` or ``off``."""
        return mode_of(standing(self._here().registry, self.name))

    def set_mode(self, mode: Mode, reason: str = ASKED) -> None:
        """Have heals serve by themselves (``auto``), be proposed, be registered alone
        (``shadow``), or not be made; raises `ConfigurationError` for another word.
        """
        if known_mode(mode) != self.mode:
            registry, at = self._here().registry, now_text()
            set_mode(registry, self.name, mode, actor=actor(), at=at, reason=reason)

    @property
    def proposals(self) -> tuple[Proposal, ...]:
        """What can be approved now; ``sequence`` is a proposal's number."""
        now, at = standing(self._here().registry, self.name), now_text()
        move = now.moves.get(CHAMPION)
        champion = move.sequence if move else 0
        return tuple(one for one in now.proposals if one.is_open(at, champion))

    def approve(self, proposal: int, reason: str = ASKED) -> int | None:
        """Make what was proposed the champion; returns its version, None where another person must
        approve it, too. Raises `ConflictError` where it is stale, `ApprovalNeeded`.
        """
        registry, at = self._here().registry, now_text()
        plan, asked = plan_proposed(registry, self.name, proposal, at)
        move = approve(registry, plan, asked, By(actor(), at, asked.reason_of(reason)))
        return move.target if move is not None else None

    def reject(self, proposal: int, reason: str = ASKED) -> None:
        """Close a proposal; the next heal's takes its place."""
        by = {"actor": actor(), "at": now_text(), "reason": reason}
        reject(self._here().registry, self.name, proposal, **by)
