"""The spool does not grow without end, whoever reads it or nobody."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from selfheal_cli.serve import keeper as module
from selfheal_cli.serve.keeper import Keeper
from selfheal_cli.serve.operator.status import (
    HEALER,
    ModelStatus,
    ServerInfo,
    StatusSnapshot,
    look,
)
from selfheal_cli.serve.operator.verdict import warnings
from selfheal_cli.spool.control import ControlChannel
from selfheal_cli.spool.entries import LoggedRequest
from selfheal_cli.spool.store import Spool

FACTS = ServerInfo(model="fraud")


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool.db")


@pytest.fixture
def channel(tmp_path: Path) -> ControlChannel:
    return ControlChannel(tmp_path / "spool.db")


def fill(spool: Spool, requests: int) -> None:
    x = np.zeros(10)
    last = spool.count(0)[0]
    spool.append(
        [LoggedRequest(f"r{last + one}", {"x": x}, x.astype(np.float32), "s", 0.5, 0.0)
         for one in range(requests)]
    )  # fmt: skip


def say(channel: ControlChannel, state: str, read_to: int = 0) -> None:
    channel.set_status(
        HEALER, ModelStatus.model_validate({"state": state, "read_to": read_to}).as_status()
    )


@pytest.mark.parametrize("state", ["", "WATCHING", "FOLLOWING"])
def test_rows_are_forgotten_and_told_as_waiting_where_nothing_heals(
    spool: Spool, channel: ControlChannel, state: str
) -> None:
    if state:
        say(channel, state, read_to=1)
    fill(spool, 200)
    keeper = Keeper(channel, spool, keep_rows=1_000)
    keeper.look()
    assert (keeper.kept, keeper.unread, keeper.lost) == (1_000, 1_000, 0)
    facts = FACTS.model_copy(update={"kept": keeper.kept, "unread": keeper.unread})
    assert look(channel, lambda: facts).standing.waiting == 1_000


def test_rows_that_a_healer_here_has_still_to_read_are_kept(
    spool: Spool, channel: ControlChannel
) -> None:
    fill(spool, 200)
    say(channel, "HEALTHY", read_to=50)
    keeper = Keeper(channel, spool, keep_rows=1_000)
    keeper.look()
    assert (keeper.kept, keeper.unread, keeper.lost) == (1_510, 1_500, 0)
    say(channel, "HEALTHY", read_to=180)
    keeper.look()
    assert (keeper.kept, keeper.unread, keeper.lost) == (1_000, 200, 0)


def test_a_healer_that_does_not_come_after_loses_the_oldest_and_it_is_said(
    spool: Spool,
    channel: ControlChannel,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(module, "MOST_UNREAD", 1_400)
    fill(spool, 200)
    say(channel, "DRIFTING", read_to=50)
    keeper = Keeper(channel, spool, keep_rows=1_000)
    keeper.look()
    assert (keeper.kept, keeper.unread, keeper.lost) == (1_000, 1_000, 500)
    assert "500 answered rows were forgotten before the healer read them" in capsys.readouterr().err


def test_a_healer_that_has_fallen_silent_keeps_nothing_from_being_forgotten(
    spool: Spool, channel: ControlChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(channel, "HEALTHY")
    fill(spool, 200)
    later = time.time() + 3_600
    monkeypatch.setattr(channel, "now", lambda: later)
    keeper = Keeper(channel, spool, keep_rows=1_000)
    keeper.look()
    assert keeper.kept == 1_000
    behind = look(channel, lambda: FACTS.model_copy(update={"unread": keeper.unread}))
    assert behind.standing.state == "BEHIND"  # and not as healthy as an hour ago
    assert "said nothing for 1 h: it was stopped, or gets too little" in warnings(behind)[0]


def test_the_cursor_of_a_healer_holds_though_its_rows_were_forgotten(
    spool: Spool, channel: ControlChannel
) -> None:
    fill(spool, 3)
    keeper = Keeper(channel, spool, keep_rows=10)
    keeper.look()
    assert [one.request for one in spool.rows_after(0, 9)] == ["r2"]


def test_a_healer_that_does_not_come_to_rows_which_wait_is_behind_and_not_healthy(
    spool: Spool, channel: ControlChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    # the module's alone: the clock of the process drives the servers that tests share
    monkeypatch.setattr(module, "time", SimpleNamespace(time=time.time, monotonic=lambda: now[0]))
    fill(spool, 120)
    keeper = Keeper(channel, spool, keep_rows=10_000, max_wait=5.0)

    def seen(read_to: int, later: float) -> StatusSnapshot:
        now[0] += later
        say(channel, "HEALTHY", read_to=read_to)
        keeper.look()
        facts = FACTS.model_copy(update={"stalled": keeper.stalled, "unread": keeper.unread})
        return look(channel, lambda: facts)

    assert seen(0, 0.0).standing.state == "HEALTHY"
    assert seen(0, 60.0).standing.state == "HEALTHY"
    behind = seen(0, 60.0)
    assert behind.standing.state == "BEHIND"
    assert "1,200 rows wait, and the healer has looked at none for 2 min" in warnings(behind)[0]
    assert seen(10, 1.0).standing.state == "HEALTHY"
    assert seen(120, 600.0).standing.state == "HEALTHY"  # nothing waits


def test_a_healer_that_never_spoke_lacks_the_processor_says_a_server_that_is_up_long() -> None:
    told = []
    for at in (1_010.0, 1_020.0):
        facts = FACTS.model_copy(update={"started": 1_000.0})
        told += warnings(StatusSnapshot(server=facts, at=at))
    assert told == [
        "The healer has not said anything yet; what is scored is kept for it.",
        "The healer has not said anything yet, 20 s after the start: it gets too little of the "
        "processor (--heal-priority), or cannot begin, as the server's terminal says then; what is "
        "scored is kept for it.",
    ]
