"""What the registry has of a model, as a thread of its own saw it last: who asks does not wait."""

from __future__ import annotations

from selfheal_cli.lookout import Lookout
from selfheal_cli.registry.base import CHAMPION, Registry


class KnownVersions(Lookout):
    """The ``champion`` and the number of ``versions``, looked up every second.

    While the registry is away they stay as they were. Raises `RegistryError` when it is made.
    """

    at_once = False

    def __init__(self, registry: Registry, name: str) -> None:
        super().__init__("versions")
        self.champion: int | None = None
        self.versions = 0
        self._registry = registry
        self._name = name
        self.look()

    def look(self) -> None:
        """Ask the registry now; raises `RegistryError`."""
        with self._looking:  # else what was asked for first, and came later, would stand
            self.champion = self._registry.alias(self._name, CHAMPION)
            self.versions = len(self._registry.numbers(self._name))
