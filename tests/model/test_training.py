"""Training on clean rows: seeded, frozen at the end, from memory or from a file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from selfheal_cli.config import NetworkSettings
from selfheal_cli.model.architecture import Architecture
from selfheal_cli.model.network import PlainNetwork, SelfHealingNetwork
from selfheal_cli.model.training import SpooledRows, seeded, train
from selfheal_cli.records import Rows

SMALL = Architecture(inputs=3, hidden=8)
SETTINGS = NetworkSettings(hidden=8, epochs=4, train_batch_size=32)


def rows_of(count: int, seed: int = 0) -> Rows:
    """Rows whose first input tells the class."""
    draw = np.random.default_rng(seed)
    y = (draw.random(count) < 0.4).astype(np.int8)
    x = draw.normal(size=(count, 3)).astype(np.float32)
    x[:, 0] += 3 * y
    return Rows(x, y, {})


def cut(rows: Rows, *places: int) -> list[Rows]:
    """The rows in blocks."""
    return [
        Rows(x, y, {})
        for x, y in zip(np.split(rows.x, places), np.split(rows.y, places), strict=True)
    ]


def trained(blocks: list[Rows], seed: int = 1, settings: NetworkSettings = SETTINGS) -> bytes:
    """The weights after training, as bytes."""
    spool = SpooledRows(iter(blocks))
    with seeded(seed):
        network = SelfHealingNetwork.build(Architecture(3, settings.hidden))
        train(network, spool, settings, lambda: None)
    spool.close()
    return b"".join(value.numpy().tobytes() for value in network.state_dict().values())


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    first = trained([rows_of(200)])
    assert trained([rows_of(200)]) == first
    assert trained([rows_of(200)], seed=2) != first


def test_seeded_leaves_the_callers_generator_alone() -> None:
    before = torch.get_rng_state()
    with seeded(5):
        first = torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before)
    with seeded(5):
        assert torch.equal(torch.rand(3), first)


def test_seeded_leaves_the_callers_generator_alone_after_an_error() -> None:
    before = torch.get_rng_state()
    with pytest.raises(KeyError), seeded(5):
        torch.rand(3)
        raise KeyError
    assert torch.equal(torch.get_rng_state(), before)


def test_training_learns_and_freezes() -> None:
    rows = rows_of(600)
    spool = SpooledRows(iter([rows]))
    with seeded(1):
        network = PlainNetwork(SMALL)
        before = float(np.mean((network.predict(rows.x) >= 0.5) == rows.y))
        train(network, spool, NetworkSettings(hidden=8, learning_rate=0.01), lambda: None)
    after = float(np.mean((network.predict(rows.x) >= 0.5) == rows.y))
    assert before < 0.8
    assert after > 0.9
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_training_equals_a_plain_loop_with_torch_s_adam() -> None:
    rows = rows_of(150)
    weights = trained([rows])
    x, y = torch.from_numpy(rows.x), torch.from_numpy(rows.y).float()
    with seeded(1):
        network = SelfHealingNetwork.build(SMALL)
        optimiser = torch.optim.Adam(network.parameters(), lr=SETTINGS.learning_rate)
        for _ in range(SETTINGS.epochs):
            order = torch.randperm(len(y))
            for start in range(0, len(y), 32):
                chosen = order[start : start + 32]
                optimiser.zero_grad()
                functional.binary_cross_entropy(network(x[chosen]), y[chosen]).backward()
                optimiser.step()
    expected = b"".join(value.numpy().tobytes() for value in network.state_dict().values())
    assert weights == expected


def test_each_epoch_is_told() -> None:
    told: list[int] = []
    with seeded(1):
        network = PlainNetwork(SMALL)
        train(network, SpooledRows(iter([rows_of(40)])), SETTINGS, lambda: told.append(1))
    assert len(told) == SETTINGS.epochs


def test_blocks_come_from_the_spool_as_they_went_in_each_time() -> None:
    blocks = cut(rows_of(100), 10, 60, 61)
    spool = SpooledRows(iter(blocks))
    for _ in range(3):
        spooled = list(spool)
        assert len(spooled) == len(blocks)
        for (x, y), block in zip(spooled, blocks, strict=True):
            np.testing.assert_array_equal(x, block.x)
            np.testing.assert_array_equal(y, block.y)
            assert (x.dtype, y.dtype) == (np.float32, np.float32)
    spool.close()


def test_a_spooled_training_set_of_several_blocks_is_deterministic_and_used_whole() -> None:
    rows = rows_of(300)
    first = trained(cut(rows, 100, 170))
    assert trained(cut(rows, 100, 170)) == first
    assert trained(cut(rows, 100, 170)[:2]) != first
    assert trained(cut(rows, 100, 171)) != first


def test_several_blocks_learn_as_one_does() -> None:
    rows = rows_of(900)
    spool = SpooledRows(iter(cut(rows, 300, 600)))
    with seeded(1):
        network = PlainNetwork(SMALL)
        train(network, spool, NetworkSettings(hidden=8, learning_rate=0.01), lambda: None)
    spool.close()
    assert float(np.mean((network.predict(rows.x) >= 0.5) == rows.y)) > 0.9
