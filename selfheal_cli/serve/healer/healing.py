"""Who heals a model on what its scoring processes wrote down, and has its champion served."""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
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
from selfheal_cli.events.types import (
    AliasMoved,
    BatchScored,
    CanaryEnded,
    CanaryOrdered,
    CanaryResumed,
    ChampionFollowed,
    ModeChanged,
    MoveRefused,
    ProposalMade,
    RolledBack,
    RowsTaken,
    RunStarted,
    VersionRegistered,
)
from selfheal_cli.heal.engine import Serving, Tried
from selfheal_cli.model.checkpoint import Packed
from selfheal_cli.pipeline.prepare.lease import RunLease, healed_here, require_free
from selfheal_cli.pipeline.record.recorder import Watcher
from selfheal_cli.pipeline.runs.recovery import settle_earlier, where_to_begin
from selfheal_cli.pipeline.runs.run import Finished, RunContext
from selfheal_cli.pipeline.runs.serving import ServedRun, heal_served
from selfheal_cli.pipeline.runs.watching import latest, watch_served
from selfheal_cli.pipeline.stream.allowance import limits_of
from selfheal_cli.pipeline.stream.champion import ELSEWHERE
from selfheal_cli.registry.aliases import Unsettled, settle, unsettled
from selfheal_cli.registry.base import CHAMPION, Registry
from selfheal_cli.registry.journal import standing
from selfheal_cli.registry.orders import AUTO, STANDS, mode_of
from selfheal_cli.registry.outbox import NAME as OUTBOX_NAME
from selfheal_cli.registry.outbox import pending_in
from selfheal_cli.rollback.plan import serving_version
from selfheal_cli.rollback.verify import load_verified
from selfheal_cli.serve.healer.status import EventFold
from selfheal_cli.serve.operator.status import HEALER, ModelStatus
from selfheal_cli.spool.control import ControlChannel, Published
from selfheal_cli.spool.entries import Cursor
from selfheal_cli.spool.store import Spool
from selfheal_cli.spool.tried import (
    TriedVersion,
    number_tried,
    once_tried,
    put_tried,
    tried_now,
)
from selfheal_cli.visible import visible

LOOK_SECONDS = 0.5
TELL_SECONDS = 0.5
PATIENCE_SECONDS = 5.0
RUN = "run:"  # topics of runs on a shared log, whose event logs may lie on other machines
TURN_SECONDS = 5.0  # without a word of the process that asks the registry, until another one does
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


class _Places:
    """How far a run has come with the log, written down there under its lease."""

    def __init__(self, spool: Spool, run: str, lease: int) -> None:
        self.lease = lease
        self._spool = spool
        self._run = run
        self._batch = 0

    def begin(self, cursor: Cursor) -> None:
        """Where it begins; raises `LeaseHeld`, as all do."""
        if self._spool.shared:
            self._spool.commit(self._run, 0, cursor, self.lease)

    def see(self, event: Event) -> None:
        """A batch is known by its place before anything comes of it; once the registry waits for
        nothing, it has what came of the one before.
        """
        match event:
            case _ if not self._spool.shared:
                return  # the event log tells
            case RowsTaken(rows=rows) if rows:
                self._spool.commit(self._run, event.batch, Cursor(**event.offsets), self.lease)
            case BatchScored(pending_writes=0):
                self._spool.settle(self._run, self._batch, self.lease)
                self._batch = event.batch
            case BatchScored():
                self._batch = event.batch

    def end(self) -> None:
        """The registry has everything."""
        if not self._spool.shared:
            return
        with suppress(SelfhealError):  # then the last batch is gone through again
            self._spool.settle(self._run, self._batch, self.lease)


def run_elsewhere(channel: ControlChannel, run: str) -> dict[str, Any]:
    """Configuration and parts of a run that healed on a shared log; empty where it is not known."""
    return channel.status(f"{RUN}{run}")[0] if channel.shared else {}


