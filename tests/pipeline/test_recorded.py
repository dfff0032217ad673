"""A record is matched event by event, and one of an earlier version by what it has."""

from __future__ import annotations

from dataclasses import replace

import pytest

from selfheal_cli.errors import EventLogError
from selfheal_cli.events.event import FIRST_FORMAT, FORMAT
from selfheal_cli.events.types import BatchScored, RunStarted
from selfheal_cli.pipeline.record.replayed import RecordedEvents
from tests.events.examples import example

OLD = example(BatchScored)


def recorded(event: BatchScored, format_: int = FORMAT) -> RecordedEvents:
    first = example(RunStarted, format=format_)
    record = RecordedEvents([first, event])
    assert record.match(first) is first
    return record


def test_figures_that_were_not_yet_written_down_are_not_asked_for() -> None:
    known = recorded(OLD).match(replace(OLD, shifts=[0.1]))
    assert isinstance(known, BatchScored)
    assert known.shifts is None


def test_figures_that_were_written_down_must_come_out_the_same() -> None:
    new = replace(OLD, shifts=[0.1])
    assert recorded(new).match(new)
    with pytest.raises(EventLogError, match=r"shifts was \[0.1\], is \[0.2\]"):
        recorded(new).match(replace(OLD, shifts=[0.2]))


def test_anything_else_that_is_new_is_a_difference() -> None:
    more = replace(OLD, more={"extra": 1})
    with pytest.raises(EventLogError, match="extra was None, is 1"):
        recorded(OLD).match(more)
    assert recorded(OLD, FIRST_FORMAT).match(more)  # which knew of none
