"""Connections: so many from an address, idle ones give way, and a balancer is always answered."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path

import pytest

from selfheal_cli.serve.http.connections import taken_over
from tests.conftest import PATIENCE
from tests.forked import in_fork
from tests.serve.conftest import Limits, Running, serving

SLOW = (
    b"POST /invocations HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 9\r\n"
    b"expect: 100-continue\r\n\r\n"
)


@pytest.fixture
def few(short_run: Path, tmp_path: Path) -> Iterator[Running]:
    """Three connections an address; each test has its own, which no earlier caller is leaving."""
    limits = Limits(connections=3, seconds=PATIENCE)
    with serving(short_run, tmp_path, limits=limits) as running:
        yield running


def connected(running: Running, stack: ExitStack) -> HTTPConnection:
    caller = HTTPConnection(running.url.removeprefix("http://"), timeout=PATIENCE)
    stack.callback(caller.close)
    caller.connect()
    return caller


def asked(caller: HTTPConnection, path: str) -> tuple[int, str, str]:
    """Status, Connection and body."""
    caller.request("GET", path)
    answer = caller.getresponse()
    return answer.status, answer.headers.get("connection", ""), answer.read().decode()


def test_an_idle_connection_gives_way_to_a_new_one(few: Running) -> None:
    with ExitStack() as stack:
        callers = [connected(few, stack) for _ in range(3)]
        for caller in callers:
            assert asked(caller, "/ping")[0] == 200
        assert asked(connected(few, stack), "/version")[0] == 200
        assert callers[0].sock.recv(1) == b""  # the one that was idle longest
        assert asked(callers[1], "/ping")[0] == 200


def test_where_all_are_in_use_one_more_is_refused_but_for_a_balancer(few: Running) -> None:
    with ExitStack() as stack:
        for _ in range(3):
            caller = connected(few, stack)
            caller.sock.sendall(SLOW)
            assert caller.sock.recv(99).startswith(b"HTTP/1.1 100")  # its body is awaited
        status, connection, body = asked(connected(few, stack), "/metrics")
        assert (status, connection) == (429, "close")
        assert "connections from one address" in body
        assert asked(connected(few, stack), "/ping")[0] == 200


def test_a_socket_that_systemd_hands_over_is_taken() -> None:
    def begun() -> None:  # by systemd: the socket is the third file, and the environment says so
        os.dup2(listening.fileno(), 3)
        os.environ |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
        with taken_over() as handed:
            assert handed is not None and handed.getsockname() == address
        assert "LISTEN_FDS" not in os.environ

    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = listening.getsockname()
        assert in_fork(begun) == 0
