"""The event log: what is written is chained, and whatever was done to it shows."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from selfheal_cli.errors import EventLogError
from selfheal_cli.events.event import Event
from selfheal_cli.events.log import GENESIS, EventLog, keys_of, read, read_only, verify
from selfheal_cli.events.types import AliasMoved, RunFinished, RunStarted, StreamStopped, event_of
from tests.conftest import DEPTH
from tests.events.examples import EXAMPLES, OPTIONAL, example

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)
MIDDLE = [kind for kind in EXAMPLES if kind is not RunFinished]
USED = {one.name for kind in EXAMPLES for one in fields(kind)} | {"origin"}
KEYS = st.text(max_size=5).filter(lambda name: name not in USED)
EVENTS = st.builds(
    lambda kind, more: example(kind, more=more),
    st.sampled_from(MIDDLE),
    st.dictionaries(KEYS, JSON, max_size=3),
)
ENTRIES = st.lists(EVENTS, max_size=4)


def frozen() -> datetime:
    """Always the same time."""
    return datetime(2026, 1, 1, 12, tzinfo=UTC)


def finished(path: Path) -> list[bytes]:
    """The lines of a small log of a run that ended."""
    log = EventLog(path, frozen)
    log.append(example(RunStarted))
    for batch in range(1, 5):
        log.append(StreamStopped(batch=batch, more={"f1": batch / 7, "note": "é \u2028 \\"}))
    log.append(RunFinished(outcome="FINISHED"))
    log.close()
    return path.read_bytes().splitlines(keepends=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place for the logs of the properties."""
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="module")
def lines(folder: Path) -> list[bytes]:
    """The lines of a finished log, as they should be."""
    return finished(folder / "whole.jsonl")


def refused(folder: Path, content: bytes) -> str:
    """How `verify` refuses a log of this content."""
    path = folder / "changed.jsonl"
    path.write_bytes(content)
    with pytest.raises(EventLogError, match=r"changed\.jsonl") as caught:
        verify(path)
    return str(caught.value)


@given(entries=ENTRIES)
def test_events_are_read_back_as_they_were_written(folder: Path, entries: list[Event]) -> None:
    path = folder / "written.jsonl"
    path.unlink(missing_ok=True)
    log = EventLog(path, frozen)
    written = [log.append(event) for event in entries]
    written.append(log.append(RunFinished(outcome="FINISHED")))
    log.close()
    found = list(read(path))
    assert found == written
    assert [one.digest for one in found] == [one.digest for one in written]
    assert verify(path) == len(entries) + 1


@pytest.mark.parametrize("kind", EXAMPLES, ids=lambda kind: kind.__name__)
@settings(max_examples=3 * DEPTH)
@given(data=st.data())
def test_an_event_of_any_kind_comes_back_as_it_was_whatever_is_left_out(
    kind: type[Event], data: st.DataObject
) -> None:
    optional = OPTIONAL.get(kind, {})
    chosen = data.draw(st.sets(st.sampled_from(sorted(optional)))) if optional else set()
    more = data.draw(st.dictionaries(KEYS, JSON, max_size=2))
    event = example(kind, more=more, **{name: optional[name] for name in chosen})
    keys = keys_of(event)
    again = event_of(kind.kind, keys)
    assert again == event
    assert keys_of(again) == keys
    assert keys.keys() == keys_of(example(kind)).keys() | chosen | more.keys()


def test_every_field_that_may_be_left_out_has_an_example() -> None:
    line = {one.name for one in fields(Event)}
    for kind, given_always in EXAMPLES.items():
        names = {one.name for one in fields(kind)} - line
        assert names == given_always.keys() | OPTIONAL.get(kind, {}).keys()


@pytest.mark.parametrize("kind", EXAMPLES, ids=lambda kind: kind.__name__)
def test_a_line_that_lacks_a_key_is_refused_and_the_key_named(kind: type[Event]) -> None:
    keys = keys_of(example(kind))
    spared = {"origin", "segment"}  # they tell apart what a base was stored for
    spared |= {"sequence", "run", "key", "proposal"} if kind is AliasMoved else set()
    for name in keys.keys() - spared:
        with pytest.raises((ValueError, TypeError), match=name):
            event_of(kind.kind, {key: value for key, value in keys.items() if key != name})


def test_a_log_is_its_owners_alone(tmp_path: Path, fake_clock: Callable[[], datetime]) -> None:
    EventLog(tmp_path / "run" / "events.jsonl", fake_clock).close()
    assert (tmp_path / "run" / "events.jsonl").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700


