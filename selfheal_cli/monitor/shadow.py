"""The shadow model: what doing nothing would have given."""

from __future__ import annotations

from dataclasses import dataclass

from selfheal_cli.records import Scores


@dataclass(frozen=True, slots=True)
class Lift:
    """Live minus shadow on the same rows."""

    accuracy: float
    f1: float


def lift(live: Scores, shadow: Scores) -> Lift:
    """Live minus shadow."""
    return Lift(live.accuracy - shadow.accuracy, live.f1 - shadow.f1)
