"""Rollbacks: planned first, then carried out if nothing has changed since."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Set
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
from selfheal_cli.registry.aliases import Move, move_alias, settle, unsettled
from selfheal_cli.registry.base import CHAMPION, Registry
from selfheal_cli.registry.journal import EntryKind, JournalState, Proposal, standing
from selfheal_cli.registry.orders import (
    approve_first,
    needs_no_other,
    open_proposal,
    propose,
    require_fresh,
)
from selfheal_cli.rollback.trust import ByTheLog, Trust, summed_up

Criterion = Literal["f1", "f1_lcb"]
Z = 1.96  # two-sided 95 %
FEW_ROWS = 100


@dataclass(frozen=True, slots=True)
class VersionCriteria:
    """What a rollback's target must be: best by ``by``, on ``min_rows`` rows or more, and made
    while the stream was in this drift ``regime``; empty for any.
    """

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
    """Versions of a model that a rollback may go to: those that fit and are trusted.

    ``passed_over`` says of each version that fits and is not trusted what is wrong with it;
    ``among`` are those that may be chosen, None for all.
    """

    registry: Registry
    model: str
    base: str
    trust: Trust
    criteria: VersionCriteria = VersionCriteria()
    run_id: str | None = None
    among: Set[int] | None = None
    passed_over: list[str] = field(default_factory=list)

    def best(self) -> VersionRecord:
        """The best version that fits; raises `NoCandidateError` saying why there is none."""
        best = next(iter(self), None) if self.criteria.by == "f1" else self._best_lower_bound()
        if best is None:
            raise self._none()
        return best

    def __iter__(self) -> Iterator[VersionRecord]:
        """The versions that fit and are trusted, the highest F1 first."""
        return filter(self._is_trusted, self._fitting())

    def _best_lower_bound(self) -> VersionRecord | None:
        best: VersionRecord | None = None
        bound = -1.0
        for version in self._fitting():
            # a lower bound is below its F1, and the F1s that follow are lower still
            if version.f1 is not None and version.f1 <= bound:
                break
            lower = f1_lower_bound(version)
            if lower is not None and lower > bound and self._is_trusted(version):
                best, bound = version, lower
        return best

    def _fitting(self) -> Iterator[VersionRecord]:
        for version in self.registry.ranked(self.model, base=self.base, run_id=self.run_id):
            fits = version.eval_rows >= self.criteria.min_rows
            fits = fits and (self.among is None or version.version in self.among)
            if fits and self.criteria.regime in ("", version.regime):
                yield version

    def _is_trusted(self, version: VersionRecord) -> bool:
        doubts = self.trust.judge(version).doubts
        if doubts:
            self.passed_over.append(f"v{version.version} was passed over: {summed_up(doubts)}")
        return not doubts

    def _none(self) -> NoCandidateError:
        if self.passed_over:
            count = len(self.passed_over)
            return NoCandidateError(
                f"model '{self.model}': {count} versions fit, and none is what its run wrote down "
                f"({self.passed_over[0]}); see 'selfheal audit', --unverified takes it all the same"
            )
        if self.criteria == VersionCriteria(self.criteria.by):
            self._refuse_unscored()
            within = f" of run {self.run_id}" if self.run_id else ""
            return NoCandidateError(
                f"model '{self.model}' has no post-heal version{within} on the base that serves; "
                "a heal must come first: see 'selfheal snapshots --phase post-heal'"
            )
        return NoCandidateError(f"model '{self.model}' has no version with the {self.criteria}")

    def _refuse_unscored(self) -> None:
        """Raise `NoCandidateError` where there are healed versions without an F1 to choose by."""
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

    F1 = 2p / (1 + p) rises with p = tp / (tp + fp + fn), the share of true positives among the
    rows that are positive or were predicted to be. p's interval is Wilson's (Journal of the
    American Statistical Association 22, 1927, 209-212).

    >>> from types import SimpleNamespace as V
    >>> round(f1_lower_bound(V(counts=(9, 9, 1, 1))), 3), f1_lower_bound(V(counts=(0, 9, 0, 0)))
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
    """A rollback from the ``serving`` version to ``target``, which was chosen by ``criterion``.

    ``after`` is the number of the champion's last move when the plan was made; ``notes`` say what
    a person should know before agreeing; ``counted`` are the versions whose figures are known to
    rest on rows that their runs counted.
    """

    serving: AnyVersion | None
    target: AnyVersion
    criterion: str
    after: int
    notes: tuple[str, ...] = ()
    counted: frozenset[int] = frozenset()

    def lower_bound(self, version: VersionRecord) -> float | None:
        """Lower end of the 95 % interval of a version's F1; None where its rows are not known."""
        return f1_lower_bound(version) if version.version in self.counted else None

    @property
    def target_sha256(self) -> str:
        """Hash of the target's adapter; empty for another tool's version."""
        return self.target.sha256 if isinstance(self.target, VersionRecord) else ""

    @property
    def serves_already(self) -> bool:
        """Whether the target is the serving version, so that there is nothing to move."""
        return self.serving is not None and self.serving.version == self.target.version


