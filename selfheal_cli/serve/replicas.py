"""The replicas that share a log: each says how it stands, and any of them tells of all."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress

from selfheal_cli.errors import StorageError
from selfheal_cli.lookout import Lookout
from selfheal_cli.serve.operator.status import REPLICA, ReplicaWord, ServerInfo
from selfheal_cli.spool.control import ControlChannel
from selfheal_cli.spool.store import Spool

HELD_SECONDS = 5.0  # for which a transaction of somebody else is nothing to be told
KEPT_SECONDS = 86_400.0  # words of replicas that were killed


class Replicas(Lookout):
    """This server among those of its log; ``facts`` are what it knows of itself."""

    seconds = 2.0

    def __init__(
        self, channel: ControlChannel, spool: Spool, facts: Callable[[], ServerInfo]
    ) -> None:
        super().__init__("replicas")
        self._channel = channel
        self._spool = spool
        self._facts = facts
        self._name = f"{socket.gethostname()}:{os.getpid()}"

    def stop(self) -> None:
        """One that ends in order is not missed."""
        super().stop()
        with suppress(StorageError):
            self._channel.forget_statuses(f"{REPLICA}{self._name}", self._channel.now() + 1)

    def look(self) -> None:
        """Say how it stands, once. Raises `StorageError`."""
        facts = self._facts()
        word = ReplicaWord(
            name=self._name, at=self._channel.now(), version=facts.version,
            snapshot=facts.snapshot, queue=facts.queue, unrecorded=facts.unrecorded,
            following=facts.following, held_back=self._spool.held_back(HELD_SECONDS),
        )  # fmt: skip
        self._channel.set_status(f"{REPLICA}{self._name}", word.model_dump(mode="json"))
        self._channel.forget_statuses(REPLICA, word.at - KEPT_SECONDS)
