"""What is said of segments: which drifted, and how all stood at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

from selfheal_cli.events.event import Action


class DriftedSegment(TypedDict):
    """A segment that drifted in a column (or in "errors", of the frozen model): ``effect`` is how
    far its last rows are from its training rows, ``evidence`` the decimal logarithm of what bets
    have won, ``rows`` those of the stream, ``since`` the batch in which it was named.
    """

    segment: str
    column: str
    effect: float
    evidence: float
    rows: int
    since: int


class SegmentSlice(TypedDict):
    """A segment's rows; of those with a label, how many were answered wrong, live and frozen."""

    segment: str
    rows: int
    labelled: int
    wrong: int
    shadow_wrong: int
    drifted: Sequence[str]


class SegmentsDrifted(Action, kind="segments-drifted"):
    """Segments of column ``by`` drifted, and were not named before; those that moved furthest
    first. ``rate`` is the share of named ones that chance may have, over ``pairs`` of a segment
    and a column.
    """

    by: str
    segments: Sequence[DriftedSegment]
    pairs: int
    rate: float
    threshold: float

    def __str__(self) -> str:
        return self.reason


class SegmentsRanked(Action, kind="segments-ranked"):
    """How segments stood at the stream's end: all that ``drifted``, furthest first, and ``slices``
    of these and of the largest others. ``whole`` is how far all segments' last rows together are
    from training's, by column; ``unkeyed`` rows had no segment, ``beyond`` were of more segments
    than are told apart.
    """

    by: str
    segments: int
    drifted: Sequence[DriftedSegment]
    slices: Sequence[SegmentSlice]
    whole: Mapping[str, float]
    unkeyed: int = 0
    beyond: int = 0
