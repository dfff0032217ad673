"""A rollback as it is planned, then carried out if nothing has changed since."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib import import_module
from math import sqrt
from typing import Literal

from selfheal_cli.errors import (
    ConflictError,
    NoCandidateError,
    RegistryError,
    RegistryUnreachable,
    VersionCorrupt,
    VersionNotFound,
)
from selfheal_cli.records import AliasMove, AnyVersion, ForeignVersion, Phase, VersionRecord
from selfheal_cli.registry.aliases import (
    Move,
    move_alias,
    open_proposal,
    propose,
    settle,
    unsettled,
)
from selfheal_cli.registry.base import CHAMPION, Registry
from selfheal_cli.registry.journal import EntryKind, JournalState, Proposal, standing
from selfheal_cli.rollback.trust import ByTheLog, Trust, told

Criterion = Literal["f1", "f1_lcb"]
Z = 1.96  # two-sided 95 %
FEW_ROWS = 100


@dataclass(frozen=True, slots=True)
class VersionCriteria:
    """What a version must be: by which figure the best, on how many rows, from which regime."""

    by: Criterion = "f1"
    min_rows: int = 0
    regime: str = ""

    def __str__(self) -> str:
        text = "highest F1" if self.by == "f1" else "highest lower bound of F1"
        text += " of the post-heal versions on this base"
        text += f" with {self.min_rows} rows or more" if self.min_rows else ""
        return text + (f" from a {self.regime} stream" if self.regime else "")


@dataclass(slots=True)
class Candidates:
    """Versions of a model that a rollback may go to, taken at their word only where they are what
    their runs wrote down. ``passed_over`` says of each other one that came up what is wrong.
    """

    registry: Registry
    model: str
    base: str
    trust: Trust
    wanted: VersionCriteria = VersionCriteria()
    run_id: str | None = None
    passed_over: list[str] = field(default_factory=list)

    def best(self) -> VersionRecord:
        """The best version that fits; raises `NoCandidateError` saying what none fits.

        By the lower bound the walk ends where no F1 that follows can reach the best bound so far.
        """
        best = next(iter(self), None) if self.wanted.by == "f1" else self._surest()
        if best is None:
            raise self._none()
        return best

    def __iter__(self) -> Iterator[VersionRecord]:
        """Those that fit and are trusted, the highest F1 first."""
        return filter(self._is_trusted, self._fitting())

    def _surest(self) -> VersionRecord | None:
        best: VersionRecord | None = None
        bound = -1.0
        for version in self._fitting():
            if version.f1 is not None and version.f1 <= bound:
                break
            lower = f1_lower_bound(version)
            if lower is not None and lower > bound and self._is_trusted(version):
                best, bound = version, lower
        return best

    def _fitting(self) -> Iterator[VersionRecord]:
        for version in self.registry.ranked(self.model, base=self.base, run_id=self.run_id):
            fits = version.eval_rows >= self.wanted.min_rows
            if fits and self.wanted.regime in ("", version.regime):
                yield version

    def _is_trusted(self, version: VersionRecord) -> bool:
        doubts = self.trust.judge(version).doubts
        if doubts:
            self.passed_over.append(f"v{version.version} was passed over: {told(doubts)}")
        return not doubts

    def _none(self) -> NoCandidateError:
        if self.passed_over:
            count = len(self.passed_over)
            return NoCandidateError(
                f"model '{self.model}': {count} versions fit, and none is what its run wrote down "
                f"({self.passed_over[0]}); see 'selfheal audit', --unverified takes it all the same"
            )
        if self.wanted == VersionCriteria(self.wanted.by):
            self._require_unscored()
            within = f" of run {self.run_id}" if self.run_id else ""
            return NoCandidateError(
                f"model '{self.model}' has no post-heal version{within} on the base that serves; "
                "a heal must come first: see 'selfheal snapshots --phase post-heal'"
            )
        return NoCandidateError(f"model '{self.model}' has no version with the {self.wanted}")

    def _require_unscored(self) -> None:
        """Raises `NoCandidateError` where there are healed versions, and no F1 to choose by."""
        healed = [
            version
            for version in self.registry.versions(self.model, phase=Phase.POST_HEAL)
            if version.base == self.base and self.run_id in (None, version.run_id)
        ]
        if not healed:
            return
        why = "their labels have not come yet"
        try:
            self.registry.run_status(healed[0].run_id)
        except RegistryUnreachable:
            raise
        except RegistryError:
            why = f"run {healed[0].run_id} was removed from the store, and its figures with it"
        raise NoCandidateError(
            f"model '{self.model}' has healed versions, as v{healed[0].version}, and none with an "
            f"F1 to choose by: {why}; name one with --to VERSION"
        )


def f1_lower_bound(version: VersionRecord) -> float | None:
    """Lower end of the 95 % interval of a version's F1; None where its counts are not known.

    F1 = 2p / (1 + p) rises with p = tp / (tp + fp + fn), the share of right ones among the rows
    that are positive or were called so. p's interval is Wilson's (Journal of the American
    Statistical Association 22, 1927, 209-212).

    >>> from types import SimpleNamespace as One
    >>> round(f1_lower_bound(One(counts=(9, 9, 1, 1))), 3), f1_lower_bound(One(counts=(0, 9, 0, 0)))
    (0.687, 0.0)
    """
    counts = version.counts
    if counts is None:
        return None
    tp, _, fp, fn = counts
    n = tp + fp + fn
    if n == 0:
        return 0.0
    p = tp / n
    middle = p + Z**2 / (2 * n)
    spread = Z * sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    lower = max(0.0, (middle - spread) / (1 + Z**2 / n))
    return 2 * lower / (1 + lower)


@dataclass(frozen=True, slots=True)
class RollbackPlan:
    """What serves now, what would, and why it was chosen.

    ``after`` is the champion's last move when it was looked at; ``notes`` say what a person should
    know before agreeing, ``counted`` names the versions whose figures are known to rest on rows
    that their runs counted.
    """

    serving: AnyVersion | None
    target: AnyVersion
    criterion: str
    after: int
    notes: tuple[str, ...] = ()
    counted: frozenset[int] = frozenset()

    def sure_of(self, version: VersionRecord) -> float | None:
        """Lower end of the 95 % interval of a version's F1; None where nobody knows the rows."""
        return f1_lower_bound(version) if version.version in self.counted else None

    @property
    def target_sha256(self) -> str:
        """Hash of the target's adapter; of another tool's version there is none."""
        return self.target.sha256 if isinstance(self.target, VersionRecord) else ""

    @property
    def serves_already(self) -> bool:
        """Whether there is nothing to move."""
        return self.serving is not None and self.serving.version == self.target.version


