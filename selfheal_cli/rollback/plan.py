"""A rollback as it is planned, then carried out if nothing has changed since."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from importlib import import_module

from selfheal_cli.errors import NothingToRestore, Overtaken
from selfheal_cli.records import AliasMove, VersionRecord
from selfheal_cli.registry.base import CHAMPION, Registry
from selfheal_cli.registry.journal import Proposal, Standing, standing
from selfheal_cli.registry.moves import Move, move_alias, open_proposal, propose
from selfheal_cli.rollback.select import FEW_ROWS, Wanted, choose, f1_lower_bound


@dataclass(frozen=True, slots=True)
class Plan:
    """What serves now, what would, and why it was chosen.

    ``after`` is the champion's last move when it was looked at; ``notes`` say what a person should
    know before agreeing.
    """

    serving: VersionRecord | None
    target: VersionRecord
    criterion: str
    after: int
    notes: tuple[str, ...] = ()


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


def plan_best(registry: Registry, model: str, wanted: Wanted | None = None) -> Plan:
    """To the best post-heal version that shares the base of what serves."""
    wanted = wanted or Wanted()
    serving = serving_version(registry, model)
    known = [serving] if serving else registry.versions(model, limit=1)
    if not known:
        raise NothingToRestore(f"model '{model}' has no version; run 'selfheal run' first")
    target = choose(registry, model, base=known[0].base, wanted=wanted)
    plan = make_plan(registry, serving, target, str(wanted))
    if wanted.by == "f1" and target.eval_rows < FEW_ROWS:
        bound = f1_lower_bound(target)
        sure = "" if bound is None else f", of which 95 % sure is {bound:.3f}"
        note = (
            f"v{target.version}'s F1 rests on {target.eval_rows} rows{sure}; --by f1_lcb, "
            "--min-rows and --revalidate choose with more care"
        )
        plan = Plan(plan.serving, target, plan.criterion, plan.after, (*plan.notes, note))
    return plan


def plan_version(registry: Registry, model: str, number: int) -> Plan:
    """To a version that somebody named."""
    serving = serving_version(registry, model)
    return make_plan(registry, serving, registry.version(model, number), "named")


def plan_previous(registry: Registry, model: str) -> Plan:
    """To what served before; raises `NothingToRestore` where nothing did."""
    last = standing(registry, model).moves.get(CHAMPION)
    serving = serving_version(registry, model)
    if serving is None or last is None or last.source is None:
        raise NothingToRestore(f"model '{model}': nothing is recorded to have served before")
    # another tool may have moved the alias since: then what selfheal set is what served before
    before = last.source if last.target == serving.version else last.target
    return make_plan(registry, serving, registry.version(model, before), "what served before")


def present_regime(registry: Registry, model: str) -> str:
    """The drift regime that the model's latest version was made in."""
    latest = registry.versions(model, limit=1)
    found = latest[0].regime if latest else ""
    if not found:
        raise NothingToRestore(
            f"model '{model}': its latest version does not say whether the stream drifted; leave "
            "--regime out"
        )
    return found


def serving_version(registry: Registry, model: str) -> VersionRecord | None:
    """The champion, if there is one; raises `VersionNotFound` for an unknown model."""
    number = registry.alias(model, CHAMPION)
    if number is None:
        registry.versions(model, limit=1)
        return None
    return registry.version(model, number)


def make_plan(
    registry: Registry, serving: VersionRecord | None, target: VersionRecord, criterion: str
) -> Plan:
    """A plan that holds only as long as nobody else moves the champion."""
    last = standing(registry, target.model).moves.get(CHAMPION)
    notes = []
    if last is not None and (serving is None or serving.version != last.target):
        found = f"v{serving.version}" if serving else "nothing"
        notes.append(
            f"the champion is {found}, the journal's last move set v{last.target}: another tool "
            "moved it"
        )
    if serving is not None and serving.version == target.version:
        notes.append(f"v{target.version} serves already")
    return Plan(serving, target, criterion, last.sequence if last else 0, tuple(notes))


def execute(registry: Registry, plan: Plan, by: By, proposal: int | None = None) -> AliasMove:
    """Check the target, then move the alias to it; raises what forbids it, before it moved."""
    from selfheal_cli.rollback.verify import load_verified

    load_verified(registry, plan.target)
    return move_alias(
        registry,
        Move(
            plan.target.model,
            CHAMPION,
            plan.target.version,
            by.actor,
            by.at,
            by.reason,
            after=plan.after,
            proposal=proposal,
            four_eyes=by.four_eyes,
        ),
    )


def make_proposal(registry: Registry, plan: Plan, by: By) -> Proposal:
    """Write a plan down for somebody else to approve, once its target was checked."""
    from selfheal_cli.rollback.verify import load_verified

    load_verified(registry, plan.target)
    target = plan.target
    wanted = Proposal(target.version, target.sha256, by.actor, by.at, by.reason, plan.after)
    return propose(registry, target.model, wanted)


def plan_proposed(registry: Registry, model: str, number: int) -> tuple[Plan, Proposal]:
    """The plan of an open proposal; raises `Overtaken` where the champion moved since, or the
    version is not what was proposed.
    """
    now: Standing = standing(registry, model)
    found = open_proposal(now, model, number)
    plan = plan_version(registry, model, found.target)
    if plan.after != found.after:
        last = now.moves[CHAMPION]
        raise Overtaken(
            f"proposal {number} was made before {last.actor} moved the champion to v{last.target} "
            f"at {last.at} ({last.reason}); reject it and propose anew"
        )
    if plan.target.sha256 != found.sha256:
        raise Overtaken(
            f"proposal {number} is for other bytes than v{found.target} has now; reject it"
        )
    return Plan(plan.serving, plan.target, f"proposed by {found.actor}", plan.after), found
