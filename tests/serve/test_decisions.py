"""Orders about modes and proposals, carried out in a registry as the healer does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from selfheal_cli.errors import ConflictError
from selfheal_cli.registry.aliases import Move, move_alias
from selfheal_cli.registry.base import CANARY, CHAMPION, TRIES_TAG
from selfheal_cli.registry.journal import Hold, Lease, Proposal, standing
from selfheal_cli.registry.lease import take_lease
from selfheal_cli.registry.memory import MemoryRegistry
from selfheal_cli.registry.orders import hold, propose
from selfheal_cli.rollback import plan
from selfheal_cli.rollback.tried import tried_canary, withdraw
from selfheal_cli.rollback.trust import Unverified
from selfheal_cli.serve.healer.commands import carry_out
from selfheal_cli.serve.healer.status import registry_facts
from tests.rollback.test_prune import AT, filled

BY = {"actor": "bob", "reason": "looked at"}


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> MemoryRegistry:
    monkeypatch.setattr(plan, "ByTheLog", lambda _: Unverified())  # there are no logs
    return filled(MemoryRegistry())


def proposed(registry: MemoryRegistry, version: int, **changes: Any) -> Proposal:
    sha256 = registry.version("m", version).sha256
    after = standing(registry, "m").moves[CHAMPION].sequence
    wanted = Proposal(
        version, sha256, "run", AT, "heal h1", after, snapshot="s", expires="9999-01-01"
    )
    return propose(registry, "m", replace(wanted, **changes))


def test_a_mode_is_planned_then_set_and_told(registry: MemoryRegistry) -> None:
    planned = carry_out(registry, "m", "mode-plan", {"mode": "shadow"})["plan"]
    assert planned["lines"][1] == "shadow then: heals are registered, and nothing is published"
    order = {"mode": "shadow", "digest": planned["digest"], **BY}
    assert carry_out(registry, "m", "mode", order) == {
        "ok": True, "mode": "shadow", "before": "auto",
    }  # fmt: skip
    facts = registry_facts(registry, "m")
    assert (facts["mode"], facts["mode_by"], facts["mode_reason"]) == ("shadow", "bob", "looked at")
    late = carry_out(registry, "m", "mode", order)
    assert "is in mode shadow by now" in late["error"]
    assert "known" in carry_out(registry, "m", "mode", {"mode": "fast", **BY})["error"]


def test_a_heals_proposal_is_shown_checked_and_carried_out(registry: MemoryRegistry) -> None:
    number = proposed(registry, 3).sequence
    (shown,) = registry_facts(registry, "m")["proposals"]
    assert (shown.number, shown.version, shown.reason) == (number, 3, "heal h1")
    planned = carry_out(registry, "m", "approve-plan", {"proposal": number})["plan"]
    assert planned["to"] == 3
    wrong = carry_out(registry, "m", "approve", {"proposal": number, "digest": "0", **BY})
    assert "another one by now" in wrong["error"]
    order = {"proposal": number, "digest": planned["digest"], **BY}
    done = carry_out(registry, "m", "approve", order)
    assert (done["ok"], done["move"]["target"], registry.alias("m", CHAMPION)) == (True, 3, 3)
    assert not registry_facts(registry, "m")["proposals"]


def test_a_proposal_of_other_bytes_is_refused_and_can_be_closed(registry: MemoryRegistry) -> None:
    number = proposed(registry, 3, sha256="0" * 64).sequence
    refused = carry_out(registry, "m", "approve-plan", {"proposal": number})
    assert "other bytes" in refused["error"]
    assert carry_out(registry, "m", "reject", {"proposal": number, **BY})["ok"]
    assert not standing(registry, "m").proposals


def tried(registry: MemoryRegistry, number: int) -> None:
    move_alias(registry, Move("m", CANARY, number, "run", AT, "heal h1", run="r1"))


def test_a_canary_is_promoted_or_withdrawn_by_its_plan_and_only_as_it_was_shown(
    registry: MemoryRegistry,
) -> None:
    wanted = {"do": "withdraw"}
    assert "no canary is tried" in carry_out(registry, "m", "canary-plan", wanted)["error"]
    tried(registry, 3)
    planned = carry_out(registry, "m", "canary-plan", wanted)["plan"]
    assert planned["lines"][0] == f"v3 is tried since {AT} (heal h1)"
    tried(registry, 4)
    late = {**wanted, "digest": planned["digest"], **BY}
    assert "another one by now" in carry_out(registry, "m", "canary", late)["error"]
    planned = carry_out(registry, "m", "canary-plan", wanted)["plan"]
    done = carry_out(registry, "m", "canary", late | {"digest": planned["digest"]})
    assert (done["move"]["actor"], registry.alias("m", CANARY)) == ("bob", None)
    tried(registry, 3)
    planned = carry_out(registry, "m", "canary-plan", {"do": "promote"})["plan"]
    assert planned["to"] == 3
    done = carry_out(registry, "m", "canary", {"do": "promote", "digest": planned["digest"], **BY})
    assert (done["move"]["target"], registry.alias("m", CHAMPION)) == (3, 3)


def test_a_version_is_tried_by_its_plan_where_somebody_tries_versions(
    registry: MemoryRegistry,
) -> None:
    wanted = {"do": "try", "version": 4}
    assert "nobody tries versions now" in carry_out(registry, "m", "canary-plan", wanted)["error"]
    run = registry.begin_run("selfheal", {}, {TRIES_TAG: "0.1"})
    lease = Lease(run, "ann", AT)
    take_lease(registry, "m", lease, four_eyes=False, alive=lambda held: "")
    planned = carry_out(registry, "m", "canary-plan", wanted)["plan"]
    assert planned["to"] == 4
    assert planned["lines"][-1] == "v4 would answer the share that the policy has, no more"
    wrong = carry_out(registry, "m", "canary", {**wanted, "digest": "0", **BY})
    assert "another one by now" in wrong["error"]
    done = carry_out(registry, "m", "canary", {**wanted, "digest": planned["digest"], **BY})
    assert (done["move"]["actor"], registry.alias("m", CANARY)) == ("bob", 4)
    now = registry.alias("m", CHAMPION)
    serves = carry_out(registry, "m", "canary-plan", {"do": "try", "version": now})
    assert "is the champion" in serves["error"]
    hold(registry, "m", Hold("bob", AT, "stop"), actor="bob", at=AT)
    assert "is held by bob" in carry_out(registry, "m", "canary-plan", wanted)["error"]


def test_a_withdrawal_that_a_run_overtook_is_refused(registry: MemoryRegistry) -> None:
    tried(registry, 3)
    seen = tried_canary(registry, "m")
    tried(registry, 4)
    with pytest.raises(ConflictError, match="was moved to v4"):
        withdraw(registry, seen, plan.By("bob", AT, "too early"))
