"""A plan as an operator is shown it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from selfheal_cli.records import AnyVersion, ForeignVersion
from selfheal_cli.rollback.plan import RollbackPlan


def shown(plan: RollbackPlan) -> dict[str, Any]:
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
        "digest": digest(plan),
    }


def digest(plan: RollbackPlan) -> str:
    """By which a person agrees to what was shown."""
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
