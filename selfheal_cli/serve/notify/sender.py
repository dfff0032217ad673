"""The threads that tell targets, in the one process of a folder that holds the lock for that."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from prometheus_client.registry import CollectorRegistry

from selfheal_cli.actor import now_text
from selfheal_cli.errors import StorageError
from selfheal_cli.serve.notify.metrics import NoticeMetrics
from selfheal_cli.serve.notify.notice import Notice
from selfheal_cli.serve.notify.store import NoticeStore
from selfheal_cli.serve.notify.targets import CommandTarget, NotifyTarget, NotTold, WebhookTarget
from selfheal_cli.serve.operator.status import last_word, since
from selfheal_cli.serve.settings import ServerSettings
from selfheal_cli.spool.control import ControlChannel
from selfheal_cli.spool.file import spool_path

LOOK_SECONDS = 1.0
DOWN_SECONDS = 60.0  # without a word of the healer
LABEL_SILENCE = 86_400.0


class Sender:
    """Tells each target in a thread of its own, so that one that is dead holds up no other."""

    def __init__(
        self,
        store: NoticeStore,
        channel: ControlChannel,
        targets: Sequence[NotifyTarget],
        lock: Path,
        every: float = LOOK_SECONDS,
    ) -> None:
        self._store, self._channel, self._targets = store, channel, targets
        self._lock, self._every = FileLock(lock), every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="notices", daemon=True)
        self._telling = [
            threading.Thread(
                target=self._keep_telling, args=(one,), name=f"tells {one.name}", daemon=True
            )
            for one in targets
        ]

    def start(self) -> None:
        """Begin, if there is anybody to tell."""
        if self._targets:
            self._thread.start()

    def stop(self) -> None:
        """What was not told by now is told by the next process."""
        self._stop.set()
        for thread in (self._thread, *self._telling):
            if thread.ident is not None:
                thread.join(self._every + 1.0)
        if not any(thread.is_alive() for thread in self._telling):
            self._store.close()  # one that waits for an answer is left behind with it

    def send(self, target: NotifyTarget) -> bool:
        """Tell a target what is due first; False where nothing is. Raises `StorageError`."""
        due = self._store.due(target.name, target.kinds)
        if due is None:
            return False
        try:
            target.tell(due, self._store.model)
        except NotTold as exc:
            if self._store.failed(target.name, due.sequence, str(exc)):
                sys.stderr.write(
                    f"selfheal: '{target.name}' was not told of event {due.sequence} in three days "
                    f"({exc}); 'selfheal events resend' sends it again\n"
                )
        else:
            self._store.done(target.name, due.sequence)
        return True

    def watch(self, now: float) -> None:
        """Note what no event says: a silent healer, labels that stopped. Raises `StorageError`."""
        word, model = last_word(self._channel, now), self._store.model
        notices = []
        if word.age is not None and word.age > DOWN_SECONDS:
            last = round(now - word.age)  # one word, one silence
            text = f"the healer has said nothing for {word.age:.0f} s: nothing heals"
            notices.append(Notice.of("healer-down", now_text(), text, model, "silence", last))
        labels_at = word.standing.labels_at
        age = since(labels_at, now)
        if age is not None and age > LABEL_SILENCE:
            text = f"no label has come since {labels_at}"
            notices.append(Notice.of("labels-stopped", now_text(), text, model, labels_at))
        if notices:
            self._store.put(notices)

    def _run(self) -> None:
        while not self._stop.is_set():
            with suppress(Timeout), self._lock.acquire(timeout=0):
                self._tell()
                return
            self._stop.wait(self._every)

    def _tell(self) -> None:
        while not self._stop.is_set():
            with suppress(StorageError):
                self._store.introduce([one.name for one in self._targets])
                break
            self._stop.wait(self._every)
        for thread in self._telling:
            thread.start()
        while not self._stop.wait(self._every):
            with suppress(StorageError):  # the disk is full; it is looked at again
                self.watch(time.time())

    def _keep_telling(self, target: NotifyTarget) -> None:
        while not self._stop.is_set():
            busy = False
            with suppress(StorageError):
                busy = self.send(target)
            if not busy:
                self._stop.wait(self._every)


@contextmanager
def telling(
    settings: ServerSettings, channel: ControlChannel, registry: CollectorRegistry
) -> Iterator[None]:
    """Whom the settings name is told within the block; ``registry`` takes the figures."""
    targets: list[NotifyTarget] = [WebhookTarget(one) for one in settings.webhooks]
    if settings.on_event is not None:
        targets.append(CommandTarget(settings.on_event))
    if not targets:
        yield
        return
    store = NoticeStore(settings.healer.model, settings.healer.workspace)
    registry.register(NoticeMetrics(store))
    path = spool_path(settings.healer.model, settings.healer.workspace)
    sender = Sender(store, channel, targets, path.with_name("telling.lock"))
    sender.start()
    try:
        yield
    finally:
        sender.stop()
