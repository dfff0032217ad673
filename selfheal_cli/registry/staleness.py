"""Versions that a run registered when its lease was somebody else's already.

The journal tells which they are: whoever takes a lease over writes down which version was the last
one then. They are marked as well, for whoever looks at them in MLflow.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from selfheal_cli.errors import VersionNotFound
from selfheal_cli.records import VersionRecord
from selfheal_cli.registry.base import Registry
from selfheal_cli.registry.journal import JournalState, JournalStore, standing

SETTLED_MS = 60_000  # whoever counted versions to take a lease over has written it down by then


class Sound:
    """Versions that count, and will: a lease that is taken over cuts off what comes later alone.

    So the journal is asked once about each. Versions of the last minute are asked about again,
    since a lease may be being taken over that was counted before them.
    """

    def __init__(self) -> None:
        self._known: set[tuple[str, int, str, int]] = set()

    def among(
        self, journal: JournalStore, model: str, versions: Iterable[VersionRecord]
    ) -> Iterator[VersionRecord]:
        """Those of the versions that count."""
        now: JournalState | None = None
        for version in versions:
            key = (model, version.version, version.tags.get("selfheal.snapshot", ""), version.lease)
            if key in self._known:
                yield version
                continue
            now = now or standing(journal, model)
            if now.is_fenced(version.lease, version.version):
                continue
            if version.created_ms < time.time() * 1000 - SETTLED_MS:
                self._known.add(key)
            yield version


class StaleWatch:
    """Marks what a holder that was taken over registers late; for the run that took over.

    It goes from version to version as they come, so that a look costs a version at the most.
    """

    def __init__(self, registry: Registry, model: str) -> None:
        self._registry = registry
        self._model = model
        self._next: int | None = None

    def look(self, now: JournalState) -> None:
        """Mark those that came since the last look."""
        if now.lease is None or not now.fences or now.fences[-1].by != now.lease.sequence:
            return
        if self._next is None:
            self._next = now.fences[-1].versions + 1
        while True:
            try:
                version = self._registry.any_version(self._model, self._next)
            except VersionNotFound:
                return
            if isinstance(version, VersionRecord) and now.is_fenced(version.lease, self._next):
                self._registry.mark_stale(self._model, self._next, version.lease)
            self._next += 1
