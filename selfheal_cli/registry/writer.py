"""Brings what a run writes to disk, then to the registry; the stream waits for neither.

One thread makes durable what was handed over, another carries it to the registry, in order, again
and again where the registry is away.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

from selfheal_cli.errors import LeaseHeld, RegistryError, RegistryRestored, RegistryUnreachable
from selfheal_cli.events.event import Event
from selfheal_cli.events.run_record import Account
from selfheal_cli.records import Snapshot
from selfheal_cli.registry import delivery
from selfheal_cli.registry.aliases import Move
from selfheal_cli.registry.base import Lineage, Registry, StepMetrics, result_of
from selfheal_cli.registry.journal import MAX_TEXT, Hold, Proposal, standing
from selfheal_cli.registry.outbox import Job, Outbox
from selfheal_cli.scores import AnyScores

STEPS_AT_ONCE = 50
BACKOFF_SECONDS = (0.1, 5.0)  # the first wait for a registry that is away, and the longest
BEAT_SECONDS = 5.0
CHECK_SECONDS = 1.0  # between two looks at the lease; the last comes after all that was carried
LIMIT = 10_000  # jobs that may wait for the registry before healing pauses


class HeldLease(Protocol):
    """The lease that a run writes under."""

    @property
    def sequence(self) -> int:
        """Its number in the journal."""

    @property
    def entry(self) -> Mapping[str, Any]:
        """Data of its entry in the journal."""

    def require(self) -> None:
        """Ask the registry; raises `LeaseHeld` where it is another's, `RegistryRestored`."""

    def saw(self, sequence: int) -> bool:
        """Whether an entry of the journal that was written under it shows that it was held then: it
        does where it is later than all that was seen.
        """

    def beat(self) -> None:
        """Give a sign of life."""


class NoLease:
    """`HeldLease` of whoever is alone."""

    sequence = 0
    entry: Mapping[str, Any] = {}

    def require(self) -> None:
        """See `HeldLease`."""

    def saw(self, sequence: int) -> bool:
        """See `HeldLease`."""
        return True

    def beat(self) -> None:
        """See `HeldLease`."""


OF_THE_RUN = ("metrics", "file", "end")  # jobs that touch no version and no alias


