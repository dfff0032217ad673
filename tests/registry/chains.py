"""A journal's chain, walked by hand."""

from __future__ import annotations

from selfheal_cli.registry.base import Registry
from selfheal_cli.registry.journal import GENESIS


def check_chain(registry: Registry, model: str) -> int:
    """How many entries there are, each following the one before."""
    sequence, head = 0, GENESIS
    for entry in registry.entries(model):
        assert (entry.sequence, entry.previous) == (sequence + 1, head)
        sequence, head = entry.sequence, entry.digest
    return sequence
