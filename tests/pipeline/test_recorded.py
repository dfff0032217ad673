"""A record is matched event by event, and one of an earlier version by what it has."""

from __future__ import annotations

import pytest

from selfheal_cli.errors import EventLogError
from selfheal_cli.events.types import FORMAT, Event, Kind
from selfheal_cli.pipeline.record.replayed import RecordedEvents

OLD = {"batch": 1, "z": 0.5}


def recorded(data: dict[str, object], format_: int = FORMAT) -> RecordedEvents:
    at, started = "2026-01-01T00:00:00.000+00:00", {"format": format_}
    first = Event(1, at, Kind.RUN_STARTED, started, "", "c")
    record = RecordedEvents([first, Event(2, at, Kind.BATCH, data, "c", "d")])
    assert record.match(Kind.RUN_STARTED, started) is first
    return record


def test_figures_that_were_not_yet_written_down_are_not_asked_for() -> None:
    event = recorded(OLD).match(Kind.BATCH, OLD | {"shifts": [0.1]})
    assert event is not None
    assert "shifts" not in event.data


def test_figures_that_were_written_down_must_come_out_the_same() -> None:
    assert recorded(OLD | {"shifts": [0.1]}).match(Kind.BATCH, OLD | {"shifts": [0.1]})
    with pytest.raises(EventLogError, match=r"shifts was \[0.1\], is \[0.2\]"):
        recorded(OLD | {"shifts": [0.1]}).match(Kind.BATCH, OLD | {"shifts": [0.2]})


def test_anything_else_that_is_new_is_a_difference() -> None:
    with pytest.raises(EventLogError, match="extra was None, is 1"):
        recorded(OLD).match(Kind.BATCH, OLD | {"extra": 1})
    assert recorded(OLD, format_=1).match(Kind.BATCH, OLD | {"extra": 1})  # which knew of none
