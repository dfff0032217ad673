"""No number that comes makes a figure infinite, and no single row is drift."""

from __future__ import annotations

from math import isfinite
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal_cli.config import MonitorSettings, Policy
from selfheal_cli.drift.fidi import Calibration, Fidi
from selfheal_cli.drift.kinds import build
from selfheal_cli.drift.monitor import BatchView, TrainingSample
from selfheal_cli.records import Rows
from selfheal_cli.sources.encoding import CLIP, Encoding, NumericColumn
from selfheal_cli.sources.values import RowContract

ANY = st.floats(allow_nan=True, allow_infinity=True, width=64)
NUMBERS = ("fidi", "psi", "two-sample", "missing")


def encoding(contract: RowContract) -> Encoding:
    return Encoding(columns=(NumericColumn(name="a", mean=0.0, sd=1.0),), contract=contract)


def sample() -> TrainingSample:
    values = np.random.default_rng(1).normal(size=200)
    y = (values > 0).astype(np.int8)
    rows = Rows(values.astype(np.float32)[:, None], y, {"a": values})
    scores = np.full(200, 0.5, np.float32)
    return TrainingSample(rows, scores, y, 0, ("0", "1"), ("a",), {}, {"a": 1.0})


@given(values=st.lists(ANY, min_size=1, max_size=20), contract=st.sampled_from([1, 2]))
def test_no_value_makes_an_input_a_z_or_a_monitor_infinite(
    values: list[float], contract: RowContract
) -> None:
    raw = {"a": np.array(values)}
    known = encoding(contract)
    assert np.isfinite(known.encode(raw)).all()
    columns = known.cleaned(raw)
    fidi = Fidi(Calibration("a", 0.0, 1.0, clip=CLIP), Policy())
    assert all(isfinite(fidi.observe(columns["a"]).z) for _ in range(4))
    view = BatchView(
        columns, np.full(len(values), 0.5, np.float32), np.zeros(len(values), np.int8), 0,
        np.empty(0),
    )  # fmt: skip
    for name in NUMBERS:
        monitor = build(MonitorSettings.model_validate({"name": name}), sample())
        reading = monitor.update(view)
        assert isfinite(reading.value)
        assert isfinite(reading.p)


@pytest.mark.parametrize("wild", [3e38, -3e38, 1e30])
def test_one_wild_row_is_no_drift(wild: float) -> None:
    policy = Policy()
    fidi = Fidi(Calibration("a", 0.0, 1.0, clip=CLIP), policy)
    rng = np.random.default_rng(2)
    calm: Any = [rng.normal(size=100) for _ in range(6)]
    calm[3][50] = wild
    assert not any(fidi.observe(values).drifting for values in calm)


def test_a_batch_of_only_infinities_is_not_as_in_training() -> None:
    fidi = Fidi(Calibration("a", 0.0, 1.0, clip=CLIP), Policy())
    columns = encoding(2).cleaned({"a": np.full(100, np.inf)})
    reading = fidi.observe(columns["a"])
    assert reading.drifting
    assert isfinite(reading.z)


def test_a_feature_that_moved_far_is_drift_though_values_are_clipped() -> None:
    fidi = Fidi(Calibration("a", 0.0, 1.0, clip=CLIP), Policy())
    readings = [fidi.observe(np.full(100, 1e6)) for _ in range(3)]
    assert readings[-1].drifting
    assert readings[-1].z == pytest.approx(CLIP)
