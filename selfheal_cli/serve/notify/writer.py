"""Has a healer's notices written down, those too that it had no time to write before it died."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from selfheal_cli.errors import EventLogError, StorageError
from selfheal_cli.events.event import Event
from selfheal_cli.events.log import read
from selfheal_cli.events.types import RunStarted
from selfheal_cli.serve.notify.notice import Notice, NoticeFold
from selfheal_cli.serve.notify.store import NoticeStore


class NoticeWriter:
    """Shown the events of one run after the other, by one thread. ``on_verdict`` is called with the
    reason once healing cannot help any more; it must return at once.
    """

    def __init__(
        self, store: NoticeStore, on_verdict: Callable[[str], None] = lambda reason: None
    ) -> None:
        self._store = store
        self._on_verdict = on_verdict
        self._fold = NoticeFold(store.model)
        self._left: list[Notice] = []  # while the disk is full

    def see(self, event: Event) -> None:
        """Keep what is to be told of it; no event is held up by a disk that is full."""
        if isinstance(event, RunStarted):
            self._fold = NoticeFold(self._store.model)
        fresh = list(self._fold.add(event))
        for one in fresh:
            if one.kind == "verdict":
                self._on_verdict(one.text)
        self._left += fresh
        if not self._left:
            return
        try:
            self._store.put(self._left)
        except StorageError:
            return
        self._left = []

    def catch_up(self, log: Path) -> None:
        """What an earlier run wrote into its log is told of, if it was not.

        Raises `StorageError`.
        """
        if log.exists():
            self._store.put(list(self._of(log)))

    def _of(self, log: Path) -> Iterator[Notice]:
        fold = NoticeFold(self._store.model)
        try:
            for event in read(log):
                yield from fold.add(event)
        except EventLogError:
            return  # whoever ends that run says what is wrong with it
