"""The network: its size, its parts, and adapters that share a base."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from selfheal_cli.model.adapter import Room
from selfheal_cli.model.adapters import ReflexiveLayer
from selfheal_cli.model.architecture import Architecture
from selfheal_cli.model.network import PlainNetwork, SelfHealingNetwork, rebuild
from selfheal_cli.model.training import seeded

SMALL = Architecture(inputs=3, hidden=4)
X = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)


def network(inputs: int = 3, hidden: int = 4, seed: int = 0) -> SelfHealingNetwork:
    """A small network."""
    with seeded(seed):
        return SelfHealingNetwork.build(Architecture(inputs, hidden))


def copied(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of one's own."""
    return {name: value.clone() for name, value in weights.items()}


def drawn_adapter(seed: int) -> dict[str, Tensor]:
    """An adapter's weights."""
    return copied(network(seed=seed).adapter.state_dict())


def size(module: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_article_s_network_has_the_article_s_size() -> None:
    article = Architecture(10, 64)
    built = SelfHealingNetwork.build(article)
    assert size(built) == 13_250
    assert size(built.adapter) == 8_321
    assert size(PlainNetwork(article)) == 13_250 - 8_321
    assert built.architecture == article


def test_a_network_is_head_of_adapter_of_backbone() -> None:
    built = network()
    x = torch.from_numpy(X)
    with torch.no_grad():
        hidden = torch.relu(built.backbone[0](x))
        hidden = torch.relu(built.backbone[2](hidden))
        inner = built.adapter.adapter
        hidden = hidden + built.adapter.scale * inner[2](torch.tanh(inner[0](hidden)))
        expected = torch.sigmoid(built.head(hidden)).squeeze(-1).numpy()
    np.testing.assert_array_equal(built.predict(X), expected)


def test_the_adapter_starts_close_to_identity_and_nought_is_identity() -> None:
    built = network()
    assert float(built.adapter.scale.detach()) == pytest.approx(0.1)
    weights = copied(built.adapter.state_dict()) | {"scale": torch.tensor(0.0)}
    features = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    assert torch.equal(built.with_adapter(weights).adapter(features), features)


def test_layers_are_drawn_in_the_order_of_the_data() -> None:
    built = network(10, 64, seed=42)
    with seeded(42):
        layers = [nn.Linear(10, 64), *(nn.Linear(64, 64) for _ in range(3)), nn.Linear(64, 1)]
    inner = built.adapter.adapter
    modules = [built.backbone[0], built.backbone[2], inner[0], inner[2], built.head]
    for layer, expected in zip(modules, layers, strict=True):
        assert torch.equal(layer.weight, expected.weight)
        assert torch.equal(layer.bias, expected.bias)


@pytest.mark.parametrize("rows", [0, 1, 7])
def test_a_prediction_is_one_probability_a_row_without_gradients(rows: int) -> None:
    probabilities = network().predict(X[:rows])
    assert probabilities.shape == (rows,)
    assert probabilities.dtype == np.float32
    assert ((probabilities > 0) & (probabilities < 1)).all()


def test_rows_do_not_influence_one_another() -> None:
    built = network()
    single = np.concatenate([built.predict(X[place : place + 1]) for place in range(len(X))])
    np.testing.assert_allclose(built.predict(X), single, rtol=1e-6)


def test_a_plain_network_has_no_adapter() -> None:
    with seeded(3):
        plain = PlainNetwork(SMALL)
    with torch.no_grad():
        expected = torch.sigmoid(plain.head(plain.backbone(torch.from_numpy(X)))).squeeze(-1)
    np.testing.assert_array_equal(plain.predict(X), expected.numpy())
    assert not any(name.startswith("adapter") for name in plain.state_dict())


@pytest.mark.parametrize("beside", [False, True])
def test_an_anchored_twin_decides_as_its_network_bit_for_bit(beside: bool) -> None:
    built = network()
    twin = built.anchored(beside=beside)
    assert twin.architecture == Architecture(3, 4, adapter="affine", beside=beside)
    assert twin.architecture.features == (7 if beside else 4)
    np.testing.assert_array_equal(twin.predict(X), built.predict(X))
    features = twin.features(X)
    assert features.shape == (len(X), twin.architecture.features)
    np.testing.assert_array_equal(twin.predict_features(features), built.predict(X))
    again = rebuild(twin.architecture, twin.base_weights(), twin.adapter.state_dict())
    np.testing.assert_array_equal(again.predict(X), built.predict(X))
    with pytest.raises(TypeError, match="ReflexiveLayer"):
        twin.anchored(beside=beside)


def test_a_network_of_several_classes_gives_one_probability_each() -> None:
    with seeded(0):
        built = SelfHealingNetwork.build(Architecture(3, 4, outputs=5))
    built.freeze()
    probabilities = built.predict(X)
    assert (probabilities.shape, probabilities.dtype) == ((len(X), 5), np.float32)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(built.anchored(beside=True).predict(X), probabilities)


def test_the_base_is_everything_but_the_adapter() -> None:
    built = network()
    base, adapter = built.base_weights(), built.adapter.state_dict()
    assert {name.split(".")[0] for name in base} == {"backbone", "head"}
    assert len(base) + len(adapter) == len(built.state_dict())


def test_with_adapter_shares_the_base_and_takes_the_weights_over() -> None:
    built = network()
    weights = drawn_adapter(1)
    twin = built.with_adapter(weights)
    assert twin.backbone is built.backbone
    assert twin.head is built.head
    assert twin.adapter is not built.adapter
    for name, value in twin.adapter.state_dict().items():
        assert value.data_ptr() == weights[name].data_ptr()


def test_with_adapter_leaves_the_network_that_it_comes_from_as_it_was() -> None:
    built = network()
    before, probabilities = copied(built.state_dict()), built.predict(X)
    twin = built.with_adapter(drawn_adapter(1))
    assert not np.array_equal(twin.predict(X), probabilities)
    np.testing.assert_array_equal(built.predict(X), probabilities)
    assert all(torch.equal(value, before[name]) for name, value in built.state_dict().items())


def test_with_adapter_and_rebuild_take_no_draw_from_the_global_generator() -> None:
    built = network()
    adapter = built.adapter.state_dict()
    before = torch.get_rng_state()
    built.with_adapter(adapter)
    rebuild(SMALL, built.base_weights(), adapter)
    assert torch.equal(torch.get_rng_state(), before)
    SelfHealingNetwork.build(SMALL)
    assert not torch.equal(torch.get_rng_state(), before)


def test_with_adapter_gives_a_frozen_network() -> None:
    built = network()
    built.freeze()
    weights = {name: value.requires_grad_() for name, value in drawn_adapter(1).items()}
    twin = built.with_adapter(weights)
    assert not twin.training
    assert not any(parameter.requires_grad for parameter in twin.parameters())


def test_rebuild_gives_the_same_network_frozen() -> None:
    built = network()
    rebuilt = rebuild(SMALL, built.base_weights(), built.adapter.state_dict())
    np.testing.assert_array_equal(rebuilt.predict(X), built.predict(X))
    assert rebuilt.architecture == SMALL
    assert not rebuilt.training
    assert not any(parameter.requires_grad for parameter in rebuilt.parameters())


@pytest.mark.parametrize("hidden", [3, 5])
def test_an_adapter_of_another_shape_is_refused(hidden: int) -> None:
    other = network(hidden=hidden).adapter.state_dict()
    with pytest.raises(RuntimeError, match="size mismatch"):
        network().with_adapter(other)
    with pytest.raises(RuntimeError, match="size mismatch"):
        rebuild(SMALL, network().base_weights(), other)


def test_weights_of_other_names_are_refused() -> None:
    built = network()
    weights = dict(built.adapter.state_dict())
    fewer = {name: value for name, value in weights.items() if name != "scale"}
    for changed in (fewer, weights | {"shift": torch.tensor(0.0)}):
        with pytest.raises(RuntimeError, match=r"(missing|unexpected) weight"):
            built.with_adapter(changed)
        with pytest.raises(RuntimeError, match=r"(Missing|Unexpected) key"):
            rebuild(SMALL, built.base_weights(), changed)


@pytest.mark.parametrize("anchored", [False, True])
def test_what_never_learned_is_left_out_of_scoring_and_the_answers_are_the_same(
    anchored: bool,
) -> None:
    whole = network()
    whole.adapter = ReflexiveLayer.identity(Room.flat(4))
    whole.freeze()
    healed = whole.with_adapter(drawn_adapter(1))
    if anchored:
        whole, healed = whole.anchored(beside=True), healed.anchored(beside=True)
    assert np.array_equal(whole.for_scoring().predict(X), whole.predict(X))
    assert np.array_equal(healed.for_scoring().predict(X), healed.predict(X))
    tanh = [one for one in whole.for_scoring().modules() if isinstance(one, nn.Tanh)]
    assert bool(tanh) is not anchored  # an idle adapter is kept, and not asked


@pytest.mark.parametrize("learned", ["", "weight", "bias", "scale", "shift"])
@pytest.mark.parametrize("outputs", [1, 3])
def test_scoring_gives_the_same_bits_whatever_an_affine_adapter_has_learned(
    learned: str, outputs: int
) -> None:
    with seeded(0):
        whole = SelfHealingNetwork.build(Architecture(3, 4, outputs))
    whole.freeze()
    anchored = whole.anchored(beside=True)
    weights = {name: value.clone() for name, value in anchored.adapter.named_parameters()}
    if learned:
        weights[learned] += torch.linspace(0.1, 0.9, weights[learned].numel()).reshape(
            weights[learned].shape
        )
    healed = anchored.with_adapter(weights)
    assert np.array_equal(healed.for_scoring().predict(X), healed.predict(X))
    assert learned or np.array_equal(healed.for_scoring().predict(X), whole.predict(X))
