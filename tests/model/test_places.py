"""An adapter at any layer: the same bits while it is identity, the author's code around it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from selfheal_cli.errors import ModelError
from selfheal_cli.kinds import ADAPTERS
from selfheal_cli.model.checkpoint import assemble, make_base
from selfheal_cli.model.cutting import Foreign
from selfheal_cli.model.network import SelfHealingNetwork, as_probabilities
from selfheal_cli.model.original import take
from selfheal_cli.model.wrapping import NetworkLayer, layers, wrap
from tests.model import networks

DRAW = np.random.default_rng(7)
ROWS = DRAW.standard_normal((60, 64)).astype(np.float32)
FEW = np.ascontiguousarray(ROWS[:, :8])
TOKENS = DRAW.integers(0, 20, (60, 6)).astype(np.float32)
FLAT: dict[str, Any] = {"shape": (8,)}
WORDS: dict[str, Any] = {"shape": (6,), "dtype": "int64"}
KNOWN: dict[str, tuple[Callable[[], nn.Module], np.ndarray[Any, Any], dict[str, Any]]] = {
    "mlp": (networks.Mlp, FEW, FLAT),
    "mlp of four": (lambda: networks.Mlp(outputs=4), FEW, FLAT),
    "convolutions": (networks.Convolutional, ROWS, {"shape": (1, 8, 8)}),
    "transformer": (networks.Transformer, TOKENS, WORDS),
    "short transformer": (networks.ShortTransformer, TOKENS, WORDS),
    "no linear end": (networks.NoLinearEnd, FEW, {"shape": (2, 4)}),
    "tied": (networks.Tied, TOKENS, WORDS),
}
PLACES = [
    ("mlp", "first", "reflexive"), ("mlp", "first", "lora"), ("mlp", "norm", "reflexive"),
    ("mlp", "second", "reflexive"), ("mlp", "second", "lora:2"), ("mlp", "out", "reflexive"),
    ("mlp", "out", "affine"), ("mlp", "out", "lora:1"), ("mlp of four", "second", "lora"),
    ("mlp of four", "out", "affine"), ("convolutions", "one", "reflexive"),
    ("convolutions", "norm", "reflexive"), ("convolutions", "pool", "reflexive"),
    ("convolutions", "out", "reflexive"), ("convolutions", "out", "affine"),
    ("convolutions", "out", "lora"), ("transformer", "encoder", "reflexive"),
    ("transformer", "encoder.layers.0", "reflexive"),
    ("transformer", "encoder.layers.1", "reflexive"), ("transformer", "norm", "reflexive"),
    ("transformer", "out", "affine"), ("transformer", "out", "lora"),
    ("no linear end", "two", "reflexive"), ("tied", "inner", "lora"), ("tied", "out", "reflexive"),
]  # fmt: skip


def made(case: str) -> nn.Module:
    """In training mode, with batch norm's statistics not those of the start."""
    make, rows, takes = KNOWN[case]
    torch.manual_seed(3)
    module = make()
    with torch.no_grad():
        if isinstance(module, networks.Mlp):
            module.out.weight.mul_(9)  # what is not trained gives logits that may pass as chances
        module(as_given(rows * 2 + 1 if takes is not WORDS else rows, takes))
    return module


def as_given(rows: Any, takes: dict[str, Any]) -> Tensor:
    kind = getattr(torch, takes.get("dtype", "float32"))
    return torch.from_numpy(rows).reshape(len(rows), *takes["shape"]).to(kind)


def of_original(case: str, module: nn.Module) -> np.ndarray[Any, Any]:
    _, rows, takes = KNOWN[case]
    with torch.inference_mode():
        out = module.eval()(as_given(rows, takes))
    if case == "convolutions":  # gives probabilities
        return out.numpy()  # type: ignore[no-any-return]
    return as_probabilities(out if out.ndim > 1 else out[:, None]).numpy()  # type: ignore[no-any-return]


def wrapped(case: str, at: str, adapter: str) -> tuple[nn.Module, SelfHealingNetwork]:
    module = made(case)
    _, rows, takes = KNOWN[case]
    return module, wrap(module, rows, at=at, adapter=adapter, **takes)


