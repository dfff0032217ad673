"""The metrics of a batch that go to the registry's run, from the batch's event."""

from __future__ import annotations

import re

from selfheal_cli.events.types import BatchScored
from selfheal_cli.metrics import lift

UNFIT = re.compile(r"[^A-Za-z0-9_\-. /:]")  # what a metric's name may not hold


def batch_figures(event: BatchScored) -> dict[str, float]:
    """Values by metric name; what an event of an earlier version lacks is left out."""
    figures = {"drift_z": event.z, "conflicts": float(event.conflicts), **event.estimates}
    if event.abstained is not None:
        figures["rules_abstained"] = float(event.abstained)
    for key, reading in event.monitors.items():
        figures[f"monitor_{UNFIT.sub('_', key)}"] = reading["value"]
    live, shadow = event.live, event.shadow
    if live is not None and shadow is not None:
        gained = lift(live, shadow)
        figures |= {f"live_{name}": value for name, value in live.figures().items()}
        figures |= {
            "shadow_accuracy": shadow.accuracy,
            "shadow_f1": shadow.f1,
            "live_lift_accuracy": gained.accuracy,
            "live_lift_f1": gained.f1,
        }
    return figures
