"""Connections: taken one at a time, so many from an address, given up when others need them."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable
from math import inf
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from selfheal_cli.serve.http.middleware import OVER
from selfheal_cli.serve.settings import Limits

HEADER_BYTES = 64 * 1024
BACKLOG = 2048  # connections that the system keeps until they are taken
FILES_KEPT = 64  # of those that a process may open: databases, logs, weights
AGAIN_SECONDS = 0.05  # until a connection is taken again where no file could be opened
CLOSE = (b"connection", b"close")
FIRST_FD = 3  # of those that systemd hands over


class ConnectionRoom:
    """Who is connected. Used by the event loop alone.

    A connection too many costs the address with the most of them its longest idle one; one that
    finds none idle is told to go away, but for what a balancer asks. ``last``: each answer ends
    its connection.
    """

    def __init__(self, limits: Limits, most: int | None = None) -> None:
        self.last = False
        self._each = limits.connections
        self._most = files() - FILES_KEPT if most is None else most
        self._of: dict[str, set[PatientConnection]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._of.values()))

    def enter(self, connection: PatientConnection) -> bool:
        """Whether there is room, if need be that of an idle one."""
        own = self._of.setdefault(connection.address, set())
        fits = len(own) < self._each or _drop_idle(own)
        if fits and len(self) >= self._most:
            fits = _drop_idle(max(self._of.values(), key=len))
        own.add(connection)
        return fits

    def leave(self, connection: PatientConnection) -> None:
        """It has ended."""
        own = self._of.get(connection.address, set())
        own.discard(connection)
        if not own:
            self._of.pop(connection.address, None)


def _drop_idle(connections: set[PatientConnection]) -> bool:
    """End the one that has waited longest for its caller; False where none waits."""
    idle = min(connections, key=lambda one: one.idle_until, default=None)
    if idle is None or idle.idle_until == inf:
        return False
    idle.transport.close()
    connections.discard(idle)
    return True


def files() -> int:
    """How many files this process may open; as many as the system lets it."""
    if sys.platform == "win32":
        return 8_192
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return 1 << 20 if hard == resource.RLIM_INFINITY else hard


class PatientConnection(HttpToolsProtocol):
    """uvicorn's, which gives headers any time: here they are there after ``header_seconds``.

    The gate minds the body.
    """

    header_seconds = 30.0
    room: ConnectionRoom

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.address = ""
        self._timer: asyncio.TimerHandle | None = None
        self._taken = 0
        self._over = False

    @property
    def idle_until(self) -> float:
        """When it will be closed if its caller says nothing; infinite while it is answered."""
        waiting = self.timeout_keep_alive_task or self._timer
        busy = self.cycle is not None and not self.cycle.response_complete
        return inf if busy or waiting is None else waiting.when()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio."""
        super().connection_made(transport)
        self.address = self.client[0] if self.client else ""
        self._over = not self.room.enter(self)
        self._await_headers()

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        if self._timer is not None:
            self._taken += len(data)
        super().data_received(data)
        if self._timer is not None and self._taken > HEADER_BYTES:
            self.transport.close()

    def on_message_begin(self) -> None:
        """See httptools."""
        super().on_message_begin()
        if self._timer is None:
            self._await_headers()

    def on_header(self, name: bytes, value: bytes) -> None:
        """See httptools, which has those behind a body as well: a proxy looked at none of them."""
        if self._timer is not None:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """See httptools."""
        self._no_timer()
        ends = self._over or self.room.last
        if ends:
            self.headers.append(CLOSE)  # as if the caller had asked for it
        if self._over:
            self.scope[OVER] = True  # type: ignore[literal-required]
        super().on_headers_complete()
        if ends and self.cycle is not None:
            self.cycle.keep_alive = False

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._no_timer()
        self.room.leave(self)
        super().connection_lost(exc)

    def _await_headers(self) -> None:
        self._taken = 0
        self._timer = self.loop.call_later(self.header_seconds, self.transport.close)

    def _no_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def patient(limits: Limits) -> type[PatientConnection]:
    """The class of a server's connections, which share a room."""
    return type(
        "Connection",
        (PatientConnection,),
        {"header_seconds": limits.seconds, "room": ConnectionRoom(limits)},
    )


class Acceptor:
    """Takes connections from a listening socket, one each time that the loop comes by: processes
    that share the socket share what comes, and one that is busy takes less.
    """

    def __init__(self, listening: socket.socket, protocol: Callable[[], asyncio.Protocol]) -> None:
        self._listening = listening
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._arriving: set[asyncio.Task[Any]] = set()

    def start(self) -> None:
        """Listen."""
        self._listening.setblocking(False)
        self._listening.listen(BACKLOG)
        self._look()

    def stop(self) -> None:
        """Take what waits, and no more: others may have the socket open, too, or nobody."""
        self._loop.remove_reader(self._listening.fileno())
        while self._take():
            pass
        self._listening.close()

    def _look(self) -> None:
        if self._listening.fileno() >= 0:
            self._loop.add_reader(self._listening.fileno(), self._take)

    def _take(self) -> bool:
        try:
            caller, _ = self._listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False  # another process took it, or it went away
        except OSError:  # no file is left: connections end, and the next one waits for that
            self._loop.remove_reader(self._listening.fileno())
            self._loop.call_later(AGAIN_SECONDS, self._look)
            return False
        caller.setblocking(False)
        arriving = self._loop.create_task(self._arrive(caller))
        self._arriving.add(arriving)
        arriving.add_done_callback(self._arriving.discard)
        return True

    async def _arrive(self, caller: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, caller)
        except OSError:  # it went away
            caller.close()


def taken_over() -> socket.socket | None:
    """The listening socket that systemd, or who does as it does, has handed over."""
    count = os.environ.get("LISTEN_FDS", "")
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or not count.isdecimal() or count == "0":
        return None
    for name in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    return socket.socket(fileno=FIRST_FD)