def test_events_are_numbered_timed_and_chained(
    tmp_path: Path, fake_clock: Callable[[], datetime]
) -> None:
    log = EventLog(tmp_path / "deep" / "events.jsonl", fake_clock)
    assert log.head == GENESIS
    first = log.append(example(RunStarted))
    second = log.append(RunFinished(outcome="FINISHED"))
    log.close()
    assert (first.sequence, first.previous) == (1, GENESIS)
    assert (second.sequence, second.previous) == (2, first.digest)
    assert log.head == second.digest
    assert [first.at, second.at] == [
        "2026-01-01T00:00:01.000+00:00",
        "2026-01-01T00:00:02.000+00:00",
    ]


def test_each_line_is_on_disk_as_soon_as_it_is_appended(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl", frozen)
    for count in range(1, 4):
        log.append(StreamStopped(batch=count))
        assert len(list(read(log.path))) == count
    log.close()


def test_the_time_is_part_of_the_digest(tmp_path: Path) -> None:
    digests = set()
    for hour in range(3):
        log = EventLog(tmp_path / f"{hour}.jsonl", lambda h=hour: frozen() + timedelta(hours=h))
        digests.add(log.append(StreamStopped(batch=1)).digest)
        log.close()
    assert len(digests) == 3


@given(data=st.data())
def test_an_edited_byte_is_found(folder: Path, lines: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(lines)
    place = data.draw(st.integers(0, len(whole) - 1), label="place")
    byte = data.draw(st.integers(0, 255), label="byte")
    assume(byte != whole[place])
    assume((whole[place], byte) != (0x0A, 0x0D))  # see the next test
    refused(folder, whole[:place] + bytes([byte]) + whole[place + 1 :])


@pytest.mark.parametrize("end", [b"\r", b"\r\n"])
def test_an_edited_line_end_is_found(folder: Path, lines: list[bytes], end: bytes) -> None:
    refused(folder, b"".join([*lines[:2], lines[2][:-1] + end, *lines[3:]]))


@given(data=st.data())
def test_a_byte_put_in_or_taken_out_is_found(
    folder: Path, lines: list[bytes], data: st.DataObject
) -> None:
    whole = b"".join(lines)
    place = data.draw(st.integers(0, len(whole) - 1), label="place")
    refused(folder, whole[:place] + whole[place + 1 :])
    byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != 0x0D), label="byte")
    refused(folder, whole[:place] + bytes([byte]) + whole[place:])


def test_the_removal_of_any_line_is_found(folder: Path, lines: list[bytes]) -> None:
    for place in range(len(lines) - 1):
        message = refused(folder, b"".join(lines[:place] + lines[place + 1 :]))
        assert f":{place + 1}: event {place + 2} does not follow event {place}" in message
    message = refused(folder, b"".join(lines[:-1]))
    assert "ends after 5 events without 'run-finished'" in message


def test_a_log_without_any_line_is_not_finished(folder: Path) -> None:
    assert "ends after 0 events" in refused(folder, b"")


@given(data=st.data())
def test_a_swap_of_two_lines_is_found(
    folder: Path, lines: list[bytes], data: st.DataObject
) -> None:
    first = data.draw(st.integers(0, len(lines) - 2))
    second = data.draw(st.integers(first + 1, len(lines) - 1))
    changed = list(lines)
    changed[first], changed[second] = changed[second], changed[first]
    assert f":{first + 1}: event {second + 1} does not" in refused(folder, b"".join(changed))


@given(data=st.data())
def test_a_line_that_comes_twice_is_found(
    folder: Path, lines: list[bytes], data: st.DataObject
) -> None:
    which = data.draw(st.integers(0, len(lines) - 1))
    where = data.draw(st.integers(0, len(lines)))
    refused(folder, b"".join([*lines[:where], lines[which], *lines[where:]]))


def test_a_line_of_another_log_is_found(folder: Path, lines: list[bytes], tmp_path: Path) -> None:
    log = EventLog(tmp_path / "other.jsonl", lambda: frozen() + timedelta(seconds=1))
    for batch in range(3):
        log.append(StreamStopped(batch=batch))
    log.close()
    other = log.path.read_bytes().splitlines(keepends=True)
    assert ":3: event 3 does not follow event 2" in refused(
        folder, b"".join([*lines[:2], other[2], *lines[3:]])
    )


@given(data=st.data())
def test_a_log_that_was_cut_short_is_found_wherever_it_was_cut(
    folder: Path, lines: list[bytes], data: st.DataObject
) -> None:
    whole = b"".join(lines)
    refused(folder, whole[: data.draw(st.integers(0, len(whole) - 1))])


