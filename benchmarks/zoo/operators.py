"""PyPI's torchvision beside a CPU build of torch: its compiled operators are not there.

Its classifiers need none of them, but its import asks torch to describe them.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch


def import_without_operators() -> None:
    """Import torchvision; what describes an operator that is not there is passed over."""
    ours = torch.library.register_fake

    def register(name: Any, *args: Any, **named: Any) -> Any:
        if str(name).startswith("torchvision::"):
            return lambda function: function
        return ours(name, *args, **named)

    torch.library.register_fake = register
    try:
        importlib.import_module("torchvision")
    finally:
        torch.library.register_fake = ours
