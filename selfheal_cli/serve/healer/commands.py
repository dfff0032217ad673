"""What an operator orders on the control channel, carried out where the registry is known."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from selfheal_cli.actor import now_text
from selfheal_cli.errors import ConfigurationError, ConflictError, SelfhealError, one_line
from selfheal_cli.records import AnyVersion, ForeignVersion
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
        return {"plan": _shown(plan)}
    if kind == "rollback":
        return _roll_back(registry, model, argument)
    if kind not in ("hold", "release"):
        raise ConfigurationError(f"order '{kind}': plan, rollback, hold and release are known")
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
    if _digest(plan) != argument.get("digest"):
        raise ConflictError(
            f"the plan for '{model}' is another one by now: the champion was moved, or a better "
            "version came; look at it again"
        )
    reason = str(argument.get("reason") or "by hand")
    move = execute(registry, plan, By(str(argument["actor"]), now_text(), reason))
    return {"move": move and move.as_dict()}


def _shown(plan: RollbackPlan) -> dict[str, Any]:
    """The plan for a person, and a digest by which it can be agreed to."""
    serving, target = plan.serving, plan.target
    lines = [f"serves now: {_told(serving)}", f"would serve: {_told(target)}"]
    if not isinstance(target, ForeignVersion):
        lines[-1] += f", 95 % sure of {_figure(plan.lower_bound(target))}"
        lines.append(
            f"recipe {target.tags.get('selfheal.recipe', '-')}, made while the stream was "
            f"{target.regime or 'not looked at'}"
        )
    lines.append(f"chosen by: {plan.criterion}")
    return {
        "lines": lines,
        "notes": list(plan.notes),
        "from": serving.version if serving else None,
        "to": target.version,
        "digest": _digest(plan),
    }


def _digest(plan: RollbackPlan) -> str:
    told = [plan.after, plan.target.version, plan.target_sha256]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _told(version: AnyVersion | None) -> str:
    if version is None:
        return "nothing"
    if isinstance(version, ForeignVersion):
        return str(version)
    return f"v{version.version}, F1 {_figure(version.f1)} on {version.eval_rows} rows"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
