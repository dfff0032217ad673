"""Whether a batch starts a heal, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from selfheal_cli.config import Policy
from selfheal_cli.records import Conflicts, DriftReading


@dataclass(frozen=True, slots=True)
class Decision:
    """``reason`` reads as the second half of "healed because ..."."""

    heal: bool
    reason: str


def decide(
    reading: DriftReading, conflicts: Conflicts, policy: Policy, alarms: Sequence[str] = ()
) -> Decision:
    """Heal when the sensitive feature drifts, or rules and network conflict often enough.

    ``alarms`` are the reasons of monitors that may start a heal.

    >>> decide(DriftReading("V14", 0.2, False), Conflicts(7, 0.0), Policy())
    Decision(heal=True, reason='7 conflicts >= 5')
    """
    reasons = []
    if reading.drifting:
        reasons.append(f"{reading.feature} drifts: z {reading.z:.3f} > {policy.fidi_threshold:g}")
    if conflicts.count >= policy.conflict_min:
        reasons.append(f"{conflicts.count} conflicts >= {policy.conflict_min}")
    reasons += alarms
    return Decision(bool(reasons), " and ".join(reasons) or "no signal")
