"""What serves: one reference, replaced whole."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from selfheal_cli.heal.engine import LiveModel, Serving
from selfheal_cli.heal.task import AdapterState
from tests.heal.small import small_network as network

X = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)


def adapter(seed: int) -> AdapterState:
    """An adapter drawn from its own seed, three times as strong as usual."""
    weights = {name: 3 * value for name, value in network(seed).adapter.state_dict().items()}
    return AdapterState(weights, {"step.scale": torch.tensor(float(seed))})


def serving(seed: int = 0) -> LiveModel:
    """A live model with its own first adapter."""
    built = network(seed)
    return LiveModel(Serving(built, AdapterState(built.adapter.state_dict(), {}), "s-0", 0.5))


def test_publishing_replaces_the_one_reference() -> None:
    live = serving()
    before = live.serving
    new = adapter(1)
    live.publish(new, "s-1", 0.3)
    assert live.serving is not before
    assert live.serving.adapter is new
    assert (live.serving.snapshot, live.serving.threshold) == ("s-1", 0.3)
    assert live.serving.network.backbone is before.network.backbone
    assert live.serving.network.head is before.network.head


def test_predictions_are_by_the_adapter_that_was_published_last() -> None:
    live = serving()
    first = live.predict(X)
    live.publish(adapter(1), "s-1", 0.5)
    second = live.predict(X)
    expected = network().with_adapter(adapter(1).weights).predict(X)
    np.testing.assert_array_equal(second, expected)
    assert not np.array_equal(second, first)


def test_what_served_before_predicts_as_before() -> None:
    live = serving()
    before, first = live.serving, live.predict(X)
    live.publish(adapter(1), "s-1", 0.5)
    live.publish(adapter(2), "s-2", 0.5)
    np.testing.assert_array_equal(before.network.predict(X), first)
    live.serving = before
    np.testing.assert_array_equal(live.predict(X), first)


def test_an_adapter_that_does_not_fit_leaves_what_serves() -> None:
    live = serving()
    before = live.serving
    with pytest.raises(RuntimeError, match="missing weight"):
        live.publish(AdapterState({"scale": torch.tensor(0.1)}, {}), "s-1", 0.5)
    assert live.serving is before


def test_a_prediction_under_way_ends_with_the_weights_that_it_began_with() -> None:
    live = serving()
    first, new = live.predict(X), adapter(1)
    expected = network().with_adapter(new.weights).predict(X)
    published = network().with_adapter(new.weights)

    def publish_midway(*_: object) -> None:
        live.serving = Serving(published, new, "s-1", 0.5)

    hook = live.serving.network.backbone.register_forward_hook(publish_midway)
    np.testing.assert_array_equal(live.predict(X), first)
    hook.remove()
    assert live.serving.snapshot == "s-1"
    np.testing.assert_array_equal(live.predict(X), expected)


def test_predictions_beside_a_publishing_thread_are_each_by_one_set_of_weights() -> None:
    live = serving()
    adapters = [adapter(1), adapter(2)]
    expected = {network().with_adapter(one.weights).predict(X).tobytes() for one in adapters}
    live.publish(adapters[0], "s-0", 0.5)
    done = threading.Event()

    def publish() -> None:
        turn = 0
        while not done.is_set():
            turn += 1
            live.publish(adapters[turn % 2], f"s-{turn}", 0.5)

    publisher = threading.Thread(target=publish)
    publisher.start()
    try:
        answers = {live.predict(X).tobytes() for _ in range(500)}
    finally:
        done.set()
        publisher.join()
    assert len(expected) == 2
    assert answers <= expected
