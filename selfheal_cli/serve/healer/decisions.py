"""What an operator decides of heals: the mode, what is proposed, tried; with its plan first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selfheal_cli.actor import now_text
from selfheal_cli.errors import ConfigurationError, ConflictError
from selfheal_cli.registry.base import Registry
from selfheal_cli.registry.journal import standing
from selfheal_cli.registry.orders import STANDS, known_mode, mode_of, reject, set_mode
from selfheal_cli.rollback.plan import By, approve, check_target, execute, plan_proposed
from selfheal_cli.rollback.tried import (
    plan_promotion,
    plan_trial,
    tried_canary,
    try_out,
    withdraw,
)
from selfheal_cli.serve.healer.shown import digest, shown

KINDS = ("mode-plan", "mode", "approve-plan", "approve", "reject", "canary-plan", "canary")


def carry_out(
    registry: Registry, model: str, kind: str, argument: Mapping[str, Any]
) -> dict[str, Any] | None:
    """What came of one of `KINDS`; None for another kind of order. Raises `SelfhealError` kinds."""
    match kind:
        case "mode-plan" | "mode":
            return _mode(registry, model, argument, only_look=kind == "mode-plan")
        case "approve-plan" | "approve":
            return _approve(registry, model, argument, only_look=kind == "approve-plan")
        case "reject":
            closed = reject(registry, model, _number(argument), **_by(argument))
            return {"proposal": closed.sequence, "reason": argument.get("reason", "")}
        case "canary-plan" | "canary":
            decide = CANARY_ORDERS.get(str(argument.get("do")), _withdraw)
            return decide(registry, model, argument, only_look=kind == "canary-plan")
    return None


def _mode(
    registry: Registry, model: str, argument: Mapping[str, Any], *, only_look: bool
) -> dict[str, Any]:
    wanted, before = known_mode(argument.get("mode")), mode_of(standing(registry, model))
    if only_look:
        lines = [f"{before} now: {STANDS[before]}", f"{wanted} then: {STANDS[wanted]}"]
        plan = {"lines": lines, "notes": [], "from": before, "to": wanted}
        return {"plan": plan | {"digest": f"{before}-{wanted}"}}
    seen = argument.get("digest")
    if seen and seen != f"{before}-{wanted}":
        raise ConflictError(f"'{model}' is in mode {before} by now; look at the plan again")
    if before != wanted:
        set_mode(registry, model, wanted, **_by(argument))
    return {"mode": wanted, "before": before}


def _approve(
    registry: Registry, model: str, argument: Mapping[str, Any], *, only_look: bool
) -> dict[str, Any]:
    plan, proposed = plan_proposed(registry, model, _number(argument), now_text())
    if only_look:
        check_target(registry, plan)
        told = shown(plan)
        told["lines"] += [f"why: {proposed.reason}", f"sha256 {proposed.sha256[:12]}…"]
        if proposed.expires:
            told["lines"].append(f"open until {proposed.expires}")
        return {"plan": told}
    _require_seen(model, digest(plan), argument)
    by = _by(argument)
    why = By(by["actor"], by["at"], proposed.reason_of(by["reason"]))
    move = approve(registry, plan, proposed, why)
    return {"move": move and move.as_dict(), "proposal": proposed.sequence}


def _promote(
    registry: Registry, model: str, argument: Mapping[str, Any], *, only_look: bool
) -> dict[str, Any]:
    plan = plan_promotion(registry, model)
    if only_look:
        check_target(registry, plan)
        return {"plan": shown(plan)}
    _require_seen(model, digest(plan), argument)
    by = _by(argument)
    move = execute(registry, plan, By(by["actor"], by["at"], by["reason"]))
    return {"move": move and move.as_dict()}


def _withdraw(
    registry: Registry, model: str, argument: Mapping[str, Any], *, only_look: bool
) -> dict[str, Any]:
    canary = tried_canary(registry, model)
    if only_look:
        lines = [*canary.lines(), "withdrawn, the champion answers all requests again"]
        number = canary.version.version
        plan = {"lines": lines, "notes": [], "from": number, "to": 0, "digest": canary.digest}
        return {"plan": plan}
    _require_seen(model, canary.digest, argument)
    move = withdraw(registry, canary, By(**_by(argument)))
    return {"move": move.as_dict()}


def _try(
    registry: Registry, model: str, argument: Mapping[str, Any], *, only_look: bool
) -> dict[str, Any]:
    number = argument.get("version")
    if not isinstance(number, int) or isinstance(number, bool):
        raise ConfigurationError(f"version {number!r}: its number is meant")
    plan = plan_trial(registry, model, number)
    if only_look:
        check_target(registry, plan)
        told = shown(plan)
        told["lines"].append(f"v{number} would answer the share that the policy has, no more")
        return {"plan": told}
    _require_seen(model, digest(plan), argument)
    return {"move": try_out(registry, model, number, By(**_by(argument))).as_dict()}


CANARY_ORDERS = {"promote": _promote, "withdraw": _withdraw, "try": _try}


def _require_seen(model: str, now: str, argument: Mapping[str, Any]) -> None:
    if now != argument.get("digest"):
        raise ConflictError(f"the plan for '{model}' is another one by now; look at it again")


def _by(argument: Mapping[str, Any]) -> dict[str, Any]:
    reason = str(argument.get("reason") or "by hand")
    return {"actor": str(argument["actor"]), "at": now_text(), "reason": reason}


def _number(argument: Mapping[str, Any]) -> int:
    number = argument.get("proposal")
    if not isinstance(number, int) or isinstance(number, bool):
        raise ConfigurationError(f"proposal {number!r}: its number is meant")
    return number
