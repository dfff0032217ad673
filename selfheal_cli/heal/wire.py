"""What crosses between the scoring process and the heal worker: safetensors frames, no pickle."""

from __future__ import annotations

import json
import struct
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from selfheal_cli.heal.healer import AdapterState, HealOutcome, HealTask

_HEAD = struct.Struct("<I")


def encode(header: dict[str, Any], tensors: dict[str, Tensor]) -> bytes:
    """A frame: length of the JSON header, header, tensors."""
    text = json.dumps(header).encode()
    return _HEAD.pack(len(text)) + text + save({n: t.contiguous() for n, t in tensors.items()})


def decode(frame: bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The inverse of `encode`."""
    (length,) = _HEAD.unpack_from(frame)
    start = _HEAD.size + length
    return json.loads(frame[_HEAD.size : start]), load(frame[start:])


def encode_task(task: HealTask, before: AdapterState) -> bytes:
    """A request to the worker."""
    header = {
        "heal_id": task.heal_id,
        "batch": task.batch,
        "reason": task.reason,
        "positive_share": task.positive_share,
    }
    rows = {
        "x": torch.from_numpy(task.x),
        "y": torch.from_numpy(task.y),
        "rule_label": torch.from_numpy(task.rule_label),
    }
    return encode(header, {**rows, **_state(before)})


def decode_task(frame: bytes) -> tuple[HealTask, AdapterState]:
    """The inverse of `encode_task`."""
    header, tensors = decode(frame)
    rows: dict[str, Any] = {name: tensors.pop(name).numpy() for name in ("x", "y", "rule_label")}
    return HealTask(**header, **rows), _adapter(tensors)


def encode_outcome(outcome: HealOutcome) -> bytes:
    """An answer from the worker; the rows stay behind."""
    header = {"label_loss": outcome.label_loss, "rule_loss": outcome.rule_loss}
    probabilities = {
        "before": torch.from_numpy(outcome.probabilities_before),
        "after": torch.from_numpy(outcome.probabilities_after),
    }
    return encode(header, {**probabilities, **_state(outcome.after)})


def decode_outcome(frame: bytes, task: HealTask) -> HealOutcome | str:
    """The outcome of ``task``, or why there is none."""
    header, tensors = decode(frame)
    if "error" in header:
        return str(header["error"])
    before, after = tensors.pop("before").numpy(), tensors.pop("after").numpy()
    return HealOutcome(
        task, _adapter(tensors), before, after, header["label_loss"], header["rule_loss"]
    )


def _state(adapter: AdapterState) -> dict[str, Tensor]:
    return {
        **{f"weights/{name}": value for name, value in adapter.weights.items()},
        **{f"optimiser/{name}": value for name, value in adapter.optimiser.items()},
    }


def _adapter(tensors: dict[str, Tensor]) -> AdapterState:
    parts: dict[str, dict[str, Tensor]] = {"weights": {}, "optimiser": {}}
    for name, value in tensors.items():
        part, _, key = name.partition("/")
        parts[part][key] = value
    return AdapterState(parts["weights"], parts["optimiser"])
