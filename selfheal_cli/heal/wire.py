"""The frames between the scoring process and the heal worker: JSON and safetensors, no pickle."""

from __future__ import annotations

import json
import struct
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from selfheal_cli.errors import HealRefused, one_line
from selfheal_cli.heal.task import AdapterState, HealFailure, HealOutcome, HealRows, HealTask
from selfheal_cli.model.checkpoint import Packed
from selfheal_cli.model.network import unshared

_HEAD = struct.Struct("<I")
TASK_FIELDS = ("heal_id", "batch", "reason", "recipe", "positive_share")


def encode(header: dict[str, Any], tensors: dict[str, Tensor]) -> bytes:
    """A frame: length of the JSON header, header, tensors."""
    text = json.dumps(header).encode()
    # safetensors refuses tensors that share memory, as tied weights do
    return _HEAD.pack(len(text)) + text + save(unshared(tensors))


def decode(frame: bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The inverse of `encode`."""
    (length,) = _HEAD.unpack_from(frame)
    start = _HEAD.size + length
    return json.loads(frame[_HEAD.size : start]), load(frame[start:])


def encode_task(task: HealTask, before: AdapterState) -> bytes:
    """A request to the worker."""
    header = {name: getattr(task, name) for name in TASK_FIELDS}
    given = {name: getattr(task.rows, name) for name in HealRows.__slots__}
    rows = {name: torch.from_numpy(one) for name, one in given.items() if one is not None}
    return encode(header, {**rows, **_state(before)})


def decode_task(frame: bytes) -> tuple[HealTask, AdapterState]:
    """The inverse of `encode_task`."""
    header, tensors = decode(frame)
    given = [name for name in HealRows.__slots__ if name in tensors]
    rows: dict[str, Any] = {name: tensors.pop(name).numpy() for name in given}
    return HealTask(**header, rows=HealRows(**rows)), _adapter(tensors)


def encode_outcome(outcome: HealOutcome) -> bytes:
    """An answer from the worker, without the rows, which the parent has.

    The weights go as the bytes that will be registered, packed and hashed in the worker's time.
    """
    packed = Packed.of(outcome.after.weights)
    # bytearray, because torch warns of a buffer that cannot be written to
    tensors = {
        "before": torch.from_numpy(outcome.probabilities_before),
        "after": torch.from_numpy(outcome.probabilities_after),
        "packed": torch.frombuffer(bytearray(packed.data), dtype=torch.uint8),
    }
    header = {"measured": dict(outcome.measured), "sha256": packed.sha256}
    return encode(header, {**tensors, **_state(AdapterState({}, outcome.after.memory))})


def encode_failure(error: Exception) -> bytes:
    """An answer from the worker about a heal that gave no weights."""
    reason = one_line(error)
    return encode({"error": reason, "refused": isinstance(error, HealRefused)}, {})


def decode_outcome(frame: bytes, task: HealTask) -> HealOutcome | HealFailure:
    """The outcome of ``task``, or why there is none."""
    header, tensors = decode(frame)
    if "error" in header:
        return HealFailure(task, header["error"], refused=header["refused"])
    before, after = tensors.pop("before").numpy(), tensors.pop("after").numpy()
    packed = Packed(tensors.pop("packed").numpy().tobytes(), header["sha256"])
    adapter = AdapterState(load(packed.data), _adapter(tensors).memory)
    return HealOutcome(task, adapter, before, after, header["measured"], packed)


def _state(adapter: AdapterState) -> dict[str, Tensor]:
    return {
        **{f"weights/{name}": value for name, value in adapter.weights.items()},
        **{f"memory/{name}": value for name, value in adapter.memory.items()},
    }


def _adapter(tensors: dict[str, Tensor]) -> AdapterState:
    parts: dict[str, dict[str, Tensor]] = {"weights": {}, "memory": {}}
    for name, value in tensors.items():
        part, _, key = name.partition("/")
        parts[part][key] = value
    return AdapterState(parts["weights"], parts["memory"])
