"""The brake: what serves does harm beyond chance, and where it goes back to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from selfheal_cli.pipeline.stream.candidates import Alarm, Brake

LEVEL = 1e-6


@dataclass(frozen=True)
class Version:
    snapshot: str


BEFORE: Any = Version("before")
BASELINE: Any = Version("baseline")


def alarmed(
    now: float, baseline: float, before: float, *, choosy: bool = True, positives: float = 0.5
) -> Alarm | None:
    """After five batches of 100 rows with these mean losses."""
    draw = np.random.default_rng(4)
    brake = Brake(LEVEL, choosy=choosy)
    for _ in range(5):
        y = (draw.random(100) < positives).astype(np.int8)
        own = 0.01 * draw.normal(size=100)
        losses = [mean + own + 0.01 * draw.normal(size=100) for mean in (now, baseline, before)]
        brake.add(y, *losses)
    return brake.alarm(BEFORE, BASELINE)


@pytest.mark.parametrize(
    ("losses", "to"),
    [
        ((0.60, 0.50, 0.40), BEFORE),
        ((0.60, 0.40, 0.50), BASELINE),
        ((0.60, 0.65, 0.40), None),  # it loses less than the baseline
        ((0.60, 0.40, 0.60), None),  # the version before loses as much
        ((17.8, 16.9, 16.9), None),  # all have lost hold of the stream
        ((8.0, 3.0, 5.0), BASELINE),  # bad, and half as bad
    ],
)
def test_it_goes_back_to_what_lost_less_and_nowhere_while_the_stream_breaks(
    losses: tuple[float, float, float], to: Any
) -> None:
    alarm = alarmed(*losses)
    assert (alarm.to if alarm else None) == to


def test_where_positives_are_rare_a_loss_that_is_halved_is_worth_it() -> None:
    alarm = alarmed(0.50, 0.20, 0.21, positives=0.0)
    assert alarm is not None and alarm.to is BASELINE
    assert alarmed(0.30, 0.20, 0.21, positives=0.0) is None


@pytest.mark.parametrize("losses", [(0.60, 0.40, 0.50), (17.8, 16.9, 16.9)])
def test_one_that_does_not_choose_goes_back_to_what_served_before(
    losses: tuple[float, float, float],
) -> None:
    alarm = alarmed(*losses, choosy=False)
    assert alarm is not None and alarm.to is BEFORE
