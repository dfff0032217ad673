"""FIDI: a window of batch means against the training values."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal_cli.config import Policy
from selfheal_cli.drift.fidi import FLOOR, Calibration, Fidi, calibrate
from selfheal_cli.errors import DataError
from selfheal_cli.moments import Moments
from selfheal_cli.records import DriftReading


def moments_of(*values: float) -> Moments:
    """Moments of these values."""
    moments = Moments()
    moments.add(np.array(values, dtype=np.float64))
    return moments


def readings(fidi: Fidi, *means: float) -> list[float]:
    """The distances that batches of these means give."""
    return [fidi.observe(np.array([mean - 1.0, mean + 1.0])).z for mean in means]


def test_calibration_is_mean_and_sd_of_the_training_values() -> None:
    calibration = calibrate("V14", moments_of(1.0, 2.0, 6.0))
    assert calibration == Calibration("V14", 3.0, pytest.approx(np.std([1, 2, 6]) + FLOOR))


@pytest.mark.parametrize("values", [(4.5, 4.5, 4.5), (1e9, 1e9), (4.5,)])
def test_a_constant_feature_is_refused_with_its_value(values: tuple[float, ...]) -> None:
    with pytest.raises(
        DataError,
        match=re.escape(f"'V14' is constant in the training part ({values[0]:g}); name another"),
    ):
        calibrate("V14", moments_of(*values))


def test_a_feature_without_values_is_refused() -> None:
    with pytest.raises(DataError, match=r"'V14' is constant .*\(no value at all\)"):
        calibrate("V14", Moments())


def test_there_is_no_distance_before_enough_batches_are_in() -> None:
    fidi = Fidi(Calibration("V14", 0.0, 2.0), Policy(fidi_min_batches=3))
    assert readings(fidi, -8.0, -8.0, -8.0, -8.0) == [0.0, 0.0, 4.0, 4.0]


def test_the_distance_is_that_of_the_mean_of_batch_means_to_either_side() -> None:
    policy = Policy(fidi_min_batches=1)
    assert readings(Fidi(Calibration("V14", 1.0, 2.0), policy), 5.0, 1.0) == [2.0, 1.0]
    assert readings(Fidi(Calibration("V14", 1.0, 2.0), policy), -3.0) == [2.0]


def test_each_batch_counts_the_same_whatever_its_size() -> None:
    fidi = Fidi(Calibration("V14", 0.0, 1.0), Policy(fidi_min_batches=2))
    fidi.observe(np.zeros(100))
    assert fidi.observe(np.array([4.0])).z == 2.0


@given(
    batches=st.lists(
        st.lists(st.floats(-100, 100) | st.just(float("nan")), min_size=1, max_size=4),
        max_size=12,
    ),
    window=st.integers(1, 6),
)
def test_only_the_last_batches_with_values_are_in_the_window(
    batches: list[list[float]], window: int
) -> None:
    fidi = Fidi(Calibration("V14", 1.5, 3.0), Policy(fidi_window=window, fidi_min_batches=1))
    means: list[float] = []
    for batch in batches:
        reading = fidi.observe(np.array(batch))
        if not np.isnan(batch).all():
            means.append(float(np.nanmean(batch)))
        expected = abs(np.mean(means[-window:]) - 1.5) / 3.0 if means else 0.0
        assert reading.z == pytest.approx(expected, abs=1e-9)


def test_a_batch_without_values_leaves_the_window_as_it_is() -> None:
    fidi = Fidi(Calibration("V14", 0.0, 1.0), Policy(fidi_min_batches=2))
    readings(fidi, 3.0, 3.0)
    assert fidi.observe(np.array([np.nan, np.nan])).z == 3.0
    assert fidi.observe(np.array([])).z == 3.0


def test_drift_is_a_distance_above_the_threshold() -> None:
    policy = Policy(fidi_threshold=2.0, fidi_min_batches=1, fidi_window=1)
    fidi = Fidi(Calibration("V14", 0.0, 1.0), policy)
    assert fidi.observe(np.array([2.0])) == DriftReading("V14", 2.0, drifting=False)
    assert fidi.observe(np.array([2.5])) == DriftReading("V14", 2.5, drifting=True)
    assert fidi.observe(np.array([0.0])) == DriftReading("V14", 0.0, drifting=False)


def test_a_window_shorter_than_the_batches_to_wait_for_still_sees_drift() -> None:
    policy = Policy(fidi_window=2, fidi_min_batches=3)
    assert readings(Fidi(Calibration("V14", 0.0, 1.0), policy), 9.0, 9.0, 9.0, 9.0)[-1] == 9.0
