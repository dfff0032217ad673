"""SNAPSHOT: weights to bytes and back, by hash. The format is safetensors; no pickle is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from selfheal_cli.errors import VersionCorrupt
from selfheal_cli.model.network import Architecture, SelfHealingNetwork, Weights, rebuild

MAX_BYTES = 1 << 30
ANCHOR = "anchor."  # prefix of what a base holds beside weights


@dataclass(frozen=True, slots=True)
class Base:
    """The frozen part: safetensors of backbone and head, and a JSON document that says how rows
    become inputs, what the labels are called and how large the network is.
    """

    weights: bytes
    document: str

    @property
    def sha256(self) -> str:
        """Hash over weights and document."""
        return digest(self.weights + self.document.encode())

    def describe(self) -> dict[str, Any]:
        """The document."""
        found: dict[str, Any] = json.loads(self.document)
        return found


def pack(weights: Weights) -> bytes:
    """Tensors to safetensors bytes; the same tensors give the same bytes."""
    return save({name: value.contiguous() for name, value in weights.items()})


def unpack(data: bytes, *, sha256: str, where: str) -> dict[str, Tensor]:
    """Safetensors bytes to tensors; raises `VersionCorrupt` unless their hash is ``sha256``."""
    if len(data) > MAX_BYTES:
        raise VersionCorrupt(f"{where}: {len(data)} bytes; more than any adapter has")
    found = digest(data)
    if found != sha256:
        raise VersionCorrupt(
            f"{where}: its sha256 is {found[:12]}…, recorded was {sha256[:12]}…; the file was "
            "changed after it was registered: restore it from a backup or use another version"
        )
    try:
        tensors: dict[str, Tensor] = load(data)
    except SafetensorError as exc:
        raise VersionCorrupt(f"{where}: not a safetensors file ({exc})") from exc
    return tensors


def digest(data: bytes) -> str:
    """sha256 in hex."""
    return hashlib.sha256(data).hexdigest()


def make_base(
    network: SelfHealingNetwork, anchor: Mapping[str, Tensor], document: Mapping[str, Any]
) -> Base:
    """The network's frozen part as it is stored, with the statistics that heals are held by."""
    architecture = network.architecture.as_dict()
    text = json.dumps({**document, "network": architecture}, sort_keys=True, indent=1)
    stored = {f"{ANCHOR}{name}": value for name, value in anchor.items()}
    return Base(pack({**network.base_weights(), **stored}), text)


def assemble(base: Base, adapter: Weights, *, where: str) -> SelfHealingNetwork:
    """A frozen network from a stored base and adapter; raises `VersionCorrupt` if they differ."""
    odd = [name for name, value in adapter.items() if value.dtype != torch.float32]
    if odd:
        raise VersionCorrupt(f"{where}: '{odd[0]}' is {adapter[odd[0]].dtype}, not torch.float32")
    stored = unpack(base.weights, sha256=digest(base.weights), where=where)
    weights = {name: value for name, value in stored.items() if not name.startswith(ANCHOR)}
    try:
        return rebuild(Architecture(**base.describe()["network"]), weights, adapter)
    except (RuntimeError, TypeError) as exc:
        reason = " ".join(str(exc).split())
        raise VersionCorrupt(f"{where}: the adapter does not fit its base ({reason})") from exc
