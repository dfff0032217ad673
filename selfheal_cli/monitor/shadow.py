"""The shadow model: what doing nothing would have given."""

from __future__ import annotations

from dataclasses import dataclass

from selfheal_cli.scores import AnyScores


@dataclass(frozen=True, slots=True)
class Lift:
    """Live minus shadow on the same rows."""

    accuracy: float
    f1: float


def lift(live: AnyScores, shadow: AnyScores) -> Lift:
    """Live minus shadow."""
    return Lift(live.accuracy - shadow.accuracy, live.f1 - shadow.f1)
