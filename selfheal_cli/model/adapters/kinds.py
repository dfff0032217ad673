"""Adapters by name.

A new one is a file beside this one and a line in `KINDS`; tests/model/test_adapters.py then holds
it to the contract.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from selfheal_cli.errors import ConfigurationError
from selfheal_cli.model.adapters.affine import AffineAdapter
from selfheal_cli.model.adapters.base import Adapter, Room
from selfheal_cli.model.adapters.lora import DEFAULT_RANK, LowRank
from selfheal_cli.model.adapters.reflexive import ReflexiveLayer

REFLEXIVE, AFFINE, LORA = "reflexive", "affine", "lora"
MAX_RANK = 4_096


@dataclass(frozen=True, slots=True)
class AdapterKind:
    """What the rest of the house must know of an adapter.

    ``on``: it goes on a linear layer, whose input and output it both needs; others go before a
    layer. ``at_the_end``: only the linear layer that gives the logits will do. ``ranked``: its
    name may carry a rank, as in ``lora:8``.
    """

    identity: Callable[..., Adapter]
    on: bool = False
    at_the_end: bool = False
    ranked: bool = False


KINDS = {
    REFLEXIVE: AdapterKind(ReflexiveLayer.identity),
    AFFINE: AdapterKind(AffineAdapter.identity, at_the_end=True),
    LORA: AdapterKind(LowRank.identity, on=True, ranked=True),
}


@dataclass(frozen=True, slots=True)
class Chosen:
    """An adapter as a user names it: ``reflexive``, ``affine``, ``lora`` or ``lora:RANK``."""

    name: str
    kind: AdapterKind
    rank: int | None = None

    def build(self, room: Room) -> Adapter:
        """One that changes nothing yet; draws from torch's global generator."""
        build = self.kind.identity if self.rank is None else partial(self.kind.identity,
                                                                     rank=self.rank)  # fmt: skip
        return build(room)

    def __str__(self) -> str:
        return self.name if self.rank is None else f"{self.name}:{self.rank}"


def parse_adapter(text: str) -> Chosen:
    """Raises `ConfigurationError` naming what is allowed."""
    name, colon, rank = text.partition(":")
    kind = KINDS.get(name)
    if kind is None:
        known = ", ".join(f"{one}[:RANK]" if k.ranked else one for one, k in KINDS.items())
        raise ConfigurationError(f"adapter '{text}' is not known; allowed: {known}")
    if not colon:
        return Chosen(name, kind, DEFAULT_RANK if kind.ranked else None)
    if not kind.ranked:
        raise ConfigurationError(f"adapter '{text}': {name} has no rank; give '{name}' alone")
    if not (rank.isascii() and rank.isdigit() and 1 <= int(rank) <= MAX_RANK):
        raise ConfigurationError(
            f"adapter '{text}': the rank is a whole number from 1 to {MAX_RANK:,}, as in {name}:8"
        )
    return Chosen(name, kind, int(rank))