def moved(network: SelfHealingNetwork, seed: int = 0) -> SelfHealingNetwork:
    """With an adapter that has learned something."""
    torch.manual_seed(seed)
    weights = network.adapter.state_dict()
    still = ("direction", "scale", "shift") if network.architecture.adapter == "affine" else ()
    return network.with_adapter(
        {n: v if n in still else v + 0.3 * torch.randn_like(v) for n, v in weights.items()}
    )


@pytest.mark.parametrize(("case", "at", "adapter"), PLACES)
def test_it_decides_as_the_original_and_so_does_what_is_stored(
    case: str, at: str, adapter: str
) -> None:
    module, network = wrapped(case, at, adapter)
    _, rows, _ = KNOWN[case]
    expected = of_original(case, module)
    assert np.array_equal(network.predict(rows), expected)
    assert np.array_equal(network.predict_features(network.features(rows)), expected)
    stored = assemble(make_base(network, {}, {}), network.adapter.state_dict(), where="v1")
    assert np.array_equal(stored.predict(rows), expected)
    healed = moved(network)
    assert not np.array_equal(healed.predict(rows), expected)
    again = assemble(make_base(healed, {}, {}), healed.adapter.state_dict(), where="v2")
    assert np.array_equal(again.predict(rows), healed.predict(rows))
    assert np.array_equal(healed.predict_features(healed.features(rows)), healed.predict(rows))


@pytest.mark.parametrize(("case", "at", "adapter"), PLACES)
def test_a_frozen_network_stays_in_evaluation_mode_and_no_buffer_moves_whatever_is_called(
    case: str, at: str, adapter: str
) -> None:
    _, network = wrapped(case, at, adapter)
    _, rows, _ = KNOWN[case]
    before = {name: value.clone() for name, value in network.base_weights().items()}
    expected = network.predict(rows)
    network.train()
    assert np.array_equal(network.predict(rows), expected)
    twin = moved(network)
    features = torch.from_numpy(network.features(rows))
    learning = twin.adapter.learning()
    for parameter in learning.values():
        parameter.requires_grad = True
    twin.train()
    twin.head(twin.adapter(features)).square().sum().backward()
    assert all(one.grad is not None for one in learning.values())
    assert sum(float(one.grad.abs().sum()) for one in learning.values() if one.grad is not None) > 0
    for name, value in network.base_weights().items():
        assert torch.equal(value, before[name]), name
        assert not value.requires_grad


