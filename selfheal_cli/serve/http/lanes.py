"""Threads for what would keep the event loop waiting, and how much may wait for them."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from selfheal_cli.errors import RequestRefused

T = TypeVar("T")
WAITING_BYTES = 64_000_000  # of bodies that are worked on or wait, beside the first


class Lane:
    """A few threads of its own: what is slow in one lane keeps no other lane waiting.

    A request whose caller has given up counts until its thread is done.
    """

    def __init__(self, name: str, threads: int, most_bytes: int = WAITING_BYTES) -> None:
        self._most = most_bytes
        self._bytes = 0
        self._lock = threading.Lock()
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)

    async def run(self, size: int, work: Callable[[], T]) -> T:
        """Have a request of ``size`` bytes worked on; raises `RequestRefused` where there is too
        much to do already.
        """
        with self._lock:
            if self._bytes and self._bytes + size > self._most:
                raise RequestRefused(
                    "too many large requests at once; come back later",
                    status=503, code="TEMPORARILY_UNAVAILABLE", reason="busy",
                )  # fmt: skip
            self._bytes += size
        future = self._executor.submit(contextvars.copy_context().run, work)
        future.add_done_callback(partial(self._done, size))
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Begin nothing more."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _done(self, size: int, _: Future[object]) -> None:
        with self._lock:
            self._bytes -= size


class Lanes:
    """One for labels, one for small requests, one for large ones."""

    def __init__(self) -> None:
        self.labels = Lane("labels", 2)
        self.small = Lane("small", 4)
        self.large = Lane("large", 2)

    def close(self) -> None:
        """Begin nothing more."""
        for lane in (self.labels, self.small, self.large):
            lane.close()
