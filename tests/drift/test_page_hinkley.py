"""Our Page-Hinkley is river's."""

from __future__ import annotations

import numpy as np
import pytest

from selfheal_cli.drift.page_hinkley import PageHinkley


@pytest.mark.parametrize("seed", range(5))
def test_it_fires_where_rivers_does(seed: int) -> None:
    river = pytest.importorskip("river.drift")
    draw = np.random.default_rng(seed)
    values = np.concatenate(
        [draw.normal(0, 1, 200), draw.normal(1.5, 1, 200), draw.normal(0, 2, 200)]
    )
    ours, theirs = PageHinkley(0.5, 12.0), river.PageHinkley(delta=0.5, threshold=12.0)
    fired = []
    for value in values.tolist():
        ours.update(value)
        theirs.update(value)
        fired.append((ours.drift_detected, theirs.drift_detected))
    assert any(mine for mine, _ in fired)
    assert all(mine == other for mine, other in fired)
