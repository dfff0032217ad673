"""The process beside a server: it follows the champion, and heals it while it holds the lease.

``python -P -m selfheal_cli.serve.healer`` with `HealerSettings` as JSON on standard input. It ends
by SIGTERM, or when the server that began it is gone.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from typing import Any

from selfheal_cli.actor import clock
from selfheal_cli.config import TableSettings, checked
from selfheal_cli.errors import RegistryUnreachable, SelfhealError, StorageError, one_line
from selfheal_cli.events.archive import LOG_NAME, run_folder
from selfheal_cli.events.event import Event
from selfheal_cli.pipeline.offline.handover import hand_over
from selfheal_cli.pipeline.runs.serving import ServedRun, ServingOptions, open_served
from selfheal_cli.registry.base import Registry
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from selfheal_cli.serve.healer.commands import carry_out
from selfheal_cli.serve.healer.healing import (
    LOOK_SECONDS,
    TELL_SECONDS,
    HealerContext,
    ModelHealer,
    run_elsewhere,
)
from selfheal_cli.serve.healer.status import ByHand, registry_facts
from selfheal_cli.serve.healer.supervisor import watch_parent
from selfheal_cli.serve.notify.notice import of_handover
from selfheal_cli.serve.notify.store import NoticeStore
from selfheal_cli.serve.notify.writer import NoticeWriter
from selfheal_cli.serve.operator.status import HEALER
from selfheal_cli.serve.settings import HealerSettings
from selfheal_cli.serve.tracing import HealSpans, open_tracing
from selfheal_cli.spool.control import ControlChannel
from selfheal_cli.spool.places import place_of
from selfheal_cli.spool.source import Pace
from selfheal_cli.spool.store import Spool

FACTS_SECONDS = 2.0
ORDER_SECONDS = 0.05


class HealerProcess:
    """Everything that one process does for a served model; `run` returns when ``stop`` is set."""

    def __init__(self, settings: HealerSettings, registry: Registry, stop: threading.Event) -> None:
        self._settings = settings
        self._registry = registry
        self._stop = stop
        where = (settings.model, settings.workspace, settings.log)
        self._spool, self._channel = Spool(place_of(*where)), ControlChannel(place_of(*where))
        self._known: dict[str, Any] = {}  # by the registry
        self._by_hand = ByHand()
        self._tracing = open_tracing("selfheal-healer")
        self._spans = HealSpans(self._tracing)
        self._told = NoticeStore(settings.model, settings.workspace)
        self._notices = NoticeWriter(self._told, self._hand_over)
        self._began = self._channel.now()
        around = HealerContext(
            settings.model, settings.actor, settings.workspace, registry, self._spool,
            self._channel, stop, lambda text: sys.stderr.write(f"selfheal: {text}\n"),
            self._see,
        )  # fmt: skip
        self._healer = ModelHealer(around, self._open, heal=settings.heal)

    def run(self) -> None:
        """Heal while the lease can be had, follow otherwise."""
        with suppress(StorageError):  # the disk is full; the next one catches up
            said, _ = self._channel.status(HEALER)
            if said.get("run_id"):
                folder = run_folder(said["run_id"], self._settings.workspace)
                self._notices.catch_up(folder / LOG_NAME)
        tell = partial(self._healer.tell, self._stop, self._facts)
        threads = [
            threading.Thread(target=tell, name="status", daemon=True),
            threading.Thread(target=self._ask, name="asker", daemon=True),
            threading.Thread(target=self._obey, name="orders", daemon=True),
        ]
        for thread in threads:
            thread.start()
        while not self._stop.is_set():
            self._healer.look()
            self._stop.wait(LOOK_SECONDS)
        for thread in threads:
            thread.join(TELL_SECONDS + FACTS_SECONDS)
        self._healer.give_up_turn()
        self._tracing.close()

    def _see(self, event: Event) -> None:
        self._spans.add(event)
        self._notices.see(event)

    def _hand_over(self, reason: str) -> None:
        """From a thread of its own: healing goes on."""
        threading.Thread(
            target=self._write_rows, args=(reason,), name="handover", daemon=True
        ).start()

    def _write_rows(self, reason: str) -> None:
        model, workspace = self._settings.model, self._settings.workspace
        try:
            at = clock()
            done = hand_over(self._registry, self._spool, model, reason, at, workspace=workspace)
            self._told.put([of_handover(model, done.folder, done.rows, reason)])
        except SelfhealError as exc:
            text = f"rows could not be handed over to a retraining: {one_line(exc)}"
            sys.stderr.write(f"selfheal: '{model}': {text}; 'selfheal handover' tries again\n")

    def _open(self) -> ServedRun:
        settings, reference = self._settings, None
        if settings.reference is not None:
            reference = checked(TableSettings, settings.reference, where="--reference")
        wanted = ServingOptions(
            settings.model, settings.overrides, reference, settings.workspace,
            partial(run_elsewhere, self._channel),
        )  # fmt: skip
        pace = Pace(100, settings.max_wait, time.monotonic, self._healer.wait)
        return open_served(self._registry, wanted, self._spool, pace)

    def _facts(self) -> dict[str, Any]:
        """What only the registry knows; ``rollbacks`` are those by people."""
        return {**self._known, "rollbacks": self._by_hand.count}

    def _ask(self) -> None:
        """The thread that asks the registry, which may be away for long."""
        while True:
            try:
                if self._healer.asks:
                    self._by_hand.look(self._registry, self._settings.model)
                    self._known = registry_facts(self._registry, self._settings.model)
            except RegistryUnreachable as exc:  # who heals goes on, and does not look up
                self._known = {**self._known, "registry_away": one_line(exc)}
            except SelfhealError:  # the one who follows says so
                pass
            if self._stop.wait(FACTS_SECONDS):
                return

    def _obey(self) -> None:
        """The thread that carries out what operators order."""
        while not self._stop.wait(ORDER_SECONDS):
            try:
                if not self._healer.asks:
                    continue
                order = self._channel.take_command(self._began)
                if order is not None:
                    model = self._settings.model
                    answer = carry_out(self._registry, model, order.kind, order.argument)
                    self._channel.answer(order.number, answer)
            except SelfhealError:
                continue  # the disk is full: nobody can be answered


def main() -> int:
    """Read the settings, then run until told to stop; returns the exit code."""
    settings = HealerSettings.model_validate_json(sys.stdin.buffer.read())
    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda number, frame: stop.set())
    watch_parent(os.getppid(), stop.set)
    try:
        HealerProcess(settings, MlflowRegistry(settings.tracking_uri), stop).run()
    except SelfhealError as exc:  # its log is away; it is begun again
        sys.stderr.write(f"selfheal: {one_line(exc)}\n")
        return exc.exit_code
    return 0
