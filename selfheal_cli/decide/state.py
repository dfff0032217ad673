"""The four states of a running model."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """HEALING lasts while a heal is in flight beside live scoring."""

    HEALTHY = "HEALTHY"
    DRIFTING = "DRIFTING"
    HEALING = "HEALING"
    ROLLED_BACK = "ROLLED_BACK"


def state_after(*, drifting: bool, in_flight: bool, rolled_back: bool) -> State:
    """The state at the end of a batch.

    >>> state_after(drifting=True, in_flight=False, rolled_back=False)
    <State.DRIFTING: 'DRIFTING'>
    """
    if rolled_back:
        return State.ROLLED_BACK
    if in_flight:
        return State.HEALING
    return State.DRIFTING if drifting else State.HEALTHY