@dataclass(frozen=True, slots=True)
class By:
    """Who carries a move out, when and why; ``four_eyes``: a second person must approve."""

    actor: str
    at: str
    reason: str
    four_eyes: bool = False


def load_checks() -> None:
    """Begin to import what the checks need in a thread: it takes a second beside the registry."""
    name = f"{__package__}.verify"
    threading.Thread(target=import_module, args=(name,), name="loading").start()


def plan_best(
    registry: Registry,
    model: str,
    criteria: VersionCriteria | None = None,
    trust: Trust | None = None,
) -> RollbackPlan:
    """A rollback to the best post-heal version on the base of the serving version.

    Raises `NoCandidateError` where there is none.
    """
    criteria, trust = criteria or VersionCriteria(), trust or ByTheLog(registry)
    serving = champion_of(registry, model)
    last = serving if isinstance(serving, VersionRecord) else last_own(registry, model)
    candidates = Candidates(registry, model, last.base, trust, criteria)
    target = candidates.best()
    plan = make_plan(registry, serving, target, str(criteria), trust)
    plan = replace(plan, notes=(*plan.notes, *candidates.passed_over))
    if criteria.by == "f1" and target.eval_rows < FEW_ROWS:
        bound = plan.lower_bound(target)
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
    """A rollback to a named version; raises `VersionCorrupt` for one that is not trusted."""
    serving, target = champion_of(registry, model), registry.any_version(model, number)
    return make_plan(registry, serving, target, "named", trust)


def plan_previous(registry: Registry, model: str, trust: Trust | None = None) -> RollbackPlan:
    """A rollback to the version that served before; raises `NoCandidateError` where none did."""
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


def version_of(registry: Registry, model: str, snapshot: str) -> VersionRecord:
    """The version of a snapshot among the latest that may serve; raises `NoCandidateError`."""
    for phase in (Phase.POST_HEAL, Phase.BASELINE):
        for version in registry.versions(model, phase=phase):
            if version.tags.get("selfheal.snapshot") == snapshot:
                return version
    raise NoCandidateError(f"model '{model}' has no version of snapshot {snapshot} any more")


def present_regime(registry: Registry, model: str) -> str:
    """The drift regime in which the model's latest version was made.

    Raises `NoCandidateError` where the version does not say.
    """
    latest = registry.versions(model, limit=1)
    regime = latest[0].regime if latest else ""
    if not regime:
        raise NoCandidateError(
            f"model '{model}': its latest version does not say whether the stream drifted; leave "
            "--regime out"
        )
    return regime


def champion_of(registry: Registry, model: str) -> AnyVersion | None:
    """The champion, if there is one; raises `VersionNotFound` for an unknown model."""
    number = registry.alias(model, CHAMPION)
    if number is None:
        registry.versions(model, limit=1)
        return None
    return registry.any_version(model, number)


