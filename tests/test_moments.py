"""Count, mean and variance, chunk by chunk."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal_cli.moments import Moments

VALUES = st.lists(st.floats(-1e6, 1e6) | st.just(float("nan")), max_size=30)


def moments_of(*chunks: np.ndarray) -> Moments:
    """Moments after these chunks."""
    moments = Moments()
    for chunk in chunks:
        moments.add(chunk)
    return moments


@given(values=VALUES, cuts=st.lists(st.integers(0, 30), max_size=5))
def test_chunks_give_the_moments_of_the_whole_without_missing_values(
    values: list[float], cuts: list[int]
) -> None:
    whole = np.array(values, dtype=np.float64)
    present = whole[~np.isnan(whole)]
    moments = moments_of(*np.split(whole, sorted(cuts)))
    assert moments.count == len(present)
    assert moments.mean == pytest.approx(present.mean() if len(present) else 0.0, abs=1e-6)
    assert moments.sd == pytest.approx(present.std() if len(present) else 0.0, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("chunks", [(), ([],), ([np.nan, np.nan], [])])
def test_without_values_everything_is_nought(chunks: tuple[list[float], ...]) -> None:
    moments = moments_of(*(np.array(chunk, dtype=float) for chunk in chunks))
    assert (moments.count, moments.mean, moments.sd) == (0, 0.0, 0.0)


def test_the_sd_is_the_population_s() -> None:
    assert moments_of(np.array([1.0, 3.0])).sd == 1.0


def test_a_small_spread_far_from_nought_is_kept() -> None:
    values = 1e9 + np.random.default_rng(0).normal(size=10_000)
    assert moments_of(*np.split(values, 10)).sd == pytest.approx(values.std(), rel=1e-9)


def test_float32_values_are_summed_as_float64() -> None:
    values = np.full(2_000_000, 0.1, dtype=np.float32)
    moments = moments_of(*np.split(values, 20))
    assert moments.mean == pytest.approx(float(np.float32(0.1)), rel=1e-12)
    assert moments.sd < 1e-12
