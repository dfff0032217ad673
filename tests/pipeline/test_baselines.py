"""Every peer keeps the same promises: each check runs over each of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from selfheal_cli.config import NetworkSettings, SyntheticSettings
from selfheal_cli.kinds import PEERS, RIVER_PEERS
from selfheal_cli.model.architecture import Architecture
from selfheal_cli.model.network import SelfHealingNetwork
from selfheal_cli.model.training import seeded
from selfheal_cli.pipeline.offline.baselines import (
    Constant,
    FineTune,
    Frozen,
    LabelRate,
    Peer,
    Posterior,
)
from selfheal_cli.pipeline.offline.peers import KINDS, missing_peers, peers_named
from selfheal_cli.pipeline.offline.refitted import (
    LATEST,
    RefitSchedule,
    Refitted,
    fit_logistic,
    fit_trees,
)
from selfheal_cli.pipeline.offline.unlabelled import Unlabelled, isolation_forest, one_class_svm
from selfheal_cli.sources.synthetic import SyntheticSource

SOURCE = SyntheticSource(SyntheticSettings(train_rows=300), seed=1, batch_size=100, batches=2)
INPUTS = SOURCE.encoding.width
SMALL = NetworkSettings(hidden=8, epochs=2)
Make = Callable[[int], Peer]


def network(seed: int = 0) -> SelfHealingNetwork:
    with seeded(seed):
        built = SelfHealingNetwork.build(Architecture(INPUTS, 8))
    built.freeze()
    return built


MAKERS: dict[str, Make] = {
    "frozen": lambda seed: Frozen(network(seed)),
    "constant": lambda seed: Constant((1.0, 0.0)),
    "label rate": lambda seed: LabelRate((85, 15)),
    "posterior": lambda seed: Posterior(SyntheticSettings()),
    "fine-tune": lambda seed: FineTune(network(seed), 0.01),
    **{
        name: lambda seed, name=name: next(
            make(seed, SOURCE) for make in peers_named([name], SMALL, RefitSchedule(2)).values()
        )
        for name in KINDS
        if name not in missing_peers(KINDS)
    },
}
STEADY = ["frozen", "constant", "posterior", "frozen-trees", "isolation-forest", "one-class-svm"]


def rows(count: int = 60, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(count, INPUTS)).astype(np.float32)
    return x, (x[:, 0] + 0.3 * x[:, 1] > 0).astype(np.int8)


@pytest.mark.parametrize("name", MAKERS)
def test_a_peer_learns_from_labels_alone_and_gives_one_probability_a_row(name: str) -> None:
    peer, never_asked = MAKERS[name](1), MAKERS[name](1)
    x, y = rows(100)
    before, first = (x.copy(), y.copy()), peer.predict(x)
    for _ in range(3):  # before and after it has learned
        for count in (1, 7, 60):
            probabilities = peer.predict(rows(count, seed=9)[0])
            assert probabilities.shape == (count,)
            assert probabilities.dtype == np.float32
            assert ((probabilities >= 0) & (probabilities <= 1)).all()
        for one in (peer, never_asked):
            one.learn(x, y)
    last = peer.predict(x)
    assert (last == never_asked.predict(x)).all()  # predicting teaches nothing; of the same seed
    assert (last == first).all() == (name in STEADY)
    assert (x == before[0]).all()
    assert (y == before[1]).all()


def test_fine_tuning_leaves_the_network_that_it_started_from() -> None:
    start = network()
    x, y = rows()
    before = start.predict(x)
    FineTune(start, 0.1).learn(x, y)
    assert (start.predict(x) == before).all()


def test_the_label_rate_is_of_the_last_ten_batches_weighed_by_rows() -> None:
    peer, x = LabelRate((85, 15)), rows(3)[0]
    assert peer.predict(x) == pytest.approx([0.15] * 3)
    peer.learn(*(part[:10] for part in (rows()[0], np.ones(60, dtype=np.int8))))
    for _ in range(9):
        peer.learn(rows()[0][:30], np.zeros(30, dtype=np.int8))
    assert peer.predict(x) == pytest.approx([10 / 280] * 3)
    peer.learn(rows()[0][:30], np.zeros(30, dtype=np.int8))
    assert peer.predict(x) == pytest.approx([0.0] * 3)


@pytest.mark.parametrize("name", sorted(set(RIVER_PEERS) & set(MAKERS)))
def test_the_river_learners_learn_what_tells_the_classes_apart(name: str) -> None:
    x, y = rows(200)
    peer = MAKERS[name](1)
    for _ in range(2):
        peer.learn(x, y)
    fresh, truth = rows(200, seed=77)
    assert ((peer.predict(fresh) >= 0.5) == (truth == 1)).mean() > 0.7


def test_refitted_trees_follow_a_change_that_frozen_ones_do_not() -> None:
    fit = partial(fit_trees, 1)
    refitted, frozen = Refitted(SOURCE, fit, RefitSchedule(5)), Refitted(SOURCE, fit)
    for seed in range(5):
        x, y = rows(LATEST // 5, seed=seed)
        for peer in (refitted, frozen):
            peer.learn(x, y)
    fresh, truth = rows(400, seed=77)
    right = [float(((one.predict(fresh) >= 0.5) == truth).mean()) for one in (refitted, frozen)]
    assert right[0] > 0.9 > right[1]


def test_refitted_trees_wait_for_their_turn_and_forget_what_is_old() -> None:
    peer = Refitted(SOURCE, fit_logistic, RefitSchedule(3))
    x, y = rows(100)
    before = peer.predict(x)
    for _ in range(2):
        peer.learn(x, y)
        assert (peer.predict(x) == before).all()
    peer.learn(x, y)
    assert (peer.predict(x) != before).any()
    other = Refitted(SOURCE, fit_logistic, RefitSchedule(3))
    for one in (peer, other):
        for part in range(3):
            one.learn(*rows(LATEST // 2, seed=part))
    assert (peer.predict(x) == other.predict(x)).all()


def test_trees_keep_what_they_know_while_all_labels_are_the_same() -> None:
    peer = Refitted(SOURCE, fit_logistic, RefitSchedule(1))
    x, _ = rows(LATEST)
    before = peer.predict(x)
    peer.learn(x, np.zeros(LATEST, dtype=np.int8))
    assert (peer.predict(x) == before).all()


def test_a_model_on_all_rows_forgets_none() -> None:
    x, y = rows(100)
    kept = [Refitted(SOURCE, fit_logistic, RefitSchedule(2, most)) for most in (None, 200)]
    for peer in kept:
        peer.learn(x, y)
        peer.learn(x, y)
    fresh = rows(50, seed=9)[0]
    first = Refitted(SOURCE, fit_logistic).predict(fresh)
    far = [np.abs(peer.predict(fresh) - first).mean() for peer in kept]
    assert 0 < far[0] < far[1]


@pytest.mark.parametrize("make_one", [isolation_forest, one_class_svm])
def test_without_labels_as_many_rows_are_flagged_as_there_were_positives(
    make_one: Callable[[int, SyntheticSource], Unlabelled],
) -> None:
    trained = next(SOURCE.training())
    flagged = make_one(1, SOURCE).predict(trained.x) >= 0.5
    assert flagged.mean() == pytest.approx((trained.y == 1).mean(), abs=0.02)


def test_every_name_stands_for_a_peer() -> None:
    assert tuple(KINDS) == PEERS
