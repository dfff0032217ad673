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
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from selfheal_cli.actor import clock
from selfheal_cli.config import TableSettings, checked
from selfheal_cli.errors import (
    LeaseHeld,
    NoCandidateError,
    RegistryUnreachable,
    SelfhealError,
    one_line,
)
from selfheal_cli.events.event import Event
from selfheal_cli.events.types import ChampionFollowed, RolledBack, VersionRegistered
from selfheal_cli.heal.engine import Serving
from selfheal_cli.model.checkpoint import Packed
from selfheal_cli.pipeline.prepare.lease import healed_here, require_free
from selfheal_cli.pipeline.runs.recovery import settle_earlier, where_to_begin
from selfheal_cli.pipeline.runs.run import RunContext
from selfheal_cli.pipeline.runs.serving import ServedRun, ServingOptions, heal_served, open_served
from selfheal_cli.registry.aliases import Unsettled
from selfheal_cli.registry.base import CHAMPION, Registry
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from selfheal_cli.rollback.plan import serving_version
from selfheal_cli.rollback.verify import load_verified
from selfheal_cli.serve.healer.commands import carry_out
from selfheal_cli.serve.healer.status import ByHand, EventFold, registry_facts
from selfheal_cli.serve.operator.status import HEALER, ModelStatus
from selfheal_cli.serve.settings import HealerSettings
from selfheal_cli.serve.tracing import HealSpans, open_tracing
from selfheal_cli.spool.control import ControlChannel, Published
from selfheal_cli.spool.file import spool_path
from selfheal_cli.spool.source import Pace
from selfheal_cli.spool.store import Cursor, Spool
from selfheal_cli.visible import visible

LOOK_SECONDS = 0.5
TELL_SECONDS = 0.5
FACTS_SECONDS = 2.0
ORDER_SECONDS = 0.05
PATIENCE_SECONDS = 5.0
BLOCKED_SECONDS = 30.0  # until what prevents healing is looked at again


