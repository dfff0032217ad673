"""Events and the kinds there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """What an event tells."""

    RUN_STARTED = "run-started"
    TRAINED = "trained"
    BATCH = "batch"
    SNAPSHOT = "snapshot"
    REGISTERED = "registered"
    HEAL = "heal"
    HEAL_FAILED = "heal-failed"
    HEAL_COALESCED = "heal-coalesced"
    ROLLBACK = "rollback"
    ROLLBACK_FAILED = "rollback-failed"
    ALIAS_MOVED = "alias-moved"
    RUN_FINISHED = "run-finished"


# what changed a model, as opposed to what was seen of it
ACTIONS = frozenset(
    {
        Kind.HEAL,
        Kind.HEAL_FAILED,
        Kind.HEAL_COALESCED,
        Kind.ROLLBACK,
        Kind.ROLLBACK_FAILED,
        Kind.ALIAS_MOVED,
    }
)


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a log. ``digest`` covers the other fields and ``previous``, the line before's."""

    sequence: int
    at: str
    kind: Kind
    data: Mapping[str, Any]
    previous: str
    digest: str
