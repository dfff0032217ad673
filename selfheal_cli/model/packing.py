"""Weights as the bytes of a version, and their hash."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from safetensors.numpy import save as save_arrays
from safetensors.torch import save

from selfheal_cli.model.network import Weights, unshared
from selfheal_cli.records import digest


@dataclass(frozen=True, slots=True)
class Packed:
    """An adapter's bytes with their sha256."""

    data: bytes
    sha256: str

    @classmethod
    def of(cls, weights: Weights) -> Packed:
        """Pack and hash."""
        data = pack(weights)
        return cls(data, digest(data))


def pack(weights: Weights) -> bytes:
    """Tensors to safetensors bytes; the same tensors give the same bytes.

    By way of numpy where it knows the type: the same bytes in a fifth of the time.
    """
    whole = {name: value.detach().contiguous() for name, value in unshared(weights).items()}
    if all(value.dtype in (torch.float32, torch.float64) for value in whole.values()):
        return save_arrays({name: value.numpy() for name, value in whole.items()})
    return save(whole)
