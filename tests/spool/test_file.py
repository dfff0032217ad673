"""The spool's file: who may read it, and what becomes of one that is corrupt or replaced."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import numpy as np
import pytest

from selfheal_cli.errors import StorageError
from selfheal_cli.spool.control import ControlChannel
from selfheal_cli.spool.entries import Cursor, Feedback, LoggedRequest, mark_of
from selfheal_cli.spool.store import Spool


def answered(request: str, value: float = 1.0, at: float = 1.0) -> LoggedRequest:
    x = np.array([value])
    return LoggedRequest(request, {"x": x}, x.astype(np.float32), "s", 0.5, at)


def requests(spool: Spool) -> list[str]:
    return [one.request for one in spool.rows_after(0, 99)]


def test_only_its_owner_can_read_what_callers_sent(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    spool = Spool(path)
    spool.append([answered("a")])
    for name in ("spool.db", "spool.db-wal", "spool.db-shm"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_a_spool_has_one_identity_for_all_who_open_it_and_no_other_has_it(tmp_path: Path) -> None:
    first, again = Spool(tmp_path / "a.db"), Spool(tmp_path / "a.db")
    assert first.identity() == again.identity() == ControlChannel(tmp_path / "a.db").identity()
    assert Spool(tmp_path / "b.db").identity() != first.identity()


@pytest.mark.parametrize("damage", ["no database", "cut short", "pages overwritten"])
def test_a_corrupt_spool_is_set_aside_whole_and_said_and_a_new_one_begun(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    path = tmp_path / "spool.db"
    before = Spool(path)
    before.append([answered(f"r{one}") for one in range(400)])
    identity = before.identity()
    before.close()
    data = path.read_bytes()
    broken = {
        "no database": b"no database at all" * 100,
        "cut short": data[: len(data) // 3],
        "pages overwritten": data[:100] + b"?" * (len(data) - 100),
    }[damage]
    path.write_bytes(broken)
    spool = Spool(path)
    spool.append([answered("new")])
    assert requests(spool) == ["new"]
    assert spool.identity() != identity
    (aside,) = tmp_path.glob("spool.db.corrupt-*")
    assert aside.read_bytes() == broken
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "corrupt" in told and aside.name in told


def test_a_spool_that_turns_out_corrupt_in_use_is_set_aside_and_the_next_write_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "spool.db"
    before = Spool(path)
    before.append([answered(f"r{one}") for one in range(2_000)])
    before.close()
    data = bytearray(path.read_bytes())
    half = len(data) // 2
    data[half:] = b"?" * (len(data) - half)
    path.write_bytes(data)
    spool, other = Spool(path), Spool(path)
    with pytest.raises(StorageError, match="set aside"):
        spool.rows_after(0, 9_999)
    spool.append([answered("new")])
    assert requests(other) == requests(spool) == ["new"]
    assert len(list(tmp_path.glob("*.corrupt-*[0-9]"))) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("left", [(), ("-wal", "-shm")])
def test_who_has_a_spool_open_that_is_taken_away_goes_on_with_the_new_one(
    tmp_path: Path, left: tuple[str, ...]
) -> None:
    path = tmp_path / "spool.db"
    server, healer = Spool(path), Spool(path)
    server.append([answered("old")])
    identity = server.identity()
    for end in {"", "-wal", "-shm"} - set(left):
        path.with_name(f"spool.db{end}").unlink()
    server.append([answered("new")])
    assert requests(healer) == requests(server) == ["new"]
    assert healer.identity() == server.identity() != identity


def test_who_has_a_spool_open_that_is_replaced_goes_on_with_the_one_put_there(
    tmp_path: Path,
) -> None:
    path, kept = tmp_path / "spool.db", tmp_path / "yesterday.db"
    server, healer = Spool(path), Spool(path)
    server.append([answered("early")])
    server._file._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(path, kept)
    server.append([answered("late")])
    assert requests(healer) == ["early", "late"]
    kept.replace(path)
    server.append([answered("new")])
    assert requests(server) == requests(healer) == ["early", "new"]


def test_a_cursor_holds_for_the_spool_that_was_read_and_for_no_other(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.db")
    spool.append([answered("a", at=1.0), answered("b", at=2.0)])
    spool.label([Feedback(1, request="a")])
    own = Cursor(2, 0, 1, spool.identity(), mark_of("b", 2.0))
    assert spool.holds(own)
    assert spool.holds(Cursor(2, 0, 1))  # as 0.1.0 wrote it
    assert spool.holds(Cursor(1, 1, 0, 0, mark_of("b", 2.0)))  # read in part
    assert not spool.holds(Cursor(3))
    assert not spool.holds(Cursor(2, 0, 2))
    assert not spool.holds(Cursor(2, 0, 1, own.spool + 1, own.mark))
    assert not spool.holds(Cursor(2, 0, 1, own.spool, mark_of("b", 3.0)))
    spool.append([answered("c")])
    spool.forget(keep_rows=1)
    assert spool.holds(own)  # its row was forgotten, which is no other spool