class RegistryWriter:
    """Takes a run's writes in the order of the calls.

    ``before_commit`` is called before anything becomes durable (the event log's sync: a snapshot's
    event is on disk before the snapshot is). The ``lease`` is looked at before and after what is
    carried, and gives a sign of life every few seconds; where it is another's, nothing more is
    carried, and a version that was registered meanwhile is marked.
    """

    def __init__(
        self,
        registry: Registry,
        lineage: Lineage,
        outbox: Outbox,
        *,
        before_commit: Callable[[], None] = lambda: None,
        lease: HeldLease | None = None,
    ) -> None:
        self._registry = registry
        self._lease = lease or NoLease()
        self._lineage = replace(lineage, lease=self._lease.sequence)
        self._outbox = outbox
        self._before_commit = before_commit
        self._checked = float("-inf")  # when the lease was seen to be held
        self._unchecked: list[int] = []  # versions that were registered since
        outbox.lineage = asdict(self._lineage)
        # by it a registry is known again that was put back to an earlier state
        outbox.know(f"lease:{self._lease.sequence}", "lease", self._lease.entry)
        self._handed: queue.SimpleQueue[Callable[[], Job] | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._given, self._safe = 0, 0  # jobs handed over, and how many of them are on disk
        self._undone = outbox.pending  # of those on disk, how many the registry does not have
        self._again = self._undone > 0  # the first job of an older outbox may have been half done
        self._away: float | None = None  # since when the registry does not answer
        self._reason = ""
        self._failure: BaseException | None = None  # nothing more may be published
        self._stuck: BaseException | None = None  # nothing more is carried; the stream goes on
        self._stopping = False
        self._steps: list[StepMetrics] = []
        self._moves = 0
        self._threads = [
            threading.Thread(target=self._commit, name="outbox", daemon=True),
            threading.Thread(target=self._carry, name="delivery", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def pending(self) -> int:
        """Writes that the registry does not have yet."""
        return self._given - self._safe + self._undone

    @property
    def given(self) -> int:
        """Writes that were handed over by now."""
        return self._given

    @property
    def full(self) -> bool:
        """So many wait that no more should come."""
        return self.pending >= LIMIT

    @property
    def safe(self) -> bool:
        """Whether all that was handed over is on disk; raises what prevented it."""
        self._raise()
        return self._safe >= self._given

    def add(self, snapshot: Snapshot, adapter: bytes) -> None:
        """Register a snapshot as a version."""
        self._hand(partial(delivery.version_job, snapshot, adapter))

    def point(self, alias: str, snapshot: str, *, actor: str, at: str, reason: str,
              after: int, promotes: bool = False, along: Sequence[str] = ()) -> None:  # fmt: skip
        """Point an alias to the version of a snapshot that was added before, and then those that
        go ``along``.

        Somebody else's move later than ``after`` has precedence.
        """
        self._moves += 1
        run = self._lineage.run_id
        key = f"{run}:{self._moves}"
        wanted = Move(
            self._lineage.model, alias, 0, actor, at, reason, run, key, after, promotes=promotes
        )
        self._hand(partial(delivery.move_job, wanted, snapshot, along))

    def propose(self, snapshot: str, *, actor: str, at: str, reason: str, after: int,
                expires: str, batch: int) -> None:  # fmt: skip
        """Propose the version of a snapshot that was added before, once it has its number."""
        wanted = Proposal(0, "", actor, at, reason, after, snapshot=snapshot, expires=expires,
                          batch=batch)  # fmt: skip
        self._hand(partial(delivery.proposal_job, wanted))

    def pause(self, *, actor: str, at: str, reason: str) -> None:
        """Hold the model's healing in the journal."""
        wanted = Hold(actor, at, reason[:MAX_TEXT], self._lineage.run_id)
        self._hand(partial(delivery.hold_job, wanted))

    def score(
        self, snapshot: str, batch: int, metrics: dict[str, float], scores: AnyScores
    ) -> None:
        """Figures of a snapshot that was added before its labels came."""
        self._hand(partial(delivery.score_job, snapshot, batch, metrics, scores))

    def log_metrics(self, step: StepMetrics) -> None:
        """Figures of a batch."""
        self._steps.append(step)
        if len(self._steps) >= STEPS_AT_ONCE:
            self.send_steps()

    def send_steps(self) -> None:
        """Hand over the figures of the batches until now."""
        steps, self._steps = self._steps, []
        if steps:
            self._hand(partial(delivery.metrics_job, steps))

    def finish(
        self,
        key: str,
        files: Sequence[tuple[Path, str | None]],
        outcome: str,
        tags: dict[str, str],
    ) -> None:
        """Keep figures and files with the run, each file in its folder, and close it."""
        self.send_steps()
        for path, folder in files:
            name = f"{key}:{folder or ''}/{path.name}"
            self._hand(partial(delivery.file_job, name, path, folder, path.stat().st_size))
        self._hand(partial(delivery.end_job, key, outcome, tags))

    def knows(self, snapshot: str, version: int) -> None:
        """A snapshot of an earlier run that was restored."""
        result = {"snapshot": snapshot, "version": version}
        self._outbox.know(f"version:{snapshot}", "known", result)

    @property
    def registry(self) -> Registry:
        """Where it writes to."""
        return self._registry

    def account(self, snapshot: str) -> Account | None:
        """What the run wrote down of a snapshot of its own. Any thread may call."""
        lineage, base = self._lineage, self._registry.base(self._lineage.base)
        return delivery.account_of(self._outbox, snapshot, lineage, base.sha256)

    def results(self) -> list[Event]:
        """What was done since the last call, in order."""
        done = []
        while not self._results.empty():
            done.append(self._results.get())
        return done

    @property
    def holds(self) -> bool:
        """Whether the lease was seen to be held a moment ago; the registry is not waited for."""
        return self._failure is None and monotonic() - self._checked < 2 * BEAT_SECONDS

    def sync(self) -> None:
        """Wait until all that was handed over is on disk; raises what prevented it."""
        with self._changed:
            while self._safe < self._given and self._failure is None:
                self._changed.wait()
        self._raise()

    def flush(
        self,
        patience: float,
        on_left: Callable[[int], None] = lambda left: None,
        *,
        until: int | None = None,
    ) -> None:
        """Wait until the registry has everything, or the first ``until`` that were handed over.

        Raises what went wrong, or `RegistryUnreachable` once it has been away for ``patience``
        seconds; what it does not have stays in the outbox. Any thread may call.
        """
        with self._changed:
            while (self._given if until is None else until) - self._safe + self._undone > 0:
                self._raise()
                if self._stuck is not None:
                    raise self._stuck
                if self._stopping:
                    raise RegistryError("the run ended before the registry had everything")
                if self._away is not None and monotonic() - self._away >= patience:
                    raise RegistryUnreachable(
                        f"{self.pending} writes wait in {self._outbox.path}, since the registry "
                        f"does not answer ({self._reason}); bring them with 'selfheal flush'"
                    )
                on_left(self.pending)
                self._changed.wait(0.1)
        self._raise()
        on_left(0)

    def close(self) -> None:
        """Make durable what was handed over, end what is being carried, and stop."""
        self._handed.put(None)
        self._threads[0].join()
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._threads[1].join()
        self._outbox.close()

    def _hand(self, job: Callable[[], Job]) -> None:
        """Hand over what makes a job: whoever scores does not pay for that either."""
        self._given += 1
        self._handed.put(job)

    def _raise(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _commit(self) -> None:
        """The thread that makes durable: all that was handed over by now, in one go."""
        while True:
            jobs = [self._handed.get()]
            while not self._handed.empty():
                jobs.append(self._handed.get())
            wanted = [job for job in jobs if job is not None]
            if wanted and (self._failure is None or isinstance(self._failure, LeaseHeld)):
                self._make_durable(wanted)
            if None in jobs:
                return

    def _make_durable(self, jobs: list[Callable[[], Job]]) -> None:
        try:
            self._before_commit()
            made = [job() for job in jobs]
            if self._failure is not None:  # who lost the lease moves nothing, but was there
                made = [job for job in made if job.kind in OF_THE_RUN]
            self._outbox.put(made)
            with self._changed:
                self._undone = self._outbox.pending
                self._safe += len(jobs)
                self._changed.notify_all()
        except Exception as exc:  # whatever it is, the stream must hear of it
            self._fail(exc)

    def _carry(self) -> None:
        """The thread that brings: one job after another, and a sign of life now and then."""
        wait, beaten = BACKOFF_SECONDS[0], float("-inf")
        while not self._stopping and self._failure is None and self._stuck is None:
            try:
                if monotonic() - beaten >= BEAT_SECONDS:
                    self._lease.beat()
                    self._check()
                    self._count()  # else a look that came before the last one is waited for
                    beaten = monotonic()
                if not self._carry_next():
                    self._pause(BEAT_SECONDS)
                    continue
                wait, self._away = BACKOFF_SECONDS[0], None
            except RegistryUnreachable as exc:
                self._away = monotonic() if self._away is None else self._away
                self._reason, self._again = str(exc), True
                self._pause(wait, idle=False)
                wait = min(2 * wait, BACKOFF_SECONDS[1])
            except (LeaseHeld, RegistryRestored) as exc:
                with suppress(RegistryError):  # by the fence that the next holder put up, if not so
                    self._mark_stale()
                self._fail(exc)
            except Exception as exc:  # whatever it is, whoever waits must hear of it
                with self._changed:
                    self._stuck = exc
                    self._changed.notify_all()

    def _carry_next(self) -> bool:
        """Bring the oldest job; False where there is none."""
        job = self._outbox.next()
        if job is None and not self._unchecked:
            return False
        if job is None or monotonic() - self._checked > CHECK_SECONDS:
            self._check()
        if job is not None:
            self._deliver(job)
        self._count()
        return True

    def _count(self) -> None:
        """What is left to do: what was registered counts once the lease was looked at again."""
        with self._changed:
            self._undone = self._outbox.pending or min(1, len(self._unchecked))
            self._changed.notify_all()

    def _deliver(self, job: Job) -> None:
        began = monotonic()
        done = delivery.deliver(self._registry, self._lineage, self._outbox, job, again=self._again)
        if job.kind == "version":
            self._unchecked.append(done["version"])
        self._outbox.done(job, done)
        self._again = False
        if job.kind == "move" and "sequence" in done and self._lease.saw(done["sequence"]):
            self._held(began)
        result = result_of(job.kind, done)
        if result is not None:
            self._results.put(result)

    def _check(self) -> None:
        """See that the lease is held; then what was registered under it counts."""
        self._lease.require()
        self._held(monotonic())

    def _held(self, at: float) -> None:
        """It was, and later than what was registered by now."""
        self._unchecked.clear()
        self._checked = at

    def _mark_stale(self) -> None:
        now = standing(self._registry, self._lineage.model)
        for number in self._unchecked:
            if not now.is_fenced(self._lease.sequence, number):
                continue
            self._registry.mark_stale(self._lineage.model, number, self._lease.sequence)

    def _pause(self, seconds: float, *, idle: bool = True) -> None:
        """Wait; where nothing was to do, only until something is."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or (idle and self._undone > 0), seconds)

    def _fail(self, failure: BaseException) -> None:
        with self._changed:
            self._failure = failure
            self._changed.notify_all()
