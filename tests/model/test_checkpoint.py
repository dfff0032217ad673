"""Weights to bytes and back."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor

from selfheal_cli.errors import VersionCorrupt
from selfheal_cli.model import stored
from selfheal_cli.model.architecture import Architecture
from selfheal_cli.model.checkpoint import ANCHOR, assemble, make_base, pack, unpack
from selfheal_cli.model.network import SelfHealingNetwork
from selfheal_cli.records import Base, digest

TENSORS = st.dictionaries(
    st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), min_size=1, max_size=8),
    st.sampled_from([np.float32, np.float64, np.int64, np.int8]).flatmap(
        lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, min_side=0, max_side=4))
    ),
    max_size=4,
).map(lambda found: {name: torch.from_numpy(np.array(value)) for name, value in found.items()})


def network(inputs: int = 3, hidden: int = 4, seed: int = 0) -> SelfHealingNetwork:
    """A small frozen network."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = SelfHealingNetwork.build(Architecture(inputs, hidden))
    built.freeze()
    return built


def same(first: Tensor, second: Tensor) -> bool:
    """Type, shape and bits are equal, NaN included."""
    return (
        first.dtype == second.dtype
        and first.shape == second.shape
        and first.numpy().tobytes() == second.numpy().tobytes()
    )


@pytest.fixture(scope="module")
def packed() -> bytes:
    """An adapter as it is stored."""
    return pack(network().adapter.state_dict())


@given(tensors=TENSORS)
def test_tensors_come_back_as_they_went(tensors: dict[str, Tensor]) -> None:
    data = pack(tensors)
    unpacked = unpack(data, sha256=digest(data), where="v1")
    assert unpacked.keys() == tensors.keys()
    assert all(same(unpacked[name], tensors[name]) for name in tensors)


@given(tensors=TENSORS, data=st.data())
def test_the_same_tensors_give_the_same_bytes_in_any_order(
    tensors: dict[str, Tensor], data: st.DataObject
) -> None:
    order = data.draw(st.permutations(list(tensors)))
    assert pack({name: tensors[name].clone() for name in order}) == pack(tensors)


def test_a_tensor_that_is_not_contiguous_is_packed_as_it_reads() -> None:
    wide = torch.arange(12.0).reshape(3, 4)
    data = pack({"w": wide.T[::2]})
    assert torch.equal(unpack(data, sha256=digest(data), where="v1")["w"], wide.T[::2])


@given(data=st.data())
def test_any_flipped_bit_is_a_corrupt_version(packed: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(packed) - 1))
    bit = data.draw(st.integers(0, 7))
    damaged = bytearray(packed)
    damaged[place] ^= 1 << bit
    with pytest.raises(VersionCorrupt, match=f"fraud v3: its sha256 is .*{digest(packed)[:12]}"):
        unpack(bytes(damaged), sha256=digest(packed), where="fraud v3")


@given(data=st.data())
def test_a_file_that_was_cut_or_went_on_is_a_corrupt_version(
    packed: bytes, data: st.DataObject
) -> None:
    kept = data.draw(st.integers(0, len(packed) - 1))
    for damaged in (packed[:kept], packed + packed[:kept] + b"\0"):
        with pytest.raises(VersionCorrupt, match="recorded was"):
            unpack(damaged, sha256=digest(packed), where="fraud v3")


@pytest.mark.parametrize("data", [b"", b"no tensors", b"\x08" + b"\0" * 7 + b"{}", b"\xff" * 64])
def test_bytes_that_are_no_safetensors_are_a_corrupt_version(data: bytes) -> None:
    with pytest.raises(VersionCorrupt, match="fraud v3: not a safetensors file"):
        unpack(data, sha256=digest(data), where="fraud v3")


def test_more_bytes_than_an_adapter_has_are_not_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "MAX_BYTES", 10)
    with pytest.raises(VersionCorrupt, match="fraud v3: 11 bytes; more than any adapter has"):
        unpack(b"x" * 11, sha256=digest(b"x" * 11), where="fraud v3")


