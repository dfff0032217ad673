"""What the registry has of a model, as a thread of its own saw it last: who asks does not wait."""

from __future__ import annotations

import threading
from contextlib import suppress

from selfheal_cli.errors import SelfhealError
from selfheal_cli.registry.base import CHAMPION, Registry

LOOK_SECONDS = 1.0


class KnownVersions:
    """The ``champion`` and the number of ``versions``, looked up every second.

    While the registry is away they stay as they were. Raises `RegistryError` when it is made.
    """

    def __init__(self, registry: Registry, name: str) -> None:
        self.champion: int | None = None
        self.versions = 0
        self._registry = registry
        self._name = name
        self._looking = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="versions", daemon=True)
        self.look()

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()
        self._thread.join()

    def look(self) -> None:
        """Ask the registry now; raises `RegistryError`."""
        with self._looking:  # else what was asked for first, and came later, would stand
            self.champion = self._registry.alias(self._name, CHAMPION)
            self.versions = len(self._registry.numbers(self._name))

    def _run(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            with suppress(SelfhealError):  # the healing process says that it is away
                self.look()