class ModelHealer:
    """Heals while the lease can be had, follows otherwise; one thread calls `look`.

    ``open_run`` makes what is to be healed; it is kept as long as the champion's base stays.
    ``error`` is what prevents healing now, ``finished`` the run that ended last; ``asks`` is
    whether it had the turn to ask the registry when it looked last.
    """

    def __init__(
        self, around: HealerContext, open_run: Callable[[], ServedRun], *, heal: bool = True
    ) -> None:
        self.error: Exception | None = None
        self.asks = False
        self.finished: Finished | None = None
        self._around = around
        self._open_run = open_run
        self._heals = heal
        self._facts: dict[str, Any] = {"pid": os.getpid()}
        self._fold = EventFold()
        self._served: ServedRun | None = None
        self._elsewhere = False  # and the champion is on another one by now
        self._apart = 0  # the version on another one that is tried, or was and is to be champion
        self._tried: Published | None = None  # what was tried last
        self._silent = False  # the one who heals shares this channel, and tells
        self._blocked_until = 0.0
        self._left: Unsettled | None = None
        self._holder = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._places: _Places | None = None  # of the run that heals, or healed last
        self._by_hand = 0  # rollbacks by people,
        self._back_at: int | None = None  # and the batch that was the last one at the last of them

    def look(self) -> None:
        """Heal until ``stop`` is set or the lease is lost; where it cannot be had, follow."""
        try:
            if not self.has_turn():
                self._silent = True
                self._state("FOLLOWING")
                return
            self._follow()
            self._facts.pop("registry_away", None)
            if self._heals and time.monotonic() >= self._blocked_until:
                self._heal()
            else:
                self._state("WATCHING")
                if not self._heals:
                    self._try_nothing()
                if not self._heals and not self._silent:
                    self._watch()
        except LeaseHeld:
            self._try_nothing()
            self._state("FOLLOWING")
        except RegistryUnreachable as exc:
            self._facts["registry_away"] = str(exc)
        except SelfhealError as exc:
            self.block(exc)

    def has_turn(self) -> bool:
        """Whether this is the process that asks the registry: of those on a shared log one is."""
        channel = self._around.channel
        self.asks = not channel.shared or channel.take_turn(
            self._holder, TURN_SECONDS, heals=self._heals
        )
        return self.asks

    def give_up_turn(self) -> None:
        """Somebody else may ask from now on."""
        with suppress(SelfhealError):  # it ends by itself
            if self._around.channel.shared:
                self._around.channel.take_turn(self._holder, 0.0, heals=self._heals)

    def wait(self, seconds: float) -> bool:
        """Wait, and say whether a run is to end: nothing heals here any more, or people moved the
        champion to another base, which the next run serves and heals.
        """
        return self._around.stop.wait(seconds) or self._elsewhere

    def _try_nothing(self) -> None:
        """A canary that nobody compares answers no more; on a shared log who holds the lease says
        what is tried.
        """
        channel = self._around.channel
        if not self._silent and not channel.shared and tried_now(channel) is not None:
            put_tried(channel, None)

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
            with suppress(SelfhealError):  # the disk is full; it is said again
                if self._served is not None:
                    self.has_turn()  # which is kept as long as it heals
                if not self._silent:
                    standing = self._standing(known())
                    self._around.channel.set_status(HEALER, standing.as_status(), self._lease)
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
            if "run_id" in facts:  # what waited at the last batch may have been written since
                outbox = self._around.workspace / "runs" / facts["run_id"] / OUTBOX_NAME
                facts["pending_writes"] = pending_in(outbox) if outbox.exists() else 0
            facts["notes"] = {**source.notes(), **facts.get("notes", {})}
        if self._facts.get("state") in ("FOLLOWING", "WATCHING"):
            facts["state"] = self._facts["state"]
        return ModelStatus(**facts)

    def _heal(self) -> None:
        """One run, from taking the lease to giving it back."""
        around = self._around
        model, workspace = around.model, around.workspace
        self._open()
        require_free(around.registry, model, workspace, clock)
        self._silent = False  # whoever healed may have died since `_follow` looked
        settle_earlier(
            model, workspace, around.registry, clock, around.actor, PATIENCE_SECONDS,
            self._say_settled,
        )  # fmt: skip
        served = self._open()  # what a killed run left may have made another one champion
        self._fold, self._elsewhere, self._apart = EventFold(), False, 0
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
            on_canary=self._try_out,
            on_settled=self._say_settled,
        )
        try:
            self.finished = heal_served(served, around.registry, context, self._begin)
            if self._places is not None and not self.finished.left:
                self._places.end()
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

    def _begin(self, lease: RunLease) -> Cursor:
        """Where to read from; says so where that is not where an earlier run left off."""
        around = self._around
        self._raise_fence(lease)
        said, _ = around.channel.status(HEALER)
        last = said.get("run_id", ""), said.get("batch", 0)
        champion = serving_version(around.registry, around.model)
        made = (champion.run_id, champion.batch) if champion is not None else ("", 0)
        beginning = where_to_begin(around.model, around.workspace, around.spool, *last, made)
        self._places = _Places(around.spool, lease.lease.run, lease.sequence)
        self._places.begin(beginning.cursor)
        if self._served is not None:
            self._served.source.tried.update(once_tried(around.channel))
        self._facts["spool"] = beginning.notice
        if beginning.notice:
            self._facts["begun_anew"] = self._facts.get("begun_anew", 0) + 1
            around.say(f"'{around.model}': {beginning.notice}")
        return beginning.cursor

    def _raise_fence(self, lease: RunLease) -> None:
        """Whoever held an earlier lease writes nothing more into log and bulletin.

        The registry is asked after the fence was looked at, so that one who was frozen in between
        sets nothing back; it may be another registry, whose journal counts anew.
        """
        spool = self._around.spool
        while (seen := spool.fence()) != lease.sequence:
            lease.require()
            spool.set_fence(seen, lease.sequence)

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
        fence = channel.fence()  # before the registry is asked: what it says may be old by then
        number = around.registry.alias(model, CHAMPION)
        if number is None:
            raise NoCandidateError(f"model '{model}' has no champion")
        self._silent = not channel.shared and healed_here(around.registry, model, around.workspace)
        if self._silent:
            return
        if self._settled():
            number = around.registry.alias(model, CHAMPION) or number
        now = channel.published()
        if now is not None and now.version == number:
            return
        version = around.registry.version(model, number)
        snapshot = version.tags["selfheal.snapshot"]
        if now is not None and now.snapshot == snapshot:
            channel.set_version(snapshot, number, fence)
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
            ),
            fence,
        )

    def _settled(self) -> bool:
        """Whether the alias was not what the journal says, and is put right: at the second look,
        since a move that was only begun may be on its way.
        """
        registry, model = self._around.registry, self._around.model
        before, self._left = self._left, unsettled(registry, model, CHAMPION)
        if self._left is None or self._left != before:
            return False
        for left in settle(registry, model):
            self._say_settled(left)
        return True

    def _publish(self, base: str, serving: Serving) -> None:
        """Called by the run whenever what serves has changed, once it is on disk."""
        now = self._around.channel.published()
        if now is not None and (now.snapshot, now.base) == (serving.snapshot, base):
            return
        packed = Packed.of(serving.adapter.weights)
        self._around.channel.publish(
            Published(
                serving.snapshot, serving.threshold, base, packed.sha256, packed.data, "the run"
            ),
            self._lease,
        )

    @property
    def _lease(self) -> int | None:
        return None if self._places is None else self._places.lease

    def _try_out(self, base: str, tried: Tried | None) -> None:
        """Called by the run with what answers a share of the requests from now on."""
        if tried is None:
            put_tried(self._around.channel, None, self._lease)
            return
        serving, packed = tried.serving, Packed.of(tried.serving.adapter.weights)
        wanted = Published(
            serving.snapshot, serving.threshold, tried.base or base, packed.sha256, packed.data,
            "a canary",
        )  # fmt: skip
        self._tried = wanted
        told = TriedVersion(wanted, tried.share, tried.by, tried.until)
        put_tried(self._around.channel, told, self._lease)
        if self._served is not None:
            self._served.source.tried.add(serving.snapshot)

    def _see(self, event: Event) -> None:
        channel = self._around.channel
        match event:
            case RunStarted() if channel.shared:
                begun = {"config": dict(event.config), "parts": list(event.parts)}
                channel.set_status(f"{RUN}{event.run_id}", begun, self._lease)
            case VersionRegistered():
                channel.set_version(event.snapshot, event.version, self._lease)
                number_tried(channel, event.snapshot, event.version, self._lease)
            case CanaryOrdered() | CanaryResumed():
                number_tried(channel, event.snapshot, event.version, self._lease)
                self._apart = event.version if event.base else 0
            case CanaryEnded() if event.outcome != "promoted":
                self._apart = 0
            case AliasMoved() if event.move.alias == CHAMPION and event.move.target == self._apart:
                self._elsewhere = True
                self._serve_tried(event.move.target)
            case MoveRefused() if event.alias == CHAMPION and self._apart:
                self._elsewhere = True  # whatever serves now: the next run goes on from it
            case ChampionFollowed() if event.error.endswith(ELSEWHERE):
                self._elsewhere = True
            case ChampionFollowed() | RolledBack() if event.to_snapshot and event.version:
                channel.set_version(event.to_snapshot, event.version, self._lease)
        if self._places is not None:
            self._places.see(event)
        self._say_what_may_be(event)
        for look in (self._fold.apply, self._around.watch):
            try:
                look(event)
            except Exception as exc:  # what is shown may be wrong by now; the batch is not
                self._around.say(f"event {event.sequence}, {event.kind}, is not shown: {exc!r}")

    def _say_what_may_be(self, event: Event) -> None:
        """What heals may do by themselves, once it is another than was said, and what they did not
        do since it is more than that.
        """
        around, served = self._around, self._served
        model = around.model
        if isinstance(event, ProposalMade):
            around.say(
                f"'{model}': v{event.version} does not serve yet, proposal {event.proposal} waits "
                f"for a person: {visible(event.reason)}; until {event.expires[:16]}Z 'selfheal "
                f"approve {event.proposal} --model {model}' shows its plan and asks"
            )
        if served is None or not isinstance(event, (RunStarted, ModeChanged)):
            return
        with suppress(SelfhealError):  # the registry is away: it is said again
            mode = mode_of(standing(around.registry, model))
            limits = limits_of(served.config.policy) if mode == AUTO else ""
            allowed = f"mode {mode}: {STANDS[mode]}" + (f" ({limits})" if limits else "")
            if self._facts.get("allowed", "") != allowed:
                around.say(f"'{model}': {allowed}; 'selfheal proposals --model {model}' lists them")
            self._facts["allowed"] = allowed

    def _serve_tried(self, number: int) -> None:
        """It is the champion: who scores need not wait for the end of the run that tried it."""
        if self._tried is not None:
            promoted = replace(self._tried, version=number, reason="a canary that was promoted")
            self._around.channel.publish(promoted, self._lease)

    def _say_settled(self, left: Unsettled) -> None:
        self._around.say(f"'{self._around.model}': put right: {visible(str(left))}")

    def _state(self, state: str) -> None:
        self._facts["state"] = state
