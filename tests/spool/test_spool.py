"""The spool: what was answered and what labels came, each once, in order, across processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal_cli.errors import DataError, LeaseHeld
from selfheal_cli.spool.control import ControlChannel, Published
from selfheal_cli.spool.entries import (
    Cursor,
    Feedback,
    Joined,
    Kept,
    LoggedRequest,
    pack_columns,
    unpack_columns,
)
from selfheal_cli.spool.store import Spool
from tests.spool.conftest import Place

NUMBERS = st.floats(allow_nan=True, allow_infinity=True)
TEXTS = st.one_of(st.none(), st.text(max_size=5))
TABLES = st.integers(0, 5).flatmap(
    lambda rows: st.dictionaries(
        st.text(max_size=4),
        st.one_of(
            st.lists(NUMBERS, min_size=rows, max_size=rows).map(np.array),
            st.lists(TEXTS, min_size=rows, max_size=rows).map(
                lambda values: np.array(values, dtype=object)
            ),
        ),
        min_size=1,
        max_size=4,
    )
)


def answered(request: str, rows: int = 2, keys: tuple[str, ...] | None = None) -> LoggedRequest:
    """A request whose rows say how many there are."""
    columns = {"amount": np.arange(rows, dtype=np.float64), "place": np.array(["a"] * rows, object)}
    return LoggedRequest(request, columns, np.full(rows, 0.25, np.float32), "s1", 0.5, 1.0, keys)


@given(TABLES)
def test_columns_come_back_as_they_were(columns: dict[str, np.ndarray]) -> None:
    columns = {
        name: v.astype(np.float64) if v.dtype != object else v for name, v in columns.items()
    }
    unpacked = unpack_columns(pack_columns(columns))
    assert list(unpacked) == list(columns)
    for name, values in columns.items():
        np.testing.assert_array_equal(unpacked[name], values)


@given(st.binary(max_size=40))
def test_bytes_that_are_no_columns_are_refused(data: bytes) -> None:
    with pytest.raises(DataError):
        unpack_columns(data)


def test_requests_come_back_in_order_and_one_that_is_repeated_once(place: Place) -> None:
    spool = place.spool()
    assert spool.append([answered("a"), answered("b", 3)]) == Kept(new=2, conflicting=0)
    assert spool.append([answered("b", 3), answered("c", 1)]) == Kept(new=1, conflicting=0)
    requests = spool.rows_after(0, 10)
    assert [(one.request, len(one)) for one in requests] == [("a", 2), ("b", 3), ("c", 1)]
    assert [one.request for one in spool.rows_after(requests[0].number, 1)] == ["b"]
    assert spool.rows_beyond(requests[0].number) == 4
    assert spool.first_within(rows=4, last=requests[2].number) == requests[1].number
    assert spool.first_within(rows=2, last=requests[1].number) == requests[1].number + 1
    np.testing.assert_array_equal(requests[1].columns["amount"], [0.0, 1.0, 2.0])


def test_many_classes_keep_their_shape(place: Place) -> None:
    spool = place.spool()
    p = np.array([[0.5, 0.25, 0.25]], np.float32)
    spool.append([LoggedRequest("k", {"x": np.zeros(1)}, p, "s1", 0.5, 1.0)])
    np.testing.assert_array_equal(spool.rows_after(0, 1)[0].probabilities, p)


def test_a_label_joins_its_row_once_by_request_and_place_or_by_key(place: Place) -> None:
    spool = place.spool()
    spool.append([answered("a"), answered("b", 2, keys=("k1", "k2"))])
    wanted = [
        Feedback(1, request="a", place=1),
        Feedback(0, key="k2"),
        Feedback(0, request="a", place=1),
        Feedback(1, request="a", place=2),
        Feedback(1, request="a", place=-1),
        Feedback(1, request="none"),
        Feedback(1, key="none"),
    ]
    assert spool.label(wanted) == Joined(2, 1, 4, other=1, strangers=("none",))
    labels = spool.labels_after(0, 10)
    assert [(one.place, one.y) for one in labels] == [(1, 1), (1, 0)]
    assert spool.labels_of([labels[1].answered]) == labels[1:]


def test_the_oldest_requests_are_forgotten_but_none_that_is_still_to_be_read(
    place: Place,
) -> None:
    spool = place.spool()
    spool.append(
        [answered(f"r{number}", 2, keys=(f"{number}a", f"{number}b")) for number in range(6)]
    )
    spool.label([Feedback(1, request="r0"), Feedback(1, request="r5")])
    third = spool.rows_after(0, 9)[2].number
    assert spool.forget(keep_rows=4, before=third) == 2
    assert [one.request for one in spool.rows_after(0, 9)] == ["r2", "r3", "r4", "r5"]
    assert spool.forget(keep_rows=4, before=2**62) == 2
    assert len(spool.labels_after(0, 9)) == 1
    assert spool.label([Feedback(1, key="0a")]).unknown == 1
    assert spool.forget(keep_rows=4, before=2**62) == 0


def test_what_is_published_is_seen_by_another_process(tmp_path: Path) -> None:
    channel = ControlChannel(tmp_path / "spool.db")
    assert (channel.current(), channel.published()) == ((0, None), None)
    channel.publish(Published("s1", 0.5, "m-1", "ab", b"bytes", "a heal"))
    channel.set_version("s1", 7)
    code = (
        "import sys; from pathlib import Path\n"
        "from selfheal_cli.spool.control import ControlChannel\n"
        "b = ControlChannel(Path(sys.argv[1]))\n"
        "p = b.published(); print(b.current(), p.adapter, p.version)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "spool.db")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "(1, 7) b'bytes' 7"


def test_an_order_is_taken_by_one_and_answered(place: Place) -> None:
    channel, other = place.channel(), place.channel()
    number = channel.send_command("hold", {"reason": "odd"})
    taken = other.take_command(not_before=0.0)
    assert taken is not None
    assert (taken.number, taken.kind, taken.argument) == (number, "hold", {"reason": "odd"})
    assert channel.take_command(not_before=0.0) is None
    assert channel.answer_of(number) is None
    other.answer(number, {"done": True})
    assert channel.answer_of(number) == {"done": True}


def test_the_latest_word_on_a_topic_counts(place: Place) -> None:
    channel = place.channel()
    assert channel.status("healer") == ({}, 0.0)
    channel.set_status("healer", {"state": "HEALTHY"})
    channel.set_status("healer", {"state": "DRIFTING"})
    assert channel.status("healer")[0] == {"state": "DRIFTING"}


def test_the_spool_and_the_control_channel_share_a_file_in_either_order(tmp_path: Path) -> None:
    for place, kinds in enumerate(((ControlChannel, Spool), (Spool, ControlChannel))):
        path = tmp_path / str(place) / "spool.db"
        first, second = (kind(path) for kind in kinds)
        spool, channel = (first, second) if isinstance(first, Spool) else (second, first)
        assert isinstance(spool, Spool)
        assert isinstance(channel, ControlChannel)
        spool.append([answered("a")])
        spool.label([Feedback(1, request="a")], "somebody", 1.0)
        channel.set_status("healer", {"batch": 1})
        assert spool.told_of("a") == [(1, "somebody", 1.0)]
        assert channel.status("healer")[0] == {"batch": 1}


def test_who_told_a_label_corrects_it_and_nobody_else_does(place: Place) -> None:
    spool = place.spool()
    spool.append([answered("r1", rows=2)])
    spool.label([Feedback(0, "r1", 0), Feedback(0, "r1", 1)], "bank", 1.0)

    def by(caller: str) -> Any:
        return lambda teller: teller == caller

    last = spool.labels_after(0, 10)[-1].number
    other = spool.label([Feedback(1, "r1", 0)], "shop", 2.0, by("shop"))
    assert (other.repeated, other.other, other.corrected) == (1, 1, 0)
    own = spool.label([Feedback(1, "r1", 1)], "bank", 3.0, by("bank"))
    assert (own.repeated, own.other, own.corrected) == (1, 0, 1)
    same = spool.label([Feedback(1, "r1", 1)], "bank", 4.0, by("bank"))
    assert (same.repeated, same.other, same.corrected) == (1, 0, 0)
    assert [(one.place, one.y) for one in spool.labels_after(0, 10)] == [(0, 0), (1, 1)]
    assert [(one.place, one.y) for one in spool.labels_after(last, 10)] == [(1, 1)]
    assert spool.told_of("r1", 0) == [(0, "bank", 1.0), (1, "shop", 2.0)]
    assert spool.told_of("r1", 1) == [(0, "bank", 1.0), (1, "bank", 3.0)]


def test_nothing_of_an_earlier_lease_is_written_once_a_later_one_wrote(place: Place) -> None:
    spool, channel = place.spool(), place.channel()
    serving = Published("s1", 0.5, "m-1", "ab", b"bytes", "a heal")
    channel.publish(serving, lease=7)
    spool.commit("r7", 1, Cursor(answered=1), 7)
    assert spool.set_fence(seen=7, lease=9)
    assert not spool.set_fence(seen=7, lease=8)
    stale: list[Callable[[], object]] = [
        lambda: channel.publish(serving, lease=7),
        lambda: channel.set_version("s1", 3, lease=7),
        lambda: channel.set_status("healer", {"pid": 1}, lease=7),
        lambda: spool.commit("r7", 2, Cursor(answered=2), 7),
        lambda: spool.settle("r7", 1, 7),
    ]
    for write in stale:
        with pytest.raises(LeaseHeld):
            write()
    assert (channel.current(), channel.status("healer")) == ((1, None), ({}, 0.0))
    assert spool.committed("r7", 2) is None
    channel.publish(serving, lease=9)
    assert channel.after(1) is not None and channel.after(2) is None


def test_it_is_read_on_behind_what_the_registry_has_of_a_run(place: Place) -> None:
    spool = place.spool()
    for batch in range(4):
        spool.commit("r1", batch, Cursor(answered=batch), 1)
    spool.settle("r1", 1, 1)
    assert spool.committed("", 0) == (Cursor(answered=1), "r1")
    assert spool.committed("r1", 3) == (Cursor(answered=3), "r1")
    spool.commit("r2", 0, Cursor(answered=3), 2)
    assert spool.committed("r1", 1) == (Cursor(answered=3), "r2")


def test_one_process_has_the_turn_until_it_gives_it_back_or_is_silent(place: Place) -> None:
    one, other = place.channel(), place.channel()
    assert (one.take_turn("a", 60.0), other.take_turn("b", 60.0)) == (True, False)
    assert one.take_turn("a", 0.0) and other.take_turn("w", 60.0, heals=False)
    assert not one.take_turn("w2", 60.0, heals=False)
    assert one.take_turn("a", 60.0) and not other.take_turn("w", 60.0, heals=False)
    assert one.take_turn("a", 0.0) and other.take_turn("b", -1.0) and one.take_turn("a", 60.0)


def test_a_label_before_its_row_waits_for_it_where_another_process_answers_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfheal_cli.spool.early.MOST", 3)
    place = tmp_path / "spool.db"
    ours, theirs = Spool(place), Spool(place)
    by_place, by_key = Feedback(1, "r1", 1), Feedback(1, key="order-2")
    assert ours.label([by_place, by_key], "ann", 5.0, beside=True) == Joined(
        0, 0, 2, strangers=("order-2",)
    )
    theirs.append([answered("r1"), answered("r2", keys=("order-1", "order-2"))])
    labels = theirs.labels_after(0, 9)
    assert [(one.answered, one.place, one.y) for one in labels] == [(1, 1, 1), (2, 1, 1)]
    assert theirs.told_of("r1", 1) == [(1, "ann", 5.0)]
    assert ours.label([by_place], "ann", 6.0, beside=True).repeated == 1

    ours.label([Feedback(1, f"q{at}") for at in range(5)], "ann", beside=True)
    ours.label([Feedback(1, "alone")], "ann")  # nobody else answers: there is no such row
    theirs.append([answered(f"q{at}") for at in range(5)] + [answered("alone")])
    known = {one.answered - 3 for one in theirs.labels_after(2, 9)}
    assert known == {1, 2, 3, 4}  # the oldest is forgotten