def test_a_line_that_was_cut_short_is_told_from_an_edited_one(
    folder: Path, lines: list[bytes]
) -> None:
    assert ":6: the line is cut short" in refused(folder, b"".join(lines)[:-1])
    edited = b"".join(lines).replace(b'"batch":3', b'"batch":8')
    assert ":4: its hash does not fit: the line was edited" in refused(folder, edited)


def test_an_event_after_the_end_is_found(tmp_path: Path) -> None:
    finished(tmp_path / "events.jsonl")
    log = EventLog(tmp_path / "events.jsonl", frozen)
    log.append(StreamStopped(batch=5))
    log.close()
    with pytest.raises(EventLogError, match=r"events\.jsonl:7: an event after the run's end"):
        verify(log.path)


@pytest.mark.parametrize("line", [b"\n", b"null\n", b"[]\n", b"{}\n", b'{"digest":3}\n', b"\xff\n"])
def test_a_line_that_is_no_event_is_refused(folder: Path, lines: list[bytes], line: bytes) -> None:
    refused(folder, b"".join([*lines[:2], line]))


def test_events_before_the_damage_are_read(folder: Path, lines: list[bytes]) -> None:
    path = folder / "damaged.jsonl"
    path.write_bytes(b"".join([*lines[:3], b"damage\n", *lines[3:]]))
    events = read(path)
    assert [next(events).sequence for _ in range(3)] == [1, 2, 3]
    with pytest.raises(EventLogError, match=r"damaged\.jsonl:4"):
        next(events)


def test_a_log_that_is_not_there_is_named(tmp_path: Path) -> None:
    for look in (verify, lambda path: list(read(path))):
        with pytest.raises(EventLogError, match=r"absent\.jsonl: no such event log"):
            look(tmp_path / "absent.jsonl")


def test_a_reopened_log_goes_on_with_the_chain(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    events: list[Event] = []
    for batch in range(4):
        log = EventLog(path, frozen)
        assert log.head == (events[-1].digest if events else GENESIS)
        events.append(log.append(StreamStopped(batch=batch)))
        log.close()
    log = EventLog(path, frozen)
    events.append(log.append(RunFinished(outcome="FINISHED")))
    log.close()
    assert list(read(path)) == events
    assert verify(path) == 5


def test_a_damaged_log_is_not_written_to(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    content = b"".join(finished(path))[:-1]
    path.write_bytes(content)
    with pytest.raises(EventLogError, match="cut short"):
        EventLog(path, frozen)
    assert path.read_bytes() == content


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_are_refused_and_leave_no_trace(tmp_path: Path, value: float) -> None:
    log = EventLog(tmp_path / "events.jsonl", frozen)
    log.append(example(RunStarted))
    with pytest.raises(ValueError, match="not JSON compliant"):
        log.append(StreamStopped(batch=1, more={"f1": [value]}))
    log.append(RunFinished(outcome="FINISHED"))
    log.close()
    assert verify(log.path) == 2


def test_a_line_is_one_json_object(tmp_path: Path) -> None:
    finished(tmp_path / "events.jsonl")
    text = (tmp_path / "events.jsonl").read_text(encoding="utf-8")
    records = [json.loads(line) for line in text.splitlines()]
    assert [record["sequence"] for record in records] == [1, 2, 3, 4, 5, 6]
    assert set(records[0]) == {"sequence", "at", "kind", "data", "previous", "digest"}


@given(entries=ENTRIES, kinds=st.sets(st.sampled_from(list(EXAMPLES)), max_size=4))
def test_the_events_of_some_kinds_are_those_of_the_whole_log(
    folder: Path, entries: list[Event], kinds: set[type[Event]]
) -> None:
    path = folder / "some.jsonl"
    path.unlink(missing_ok=True)
    log = EventLog(path, frozen)
    for event in entries:
        log.append(event)
    log.close()
    names = {kind.kind for kind in kinds}
    whole = [event for event in read(path) if event.kind in names]
    assert list(read_only(path, kinds)) == whole


@given(data=st.data())
def test_damage_to_a_line_of_another_kind_is_found_as_well(
    folder: Path, lines: list[bytes], data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(lines) - 1))
    at = data.draw(st.integers(0, len(lines[place]) - 2))
    byte = data.draw(st.integers(0, 255).filter(lambda one: one != lines[place][at]))
    assume(byte != ord("\n"))
    edited = lines[place][:at] + bytes([byte]) + lines[place][at + 1 :]
    path = folder / "damaged.jsonl"
    path.write_bytes(b"".join([*lines[:place], edited, *lines[place + 1 :]]))
    with pytest.raises(EventLogError):
        list(read_only(path, {RunStarted}))
