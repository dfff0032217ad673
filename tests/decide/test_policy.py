"""Whether a batch starts a heal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal_cli.config import Policy
from selfheal_cli.decide import Decision, decide
from selfheal_cli.records import Conflicts, DriftReading

POLICY = Policy(fidi_threshold=1.5, conflict_min=4)


def reading(z: float) -> DriftReading:
    """A reading of V14 under the policy above."""
    return DriftReading("V14", z, drifting=z > POLICY.fidi_threshold)


@pytest.mark.parametrize(
    ("z", "conflicts", "decision"),
    [
        (0.0, 0, Decision(heal=False, reason="no signal")),
        (1.5, 3, Decision(heal=False, reason="no signal")),
        (1.0, 4, Decision(heal=True, reason="4 conflicts >= 4")),
        (2.0, 3, Decision(heal=True, reason="V14 drifts: z 2.000 > 1.5")),
        (2.0, 9, Decision(heal=True, reason="V14 drifts: z 2.000 > 1.5 and 9 conflicts >= 4")),
    ],
)
def test_drift_or_enough_conflicts_start_a_heal_and_say_why(
    z: float, conflicts: int, decision: Decision
) -> None:
    assert decide(reading(z), Conflicts(conflicts, 0.5), POLICY) == decision


@given(
    z=st.floats(0, 5),
    count=st.integers(0, 20),
    share=st.floats(0, 1),
    conflict_min=st.integers(1, 20),
)
def test_a_heal_is_decided_by_the_thresholds_alone(
    z: float, count: int, share: float, conflict_min: int
) -> None:
    policy = Policy(fidi_threshold=1.5, conflict_min=conflict_min)
    decision = decide(reading(z), Conflicts(count, share), policy)
    assert decision.heal == (z > 1.5 or count >= conflict_min)
    assert (decision.reason == "no signal") == (not decision.heal)
