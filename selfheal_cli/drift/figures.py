"""The metrics of a batch that go to the registry's run, from the batch's event."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from selfheal_cli.metrics import lift
from selfheal_cli.scores import scores_from

UNFIT = re.compile(r"[^A-Za-z0-9_\-. /:]")  # what a metric's name may not hold


def batch_figures(data: Mapping[str, Any]) -> dict[str, float]:
    """Values by metric name; what an event of an earlier version lacks is left out.

    >>> batch_figures({"z": 1.5, "conflicts": 2, "live": None, "monitors": {"a|b": {"value": 0.1}}})
    {'drift_z': 1.5, 'conflicts': 2.0, 'monitor_a_b': 0.1}
    """
    figures = {"drift_z": data["z"], "conflicts": float(data["conflicts"])}
    figures |= data.get("estimates", {})
    if "abstained" in data:
        figures["rules_abstained"] = float(data["abstained"])
    for key, reading in data.get("monitors", {}).items():
        figures[f"monitor_{UNFIT.sub('_', key)}"] = reading["value"]
    if data["live"] is not None:
        live, shadow = scores_from(data["live"]), scores_from(data["shadow"])
        gained = lift(live, shadow)
        figures |= {f"live_{name}": value for name, value in live.figures().items()}
        figures |= {
            "shadow_accuracy": shadow.accuracy,
            "shadow_f1": shadow.f1,
            "live_lift_accuracy": gained.accuracy,
            "live_lift_f1": gained.f1,
        }
    return figures