@dataclass(frozen=True, slots=True)
class By:
    """Who carries something out, when and why; ``four_eyes`` is their policy's word."""

    actor: str
    at: str
    reason: str
    four_eyes: bool = False


def load_checks() -> None:
    """Begin to load what the checks need, which takes a second: the registry is asked meanwhile."""
    name = f"{__package__}.verify"
    threading.Thread(target=import_module, args=(name,), name="loading").start()


def plan_best(
    registry: Registry,
    model: str,
    wanted: VersionCriteria | None = None,
    trust: Trust | None = None,
) -> RollbackPlan:
    """To the best post-heal version that shares the base of what serves."""
    wanted, trust = wanted or VersionCriteria(), trust or ByTheLog(registry)
    serving = champion_of(registry, model)
    own = serving if isinstance(serving, VersionRecord) else last_own(registry, model)
    candidates = Candidates(registry, model, own.base, trust, wanted)
    target = candidates.best()
    plan = make_plan(registry, serving, target, str(wanted), trust)
    plan = replace(plan, notes=(*plan.notes, *candidates.passed_over))
    if wanted.by == "f1" and target.eval_rows < FEW_ROWS:
        bound = plan.sure_of(target)
        sure = "" if bound is None else f", of which 95 % sure is {bound:.3f}"
        note = (
            f"v{target.version}'s F1 rests on {target.eval_rows} rows{sure}; --by f1_lcb, "
            "--min-rows and --revalidate choose with more care"
        )
        plan = replace(plan, notes=(*plan.notes, note))
    return plan


def plan_version(
    registry: Registry, model: str, number: int, trust: Trust | None = None
) -> RollbackPlan:
    """To a version that somebody named; raises `VersionCorrupt` for one that is not trusted."""
    serving, target = champion_of(registry, model), registry.any_version(model, number)
    return make_plan(registry, serving, target, "named", trust)


def plan_previous(registry: Registry, model: str, trust: Trust | None = None) -> RollbackPlan:
    """To what served before; raises `NoCandidateError` where nothing did."""
    serving = champion_of(registry, model)
    last = standing(registry, model).moves.get(CHAMPION)
    before = last.target if last is not None else None
    if last is not None and serving is not None and serving.version == last.target:
        moves = (move for move in _champion_moves(registry, model) if move.source != move.target)
        before = last.source if last.source != last.target else next(moves, last).source
    if before is None:
        raise NoCandidateError(f"model '{model}': nothing is recorded to have served before")
    target = registry.any_version(model, before)
    return make_plan(registry, serving, target, "what served before", trust)


def present_regime(registry: Registry, model: str) -> str:
    """The drift regime that the model's latest version was made in."""
    latest = registry.versions(model, limit=1)
    regime = latest[0].regime if latest else ""
    if not regime:
        raise NoCandidateError(
            f"model '{model}': its latest version does not say whether the stream drifted; leave "
            "--regime out"
        )
    return regime


def champion_of(registry: Registry, model: str) -> AnyVersion | None:
    """What the alias points to, if it does; raises `VersionNotFound` for an unknown model."""
    number = registry.alias(model, CHAMPION)
    if number is None:
        registry.versions(model, limit=1)
        return None
    return registry.any_version(model, number)


def serving_version(registry: Registry, model: str) -> VersionRecord | None:
    """The champion, if there is one; raises `VersionNotFound` for an unknown model, or where
    another tool registered the champion.
    """
    champion = champion_of(registry, model)
    if isinstance(champion, ForeignVersion):
        return registry.version(model, champion.version)  # which says so
    return champion