@pytest.mark.parametrize("case", ["mlp", "convolutions", "transformer"])
def test_a_learned_adapter_acts_where_a_hook_on_the_original_would(case: str) -> None:
    at = {"mlp": "second", "convolutions": "two", "transformer": "encoder.layers.1"}[case]
    module, network = wrapped(case, at, "reflexive")
    healed = moved(network)

    def adapted(_layer: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        first = given[0]
        return (healed.adapter(first.reshape(len(first), -1)).reshape(first.shape), *given[1:])

    module.get_submodule(at).register_forward_pre_hook(adapted)
    np.testing.assert_allclose(healed.predict(KNOWN[case][1]), of_original(case, module), atol=1e-6)


def test_lora_is_the_layer_with_its_weights_changed_by_a_low_rank() -> None:
    module, network = wrapped("mlp of four", "second", "lora:3")
    healed = moved(network)
    weights = healed.adapter.state_dict()
    change = weights["up"] @ weights["down"]
    assert torch.linalg.matrix_rank(change) == 3
    with torch.no_grad():
        module.get_submodule("second").weight += change  # type: ignore[operator, arg-type]
    np.testing.assert_allclose(healed.predict(FEW), of_original("mlp of four", module), atol=1e-6)


@pytest.mark.parametrize(("case", "at"), [("mlp", "second"), ("transformer", "encoder.layers.1")])
def test_each_weight_is_kept_once_and_what_is_skipped_takes_no_memory(case: str, at: str) -> None:
    module, network = wrapped(case, at, "reflexive")
    # those of the module itself: which side needs them is not known
    both = {"mean", "sd", "summary", "places"}
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    doubled = sum(v.numel() for n, v in tensors.items() if n in both)
    kept = sum(v.numel() for v in network.base_weights().values())
    assert kept == sum(v.numel() for v in tensors.values()) + doubled
    assert not any(value.is_meta for value in network.state_dict().values())


def test_threads_that_predict_with_two_adapters_do_not_mix_them() -> None:
    _, network = wrapped("mlp", "norm", "reflexive")
    twins = [moved(network, seed) for seed in range(4)]
    expected = [twin.predict(FEW) for twin in twins]
    odd: list[int] = []

    def work(place: int) -> None:
        for _ in range(20):
            if not np.array_equal(twins[place].predict(FEW), expected[place]):
                odd.append(place)

    threads = [threading.Thread(target=work, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not odd


@pytest.mark.parametrize(
    ("make", "at", "adapter", "message"),
    [
        (networks.Residual, "inner", "reflexive", "what comes after it uses more than this layer"),
        (networks.Twice, "inner", "reflexive", "layer 'inner' runs 2 times"),
        (networks.ByValue, "after", "reflexive", "cannot be cut at 'after'"),
        (networks.Mlp, "act", "reflexive", "layer 'act' runs 2 times"),
        (networks.Mlp, "norm", "lora", "'norm' is a BatchNorm1d; linear: first, second, out"),
        (networks.Mlp, "second", "affine", "layer that gives the logits, 'out', and not to"),
        (networks.Mlp, "nowhere", "lora", "no layer 'nowhere'; its linear layers: first"),
    ],
)
def test_where_it_cannot_be_cut_is_said_with_the_reason(
    make: Callable[[], nn.Module], at: str, adapter: str, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        wrap(make(), FEW, at=at, adapter=adapter, **FLAT)


def test_probabilities_that_no_linear_layer_gives_and_token_numbers_are_refused() -> None:
    module = networks.NoLinearEnd(probabilities=True)
    with pytest.raises(ModelError, match="built with"):
        wrap(module, FEW, shape=(2, 4), init={"probabilities": False}, at="two")
    with pytest.raises(ModelError, match=r"read as probabilities.*not a sigmoid or softmax"):
        wrap(module, FEW, shape=(2, 4), at="two")
    with pytest.raises(ModelError, match=r"takes torch\.int64 of shape"):
        wrap(networks.Transformer(), TOKENS, at="embedding", **WORDS)


@cache
def listed(case: str) -> dict[str, NetworkLayer]:
    _, rows, takes = KNOWN[case]
    return {one.name: one for one in layers(take(made(case), rows[:5], **takes))}


@pytest.mark.parametrize("case", ["mlp", "convolutions", "short transformer"])
def test_what_is_listed_can_be_wrapped_and_what_is_not_cannot(case: str) -> None:
    by_name = listed(case)
    assert by_name["out"].adapters == ADAPTERS
    _, rows, takes = KNOWN[case]
    for name, layer in by_name.items():
        if "." in name and not name.endswith(("layers.1", "linear1")):
            continue  # of one block, two layers are enough
        assert bool(layer.adapters) != bool(layer.why)
        if layer.adapters:
            wrap(made(case), rows, at=name, adapter=layer.adapters[-1], **takes)
        else:
            with pytest.raises(ModelError):
                wrap(made(case), rows, at=name, **takes)


def test_shapes_and_parameters_are_listed_for_blocks_and_for_what_is_in_them() -> None:
    by_name = listed("short transformer")
    block = by_name["encoder.layers.0"]
    assert (block.takes, block.gives) == ((5, 7, 16), (5, 7, 16))
    inside = [one for name, one in by_name.items() if name.startswith("encoder.layers.0.")]
    assert block.parameters == sum(one.parameters for one in inside) > 0
    assert by_name["embedding"].adapters == ()


def test_a_document_of_before_places_were_known_reads_as_it_did() -> None:
    _, network = wrapped("mlp", "out", "reflexive")
    foreign = network.architecture.as_dict()["foreign"]
    assert foreign.pop("assumed")  # of a later time
    assert sorted(foreign) == ["at", "dtype", "module", "outputs", "shape"]
    assert Foreign.model_validate(foreign).place is None
