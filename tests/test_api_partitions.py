"""Monitors over parts of a DataFrame, and of the whole."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest

from selfheal_cli.api.partitions import PartitionMonitor
from selfheal_cli.errors import ConfigurationError
from tests.drift.streams import TEXTS


def table(seed: int, rows: int, moved: float = 0.0) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    kinds = draw.choice([*TEXTS, None], rows, p=(0.5, 0.3, 0.1, 0.1))
    return pd.DataFrame({"a": draw.normal(moved, 1, rows), "kind": kinds})


TRAINING = table(0, 2_000)


@pytest.mark.parametrize("monitor", ["psi", "two-sample", "missing", "fidi:on=a", "category"])
def test_states_of_partitions_go_over_the_wire_and_add_up_to_the_whole(monitor: str) -> None:
    parts = [PartitionMonitor(monitor, TRAINING) for _ in range(3)]
    whole = PartitionMonitor(monitor, TRAINING)
    for number in (1, 2, 3):
        rows = table(number, 90, moved=1.0)
        expected = whole.update(rows, batch=number)
        for place, part in enumerate(parts):
            part.update(rows.iloc[place::3], batch=number)
    told = [pickle.loads(pickle.dumps(part.state())) for part in parts]  # noqa: S301
    merged = PartitionMonitor(monitor, TRAINING).merge(told[::-1])
    assert (merged.level, merged.features) == (expected.level, expected.features)
    assert merged.value == pytest.approx(expected.value, abs=1e-12)


def test_what_cannot_be_watched_is_refused_in_words() -> None:
    for monitor in ("prediction-rate", "psi:on=scores"):
        with pytest.raises(ConfigurationError, match=r"looks at a model's answers.*allowed: fidi"):
            PartitionMonitor(monitor, TRAINING)
    with pytest.raises(ConfigurationError, match=r"rows: column 'kind' is missing; .* a, kind"):
        PartitionMonitor("psi", TRAINING).update(TRAINING[["a"]], batch=1)
