"""The device that a foreign network computes on: rows go there, and its features come back.

The adapter, and a head that is one linear layer, stay on the CPU, where heals learn: they are
small. A child process takes the same device, since it is named in the environment.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, nn

from selfheal_cli.errors import ModelError, one_line

VARIABLE = "SELFHEAL_DEVICE"
CPU, AUTO = "cpu", "auto"
NAMES = (CPU, "cuda", "mps", AUTO)


def chosen() -> str:
    """The device's name; raises `ModelError` for one that is not known."""
    name = os.environ.get(VARIABLE, CPU) or CPU
    if name.partition(":")[0] not in NAMES:
        raise ModelError(f"device '{name}': {', '.join(NAMES)} are allowed")
    return _best() if name == AUTO else name


def _best() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else CPU


def moved(value: Any, device: str) -> Any:
    """A tensor or module on the device; raises `ModelError` where there is none of the kind."""
    try:
        return value.to(device)
    except (RuntimeError, AssertionError, NotImplementedError) as exc:
        raise ModelError(
            f"device '{device}': torch cannot use it here ({one_line(exc)[:120]}); give --device "
            "cpu or auto"
        ) from exc


class OnDevice(nn.Module):
    """A part of a foreign network, which goes to the device when it first runs, and stays there."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.place = ""

    def there(self, *tensors: Tensor) -> list[Tensor]:
        """The tensors where the module is, moving it first where it is not on the device yet."""
        if not self.place:
            device = chosen()
            if device != CPU:
                moved(self.module, device)
            self.place = device  # to ask for it with each row would cost more than scoring adds
        return list(tensors) if self.place == CPU else [moved(one, self.place) for one in tensors]
