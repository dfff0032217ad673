"""What a foreign network's description says of it, read without loading torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

NAMES = ("target", "named", "object")  # keys whose values are package.module:name
MOST_COLUMNS = 4_096  # of a table that an ensemble looks at
MOST_BESIDE = 512  # inputs beside the features; more would outweigh them


def is_one_tensor(foreign: Mapping[str, Any] | None) -> bool:
    """Whether a network takes one tensor of more values than a table has columns."""
    described = foreign or {}
    shape = described.get("shape", ())
    several = len((described.get("interface") or {}).get("inputs", ())) > 1
    return len(shape) > 1 and prod(shape) > MOST_BESIDE and not several


def named_modules(described: Any) -> Iterator[str]:
    """The Python modules of all names in a description as JSON: of classes, functions, objects."""
    if isinstance(described, dict):
        for key, value in described.items():
            if key in NAMES and isinstance(value, str):
                yield value.partition(":")[0]
            else:
                yield from named_modules(value)
    elif isinstance(described, list):
        for value in described:
            yield from named_modules(value)
