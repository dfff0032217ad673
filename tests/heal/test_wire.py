"""What crosses to the worker arrives as it was sent."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor

from selfheal_cli.config import HealSettings
from selfheal_cli.errors import HealError, HealRefused
from selfheal_cli.heal import wire, worker
from selfheal_cli.heal.task import AdapterState, HealFailure, HealOutcome, HealRows, HealTask
from selfheal_cli.model.checkpoint import Packed
from tests.heal.small import anchor_of, bytes_of, recipes_of, small_network

pytestmark = pytest.mark.slow

FLOATS = st.floats(width=32)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
NAMES = st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), min_size=1, max_size=8)
TENSORS = st.dictionaries(
    NAMES,
    arrays.arrays(np.float32, arrays.array_shapes(min_dims=0, max_dims=2, max_side=3)).map(
        lambda values: torch.from_numpy(np.array(values))
    ),
    max_size=3,
)
STATES = st.builds(AdapterState, TENSORS, TENSORS)


@st.composite
def tasks(draw: st.DrawFn) -> HealTask:
    """Tasks of any rows."""
    rows = draw(st.integers(0, 5))
    labels = arrays.arrays(np.int8, rows, elements=st.integers(-1, 1))
    features = (rows, draw(st.integers(1, 4)))
    return HealTask(
        heal_id=draw(st.text(max_size=8)),
        batch=draw(st.integers(0, 2**40)),
        reason=draw(st.text(max_size=12)),
        recipe=draw(st.text(max_size=8)),
        rows=HealRows(
            features=draw(arrays.arrays(np.float32, features, elements=FLOATS)),
            y=draw(labels),
            rule_label=draw(labels),
            arrival=draw(arrays.arrays(np.int32, rows, elements=st.integers(0, 2**31 - 1))),
            held_out=draw(arrays.arrays(np.bool_, rows)),
        ),
        positive_share=draw(FINITE),
    )


def tensor_bytes(tensors: dict[str, Tensor]) -> dict[str, tuple[torch.Size, bytes]]:
    """Shape and bits by name; NaN equals NaN."""
    return {name: (value.shape, value.numpy().tobytes()) for name, value in tensors.items()}


def same_state(first: AdapterState, second: AdapterState) -> bool:
    """Weights and memory are equal to the bit."""
    return tensor_bytes(dict(first.weights)) == tensor_bytes(dict(second.weights)) and tensor_bytes(
        dict(first.memory)
    ) == tensor_bytes(dict(second.memory))


def same_arrays(first: np.ndarray, second: np.ndarray) -> bool:
    """Type, shape and bits are equal."""
    return (first.dtype, first.shape, first.tobytes()) == (
        second.dtype,
        second.shape,
        second.tobytes(),
    )


@given(
    header=st.dictionaries(st.text(max_size=5), st.none() | FINITE | st.text(max_size=5)),
    tensors=TENSORS,
)
def test_a_frame_is_its_header_and_its_tensors(
    header: dict[str, object], tensors: dict[str, Tensor]
) -> None:
    found_header, found_tensors = wire.decode(wire.encode(header, tensors))
    assert found_header == header
    assert tensor_bytes(found_tensors) == tensor_bytes(tensors)


@given(task=tasks(), before=STATES)
def test_a_task_arrives_as_it_was_sent(task: HealTask, before: AdapterState) -> None:
    decoded, state = wire.decode_task(wire.encode_task(task, before))
    for name in ("heal_id", "batch", "reason", "recipe", "positive_share"):
        assert getattr(decoded, name) == getattr(task, name)
    for name in ("features", "y", "rule_label", "arrival", "held_out"):
        assert same_arrays(getattr(decoded.rows, name), getattr(task.rows, name))
    assert same_state(state, before)


@given(
    task=tasks(),
    after=STATES,
    measured=st.dictionaries(st.text(max_size=8), FINITE, max_size=4),
    seed=st.integers(0, 100),
    shape=st.sampled_from([(), (3,)]),
)
def test_an_outcome_arrives_as_it_was_sent_with_the_task_that_was_kept(
    task: HealTask,
    after: AdapterState,
    measured: dict[str, float],
    seed: int,
    shape: tuple[int, ...],
) -> None:
    drawn = np.random.default_rng(seed).random((2, len(task.rows), *shape), dtype=np.float32)
    before_p, after_p = drawn
    sent = HealOutcome(task, after, before_p, after_p, measured)
    decoded = wire.decode_outcome(wire.encode_outcome(sent), task)
    assert isinstance(decoded, HealOutcome)
    assert decoded.task is task
    assert same_state(decoded.after, after)
    assert same_arrays(decoded.probabilities_before, before_p)
    assert same_arrays(decoded.probabilities_after, after_p)
    assert decoded.measured == measured
    assert decoded.packed == Packed.of(after.weights)  # so that nobody packs it again


@given(task=tasks(), reason=st.text(), kind=st.sampled_from([HealError, HealRefused, RuntimeError]))
def test_an_error_arrives_as_its_reason_on_one_line_and_whether_it_was_a_refusal(
    task: HealTask, reason: str, kind: type[Exception]
) -> None:
    decoded = wire.decode_outcome(wire.encode_failure(kind(reason)), task)
    refused = kind is HealRefused
    assert decoded == HealFailure(task, " ".join(reason.split()) or kind.__name__, refused=refused)
    assert decoded.task is task


@pytest.mark.parametrize("adapter", ["reflexive", "affine"])
def test_a_worker_gets_network_anchor_and_settings_as_they_are(adapter: str) -> None:
    network = small_network()
    if adapter == "affine":
        network = network.anchored(beside=True)
    sent = recipes_of(network, HealSettings(recipe="anchored", steps=9, assume="inputs-shifted"))
    decoded = worker.decode_recipes(worker.encode_recipes(sent))
    assert decoded.settings == sent.settings
    assert decoded.network.architecture == network.architecture
    assert bytes_of(decoded.network.state_dict()) == bytes_of(network.state_dict())
    assert bytes_of(decoded.anchor.tensors()) == bytes_of(anchor_of(network).tensors())


def test_rows_do_not_go_back_with_the_outcome() -> None:
    features = np.zeros((10_000, 10), dtype=np.float32)
    labels = np.zeros(10_000, dtype=np.int8)
    rows = HealRows(features, labels, labels, labels.astype(np.int32), labels.astype(bool))
    task = HealTask("h", 1, "drift", "article", rows)
    before, after = np.zeros((2, 10_000), dtype=np.float32)
    outcome = HealOutcome(task, AdapterState({}, {}), before, after)
    frame = wire.encode_outcome(outcome)
    assert before.nbytes + after.nbytes < len(frame) < before.nbytes + after.nbytes + 1_000


def test_tensors_that_are_not_contiguous_arrive_as_they_read() -> None:
    wide = torch.arange(12.0).reshape(3, 4)
    assert torch.equal(wire.decode(wire.encode({}, {"w": wide.T}))[1]["w"], wide.T)


@pytest.mark.parametrize("header", [{}, {"ready": True}, {"text": "é \u2028"}])
def test_a_frame_begins_with_the_length_of_its_json_header(header: dict[str, object]) -> None:
    frame = wire.encode(header, {"w": torch.ones(2)})
    (length,) = struct.unpack_from("<I", frame)
    assert json.loads(frame[4 : 4 + length]) == header
