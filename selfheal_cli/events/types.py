"""Events and the kinds there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

# What keys mean in a log and in the files beside it; raised with each change of that. A log that
# names none is of selfheal 0.1.0.
FIRST_FORMAT, FORMAT = 1, 2


def format_of(started: Mapping[str, Any]) -> int:
    """Of a record, by the data of its first event."""
    return int(started.get("format", FIRST_FORMAT))


class Kind(StrEnum):
    """What an event tells."""

    RUN_STARTED = "run-started"
    TRAINED = "trained"
    ROWS_TAKEN = "rows-taken"
    BATCH = "batch"
    BATCH_SET_APART = "batch-set-apart"
    LABELS = "labels"
    QUARANTINED = "labels-quarantined"
    DIAGNOSIS = "diagnosis"
    RULE_STALE = "rule-stale"
    MONITOR_ALARM = "monitor-alarm"
    SNAPSHOT = "snapshot"
    SCORED = "snapshot-scored"
    REGISTERED = "registered"
    HEAL = "heal"
    HEAL_FAILED = "heal-failed"
    HEAL_COALESCED = "heal-coalesced"
    HEAL_REJECTED = "heal-rejected"
    HEAL_REFUSED = "heal-refused"
    ROLLBACK = "rollback"
    ROLLBACK_FAILED = "rollback-failed"
    ROLLBACK_DECLINED = "rollback-declined"
    ALIAS_MOVED = "alias-moved"
    MOVE_REFUSED = "move-refused"
    FOLLOWED = "champion-followed"
    HEALING_HELD = "healing-held"
    HEALING_RELEASED = "healing-released"
    STREAM_STOPPED = "stream-stopped"
    RUN_FINISHED = "run-finished"
    RUN_RESUMED = "run-resumed"


# what changed a model, as opposed to what was seen of it
ACTIONS = frozenset(
    {
        Kind.BATCH_SET_APART,
        Kind.HEAL,
        Kind.HEAL_FAILED,
        Kind.HEAL_COALESCED,
        Kind.HEAL_REJECTED,
        Kind.HEAL_REFUSED,
        Kind.QUARANTINED,
        Kind.DIAGNOSIS,
        Kind.RULE_STALE,
        Kind.MONITOR_ALARM,
        Kind.ROLLBACK,
        Kind.ROLLBACK_FAILED,
        Kind.ROLLBACK_DECLINED,
        Kind.ALIAS_MOVED,
        Kind.MOVE_REFUSED,
        Kind.FOLLOWED,
        Kind.HEALING_HELD,
        Kind.HEALING_RELEASED,
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