def test_a_base_describes_itself_and_is_known_by_weights_and_document() -> None:
    base = make_base(network(), {}, {"labels": ["no", "yes"]})
    sizes = {"inputs": 3, "hidden": 4, "outputs": 1, "adapter": "reflexive", "beside": False}
    assert base.describe() == {"labels": ["no", "yes"], "network": sizes}
    assert base.sha256 == digest(base.weights + base.document.encode())
    assert make_base(network(), {}, {"labels": ["no", "yes"]}).sha256 == base.sha256
    assert make_base(network(), {}, {"labels": ["yes", "no"]}).sha256 != base.sha256
    assert make_base(network(seed=1), {}, {"labels": ["no", "yes"]}).sha256 != base.sha256
    anchored = make_base(network(), {"mean": torch.ones(4)}, {"labels": ["no", "yes"]})
    assert anchored.sha256 != base.sha256


def test_a_base_holds_no_adapter() -> None:
    base = make_base(network(), {}, {})
    names = unpack(base.weights, sha256=digest(base.weights), where="base")
    assert {name.split(".")[0] for name in names} == {"backbone", "head"}


def test_a_base_holds_what_heals_are_held_by_beside_the_weights() -> None:
    anchor = {"mean": torch.arange(4.0, dtype=torch.float64)}
    base = make_base(network(), anchor, {})
    tensors = unpack(base.weights, sha256=digest(base.weights), where="base")
    assert same(tensors.pop(f"{ANCHOR}mean"), anchor["mean"])
    assert tensors.keys() == network().base_weights().keys()
    assembled = assemble(base, network().adapter.state_dict(), where="v1")
    assert assembled.state_dict().keys() == network().state_dict().keys()


def test_base_and_adapter_make_the_network_again(packed: bytes) -> None:
    built = network()
    adapter = unpack(packed, sha256=digest(packed), where="v1")
    assembled = assemble(make_base(built, {}, {}), adapter, where="v1")
    x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    np.testing.assert_array_equal(assembled.predict(x), built.predict(x))
    assert not any(parameter.requires_grad for parameter in assembled.parameters())


@pytest.mark.parametrize("hidden", [3, 5])
def test_an_adapter_of_another_shape_does_not_fit(hidden: int) -> None:
    other = network(hidden=hidden).adapter.state_dict()
    with pytest.raises(VersionCorrupt, match="fraud v3: the adapter does not fit its base") as got:
        assemble(make_base(network(), {}, {}), other, where="fraud v3")
    assert "size mismatch for adapter.adapter.0.weight" in str(got.value)
    assert "\n" not in str(got.value)


def test_an_adapter_with_a_weight_too_few_or_too_many_does_not_fit() -> None:
    base, weights = make_base(network(), {}, {}), network().adapter.state_dict()
    fewer = {name: value for name, value in weights.items() if name != "scale"}
    with pytest.raises(VersionCorrupt, match=r'Missing key\(s\) in state_dict: "adapter.scale"'):
        assemble(base, fewer, where="fraud v3")
    more = {**weights, "shift": torch.tensor(0.0)}
    with pytest.raises(VersionCorrupt, match=r'Unexpected key\(s\).*"adapter.shift"'):
        assemble(base, more, where="fraud v3")


def test_an_adapter_of_another_type_does_not_fit() -> None:
    weights = {name: value.double() for name, value in network().adapter.state_dict().items()}
    with pytest.raises(VersionCorrupt, match=r"float64, not torch.float32"):
        assemble(make_base(network(), {}, {}), weights, where="fraud v3")


def test_a_base_of_other_sizes_than_it_says_does_not_fit() -> None:
    base = make_base(network(), {}, {})
    for sizes, reason in (
        ({"hidden": 5}, "size mismatch"),
        ({"outputs": 3}, "size mismatch"),
        ({"adapter": "affine"}, "(Missing|Unexpected) key"),
        ({"depth": 2}, "unexpected keyword argument 'depth'"),
    ):
        document = json.dumps({"network": {"inputs": 3, "hidden": 4, **sizes}})
        with pytest.raises(VersionCorrupt, match=rf"v1: .*{reason}"):
            assemble(Base(base.weights, document), network().adapter.state_dict(), where="v1")
