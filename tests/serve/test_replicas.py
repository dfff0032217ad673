"""Servers that share a log: each of them knows of all, and any takes any label."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from threading import Event
from unittest.mock import Mock, patch

import pytest

from selfheal_cli.api.known import KnownVersions
from selfheal_cli.errors import StorageError
from selfheal_cli.serve.http.model import ModelReloader
from selfheal_cli.serve.operator.status import ReplicaWord, ServerInfo, look
from selfheal_cli.serve.operator.verdict import status
from selfheal_cli.serve.replicas import Replicas
from selfheal_cli.spool.control import ControlChannel, Published
from tests.conftest import PATIENCE, Invoke
from tests.serve.conftest import Running, serving, until
from tests.spool.conftest import Place, in_postgres, log_database, log_uri, model

__all__ = ["in_postgres", "log_database", "log_uri", "model"]  # fixtures


def publish(bulletin: ControlChannel, snapshot: str) -> None:
    """Have it served."""
    bulletin.publish(Published(snapshot, 0.5, "base", "0" * 64, b"", "a test"))


@pytest.fixture
def pair(short_run: Path, tmp_path: Path, log_uri: str) -> Iterator[tuple[Running, Running]]:
    """Two servers, as on machines of their own, of one registry and one log."""
    one, other = tmp_path / "one", tmp_path / "other"
    with (
        serving(short_run, one, log=log_uri) as first,
        serving(short_run, other, log=log_uri) as second,
    ):
        yield first, second


def test_a_label_is_told_at_another_machine_than_its_row_and_either_tells_of_both(
    pair: tuple[Running, Running], invoke: Invoke
) -> None:
    one, other = pair
    headers = {"X-Request-Id": "r1"}
    told = {"labels": [{"request_id": "r1", "labels": ["fraud", "normal", None]}]}
    answer = one.post("/invocations", json={"dataframe_split": one.rows()}, headers=headers)
    assert answer.status_code == 200
    one.front.recorder.flush()
    assert other.post("/feedback", json=told).json()["joined"] == 2
    assert one.post("/feedback", json=told).json()["repeated"] == 2
    assert other.front.spool.labels_beyond(0, 9) == 2
    published = one.front.channel.published()
    assert published is not None
    one.front.channel.publish(published)
    seen = one.front.channel.current()[0]
    until(lambda: other.front.following._taken == seen)
    until(lambda: other.get("/status").json()["replicas"])
    shown = invoke("status", other.url).output
    assert "Replicas on this log" in shown


def test_who_holds_rows_back_is_an_operators_to_know(
    in_postgres: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel, spool = in_postgres.channel(), in_postgres.spool()
    held = "pid 7 of database 'shop' has a write open (312 s)"
    monkeypatch.setattr(spool, "held_back", lambda seconds: held)
    info = ServerInfo(model="fraud", version=3)
    Replicas(channel, spool, lambda: info).look()
    document = status(look(channel, lambda: info))
    assert f"The healer does not see the latest rows: {held}." in document.told.warnings
    assert [one.version for one in document.replicas] == [3]


def test_a_bulletin_that_was_away_is_no_problem_once_it_is_back(tmp_path: Path) -> None:
    bulletin = ControlChannel(tmp_path / "spool.db")
    reloader = ModelReloader(Mock(canary=None), bulletin, Mock(), Mock(), 0)
    with patch.object(bulletin, "current", side_effect=StorageError("away")):
        assert not reloader.look()
    assert reloader.problem == "away"
    assert reloader.look()
    assert reloader.problem == ""


def test_who_looked_first_and_took_longer_does_not_serve_what_is_older(tmp_path: Path) -> None:
    bulletin, first_takes, go_on = ControlChannel(tmp_path / "spool.db"), Event(), Event()
    served = list[str]()

    def take(wanted: Published, registry: object) -> None:
        if wanted.snapshot == "old":
            first_takes.set()
            assert go_on.wait(PATIENCE)
        served.append(wanted.snapshot)

    scorer = Mock(canary=None, take=take)
    reloader = ModelReloader(scorer, bulletin, Mock(), Mock(), 0)
    with ThreadPoolExecutor(2) as threads:
        publish(bulletin, "old")
        first = threads.submit(reloader.look)
        assert first_takes.wait(PATIENCE)
        publish(bulletin, "new")
        second = threads.submit(reloader.look)
        wait([second], timeout=0.2)  # as long as it would take, were it not to wait
        go_on.set()
        assert first.result(PATIENCE) and second.result(PATIENCE)
    assert served == ["old", "new"]


def test_who_asked_the_registry_first_and_heard_later_does_not_know_what_is_older() -> None:
    first_asks, go_on, champions = Event(), Event(), iter((1, 2, 3))

    def alias(name: str, which: str) -> int:
        if (champion := next(champions)) == 2:
            first_asks.set()
            assert go_on.wait(PATIENCE)
        return champion

    known = KnownVersions(Mock(alias=alias, numbers=Mock(return_value=())), "fraud")
    with ThreadPoolExecutor(2) as threads:
        threads.submit(known.look)
        assert first_asks.wait(PATIENCE)
        second = threads.submit(known.look)
        wait([second], timeout=0.2)
        go_on.set()
    assert known.champion == 3


def test_what_a_later_release_says_of_itself_is_read(in_postgres: Place) -> None:
    channel: ControlChannel = in_postgres.channel()
    channel.set_status("replica:new", {"name": "new", "at": 1.0, "colour": "green"})
    seen = look(channel, lambda: ServerInfo(model="fraud"))
    assert seen.replicas == (ReplicaWord(name="new", at=1.0),)
