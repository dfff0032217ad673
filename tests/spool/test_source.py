"""The spool as a stream: every row and every label once, whatever the order and the restarts."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from selfheal_cli.records import Batch, Rows
from selfheal_cli.sources.encoding import Encoding
from selfheal_cli.spool import source as module
from selfheal_cli.spool.entries import Cursor, Feedback, LoggedRequest
from selfheal_cli.spool.source import Pace, SpoolSource
from selfheal_cli.spool.store import Spool

BATCH = 4
ENCODING = Encoding.raw_columns(("x",))


class NoReference:
    """A reference of which nothing but the labels is asked."""

    labels = ("0", "1")
    contract = None

    def training(self) -> Iterator[Rows]:
        return iter(())


class Time:
    """A clock that a test moves on, and a number of waits after which the stream shall end."""

    def __init__(self, waits: int) -> None:
        self.at = 0.0
        self.waits = waits

    def now(self) -> float:
        return self.at

    def wait(self, seconds: float) -> bool:
        self.at += seconds
        self.waits -= 1
        return self.waits <= 0


def source(spool: Spool, cursor: Cursor, *, waits: int = 1, max_wait: float = 1e9) -> SpoolSource:
    """A source that ends after some waits."""
    clock = Time(waits)
    pace = Pace(BATCH, max_wait, clock.now, clock.wait)
    reference: Any = NoReference()
    return SpoolSource(reference, ENCODING, spool, cursor, pace, remember=1_000)


def answered(request: str, ids: list[int], threshold: float = 0.5) -> LoggedRequest:
    """Rows that are told apart by their value."""
    x = np.array(ids, dtype=np.float64)
    return LoggedRequest(request, {"x": x}, x.astype(np.float32) / 1e4, "s", threshold, 0.0)


def ids_of(batch: Batch) -> list[int]:
    """Which rows a batch has."""
    return [int(one) for one in batch.rows.x[:, 0]]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("rows"), st.integers(1, 9), st.sampled_from([0.5, 0.3])),
        st.tuples(st.just("label"), st.integers(0, 60), st.integers(0, 1)),
        st.tuples(st.just("read"), st.integers(1, 4), st.just(0)),
        st.tuples(st.just("restart"), st.just(0), st.just(0)),
    ),
    max_size=30,
)


class Walk:
    """A spool that is filled and read in steps, with restarts, and what was seen of it."""

    def __init__(self, folder: Path) -> None:
        self.spool = Spool(folder / "spool.db")
        self.where: dict[int, tuple[str, int]] = {}  # row: its request and place
        self.labelled: dict[int, int] = {}
        self.rows: list[int] = []
        self.labels: list[tuple[int, int]] = []
        self.cursor, self.index = Cursor(), 1
        self.restart()

    def step(self, kind: str, count: int, value: float) -> None:
        """Do one of the steps."""
        if kind == "rows":
            self.answer(count, value)
        elif kind == "label" and count in self.where:
            request, place = self.where[count]
            self.spool.label([Feedback(int(value), request=request, place=place)])
            self.labelled.setdefault(count, int(value))
        elif kind == "read":
            for _ in range(count):
                if self.stream.backlog() >= BATCH:
                    self.take(next(self.batches))
        elif kind == "restart":
            self.restart()

    def answer(self, count: int, threshold: float) -> None:
        """A request comes."""
        ids = list(range(len(self.where), len(self.where) + count))
        self.where |= {one: (f"r{ids[0]}", place) for place, one in enumerate(ids)}
        self.spool.append([answered(f"r{ids[0]}", ids, threshold)])

    def restart(self, waits: int = 10_000) -> None:
        """Another process goes on from what was recorded."""
        self.stream = source(self.spool, self.cursor, waits=waits)
        self.seen = {one.index: ids_of(one) for one in self.stream.history()}
        assert sorted(itertools.chain(*self.seen.values())) == sorted(self.rows)
        self.batches = self.stream.batches(self.index)

    def take(self, batch: Batch) -> None:
        """Record a batch."""
        ids, y = ids_of(batch), batch.rows.y.tolist()
        self.seen[batch.index] = ids
        self.rows += ids
        self.labels += [pair for pair in zip(ids, y, strict=True) if pair[1] >= 0]
        if batch.late is not None:
            late = zip(batch.late.batch, batch.late.place, batch.late.y, strict=True)
            self.labels += [(self.seen[int(b)][int(place)], int(y)) for b, place, y in late]
        assert batch.answers is not None
        expected = np.array(ids, np.float32) / np.float32(1e4)
        np.testing.assert_allclose(batch.answers.probabilities, expected, rtol=1e-6)
        self.index, self.cursor = self.index + 1, self.stream.cursor

    def finish(self) -> None:
        """Stop, with all that is there read."""
        self.restart(waits=1)
        for batch in self.batches:
            self.take(batch)


@given(STEPS, st.sampled_from([2, module.BEHIND]))
def test_each_row_is_in_one_batch_and_each_label_counts_once_over_restarts(
    steps: list[tuple[str, int, float]], behind: int
) -> None:
    few = patch.multiple(module, BEHIND=behind, CAUGHT_UP=1)
    with tempfile.TemporaryDirectory() as folder, few:
        walk = Walk(Path(folder))
        for step in steps:
            walk.step(*step)
        walk.finish()
        walk.answer(1, 0.5)  # labels that came after the last row wait for another batch
        walk.finish()
        assert sorted(walk.rows) == sorted(walk.where)
        assert sorted(walk.labels) == sorted(walk.labelled.items())


def test_a_batch_has_rows_that_one_threshold_decided(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.db")
    spool.append([answered("a", [0, 1]), answered("b", [2, 3, 4], 0.3)])
    batches = [
        (ids_of(one), one.answers.threshold) for one in source(spool, Cursor()).batches()
        if one.answers
    ]  # fmt: skip
    assert batches == [([0, 1], 0.5), ([2, 3, 4], 0.3)]


def test_while_many_rows_wait_batches_are_wider_and_none_waits_to_be_full(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.db")
    rows = BATCH * module.BEHIND + 30
    spool.append([answered(f"r{one}", [one]) for one in range(rows)])
    stream = source(spool, Cursor(), waits=1_000)
    batches = stream.batches()
    assert [len(next(batches).rows) for _ in range(6)] == [BATCH * module.WIDE] * 5 + [30]
    assert stream.behind() == ""
    spool.append([answered("s", list(range(rows, rows + 2 * BATCH)))])
    assert len(next(batches).rows) == BATCH


def test_no_more_is_read_at_once_than_memory_has_room_for(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.db")
    spool.append([answered(f"r{one}", [5 * one + i for i in range(5)]) for one in range(4)])
    for most, requests in ((1, 1), (5, 1), (6, 2), (10, 2), (1_000, 3)):
        assert len(spool.rows_after(0, 3, most)) == requests


def test_rows_that_fill_no_batch_are_one_when_they_waited_long_enough(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.db")
    spool.append([answered("a", [0, 1])])
    stream = source(spool, Cursor(), waits=1_000, max_wait=0.2)
    waited = []
    stream.attend(tmp_path, lambda: bool(waited.append(1)))
    batch = next(stream.batches())
    assert (ids_of(batch), len(waited)) == ([0, 1], 4)


def test_a_request_larger_than_a_batch_is_cut_and_goes_on_where_it_was(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.db")
    spool.append([answered("a", list(range(10)))])
    stream = source(spool, Cursor())
    assert ids_of(next(stream.batches())) == [0, 1, 2, 3]
    assert (stream.cursor.answered, stream.cursor.place, stream.cursor.labels) == (0, 4, 0)
    again = source(spool, stream.cursor)
    assert [ids_of(one) for one in again.batches(2)] == [[4, 5, 6, 7], [8, 9]]


def test_labels_of_rows_that_are_forgotten_are_counted(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.db")
    spool.append([answered(f"r{one}", [4 * one + i for i in range(4)]) for one in range(4)])
    clock = Time(1)
    reference: Any = NoReference()
    pace = Pace(BATCH, 1e9, clock.now, clock.wait)
    stream = SpoolSource(reference, ENCODING, spool, Cursor(), pace, remember=8)
    batches = stream.batches()
    for _ in range(3):
        next(batches)
    spool.label([Feedback(1, request="r0"), Feedback(1, request="r2")])
    late = next(batches).late
    assert late is not None
    assert (late.batch.tolist(), stream.notes()) == ([3], {"labels of forgotten rows": 1})


def test_what_no_network_can_take_counts_as_missing_and_the_answer_stays(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.db")
    values = np.array([1.0, np.inf, -np.inf, 1e39, 3e38])
    spool.append([LoggedRequest("a", {"x": values}, np.full(5, 0.25, np.float32), "s", 0.5, 0.0)])
    stream = source(spool, Cursor())
    batches = list(stream.batches())
    seen = np.concatenate([one.rows.columns["x"] for one in batches])
    np.testing.assert_array_equal(seen, [1.0, np.nan, np.nan, np.nan, 3e38])
    assert np.isfinite(np.concatenate([one.rows.x for one in batches])).all()
    assert stream.notes()[module.ENDLESS] == 3
    assert all(one.answers is not None for one in batches)


def test_rows_of_another_model_and_rows_that_cannot_be_read_are_left_out_and_counted(
    tmp_path: Path,
) -> None:
    spool = Spool(tmp_path / "spool.db")
    p = np.full(1, 0.5, np.float32)
    spool.append(
        [
            answered("a", [1]),
            LoggedRequest("columns", {"y": np.zeros(1)}, p, "s", 0.5, 0.0),
            LoggedRequest(
                "classes", {"x": np.zeros(1)}, np.full((1, 3), 1 / 3, "f4"), "s", 0.5, 0.0
            ),
            answered("torn", [2]),
        ]
    )
    spool._file._database.execute("UPDATE answered SET columns = x'00' WHERE request = 'torn'")
    spool._file._database.commit()
    stream = source(spool, Cursor())
    assert [ids_of(one) for one in stream.batches()] == [[1]]
    assert stream.notes()[module.OF_OTHERS] == 3
    again = source(spool, stream.cursor)
    assert list(again.batches()) == []
    assert again.backlog() == 0  # they do not wait for ever
    assert [ids_of(one) for one in again.history()] == [[1]]


def test_the_stream_ends_where_another_spool_takes_the_place(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.db")
    spool.append([answered("a", list(range(BATCH)))])
    stream = source(spool, Cursor(), waits=1_000)
    batches = stream.batches()
    assert len(next(batches).rows) == BATCH
    (tmp_path / "spool.db").unlink()
    spool.append([answered("b", list(range(BATCH)))])
    assert list(batches) == []
