"""Lines of a pipe: halves joined, long ones cut, a quiet one not waited for."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal_cli.sources.feed import StdinFeed
from selfheal_cli.sources.ndjson import LONGEST_LINE

TEXT = st.binary(max_size=12).map(lambda text: text.replace(b"\n", b"."))


@pytest.fixture
def pipe() -> Iterator[tuple[StdinFeed, int]]:
    """A feed and what writes to it."""
    reads, writes = os.pipe()
    with open(reads, "rb", buffering=0) as stream:  # noqa: PTH123 (a descriptor)
        yield StdinFeed(stream), writes
    os.close(writes)


def texts(feed: StdinFeed) -> list[bytes]:
    return [line.text for line in feed.read(0.0) or ()]


def test_a_quiet_pipe_gives_nothing_and_is_not_waited_for(pipe: tuple[StdinFeed, int]) -> None:
    assert pipe[0].read(0.0) == []


def test_a_line_comes_when_its_end_has_come(pipe: tuple[StdinFeed, int]) -> None:
    feed, writes = pipe
    os.write(writes, b"one\ntw")
    assert texts(feed) == [b"one"]
    os.write(writes, b"o\n\nthree")
    assert texts(feed) == [b"two", b""]
    assert feed.positions() == {"standard input": 3}
    assert feed.place("standard input", 2) == "standard input: line 3"


def test_a_last_line_without_an_end_is_a_line() -> None:
    feed = StdinFeed(io.BytesIO(b"one\ntwo"))
    assert texts(feed) == [b"one"]
    assert texts(feed) == [b"two"]
    assert feed.read(0.0) is None


def test_a_line_without_end_does_not_fill_the_memory() -> None:
    feed = StdinFeed(io.BytesIO(b"x" * (3 * LONGEST_LINE) + b"\nnext\n"))
    came: list[bytes] = []
    while (lines := feed.read(0.0)) is not None:
        came += [line.text for line in lines]
        assert len(feed._half) <= LONGEST_LINE + 2
    assert [len(text) for text in came] == [LONGEST_LINE + 2, 4]


@given(lines=st.lists(TEXT, max_size=8), cuts=st.lists(st.integers(1, 20), max_size=8))
def test_lines_do_not_depend_on_how_they_were_sent(lines: list[bytes], cuts: list[int]) -> None:
    data = b"".join(line + b"\n" for line in lines)

    class Cut(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(cuts.pop() if cuts else size)

    feed, read_lines = StdinFeed(Cut(data)), []
    while (came := feed.read(0.0)) is not None:
        read_lines += came
    assert [line.text for line in read_lines] == lines
    assert [line.offset for line in read_lines] == list(range(len(lines)))
