"""Where a healer begins to read: where it was left, if it is the same spool and the same logs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from selfheal_cli.events.log import EventLog, recover
from selfheal_cli.events.types import BatchScored, LabelsArrived, RowsTaken, RunStarted
from selfheal_cli.pipeline.runs.recovery import MOST_TRIES, where_to_begin
from selfheal_cli.spool.entries import Cursor, LoggedRequest, mark_of
from selfheal_cli.spool.store import Spool
from tests.events.examples import example
from tests.pipeline.test_served import Server, events_of

OLD = ("answered", "place", "labels")  # the keys of a cursor in 0.1.0


class Folder:
    """A workspace with a spool, and event logs of runs that read it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spool = Spool(path / "spool.db")
        self._now = datetime(2026, 1, 1, tzinfo=UTC)

    def answer(self, *requests: str) -> None:
        for one in requests:
            x = np.zeros(1)
            self.spool.append([LoggedRequest(one, {"x": x}, x.astype(np.float32), "s", 0.5, 1.0)])

    def at(self, number: int) -> Cursor:
        """A cursor behind a request that is there."""
        (one,) = self.spool.rows_after(number - 1, 1)
        return Cursor(number, 0, 0, self.spool.identity(), mark_of(one.request, one.at))

    def run(
        self, name: str, through: Sequence[Cursor], begun: Cursor | None = None, *,
        keys: Sequence[str] = tuple(Cursor.__dataclass_fields__),
    ) -> Path:  # fmt: skip
        """A run that went through some batches, and began one."""
        log = EventLog(self.path / "runs" / name / "events.jsonl", self._tick)
        config = {"source": {"kind": "served"}}
        log.append(example(RunStarted, run_id=name, config=config))
        for batch, cursor in enumerate([*through, *([begun] if begun else [])], start=1):
            offsets = {key: cursor.as_dict()[key] for key in keys}
            log.append(RowsTaken(batch=batch, rows=1, offsets=offsets))
            if batch <= len(through):
                log.append(example(BatchScored, batch=batch, rows=1))
        log.close()
        return log.path

    def begin(
        self, run: str = "", batch: int = 0, champion: tuple[str, int] = ("", 0)
    ) -> tuple[int, str]:
        beginning = where_to_begin("fraud", self.path, self.spool, run, batch, champion)
        assert beginning.cursor.spool in (0, self.spool.identity())
        return beginning.cursor.answered, beginning.notice

    def _tick(self) -> datetime:
        self._now += timedelta(seconds=1)
        return self._now


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_a_spool_that_nobody_read_is_read_from_its_beginning_without_a_word(folder: Folder) -> None:
    folder.answer("a", "b")
    assert folder.begin() == (0, "")


def test_reading_goes_on_after_the_last_batch_that_was_gone_through(folder: Folder) -> None:
    folder.answer("a", "b", "c")
    folder.run("one", [folder.at(1)])
    folder.run("two", [folder.at(2)], begun=folder.at(3))
    assert folder.begin("two", 1) == (2, "")


def test_the_batch_that_the_champion_learned_from_is_not_gone_through_again(
    folder: Folder,
) -> None:
    folder.answer("a", "b", "c")
    folder.run("one", [folder.at(1)], begun=folder.at(2))  # killed between heal and batch's end
    assert folder.begin(champion=("one", 1)) == (1, "")
    assert folder.begin(champion=("one", 2)) == (2, "")


def test_what_a_machine_went_through_is_not_read_again_by_one_that_began_before_it(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Spool, "shared", True)
    folder.answer("a", "b", "c")
    folder.run("one", [folder.at(1)])
    folder.spool.commit("elsewhere", 1, folder.at(2), lease=2)
    folder.spool.settle("elsewhere", 1, lease=2)
    assert folder.begin() == (2, "")
    folder.spool.commit("two", 0, folder.at(2), lease=3)
    folder.run("two", [])  # killed before its first batch
    assert folder.begin() == (2, "")
    folder.run("three", [folder.at(3)])
    assert folder.begin() == (3, "")


def test_a_spool_that_0_1_0_was_reading_is_read_on(folder: Folder) -> None:
    folder.answer("a", "b", "c")
    folder.run("one", [folder.at(1), folder.at(2)], keys=OLD)
    assert folder.begin() == (2, "")


@pytest.mark.parametrize("keys", [OLD, (*OLD, "spool", "mark")])
def test_a_spool_that_was_lost_is_read_from_its_beginning_and_that_is_said(
    folder: Folder, keys: Sequence[str]
) -> None:
    folder.answer("a", "b", "c")
    folder.run("one", [folder.at(1), folder.at(3)], keys=keys)
    (folder.path / "spool.db").unlink()
    folder.answer("d", "e")
    answered, notice = folder.begin()
    assert answered == 0
    assert "not the one that was read up to request 3" in notice
    folder.run("two", [folder.at(1)])
    assert folder.begin() == (1, "")  # it is said once


def test_an_older_copy_is_read_on_from_where_that_one_was_read_to(folder: Folder) -> None:
    folder.answer("a", "b")
    copy = folder.path / "yesterday.db"
    folder.spool._file._database.execute("VACUUM INTO ?", (str(copy),))
    before = folder.at(2)
    folder.answer("c", "d")
    folder.run("one", [folder.at(1), before, folder.at(4)])
    copy.replace(folder.path / "spool.db")
    assert folder.begin()[0] == 2
    folder.answer("e", "f", "g")  # more than there were: the numbers say nothing
    answered, notice = folder.begin()
    assert answered == 2
    assert "an older copy of the one that was read up to request 4" in notice
    folder.run("two", [folder.at(3)])
    assert folder.begin() == (3, "")


def test_a_log_that_is_gone_or_older_than_what_its_run_said_is_told(folder: Folder) -> None:
    folder.answer("a", "b", "c")
    assert (
        "the event log of run one, which read the spool up to batch 7, is not here"
        in (folder.begin("one", 7)[1])
    )
    folder.run("one", [folder.at(1)])
    answered, notice = folder.begin("one", 7)
    assert answered == 1
    assert "ends at batch 1: rows are read again from request 1 on" in notice


def test_a_batch_in_which_processes_end_again_and_again_is_left_out(folder: Folder) -> None:
    folder.answer(*"abcdef")
    folder.run("run", [folder.at(1)])
    for number in range(MOST_TRIES):
        assert folder.begin() == (1, "")
        folder.run(f"run{number}", [], begun=folder.at(4 - number % 2))
    answered, notice = folder.begin()
    assert answered == 3  # the least that all of them have in common
    assert f"{MOST_TRIES} processes ended in the batch after request 1" in notice
    recover(folder.run("last", [folder.at(5)]))
    assert folder.begin() == (5, "")


def test_healing_goes_on_with_the_spool_that_takes_the_place_of_a_lost_one(
    server: Server,
) -> None:
    server.answer(2)
    server.label(list(server.truth))
    server.serve()
    server.spool._file.path.unlink()
    before = set(server.truth)
    server.answer(1)
    server.label([one for one in server.truth if one not in before])
    assert "was lost, replaced or set aside" in server.beginning().notice
    done = server.serve()
    assert sum(one.rows for one in events_of(done, BatchScored)) == 100
    assert sum(one.rows for one in events_of(done, LabelsArrived)) == 100
    assert server.beginning().notice == ""
