"""Training that the latest rows end: it begins as a logistic regression and is judged apart."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from selfheal_cli.config import NetworkSettings
from selfheal_cli.model.architecture import Architecture
from selfheal_cli.model.network import SelfHealingNetwork
from selfheal_cli.model.selection import Selected, begin_as_logistic, train_selected
from selfheal_cli.model.training import SpooledRows, seeded
from selfheal_cli.records import Rows

SETTINGS = NetworkSettings(hidden=16, validation=0.2, learning_rate=0.005)


def linear(count: int = 1_000, classes: int = 2, seed: int = 0) -> Rows:
    """Rows whose classes a logistic regression tells apart as well as anything."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(count, 4)).astype(np.float32)
    weights = np.random.default_rng(1).normal(size=(4, classes))
    logits = x @ weights + draw.gumbel(size=(count, classes))
    return Rows(x, logits.argmax(axis=1).astype(np.int8), {})


def ring(count: int = 2_000, seed: int = 0) -> Rows:
    """Rows of which no linear model can say anything."""
    x = np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)
    return Rows(x, (np.abs(x[:, 0]) > 0.7).astype(np.int8), {})


def selected(rows: Rows, settings: NetworkSettings = SETTINGS, block: int = 10_000) -> Selected:
    blocks = [
        Rows(rows.x[at : at + block], rows.y[at : at + block], {})
        for at in range(0, len(rows), block)
    ]
    spool = SpooledRows(iter(blocks))
    classes = int(rows.y.max()) + 1
    with seeded(3):
        network = SelfHealingNetwork.build(
            Architecture(rows.x.shape[1], settings.hidden, 1 if classes <= 2 else classes)
        )
        result = train_selected(network, spool, settings, lambda: None)
    spool.close()
    return result


def weights(result: Selected) -> bytes:
    return b"".join(value.numpy().tobytes() for value in result.network.state_dict().values())


@pytest.mark.parametrize("classes", [2, 3])
def test_an_untrained_network_decides_as_scikit_learns_logistic_regression(classes: int) -> None:
    rows = linear(classes=classes)
    with seeded(0):
        network = SelfHealingNetwork.build(Architecture(4, 16, 1 if classes == 2 else classes))
    assert begin_as_logistic(network, SpooledRows(iter([rows])), len(rows))
    theirs = LogisticRegression(max_iter=1_000, tol=1e-8).fit(rows.x, rows.y).predict_proba(rows.x)
    ours = network.predict(rows.x)
    assert np.abs(ours - (theirs[:, 1] if classes == 2 else theirs)).max() < 2e-3


def test_a_network_without_units_for_it_begins_at_random() -> None:
    with seeded(0):
        network = SelfHealingNetwork.build(Architecture(4, 5, 3))
    before = [value.clone() for value in network.state_dict().values()]
    assert not begin_as_logistic(network, SpooledRows(iter([linear(classes=3)])), 500)
    assert all((a == b).all() for a, b in zip(before, network.state_dict().values(), strict=True))
    result = selected(linear(classes=3), NetworkSettings(hidden=5, validation=0.2))
    assert "logistic" not in result.how


def test_where_a_line_is_enough_the_network_is_hardly_worse() -> None:
    rows, fresh = linear(600), linear(4_000, seed=7)
    theirs = LogisticRegression().fit(rows.x, rows.y).predict_proba(fresh.x)[:, 1]
    ours = selected(rows).network.predict(fresh.x)
    assert roc_auc_score(fresh.y, ours) > roc_auc_score(fresh.y, theirs) - 0.01


def test_where_a_line_says_nothing_the_network_learns_what_it_can() -> None:
    result = selected(ring())
    assert result.how.startswith("begun as logistic regression, ")
    x, y = result.held_out or (None, None)
    assert x is not None and y is not None
    assert ((result.network.predict(x) >= 0.5) == y).mean() > 0.85


def test_the_latest_rows_are_held_out_and_change_nothing() -> None:
    rows, other = ring(), ring()
    other.x[-200:] += 3
    other.y[-200:] = 1 - other.y[-200:]
    one, two = selected(rows), selected(other)
    assert weights(one) == weights(two)
    assert one.held_out is not None
    assert (one.held_out[0] == rows.x[-200:]).all()
    assert (one.held_out[1] == rows.y[-200:]).all()


def test_rows_in_a_file_train_as_rows_in_memory_are_split() -> None:
    rows = linear(900)
    one, two = selected(rows), selected(rows, block=250)
    assert one.held_out is not None and two.held_out is not None
    assert (one.held_out[0] == two.held_out[0]).all()
    assert (one.held_out[1] == two.held_out[1]).all()


def test_the_same_seed_gives_the_same_network() -> None:
    assert weights(selected(ring())) == weights(selected(ring()))


def few(rows: Rows) -> Rows:
    return Rows(rows.x[:300], rows.y[:300], {})


def one_class_at_the_end(rows: Rows) -> Rows:
    rows.y[-300:] = 0
    return rows


def a_class_at_the_end_alone(rows: Rows) -> Rows:
    rows.y[-40:] = 2
    rows.y[-160:-120] = 2
    return rows


@pytest.mark.parametrize(
    ("spoiled", "told"),
    [
        (few, "30 rows to choose epochs by are too few"),
        (one_class_at_the_end, "0 of the latest are outside of the commonest class"),
        (a_class_at_the_end_alone, "a class comes among the latest alone"),
    ],
)
def test_where_the_latest_rows_cannot_choose_it_is_a_logistic_regression_of_all_and_says_so(
    spoiled: object, told: str
) -> None:
    assert callable(spoiled)
    rows = spoiled(linear(1_000))
    result = selected(rows)
    assert result.held_out is None
    assert f"logistic regression of all {len(rows):,} rows" in result.how
    assert told in result.how
    assert np.isfinite(result.network.predict(rows.x)).all()


def test_rows_of_one_class_alone_still_train() -> None:
    rows = linear(400)
    rows.y[:] = 0
    result = selected(rows)
    assert result.held_out is None
    assert result.network.predict(rows.x).max() < 0.5
