"""The sizes of a network, as its base's document keeps them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from selfheal_cli.model.adapter import Room
from selfheal_cli.model.adapters import AFFINE, MIXTURE, REFLEXIVE
from selfheal_cli.model.cutting import Foreign


@dataclass(frozen=True, slots=True)
class Architecture:
    """The sizes of a network. ``outputs`` is 1 for two classes, else their number.

    ``hidden`` is the width of the backbone's features, flattened; ``adapter`` as
    `adapters.parse_adapter` reads it. ``beside``: the backbone gives its inputs beside the
    features, for the adapter to use. ``foreign``: a `cutting.Foreign` as JSON; None for our own
    network. ``moves``: an affine adapter may move the inputs; not those of one large tensor.
    ``scored``: the last inputs are probabilities that another model gave; their logits are the
    features. ``random``: so many random features of the inputs are the last of the features.
    ``keyed``: behind a row's inputs go two numbers that say which segment it is of; adapters of
    segments' own, where there are any, read the features at ``directions``.
    """

    inputs: int
    hidden: int
    outputs: int = 1
    adapter: str = REFLEXIVE
    beside: bool = False
    foreign: Mapping[str, Any] | None = None
    moves: bool = True
    scored: bool = False
    random: int = 0
    keyed: bool = False
    directions: Sequence[int] = ()

    @property
    def moved(self) -> int:
        """Inputs that an affine adapter may move."""
        return self.inputs if self.moves else 0

    @property
    def features(self) -> int:
        """Width of the backbone's output, which the adapter takes."""
        return self.hidden + (self.inputs if self.beside else 0) + self.random

    @property
    def plain(self) -> int:
        """As many of the features are no random ones."""
        return self.features - self.random

    @property
    def other(self) -> Foreign | None:
        """The foreign network's description; None: the network is our own."""
        return None if self.foreign is None else Foreign.model_validate(self.foreign)

    @property
    def behind(self) -> bool:
        """Whether the adapter is behind the ReflexiveLayer that was trained with the network."""
        own = self.foreign is None and self.adapter != REFLEXIVE
        return own or self.adapter in (AFFINE, MIXTURE)

    @property
    def room(self) -> Room:
        """Where the adapter sits."""
        place = self.other.place if self.other else None
        if place is None:
            return Room(self.moved, self.outputs, (self.features,), self.hidden)
        return Room(self.inputs, self.outputs, place.sizes, self.hidden, place.axis, place.taken)

    def as_dict(self) -> dict[str, Any]:
        """The JSON that the base's document keeps of it."""
        document = asdict(self)
        if self.foreign is None:
            del document["foreign"]
        if self.moves:
            del document["moves"]
        if not self.scored:
            del document["scored"]
        for name in ("random", "keyed", "directions"):
            if not document[name]:
                del document[name]
        return document
