"""The one seam between a stream and the world beside it: `Outside`, and the world as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Protocol

from selfheal_cli.config import RunConfig
from selfheal_cli.errors import NoCandidateError
from selfheal_cli.events.run_record import Account
from selfheal_cli.heal.engine import HealEngine, InlineEngine, LiveModel, Serving
from selfheal_cli.heal.recipe import Recipes
from selfheal_cli.model.network import Weights
from selfheal_cli.pipeline.record.recorder import Writer
from selfheal_cli.pipeline.stream.champion import ChampionMove, Others
from selfheal_cli.pipeline.stream.ordered import OrderedCanary
from selfheal_cli.records import VersionRecord
from selfheal_cli.registry.base import Lineage, Registry
from selfheal_cli.rollback.plan import Candidates, champions, version_of
from selfheal_cli.rollback.trust import Trust, Unverified, summed_up
from selfheal_cli.rollback.verify import load_verified

FULL = "as many writes wait for the registry as may"
RELEASED = "nothing holds it any more"
SELFHEAL = "selfheal"  # who holds healing where nobody does by hand


@dataclass(frozen=True, slots=True)
class HoldChange:
    """Healing is held from ``batch`` on, or no longer; by whom, and why."""

    batch: int
    held: bool
    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class ModeChange:
    """From ``batch`` on the heals of a served model may do something else; ``order`` is the number
    of the journal's entry.
    """

    batch: int
    mode: str
    actor: str
    reason: str
    order: int


@dataclass(frozen=True, slots=True)
class CanaryWithdrawn:
    """Somebody had the canary tried no more, from ``batch`` on."""

    batch: int
    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """The stream was stopped after ``batch``, and resumed later."""

    batch: int


@dataclass(frozen=True, slots=True)
class Best:
    """A version to go back to; ``passed_over`` says of better ones why they are not it.

    ``version`` is 0 where the registry has not numbered the snapshot yet.
    """

    snapshot: str
    version: int
    weights: Weights
    threshold: float
    sha256: str
    f1: float | None
    rows: int
    passed_over: tuple[str, ...] = ()

    @classmethod
    def of(cls, stored: VersionRecord, weights: Weights, passed_over: Sequence[str] = ()) -> Best:
        """As the registry has it."""
        return cls(
            stored.tags["selfheal.snapshot"], stored.version, weights, stored.threshold,
            stored.sha256, stored.f1, stored.eval_rows, tuple(passed_over),
        )  # fmt: skip

    @classmethod
    def served(cls, before: Serving, account: Account) -> Best:
        """What served in this run, as the run has it itself."""
        scores = account.scored or account.taken.scores
        return cls(
            before.snapshot, account.version or 0, before.adapter.weights, before.threshold,
            account.taken.sha256, scores.f1 if scores else None, scores.rows if scores else 0,
        )  # fmt: skip


Change = ChampionMove | HoldChange | ModeChange | CanaryWithdrawn | OrderedCanary | Stopped


class Outside(Protocol):
    """All that a stream asks of the world; where a record is gone through, it answers instead."""

    @property
    def heals(self) -> HealEngine:
        """Where heals are asked for, and taken when they are done."""

    def changes(self, batch: int, *, held: bool, mode: str) -> Iterator[Change]:
        """What others changed by ``batch``, where healing was ``held`` or not until then, and the
        model in this ``mode``.
        """

    def meanwhile(self) -> Iterator[Change]:
        """What is known to have come before the next batch, since it is on record.

        Each is to be carried out before the next is asked for.
        """

    def ask_best(self, before: Serving | None = None) -> None:
        """Ask for what served ``before``, or else which version is best of all.

        An earlier question is dropped.
        """

    def best(self, *, wait: bool) -> Best | None:
        """The answer to `ask_best`, None where it is not there yet; raises `SelfhealError` kinds.

        It is given once.
        """

    def is_durable(self, *, wait: bool) -> bool:
        """Whether all that was noted and kept is on disk; ``wait`` until it is."""


class Live(Outside):
    """The world as it is: other people, the registry, the disk.

    Heals run as the configuration wants them, in an engine that is begun when it is first needed.
    The registry is asked for the best version in a thread of its own. ``behind`` says why healing
    should pause, if it should.
    """

    def __init__(
        self,
        config: RunConfig,
        registry: Registry,
        lineage: Lineage,
        writer: Writer,
        others: Others,
        serving: LiveModel,
        recipes: Recipes,
        *,
        trust: Callable[[], Trust] = Unverified,
        behind: Callable[[], str] = lambda: "",
    ) -> None:
        self.config, self.registry, self.lineage = config, registry, lineage
        self.serving, self.recipes = serving, recipes
        self._writer, self._others, self._trust, self._behind = writer, others, trust, behind
        self._served = config.is_served
        self._answer: Future[Best] | None = None

    @cached_property
    def heals(self) -> HealEngine:
        """Begun when it is first needed."""
        return engine_of(self.config, self.serving, self.recipes)

    def changes(self, batch: int, *, held: bool, mode: str) -> Iterator[Change]:
        """As they stand now."""
        wanted = self._others.mode if self._served else None
        if wanted is not None and wanted.mode != mode:
            yield ModeChange(batch, wanted.mode, wanted.actor, wanted.reason, wanted.sequence)
        hold = self._others.hold
        reason = hold.reason if hold else FULL if self._writer.full else self._behind()
        if bool(hold or reason) != held:
            yield HoldChange(batch, not held, hold.actor if hold else SELFHEAL, reason or RELEASED)
        moved = self._others.take()
        if moved is not None:
            yield replace(moved, batch=batch)
        withdrawn = self._others.take_withdrawn()
        if withdrawn is not None:
            yield CanaryWithdrawn(batch, withdrawn.actor, withdrawn.reason)
        ordered = self._others.take_ordered()
        if ordered is not None:
            yield ordered

    def meanwhile(self) -> Iterator[Change]:
        """Nobody knows yet."""
        return iter(())

    def ask_best(self, before: Serving | None = None) -> None:
        """The best of all from a thread of its own, once what was written has arrived. What served
        before in this run is at hand: nobody is waited for.
        """
        account = None
        if before is not None:
            self._writer.sync()
            account = self._writer.account(before.snapshot)
        if before is not None and account is not None:
            self._answer = Future()
            self._answer.set_result(Best.served(before, account))
            return
        arrival = partial(self._writer.flush, 0.0, until=self._writer.given)
        thread = ThreadPoolExecutor(1, thread_name_prefix="question")
        self._answer = thread.submit(self._find, before.snapshot if before else "", arrival)
        thread.shutdown(wait=False)

    def best(self, *, wait: bool) -> Best | None:
        """What the registry answered, if it has."""
        if self._answer is None or not (wait or self._answer.done()):
            return None
        answer, self._answer = self._answer, None
        return answer.result()

    def is_durable(self, *, wait: bool) -> bool:
        """By the log and the outbox."""
        if not wait:
            return self._writer.safe
        self._writer.sync()
        return True

    def _find(self, snapshot: str, arrival: Callable[[], None]) -> Best:
        arrival()
        lineage, trust = self.lineage, self._trust()
        if snapshot:
            return self._of(snapshot, trust)
        within = lineage.run_id if self.config.policy.rollback_candidates == "run" else None
        # of a served model what was only registered, or proposed, stays for a person to choose
        among = champions(self.registry, lineage.model) if self._served else None
        candidates = Candidates(
            self.registry, lineage.model, lineage.base, trust, run_id=within, among=among
        )
        best = candidates.best()
        weights = load_verified(self.registry, best)
        return Best.of(best, weights, candidates.passed_over)

    def _of(self, snapshot: str, trust: Trust) -> Best:
        """The version of a snapshot that served; raises `NoCandidateError` where it is not there,
        or not what its run wrote down.
        """
        version = version_of(self.registry, self.lineage.model, snapshot)
        doubts = trust.judge(version).doubts
        if doubts:
            raise NoCandidateError(f"v{version.version} served before: {summed_up(doubts)}")
        return Best.of(version, load_verified(self.registry, version))

    def close(self) -> None:
        """Give back what the engine holds."""
        if "heals" in self.__dict__:
            self.heals.close()


def engine_of(config: RunConfig, serving: LiveModel, recipes: Recipes) -> HealEngine:
    """In place, or in a process of its own, as the configuration wants it."""
    if config.heal.mode == "sync":
        return InlineEngine(serving, recipes)
    from selfheal_cli.heal.worker_engine import WorkerEngine

    return WorkerEngine(serving, recipes)