class HealerProcess:
    """Everything that one process does for a served model; `run` returns when ``stop`` is set."""

    def __init__(self, settings: HealerSettings, registry: Registry, stop: threading.Event) -> None:
        path = spool_path(settings.model, settings.workspace)
        self._settings = settings
        self._registry = registry
        self._stop = stop
        self._spool, self._channel = Spool(path), ControlChannel(path)
        self._facts: dict[str, Any] = {"pid": os.getpid()}
        self._known: dict[str, Any] = {}  # by the registry
        self._fold = EventFold()
        self._by_hand = ByHand()
        self._tracing = open_tracing("selfheal-healer")
        self._spans = HealSpans(self._tracing)
        self._served: ServedRun | None = None
        self._silent = False  # the one who heals shares this channel, and tells
        self._blocked_until = 0.0
        self._began = time.time()

    def run(self) -> None:
        """Heal while the lease can be had, follow otherwise."""
        threads = [
            threading.Thread(target=self._tell, name="status", daemon=True),
            threading.Thread(target=self._ask, name="asker", daemon=True),
            threading.Thread(target=self._obey, name="orders", daemon=True),
        ]
        for thread in threads:
            thread.start()
        while not self._stop.is_set():
            try:
                self._follow()
                self._facts.pop("registry_away", None)
                if self._settings.heal and time.monotonic() >= self._blocked_until:
                    self._heal()
                else:
                    self._state("WATCHING")
            except LeaseHeld:
                self._state("FOLLOWING")
            except RegistryUnreachable as exc:
                self._facts["registry_away"] = str(exc)
            except SelfhealError as exc:
                self._facts["error"] = one_line(exc)
                self._blocked_until = time.monotonic() + BLOCKED_SECONDS
                self._state("WATCHING")
            self._stop.wait(LOOK_SECONDS)
        for thread in threads:
            thread.join(TELL_SECONDS + FACTS_SECONDS)
        self._tracing.close()

    def _heal(self) -> None:
        """One run, from taking the lease to giving it back."""
        settings = self._settings
        model, workspace = settings.model, settings.workspace
        served = self._open()
        require_free(self._registry, model, workspace, clock)
        self._silent = False  # whoever healed may have died since `_follow` looked
        settle_earlier(
            model, workspace, self._registry, clock, settings.actor, PATIENCE_SECONDS,
            self._say_settled,
        )  # fmt: skip
        cursor = self._begin()
        self._fold = EventFold()
        self._facts.pop("error", None)
        self._facts.pop("state", None)
        around = RunContext(
            self._registry,
            clock,
            settings.actor,
            watchers=[self._see],
            workspace=workspace,
            patience=PATIENCE_SECONDS,
            follow_seconds=LOOK_SECONDS,
            on_publish=self._publish,
            on_settled=self._say_settled,
        )
        try:
            heal_served(served, self._registry, around, cursor)
        finally:
            self._served = None

    def _begin(self) -> Cursor:
        """Where to read from; says so where that is not where an earlier run left off."""
        settings = self._settings
        said, _ = self._channel.status(HEALER)
        last = said.get("run_id", ""), said.get("batch", 0)
        beginning = where_to_begin(settings.model, settings.workspace, self._spool, *last)
        self._facts["spool"] = beginning.notice
        if beginning.notice:
            self._facts["begun_anew"] = self._facts.get("begun_anew", 0) + 1
            sys.stderr.write(f"selfheal: '{settings.model}': {beginning.notice}\n")
        return beginning.cursor

    def _open(self) -> ServedRun:
        """What is to be healed, prepared ahead so that a lease that is let go is taken at once."""
        champion = serving_version(self._registry, self._settings.model)
        known = self._served
        if known is not None and champion is not None and champion.base == known.champion.base:
            return known
        settings = self._settings
        reference = None
        if settings.reference is not None:
            reference = checked(TableSettings, settings.reference, where="--reference")
        wanted = ServingOptions(settings.model, settings.overrides, reference, settings.workspace)
        pace = Pace(100, settings.max_wait, time.monotonic, self._stop.wait)
        self._served = open_served(self._registry, wanted, self._spool, pace)
        return self._served

    def _follow(self) -> None:
        """Have the champion served, unless the one who heals on this machine does that."""
        model = self._settings.model
        number = self._registry.alias(model, CHAMPION)
        if number is None:
            raise NoCandidateError(f"model '{model}' has no champion")
        self._silent = healed_here(self._registry, model, self._settings.workspace)
        if self._silent:
            return
        now = self._channel.published()
        if now is not None and now.version == number:
            return
        version = self._registry.version(model, number)
        snapshot = version.tags["selfheal.snapshot"]
        if now is not None and now.snapshot == snapshot:
            self._channel.set_version(snapshot, number)
            return
        packed = Packed.of(load_verified(self._registry, version))
        self._channel.publish(
            Published(
                snapshot,
                version.threshold,
                version.base,
                packed.sha256,
                packed.data,
                "the champion",
                number,
            )
        )

    def _publish(self, base: str, serving: Serving) -> None:
        """Called by the run whenever what serves has changed, once it is on disk."""
        now = self._channel.published()
        if now is not None and (now.snapshot, now.base) == (serving.snapshot, base):
            return
        packed = Packed.of(serving.adapter.weights)
        self._channel.publish(
            Published(
                serving.snapshot, serving.threshold, base, packed.sha256, packed.data, "the run"
            )
        )

    def _see(self, event: Event) -> None:
        match event:
            case VersionRegistered():
                self._channel.set_version(event.snapshot, event.version)
            case ChampionFollowed() | RolledBack() if event.to_snapshot:
                self._channel.set_version(event.to_snapshot, event.version)
        self._fold.apply(event)
        self._spans.add(event)

    def _say_settled(self, left: Unsettled) -> None:
        sys.stderr.write(f"selfheal: '{self._settings.model}': put right: {visible(str(left))}\n")

    def _state(self, state: str) -> None:
        self._facts["state"] = state

    def _ask(self) -> None:
        """The thread that asks the registry, which may be away for long."""
        while True:
            with suppress(SelfhealError):  # the one who follows says so
                self._by_hand.look(self._registry, self._settings.model)
                self._known = registry_facts(self._registry, self._settings.model)
            if self._stop.wait(FACTS_SECONDS):
                return

    def _tell(self) -> None:
        """The thread that says how things stand."""
        while True:
            served = self._served
            facts = self._facts | self._known | self._fold.facts
            facts["rollbacks"] = facts.get("rollbacks", 0) + self._by_hand.count
            if served is not None:
                source = served.source
                facts |= {"waiting": source.backlog(), "read_to": source.cursor.answered}
                facts["notes"] = {**source.notes(), **facts.get("notes", {})}
            if self._facts.get("state") in ("FOLLOWING", "WATCHING"):
                facts["state"] = self._facts["state"]
            if not self._silent:
                with suppress(SelfhealError):  # the disk is full; it is said again
                    self._channel.set_status(HEALER, ModelStatus(**facts).as_status())
            if self._stop.wait(TELL_SECONDS):
                return

    def _obey(self) -> None:
        """The thread that carries out what operators order."""
        while not self._stop.wait(ORDER_SECONDS):
            try:
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
    _watch_parent(os.getppid(), stop.set)
    HealerProcess(settings, MlflowRegistry(settings.tracking_uri), stop).run()
    return 0


def _watch_parent(parent: int, ended: Callable[[], None]) -> None:
    """A server that was killed leaves no healer behind."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_SECONDS)
        ended()

    threading.Thread(target=watch, name="parent", daemon=True).start()
