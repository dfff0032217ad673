"""Modes of a served model and its budget: what a heal may do, and what a person decides of it."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from selfheal_cli.config import HealSettings, Policy
from selfheal_cli.errors import ApprovalNeeded, ConflictError, RegistryError
from selfheal_cli.events.types import (
    AliasMoved,
    HealPublished,
    HealWithheld,
    ModeChanged,
    ProposalMade,
)
from selfheal_cli.heal.task import AdapterState, HealOutcome, HealRows, HealTask
from selfheal_cli.pipeline.prepare.continuing import Spent, spent
from selfheal_cli.pipeline.stream.allowance import HOUR, Allowance
from selfheal_cli.pipeline.stream.context import StreamState
from selfheal_cli.registry.aliases import Move, move_alias
from selfheal_cli.registry.base import CHAMPION
from selfheal_cli.registry.journal import EntryKind, standing
from selfheal_cli.registry.orders import (
    mode_of,
    open_proposal,
    propose,
    set_four_eyes,
    set_mode,
)
from selfheal_cli.rollback.plan import (
    By,
    Candidates,
    approve,
    champions,
    execute,
    plan_proposed,
    plan_version,
)
from selfheal_cli.rollback.trust import Unverified
from tests.pipeline.small import config, ran, watch_heals
from tests.pipeline.test_outside import Looking
from tests.pipeline.test_served import Server, events_of

AT = datetime.now(UTC).isoformat(timespec="milliseconds")
WIDE = {"budget_moves": 1_000, "budget_change": 1.0, "budget_change_in_all": 1.0}


def order(server: Server, mode: Any) -> None:
    set_mode(server.registry, "fraud", mode, actor="ann", at=AT, reason="first week")


def healed(server: Server, batches: int, **policy: Any) -> Any:
    server.answer(batches)
    server.label(list(server.truth)[-4 * batches :])
    return server.serve(server.open(policy=policy))


def test_in_shadow_heals_are_judged_and_registered_and_nothing_is_published(
    server: Server,
) -> None:
    before = server.champion()
    order(server, "shadow")
    done = healed(server, 5, **WIDE)
    (changed,) = cast("list[ModeChanged]", events_of(done, ModeChanged))
    assert (changed.mode, changed.actor, changed.reason) == ("shadow", "ann", "first week")
    assert not events_of(done, HealPublished, AliasMoved, ProposalMade)
    kept = cast("list[HealWithheld]", events_of(done, HealWithheld))
    assert kept
    assert not any(one.proposed for one in kept)
    assert server.champion() == before
    newest = server.registry.versions("fraud", limit=1)[0]
    assert newest.tags["selfheal.snapshot"] == kept[-1].to_snapshot
    server.holds()
    # nor does an automatic rollback bring it to the front
    among = champions(server.registry, "fraud")
    fit = Candidates(server.registry, "fraud", newest.base, Unverified(), among=among)
    assert {one.version for one in fit} <= among
    assert newest.version not in among


def test_what_is_recommended_serves_once_a_person_approves_and_is_what_was_judged(
    server: Server,
) -> None:
    order(server, "recommend")
    done = healed(server, 4, **WIDE)
    made = cast("list[ProposalMade]", events_of(done, ProposalMade))[-1]
    (proposed,) = standing(server.registry, "fraud").proposals
    assert re.search(
        r"of decisions change.*; on \d+ labelled rows that it did not learn from \d",
        proposed.reason,
    )
    target = server.registry.version("fraud", proposed.target)
    assert (proposed.sequence, proposed.sha256) == (made.proposal, target.sha256)
    assert not events_of(done, HealPublished)
    plan, asked = plan_proposed(server.registry, "fraud", made.proposal, AT, Unverified())
    move = approve(server.registry, plan, asked, By("bob", AT, "looks right"))
    assert move is not None
    assert (move.target, move.actor) == (target.version, "bob")
    assert server.champion().version == target.version
    assert not standing(server.registry, "fraud").proposals
    # a person's word: what follows is measured from there
    approved = spent(server.registry, server.champion(), datetime.now(UTC)).approved
    assert approved == server.champion()
    server.holds()


def test_a_proposal_expires_and_is_refused_once_the_champion_has_moved(server: Server) -> None:
    order(server, "recommend")
    healed(server, 3, **WIDE, proposal_hours=2.0)
    registry = server.registry
    (proposed,) = standing(registry, "fraud").proposals
    late = (datetime.fromisoformat(proposed.at) + timedelta(hours=2)).isoformat()
    with pytest.raises(ConflictError, match="expired at"):
        plan_proposed(registry, "fraud", proposed.sequence, late, Unverified())
    execute(registry, plan_version(registry, "fraud", 1, Unverified()), By("bob", AT, "no trust"))
    with pytest.raises(ConflictError, match="reject it and propose anew"):
        plan_proposed(registry, "fraud", proposed.sequence, AT, Unverified())


def test_of_heals_one_proposal_is_open_and_a_stale_one_gives_way(server: Server) -> None:
    order(server, "recommend")
    healed(server, 4, **WIDE)
    registry = server.registry
    (first,) = standing(registry, "fraud").proposals
    another = replace(first, target=first.target, snapshot=f"{first.snapshot}+", sequence=0)
    with pytest.raises(ConflictError, match=f"proposal {first.sequence} of 'fraud'"):
        propose(registry, "fraud", another)
    late = (datetime.fromisoformat(first.expires) + timedelta(hours=1)).isoformat()
    second = propose(registry, "fraud", replace(another, at=late, expires="9999"))
    assert standing(registry, "fraud").proposals == (second,)
    with pytest.raises(RegistryError, match="no open proposal"):
        open_proposal(standing(registry, "fraud"), "fraud", first.sequence)


def test_where_two_people_are_wanted_two_approve_what_a_heal_proposed(server: Server) -> None:
    order(server, "recommend")
    healed(server, 3, **WIDE, four_eyes=True)
    registry = server.registry
    set_four_eyes(registry, "fraud", on=True, actor="ann", at=AT, reason="audit")
    (made,) = standing(registry, "fraud").proposals
    before = server.champion()

    def by(actor: str) -> Any:
        plan, asked = plan_proposed(registry, "fraud", made.sequence, AT, Unverified())
        return approve(registry, plan, asked, By(actor, AT, "yes"))

    assert by("ann") is None
    with pytest.raises(ApprovalNeeded, match="somebody else"):
        by("Ann (claimed)")
    assert server.champion() == before
    assert by("bob").target == made.target


def test_what_is_beyond_the_budget_becomes_a_proposal_and_the_run_goes_on(server: Server) -> None:
    done = healed(server, 6, **WIDE | {"budget_moves": 1})
    assert len(events_of(done, HealPublished)) == 1
    kept = cast("list[HealWithheld]", events_of(done, HealWithheld))
    assert all(
        one.proposed and "1 heals were published within the hour" in one.withheld for one in kept
    )
    made = cast("list[ProposalMade]", events_of(done, ProposalMade))
    (waiting,) = standing(server.registry, "fraud").proposals  # which took the place of the others
    assert waiting.sequence == made[-1].proposal
    again = healed(server, 3, **WIDE | {"budget_moves": 1})
    assert not events_of(again, HealPublished)  # the hour is not over with a new run
    assert events_of(again, HealWithheld)
    server.holds()


def test_moves_of_a_run_that_nobody_serves_are_not_in_the_budget(server: Server) -> None:
    assert spent(server.registry, server.champion(), datetime.now(UTC)) == Spent()


def test_a_person_that_moves_the_champion_is_never_held_up(server: Server) -> None:
    order(server, "off")
    done = healed(server, 3, **WIDE)
    assert not events_of(done, HealPublished, HealWithheld)
    registry = server.registry
    assert execute(registry, plan_version(registry, "fraud", 1, Unverified()), By("bob", AT, "x"))


def test_a_policy_orders_a_mode_once_and_what_a_person_orders_since_stays(server: Server) -> None:
    healed(server, 1, **WIDE, mode="shadow")
    assert mode_of(standing(server.registry, "fraud")) == "shadow"
    order(server, "auto")
    healed(server, 1, **WIDE, mode="shadow")
    assert mode_of(standing(server.registry, "fraud")) == "auto"
    healed(server, 1, **WIDE, mode="off")
    kinds = [one for one in server.registry.entries("fraud") if one.kind is EntryKind.MODE]
    assert [(one.data["mode"], one.data["policy"]) for one in kinds] == [
        ("shadow", "shadow"), ("auto", "shadow"), ("off", "off"),
    ]  # fmt: skip


class Fixed:
    """A network that flags the first rows of any."""

    def __init__(self, share: float) -> None:
        self._share = share

    def predict_features(self, features: Any) -> Any:
        return flags(len(features), self._share)

    def with_adapter(self, weights: Any) -> Any:
        return Fixed(0.6)


def flags(rows: int, share: float) -> Any:
    return (np.arange(rows) < share * rows).astype(np.float32)


@pytest.mark.parametrize(
    ("after", "policy", "why"),
    [
        (0.09, {}, ""),
        (0.12, {}, "12.0% of decisions change, 10.0% may"),
        (
            0.09,
            {"budget_change_in_all": 0.05},
            "9.0% of decisions are others than those of the baseline",
        ),
        (0.50, {"mode": "auto", "budget_change": None, "budget_change_in_all": None}, ""),
    ],
)
def test_the_share_of_changed_decisions_is_in_the_budget(
    after: float, policy: dict[str, Any], why: str
) -> None:
    allowed = {"budget_change": 0.1, "budget_change_in_all": 0.25} | policy
    allowance = _allowance(Policy(**allowed), lambda: 0.0)
    assert why in allowance.ask(_outcome(0.0, after), cast("Any", Fixed(after)), 0.5).why
    if not why:
        assert not allowance.ask(_outcome(0.0, after), cast("Any", Fixed(after)), 0.5).why


def test_moves_are_counted_within_the_hour_by_a_clock_that_never_goes_back() -> None:
    now = [0.0]
    allowance = _allowance(Policy(budget_moves=2), lambda: now[0])
    ask = lambda: allowance.ask(_outcome(0.0, 0.0), cast("Any", Fixed(0.0)), 0.5).why  # noqa: E731
    allowance.go_on(Spent(moves=(HOUR - 10.0,)))
    allowance.spend()
    assert "2 heals" in ask()
    now[0] = 11.0
    assert not ask()
    allowance.spend()
    assert "2 heals" in ask()
    now[0] = HOUR + 1.0
    assert not ask()


def _outcome(before: float, after: float) -> HealOutcome:
    n = 100
    rows = HealRows(
        np.zeros((n, 1), np.float32), np.zeros(n, np.int8), np.zeros(n, np.int8),
        np.zeros(n, np.int32), np.zeros(n, bool),
    )  # fmt: skip
    task = HealTask("h", 1, "new labels", "anchored", rows)
    return HealOutcome(task, AdapterState({}, {}), flags(n, before), flags(n, after))


def _allowance(policy: Policy, clock: Any) -> Allowance:
    run = SimpleNamespace(
        config=SimpleNamespace(policy=policy),
        live=SimpleNamespace(serving=SimpleNamespace(network=Fixed(0.0), threshold=0.5)),
        state=StreamState(),
    )
    return Allowance(cast("Any", run), clock)


def test_where_heals_did_harm_a_policy_pauses_and_what_serves_stays(
    empty_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfheal_cli.pipeline.runs.run.ChampionWatcher", Looking)
    watch_heals(monkeypatch, spoil={4})
    policy = Policy(gate_tolerance=1e6, when_worse="pause")
    paired = HealSettings(recipe="anchored", better_by="paired")
    done = ran(config(heal=paired, policy=policy, batches=9))
    (paused,) = done.of("healing-paused")
    assert "loses" in paused["reason"]
    assert not done.of("rollback", "rollback-failed")
    assert max(done.batches("heal")) <= paused["batch"]
    hold = standing(done.registry, "fraud").hold
    assert hold is not None
    assert (hold.run, hold.reason) == (done.finished.run_id, f"paused: {paused['reason']}")
    # it keeps nobody from a network of his own
    target = done.versions("baseline")[0].version
    move = Move("fraud", CHAMPION, target, "bob", AT, "retrained", promotes=True)
    assert move_alias(done.registry, move).target == target