def serving_version(registry: Registry, model: str) -> VersionRecord | None:
    """The champion as a version of selfheal's, if there is one.

    Raises `VersionNotFound` for an unknown model, or where another tool registered the champion.
    """
    champion = champion_of(registry, model)
    if isinstance(champion, ForeignVersion):
        return registry.version(model, champion.version)  # raises the error that says so
    return champion


def last_own(registry: Registry, model: str) -> VersionRecord:
    """The last champion that selfheal registered; where there was none, the latest version."""
    for move in _champion_moves(registry, model):
        try:
            return registry.version(model, move.target)
        except VersionNotFound:
            continue  # it is another tool's too, or was removed
    for latest in registry.versions(model, limit=1):
        return latest
    raise NoCandidateError(f"model '{model}' has no version; run 'selfheal run' first")


def champions(registry: Registry, model: str) -> Set[int]:
    """Versions that were champion at any time, by the journal."""
    return {move.target for move in _champion_moves(registry, model)}


def _champion_moves(registry: Registry, model: str) -> list[AliasMove]:
    """All moves of the champion, the last one first."""
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
    """A plan that can be carried out as long as nobody else moves the champion.

    Raises `VersionCorrupt` where the target differs from the log of its run.
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
        notes += _notes_on(target, trust)
    both = (version for version in (serving, target) if version is not None)
    counted = frozenset(version.version for version in both if trust.judge(version).counted)
    return replace(plan, notes=tuple(notes), counted=counted)


def _notes_on(target: AnyVersion, trust: Trust) -> list[str]:
    """Notes on a trusted target; raises `VersionCorrupt` for another one."""
    verdict = trust.judge(target)
    if verdict.doubts:
        raise VersionCorrupt(
            f"{target.model} v{target.version}: {summed_up(verdict.doubts)}; a rollback goes only "
            "to what a run of selfheal wrote down: see 'selfheal audit', or take it all the same "
            "with --unverified"
        )
    return [f"v{target.version} {verdict.note}"] if verdict.note else []


def check_target(registry: Registry, plan: RollbackPlan) -> None:
    """Load a plan's target, which raises where it cannot serve; another tool's is not checked."""
    from selfheal_cli.rollback.verify import load_verified

    if isinstance(plan.target, VersionRecord):
        load_verified(registry, plan.target)


def execute(
    registry: Registry, plan: RollbackPlan, by: By, proposal: int | None = None
) -> AliasMove | None:
    """Check the target, then move the alias to it; an error is raised before anything moved.

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


def approve(registry: Registry, plan: RollbackPlan, proposal: Proposal, by: By) -> AliasMove | None:
    """Carry an approved proposal out; None where it takes another person's approval still, since
    the model wants two people and a heal proposed it.
    """
    four_eyes = by.four_eyes or standing(registry, plan.target.model).four_eyes
    first = proposal.snapshot and four_eyes and not needs_no_other(proposal, by.actor)
    if first and not proposal.approved_by:
        check_target(registry, plan)
        who = {"actor": by.actor, "at": by.at, "reason": by.reason}
        approve_first(registry, plan.target.model, proposal.sequence, **who)
        return None
    return execute(registry, plan, by, proposal.sequence)


def make_proposal(registry: Registry, plan: RollbackPlan, by: By) -> Proposal:
    """Check a plan's target and write the plan down for a second person to approve."""
    check_target(registry, plan)
    target = plan.target
    proposal = Proposal(target.version, plan.target_sha256, by.actor, by.at, by.reason, plan.after)
    return propose(registry, target.model, proposal)


def plan_proposed(
    registry: Registry, model: str, number: int, at: str, trust: Trust | None = None
) -> tuple[RollbackPlan, Proposal]:
    """The plan of an open proposal, as of the time ``at`` (ISO 8601, UTC).

    Raises `ConflictError` where it has expired, the champion has moved since, or the version has
    changed.
    """
    now: JournalState = standing(registry, model)
    proposal = open_proposal(now, model, number)
    if proposal.loosens:
        raise RegistryError(f"proposal {number} is no rollback: it would loosen four eyes")
    require_fresh(proposal, at)
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