def last_own(registry: Registry, model: str) -> VersionRecord:
    """The last champion that selfheal registered; where there was none, the latest version."""
    for move in _champion_moves(registry, model):
        try:
            return registry.version(model, move.target)
        except VersionNotFound:
            continue  # another tool's as well, or removed
    for latest in registry.versions(model, limit=1):
        return latest
    raise NoCandidateError(f"model '{model}' has no version; run 'selfheal run' first")


def _champion_moves(registry: Registry, model: str) -> list[AliasMove]:
    """All of them, the last one first."""
    moves = (
        AliasMove(**entry.data)
        for entry in registry.entries(model)
        if entry.kind is EntryKind.MOVED and entry.data["alias"] == CHAMPION
    )
    return list(moves)[::-1]


def make_plan(
    registry: Registry,
    serving: AnyVersion | None,
    target: AnyVersion,
    criterion: str,
    trust: Trust | None = None,
) -> RollbackPlan:
    """A plan that holds only as long as nobody else moves the champion.

    Raises `VersionCorrupt` where the target is not what its run wrote down.
    """
    trust = trust or ByTheLog(registry)
    now = standing(registry, target.model)
    last, left = now.moves.get(CHAMPION), unsettled(registry, target.model, CHAMPION, now)
    notes = []
    if left is not None:
        notes.append(f"{left}; that is put right first")
    elif last is not None and (serving is None or serving.version != last.target):
        actual = f"v{serving.version}" if serving else "nothing"
        notes.append(
            f"the champion is {actual}, the journal's last move set v{last.target}: another tool "
            "moved it"
        )
    if isinstance(serving, ForeignVersion):
        notes.append(f"the champion is {serving} ({serving.source}): nothing of it can be compared")
    plan = RollbackPlan(serving, target, criterion, last.sequence if last else 0)
    if plan.serves_already:
        notes.append(f"v{target.version} serves already")
    else:
        notes += _judged(target, trust)
    both = (one for one in (serving, target) if one is not None)
    counted = frozenset(one.version for one in both if trust.judge(one).counted)
    return replace(plan, notes=tuple(notes), counted=counted)


def _judged(target: AnyVersion, trust: Trust) -> list[str]:
    """What to know of a target that is trusted; raises `VersionCorrupt` for another one."""
    verdict = trust.judge(target)
    if verdict.doubts:
        raise VersionCorrupt(
            f"{target.model} v{target.version}: {told(verdict.doubts)}; a rollback goes only to "
            "what a run of selfheal wrote down: see 'selfheal audit', or take it all the same with "
            "--unverified"
        )
    return [f"v{target.version} {verdict.note}"] if verdict.note else []


def check_target(registry: Registry, plan: RollbackPlan) -> None:
    """Raise what forbids to serve a plan's target; another tool's version cannot be checked."""
    from selfheal_cli.rollback.verify import load_verified

    if isinstance(plan.target, VersionRecord):
        load_verified(registry, plan.target)


def execute(
    registry: Registry, plan: RollbackPlan, by: By, proposal: int | None = None
) -> AliasMove | None:
    """Check the target, then move the alias to it; raises what forbids it, before it moved.

    None where the target serves already: then nothing is moved and nothing written.
    """
    check_target(registry, plan)
    if plan.serves_already and not settle(registry, plan.target.model):
        return None
    reason = by.reason
    if isinstance(plan.serving, ForeignVersion):
        reason = f"{reason} (in place of {plan.serving})"
    return move_alias(
        registry,
        Move(
            plan.target.model,
            CHAMPION,
            plan.target.version,
            by.actor,
            by.at,
            reason,
            after=plan.after,
            proposal=proposal,
            four_eyes=by.four_eyes,
        ),
    )


def make_proposal(registry: Registry, plan: RollbackPlan, by: By) -> Proposal:
    """Write a plan down for somebody else to approve, once its target was checked."""
    check_target(registry, plan)
    target = plan.target
    wanted = Proposal(target.version, plan.target_sha256, by.actor, by.at, by.reason, plan.after)
    return propose(registry, target.model, wanted)


def plan_proposed(
    registry: Registry, model: str, number: int, trust: Trust | None = None
) -> tuple[RollbackPlan, Proposal]:
    """The plan of an open proposal; raises `ConflictError` where the champion moved since, or the
    version is not what was proposed.
    """
    now: JournalState = standing(registry, model)
    proposal = open_proposal(now, model, number)
    if proposal.loosens:
        raise RegistryError(f"proposal {number} is no rollback: it would loosen four eyes")
    plan = plan_version(registry, model, proposal.target, trust)
    if plan.after != proposal.after:
        last = now.moves[CHAMPION]
        raise ConflictError(
            f"proposal {number} was made before {last.actor} moved the champion to v{last.target} "
            f"at {last.at} ({last.reason}); reject it and propose anew"
        )
    if plan.target_sha256 != proposal.sha256:
        raise ConflictError(
            f"proposal {number} is for other bytes than v{proposal.target} has now; reject it"
        )
    return replace(plan, criterion=f"proposed by {proposal.actor}"), proposal
