"""The pictures' geometry: what is drawn is where the figures say."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from selfheal_cli.report.charts import MOST_POINTS, Frame, frame_of

FINITE = st.floats(-1e6, 1e6)


def test_a_line_breaks_where_nothing_is_known_and_a_lone_point_is_a_dot() -> None:
    frame = Frame(1, 4, 0.0, 1.0)
    assert frame.line({1: 1.0, 2: None, 3: 0.5, 4: 0.0}.items()) == "M125 0h0M625 50h0L875 100"


def test_bars_stand_on_zero_above_or_below() -> None:
    frame = Frame(1, 2, -1.0, 1.0)
    values = {1: 0.5, 2: -0.5}
    assert frame.bars(values.items(), above=True) == "M50 50V25h400V50z"
    assert frame.bars(values.items(), above=False) == "M550 50V75h400V50z"


def test_neighbouring_batches_are_one_area() -> None:
    assert Frame(1, 4, 0.0, 1.0).stretches([1, 2, 4]) == "M0 0H500V100H0zM750 0H1000V100H750z"


def test_many_batches_are_drawn_as_means_of_a_few() -> None:
    frame = frame_of(range(1, 1_001), 0.0, 1.0)
    points = frame.pooled(dict.fromkeys(range(1, 1_001), 0.5).items())
    assert frame.step == 5
    assert len(points) == MOST_POINTS
    assert points[0] == (3.0, 0.5)


@given(FINITE, FINITE, st.integers(1, 5_000), st.integers(0, 5_000))
def test_any_figures_fit_the_frame_and_its_ticks(
    one: float, other: float, first: int, more: int
) -> None:
    low, high = sorted((one, other))
    frame = frame_of([first, first + more], low, high)
    tiny = 1e-6 * (frame.high - frame.low)
    assert frame.low <= low + tiny
    assert frame.high >= high - tiny
    assert 2 <= len(frame.y_ticks()) <= 8
    labels = [tick.label for tick in frame.y_ticks()]
    assert len(set(labels)) == len(labels)
    assert all(0 <= tick.at <= 100 for tick in (*frame.x_ticks(), *frame.y_ticks()))
    assert 1 <= len(frame.x_ticks()) <= 6
    path = frame.line({first: low, first + more: high}.items())
    assert all(0 <= float(y) <= 100 for y in re.findall(r"[ML]\S+ ([-\d.]+)", path))
