"""Where the inputs are as in training, no heal without labels has anything to go by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from selfheal_cli.errors import HealRefused
from selfheal_cli.heal.anchor import Anchor, moved

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray

MOVED = 5.0  # standard errors of the feature that moved most: of 64 chance moves one by 3


def require_moved(anchor: Anchor, features: FloatArray) -> None:
    """Raise `HealRefused` for rows (n, features) whose means are those of training."""
    if not has_moved(anchor, features):
        raise HealRefused(
            f"the inputs of the last {len(features):,} rows are as in training: there is nothing "
            "that a heal without labels could go by"
        )


def has_moved(anchor: Anchor, features: FloatArray) -> bool:
    """Whether the mean of any feature is another one than in training."""
    return moved(anchor, features) > MOVED
