"""Who heals a model on what its scoring processes wrote down, and has its champion served."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfheal_cli.actor import clock
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
from selfheal_cli.pipeline.record.recorder import Watcher
from selfheal_cli.pipeline.runs.recovery import settle_earlier, where_to_begin
from selfheal_cli.pipeline.runs.run import Finished, RunContext
from selfheal_cli.pipeline.runs.serving import ServedRun, heal_served
from selfheal_cli.pipeline.runs.watching import latest, watch_served
from selfheal_cli.registry.aliases import Unsettled
from selfheal_cli.registry.base import CHAMPION, Registry
from selfheal_cli.rollback.plan import serving_version
from selfheal_cli.rollback.verify import load_verified
from selfheal_cli.serve.healer.status import EventFold
from selfheal_cli.serve.operator.status import HEALER, ModelStatus
from selfheal_cli.spool.control import ControlChannel, Published
from selfheal_cli.spool.store import Cursor, Spool
from selfheal_cli.visible import visible

LOOK_SECONDS = 0.5
TELL_SECONDS = 0.5
PATIENCE_SECONDS = 5.0
BLOCKED_SECONDS = 30.0  # until what prevents healing is looked at again


@dataclass(frozen=True, slots=True)
class HealerContext:
    """What a healer is given. ``say`` is told what a person should know, ``watch`` each event."""

    model: str
    actor: str
    workspace: Path
    registry: Registry
    spool: Spool
    channel: ControlChannel
    stop: threading.Event
    say: Callable[[str], object]
    watch: Watcher


class ModelHealer:
    """Heals while the lease can be had, follows otherwise; one thread calls `look`.

    ``open_run`` makes what is to be healed; it is kept as long as the champion's base stays.
    ``error`` is what prevents healing now, ``finished`` the run that ended last.
    """

    def __init__(
        self, around: HealerContext, open_run: Callable[[], ServedRun], *, heal: bool = True
    ) -> None:
        self.error: Exception | None = None
        self.finished: Finished | None = None
        self._around = around
        self._open_run = open_run
        self._heals = heal
        self._facts: dict[str, Any] = {"pid": os.getpid()}
        self._fold = EventFold()
        self._served: ServedRun | None = None
        self._silent = False  # the one who heals shares this channel, and tells
        self._blocked_until = 0.0
        self._by_hand = 0  # rollbacks by people,
        self._back_at: int | None = None  # and the batch that was the last one at the last of them

    def look(self) -> None:
        """Heal until ``stop`` is set or the lease is lost; where it cannot be had, follow."""
        try:
            self._follow()
            self._facts.pop("registry_away", None)
            if self._heals and time.monotonic() >= self._blocked_until:
                self._heal()
            else:
                self._state("WATCHING")
                if not self._heals and not self._silent:
                    self._watch()
        except LeaseHeld:
            self._state("FOLLOWING")
        except RegistryUnreachable as exc:
            self._facts["registry_away"] = str(exc)
        except SelfhealError as exc:
            self.block(exc)

    def block(self, error: Exception) -> None:
        """Heal no more for a while."""
        self.error = error
        self._facts["error"] = one_line(error)
        self._blocked_until = time.monotonic() + BLOCKED_SECONDS
        self._state("WATCHING")

    def tell(self, until: threading.Event, known: Callable[[], Mapping[str, Any]] = dict) -> None:
        """Say how things stand, also at the end; ``known`` are facts of others."""
        while True:
            last = until.is_set()
            if not self._silent:
                with suppress(SelfhealError):  # the disk is full; it is said again
                    standing = self._standing(known())
                    self._around.channel.set_status(HEALER, standing.as_status())
            if last:
                return
            until.wait(TELL_SECONDS)

    def _standing(self, known: Mapping[str, Any]) -> ModelStatus:
        served = self._served
        facts = {**self._facts, **known, **self._fold.facts}
        by_itself = self._fold.facts.get("rollbacks", 0)
        by_hand = known.get("rollbacks", 0)
        facts["rollbacks"] = by_itself + by_hand
        if by_hand > self._by_hand:
            self._by_hand, self._back_at = by_hand, facts.get("batch", 0)
        if self._back_at == facts.get("batch", 0):  # until the next batch
            facts["state"] = "ROLLED_BACK"
        if served is not None:
            source = served.source
            facts |= {"waiting": source.backlog(), "read_to": source.cursor.answered}
            facts["notes"] = {**source.notes(), **facts.get("notes", {})}
        if self._facts.get("state") in ("FOLLOWING", "WATCHING"):
            facts["state"] = self._facts["state"]
        return ModelStatus(**facts)

    def _heal(self) -> None:
        """One run, from taking the lease to giving it back."""
        around = self._around
        model, workspace = around.model, around.workspace
        served = self._open()
        require_free(around.registry, model, workspace, clock)
        self._silent = False  # whoever healed may have died since `_follow` looked
        settle_earlier(
            model, workspace, around.registry, clock, around.actor, PATIENCE_SECONDS,
            self._say_settled,
        )  # fmt: skip
        cursor = self._begin()
        self._fold = EventFold()
        self._facts.pop("error", None)
        self._facts.pop("state", None)
        self.error = None
        context = RunContext(
            around.registry,
            clock,
            around.actor,
            watchers=[self._see],
            workspace=workspace,
            patience=PATIENCE_SECONDS,
            follow_seconds=LOOK_SECONDS,
            on_publish=self._publish,
            on_settled=self._say_settled,
        )
        try:
            self.finished = heal_served(served, around.registry, context, cursor)
        finally:
            self._served = None

    def _watch(self) -> None:
        """Heal nothing, and say what can be seen, until ``stop`` is set or another base serves."""
        if time.monotonic() < self._blocked_until:
            return
        served = self._open()
        self._fold = EventFold()
        self._facts.pop("error", None)
        looked = time.monotonic()

        def over() -> bool:
            nonlocal looked
            if time.monotonic() - looked >= LOOK_SECONDS:
                looked = time.monotonic()
                with suppress(RegistryUnreachable):  # it is looked at again
                    self._follow()
            now = self._around.channel.published()
            moved = now is not None and now.base != served.champion.base
            return self._around.stop.is_set() or self._silent or moved

        try:
            watch_served(served, latest(self._around.spool), self._fold.apply, over)
        finally:
            self._served = None

    def _begin(self) -> Cursor:
        """Where to read from; says so where that is not where an earlier run left off."""
        around = self._around
        said, _ = around.channel.status(HEALER)
        last = said.get("run_id", ""), said.get("batch", 0)
        beginning = where_to_begin(around.model, around.workspace, around.spool, *last)
        self._facts["spool"] = beginning.notice
        if beginning.notice:
            self._facts["begun_anew"] = self._facts.get("begun_anew", 0) + 1
            around.say(f"'{around.model}': {beginning.notice}")
        return beginning.cursor

    def _open(self) -> ServedRun:
        """What is to be healed, prepared ahead so that a lease that is let go is taken at once."""
        champion = serving_version(self._around.registry, self._around.model)
        known = self._served
        if known is not None and champion is not None and champion.base == known.champion.base:
            return known
        self._served = self._open_run()
        return self._served

    def _follow(self) -> None:
        """Have the champion served, unless the one who heals on this machine does that."""
        around = self._around
        model, channel = around.model, around.channel
        number = around.registry.alias(model, CHAMPION)
        if number is None:
            raise NoCandidateError(f"model '{model}' has no champion")
        self._silent = healed_here(around.registry, model, around.workspace)
        if self._silent:
            return
        now = channel.published()
        if now is not None and now.version == number:
            return
        version = around.registry.version(model, number)
        snapshot = version.tags["selfheal.snapshot"]
        if now is not None and now.snapshot == snapshot:
            channel.set_version(snapshot, number)
            return
        packed = Packed.of(load_verified(around.registry, version))
        channel.publish(
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
        now = self._around.channel.published()
        if now is not None and (now.snapshot, now.base) == (serving.snapshot, base):
            return
        packed = Packed.of(serving.adapter.weights)
        self._around.channel.publish(
            Published(
                serving.snapshot, serving.threshold, base, packed.sha256, packed.data, "the run"
            )
        )

    def _see(self, event: Event) -> None:
        channel = self._around.channel
        match event:
            case VersionRegistered():
                channel.set_version(event.snapshot, event.version)
            case ChampionFollowed() | RolledBack() if event.to_snapshot and event.version:
                channel.set_version(event.to_snapshot, event.version)
        self._fold.apply(event)
        self._around.watch(event)

    def _say_settled(self, left: Unsettled) -> None:
        self._around.say(f"'{self._around.model}': put right: {visible(str(left))}")

    def _state(self, state: str) -> None:
        self._facts["state"] = state
