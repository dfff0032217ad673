"""A connection that does not wait for ever, and does not take headers without end."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEADER_BYTES = 64 * 1024


class PatientConnection(HttpToolsProtocol):
    """uvicorn's, which gives headers any time: here they are there after ``header_seconds``.

    `gate` minds the body.
    """

    header_seconds = 30.0

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._timer: asyncio.TimerHandle | None = None
        self._taken = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio."""
        super().connection_made(transport)
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

    def on_headers_complete(self) -> None:
        """See httptools."""
        self._no_timer()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._no_timer()
        super().connection_lost(exc)

    def _await_headers(self) -> None:
        self._taken = 0
        self._timer = self.loop.call_later(self.header_seconds, self.transport.close)

    def _no_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def patient(seconds: float) -> type[PatientConnection]:
    """The class of connections that give headers so many seconds."""
    return type("Connection", (PatientConnection,), {"header_seconds": seconds})
