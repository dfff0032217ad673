"""What an operator orders on the control channel, carried out where the registry is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selfheal_cli.actor import now_text
from selfheal_cli.errors import ConfigurationError, ConflictError, SelfhealError, one_line
from selfheal_cli.registry.base import Registry
from selfheal_cli.registry.journal import MAX_TEXT, Hold
from selfheal_cli.registry.orders import hold
from selfheal_cli.rollback.paired import plan_better
from selfheal_cli.rollback.plan import (
    By,
    RollbackPlan,
    check_target,
    execute,
    plan_previous,
    plan_version,
)
from selfheal_cli.serve.healer import decisions
from selfheal_cli.serve.healer.shown import digest, shown


def carry_out(
    registry: Registry, model: str, kind: str, argument: Mapping[str, Any]
) -> dict[str, Any]:
    """Do what was ordered; what came of it, or why nothing did, is the answer."""
    try:
        return {"ok": True, **_do(registry, model, kind, argument)}
    except SelfhealError as exc:
        return {"ok": False, "error": one_line(exc)}


def _do(registry: Registry, model: str, kind: str, argument: Mapping[str, Any]) -> dict[str, Any]:
    if kind == "plan":
        plan = _plan(registry, model, argument.get("to"))
        check_target(registry, plan)
        return {"plan": shown(plan)}
    if kind == "rollback":
        return _roll_back(registry, model, argument)
    decided = decisions.carry_out(registry, model, kind, argument)
    if decided is not None:
        return decided
    if kind not in ("hold", "release"):
        known = ", ".join(("plan", "rollback", *decisions.KINDS, "hold"))
        raise ConfigurationError(f"order '{kind}': {known} and release are known")
    who = {"actor": str(argument["actor"]), "at": now_text()}
    reason = str(argument.get("reason") or "by hand")[:MAX_TEXT]
    hold(registry, model, Hold(**who, reason=reason) if kind == "hold" else None, **who)
    return {"reason": reason}


def _plan(registry: Registry, model: str, to: object) -> RollbackPlan:
    if to == "best":
        return plan_better(registry, model)
    if to == "previous":
        return plan_previous(registry, model)
    if isinstance(to, int) and not isinstance(to, bool):
        return plan_version(registry, model, to)
    raise ConfigurationError(f"rollback to {to!r}: best, previous or a version's number is meant")


def _roll_back(registry: Registry, model: str, argument: Mapping[str, Any]) -> dict[str, Any]:
    plan = _plan(registry, model, argument.get("to"))
    if digest(plan) != argument.get("digest"):
        raise ConflictError(
            f"the plan for '{model}' is another one by now: the champion was moved, or a better "
            "version came; look at it again"
        )
    reason = str(argument.get("reason") or "by hand")
    move = execute(registry, plan, By(str(argument["actor"]), now_text(), reason))
    return {"move": move and move.as_dict()}
