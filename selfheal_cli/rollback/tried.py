"""The canary of a model as a person decides it: what is tried, promoted or withdrawn by hand."""

from __future__ import annotations

from dataclasses import dataclass, replace

from selfheal_cli.errors import NoCandidateError
from selfheal_cli.records import AliasMove, VersionRecord
from selfheal_cli.registry.aliases import Move, move_alias
from selfheal_cli.registry.base import CANARY, NOTHING, Registry
from selfheal_cli.registry.journal import standing
from selfheal_cli.rollback.plan import By, RollbackPlan, plan_version
from selfheal_cli.rollback.trust import Trust


@dataclass(frozen=True, slots=True)
class TriedCanary:
    """The ``version`` that has the alias, and the move by which it came to it."""

    version: VersionRecord
    began: AliasMove | None

    @property
    def since(self) -> str:
        """When it began, by the journal; ISO 8601, UTC."""
        return self.began.at if self.began else ""

    @property
    def digest(self) -> str:
        """By which a person agrees to what was shown."""
        return f"{self.version.version}-{self.began.sequence if self.began else 0}"

    def lines(self) -> list[str]:
        """What it is, for a person."""
        why = f" ({self.began.reason})" if self.began else ""
        told = f"v{self.version.version} is tried"
        return [f"{told} since {self.since}{why}" if self.since else told]


def tried_canary(registry: Registry, model: str) -> TriedCanary:
    """What is tried now; raises `NoCandidateError` where nothing is."""
    number = registry.alias(model, CANARY)
    if number is None:
        registry.versions(model, limit=1)  # there must be such a model
        raise NoCandidateError(
            f"'{model}': no canary is tried; 'selfheal status' shows what was last, and "
            "policy.canary_share has heals tried"
        )
    return TriedCanary(registry.version(model, number), standing(registry, model).moves.get(CANARY))


def plan_promotion(registry: Registry, model: str, trust: Trust | None = None) -> RollbackPlan:
    """A move of the champion to what is tried; raises as `tried_canary` and `plan_version`."""
    version = tried_canary(registry, model).version.version
    return replace(plan_version(registry, model, version, trust), criterion="the canary")


def withdraw(registry: Registry, canary: TriedCanary, by: By) -> AliasMove:
    """Take the alias: whoever heals withdraws the canary with its next batch.

    Raises `ConflictError` where a run has ended or replaced it meanwhile.
    """
    after = canary.began.sequence if canary.began else 0
    model = canary.version.model
    return move_alias(
        registry, Move(model, CANARY, NOTHING, by.actor, by.at, by.reason, after=after)
    )
