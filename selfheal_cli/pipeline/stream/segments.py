"""The segments of a stream: told of when one drifts, and ranked at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from selfheal_cli.drift.segments import SegmentWatch
from selfheal_cli.events.types import DriftedSegment, PartFailed, SegmentsDrifted, SegmentsRanked
from selfheal_cli.labels.queue import Scored
from selfheal_cli.metrics import classify
from selfheal_cli.pipeline.stream.context import SessionContext

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfheal_cli.records import Columns

NAMED = 3  # segments in a sentence


class Segments:
    """Watches each segment by itself; see `SegmentWatch`."""

    def __init__(self, run: SessionContext, watch: SegmentWatch) -> None:
        self._recorder, self._state = run.recorder, run.state
        self._watch = watch
        self._missed = False

    @property
    def names(self) -> Sequence[str]:
        """Those that there are so far."""
        return self._watch.names

    @property
    def drifted(self) -> list[str]:
        """Those that drifted so far, the furthest first."""
        return list(dict.fromkeys(one["segment"] for one in self._watch.drifted()))

    def named(self, segment: str) -> str:
        """A segment as people name it: column and value."""
        return f"{self._watch.reference.by} {segment}"

    def of(self, segment: str, parts: Sequence[Scored]) -> NDArray[np.bool_]:
        """Which of the rows of these parts, one after the other, are of a segment."""
        return np.concatenate([self._watch.of(segment, one.batch, one.place) for one in parts])

    def observe(self, scored: Scored, columns: Columns, learned: Sequence[Scored]) -> None:
        """Take a batch, and the labels that came with it."""
        by = self._watch.reference.by
        if by not in columns:
            self._miss(scored.batch, by)
        self._watch.observe(scored.batch, columns, scored.place)
        for part in learned:
            known = part.labelled
            live = classify(known.probabilities, known.threshold) != known.y
            shadow = classify(known.shadow, known.shadow_threshold) != known.y
            self._watch.learn(known.batch, known.place, live, shadow)
        fresh = self._watch.newly_named(scored.batch)
        if fresh:
            self._recorder.note(
                SegmentsDrifted(
                    batch=scored.batch, reason=sentence(by, fresh), by=by, segments=fresh,
                    pairs=self._watch.pairs,
                    rate=self._watch.rate, threshold=self._watch.threshold,
                )
            )  # fmt: skip

    def _miss(self, batch: int, by: str) -> None:
        """A server keeps the columns that its model takes, and no others; told once."""
        if not self._missed:
            self._missed = True
            why = (
                f"the rows have no column '{by}', by which segments are told apart, so that none "
                "is watched: make it a feature of the model"
            )
            self._recorder.note(PartFailed(batch=batch, reason=why, part="watching segments"))

    def finish(self) -> None:
        """Rank them, once the stream is over."""
        watch, drifted = self._watch, self._watch.drifted()
        names = {one["segment"] for one in drifted}
        self._recorder.note(
            SegmentsRanked(
                batch=self._state.batch, by=watch.reference.by, segments=watch.segments,
                reason=f"{len(names)} of {watch.segments:,} segments drifted",
                drifted=drifted, slices=watch.slices(), whole=watch.whole(),
                unkeyed=watch.unkeyed, beyond=watch.beyond,
            )
        )  # fmt: skip


def watch_segments(run: SessionContext) -> Segments | None:
    """The segments of a run; None where none are watched."""
    reference, config = run.prepared.segments, run.config
    if reference is None:
        return None
    settings = config.segments
    return Segments(
        run,
        SegmentWatch(
            reference, window=settings.window, threshold=settings.threshold,
            rate=config.policy.segments.false_discovery_rate, most=settings.most, seed=config.seed,
        ),
    )  # fmt: skip


def sentence(by: str, drifted: Sequence[DriftedSegment]) -> str:
    """Which drifted, the furthest first."""
    columns: dict[str, list[DriftedSegment]] = {}
    for one in drifted:
        columns.setdefault(one["segment"], []).append(one)
    told = [
        f"{by} {segment}: {_moved(ones)} ({ones[0]['rows']:,} rows of its own)"
        for segment, ones in list(columns.items())[:NAMED]
    ]
    more = f"; and {len(columns) - NAMED:,} more" if len(columns) > NAMED else ""
    return "; ".join(told) + more


def _moved(ones: Sequence[DriftedSegment]) -> str:
    return ", ".join(f"{one['column']} by {one['effect']:.2f}" for one in ones[:NAMED])
