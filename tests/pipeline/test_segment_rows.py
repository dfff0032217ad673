"""Rows that come from a server or a pipe, and the column that says which segment they are of."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from selfheal_cli.drift.segment_evidence import CELLS
from selfheal_cli.drift.segments import ColumnCells, SegmentReference, SegmentWatch
from selfheal_cli.events.event import Event
from selfheal_cli.events.types import PartFailed, SegmentsRanked
from selfheal_cli.labels.queue import Scored
from selfheal_cli.pipeline.stream.context import SessionContext, StreamState
from selfheal_cli.pipeline.stream.segments import Segments


class Noted:
    """A session of which only what is written down is looked at."""

    def __init__(self) -> None:
        self.recorder, self.state = self, StreamState(batch=2)
        self.events: list[Event] = []

    def note(self, event: Event) -> None:
        self.events.append(event)


def scored(batch: int, rows: int) -> Scored:
    none, y = np.zeros((rows, 1), np.float32), np.zeros(rows, np.int8)
    return Scored(batch, np.arange(rows), none, none, none[:, 0], 0.5, none[:, 0], 0.5, y, y)


def test_rows_that_lack_the_column_are_told_of_once_and_counted() -> None:
    reference = SegmentReference(
        "country", ("DE",), {"a": ColumnCells(np.arange(9.0))}, np.ones((1, 1, CELLS), np.int32)
    )
    watch = SegmentWatch(reference, window=100, threshold=0.1, rate=0.05, most=9, seed=1)
    noted = Noted()
    segments = Segments(cast("SessionContext", cast("Any", noted)), watch)
    for batch in (1, 2):
        segments.observe(scored(batch, 30), {"a": np.arange(30.0)}, [])
    segments.finish()
    failed, ranked = noted.events
    assert isinstance(failed, PartFailed)
    assert isinstance(ranked, SegmentsRanked)
    assert "the rows have no column 'country'" in failed.reason
    assert "make it a feature of the model" in failed.reason
    assert (ranked.unkeyed, ranked.drifted) == (60, [])
