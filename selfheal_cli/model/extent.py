"""How much a row holds: a table's columns, or one large tensor; known without loading torch."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

MOST_BESIDE = 512  # inputs beside the features; more would outweigh them


def is_one_tensor(foreign: Mapping[str, Any] | None) -> bool:
    """Whether a network takes one tensor of more values than a table has columns."""
    described = foreign or {}
    shape = described.get("shape", ())
    several = len((described.get("interface") or {}).get("inputs", ())) > 1
    return len(shape) > 1 and prod(shape) > MOST_BESIDE and not several
