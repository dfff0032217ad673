"""The canary of a model as a person decides it: what is tried, promoted or withdrawn by hand."""

from __future__ import annotations

from dataclasses import dataclass, replace

from selfheal_cli.errors import ConflictError, NoCandidateError
from selfheal_cli.records import AliasMove, VersionRecord
from selfheal_cli.registry.aliases import Move, move_alias
from selfheal_cli.registry.base import CANARY, NOTHING, TRIES_TAG, Registry
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


def plan_trial(
    registry: Registry, model: str, number: int, trust: Trust | None = None
) -> RollbackPlan:
    """A version that is to be tried beside the champion; raises as `require_tries` and
    `plan_version`.
    """
    registry.version(model, number)  # another tool's cannot be tried
    plan = replace(plan_version(registry, model, number, trust), criterion="to be tried")
    require_tries(registry, model, number)
    if plan.serves_already:
        raise ConflictError(f"'{model}': v{number} is the champion: there is nothing to try")
    return plan


def try_out(registry: Registry, model: str, number: int, by: By) -> AliasMove:
    """Give a version the alias: whoever heals tries it from the next batch on, in the place of what
    was. Raises as `require_tries`, and `ConflictError` where it was moved meanwhile.
    """
    require_tries(registry, model, number)
    last = standing(registry, model).moves.get(CANARY)
    after = last.sequence if last is not None else 0
    return move_alias(
        registry, Move(model, CANARY, number, by.actor, by.at, by.reason, after=after)
    )


def tries(registry: Registry, model: str) -> bool:
    """Whether who heals a model has a policy that tries versions before they serve all."""
    held = standing(registry, model).lease
    return held is not None and bool(registry.run_tags(held.run).get(TRIES_TAG))


def require_tries(registry: Registry, model: str, number: int | None = None) -> None:
    """Raises `ConflictError` where nobody would try a version, or healing is held by a person."""
    held = standing(registry, model).hold
    if held is not None and not held.run:
        raise ConflictError(
            f"'{model}' is held by {held.actor} since {held.at} ({held.reason}): nothing is tried "
            "until 'selfheal release'"
        )
    if not tries(registry, model):
        raise ConflictError(
            f"'{model}': nobody tries versions now: no server heals it by a policy with "
            f"canary_share; 'selfheal rollback --to {number or 'VERSION'}' has one serve at once"
        )


def withdraw(registry: Registry, canary: TriedCanary, by: By) -> AliasMove:
    """Take the alias: whoever heals withdraws the canary with its next batch.

    Raises `ConflictError` where a run has ended or replaced it meanwhile.
    """
    after = canary.began.sequence if canary.began else 0
    model = canary.version.model
    return move_alias(
        registry, Move(model, CANARY, NOTHING, by.actor, by.at, by.reason, after=after)
    )
