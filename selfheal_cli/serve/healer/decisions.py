"""What an operator decides of heals: the mode, and what is proposed; with its plan first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selfheal_cli.actor import now_text
from selfheal_cli.errors import ConfigurationError, ConflictError
from selfheal_cli.registry.base import Registry
from selfheal_cli.registry.journal import standing
from selfheal_cli.registry.orders import MODES, STANDS, mode_of, reject, set_mode
from selfheal_cli.rollback.plan import By, approve, check_target, plan_proposed
from selfheal_cli.serve.healer.shown import digest, shown

KINDS = ("mode-plan", "mode", "approve-plan", "approve", "reject")


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
    return None


def _mode(
    registry: Registry, model: str, argument: Mapping[str, Any], *, only_look: bool
) -> dict[str, Any]:
    wanted, before = argument.get("mode"), mode_of(standing(registry, model))
    if wanted not in MODES:
        raise ConfigurationError(f"mode {wanted!r}: {', '.join(MODES)} are known")
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
    if digest(plan) != argument.get("digest"):
        raise ConflictError(f"the plan for '{model}' is another one by now; look at it again")
    by = _by(argument)
    why = f"{proposed.reason} (proposed by {proposed.actor}; {by['reason']})"
    move = approve(registry, plan, proposed, By(by["actor"], by["at"], why))
    return {"move": move and move.as_dict(), "proposal": proposed.sequence}


def _by(argument: Mapping[str, Any]) -> dict[str, Any]:
    reason = str(argument.get("reason") or "by hand")
    return {"actor": str(argument["actor"]), "at": now_text(), "reason": reason}


def _number(argument: Mapping[str, Any]) -> int:
    number = argument.get("proposal")
    if not isinstance(number, int) or isinstance(number, bool):
        raise ConfigurationError(f"proposal {number!r}: its number is meant")
    return number
