"""Who looks again and again, from a thread of its own, so that nobody else waits for it."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from contextlib import suppress

from selfheal_cli.errors import SelfhealError


class Lookout(ABC):
    """Looks every so many ``seconds`` from `start` to `stop`, the first time ``at_once``.

    `look` may be called instead, by whoever wants to say when.
    """

    seconds = 1.0
    at_once = True

    def __init__(self, name: str) -> None:
        self._looking = threading.Lock()  # for who looks from several threads
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    @abstractmethod
    def look(self) -> object:
        """Look once; raises `SelfhealError` where that cannot be done now."""

    def _pause(self) -> None:
        self._stop.wait(self.seconds)

    def _run(self) -> None:
        if not self.at_once:
            self._pause()
        while not self._stop.is_set():
            with suppress(SelfhealError):  # who writes says what is away
                self.look()
            self._pause()
