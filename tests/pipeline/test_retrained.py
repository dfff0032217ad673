"""A retrained model that is tried beside the champion: its own base, columns of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from selfheal_cli.audit.checks import audit_model
from selfheal_cli.config_sources import ServedSettings, TableSettings
from selfheal_cli.errors import ConfigurationError, ConflictError, LeaseHeld
from selfheal_cli.events.event import Event
from selfheal_cli.events.types import (
    AliasMoved,
    BatchScored,
    CanaryBegan,
    CanaryCompared,
    CanaryEnded,
    CanaryOrdered,
    CanaryResumed,
    ProposalMade,
)
from selfheal_cli.heal.engine import Tried
from selfheal_cli.model.wrapping import wrap
from selfheal_cli.pipeline.offline.handover import hand_over
from selfheal_cli.pipeline.prepare.foreign import Sample, base_of
from selfheal_cli.pipeline.prepare.wrapped import WRAPPED
from selfheal_cli.pipeline.runs.run import Finished, RunContext
from selfheal_cli.pipeline.runs.serving import heal_served
from selfheal_cli.pipeline.runs.wrap import Placed, add_wrapped
from selfheal_cli.registry.base import BASELINE, CANARY, CHAMPION
from selfheal_cli.registry.journal import Hold
from selfheal_cli.registry.orders import hold, set_mode
from selfheal_cli.rollback.plan import By
from selfheal_cli.rollback.tried import tried_canary, try_out, withdraw
from tests.pipeline.test_canary import POLICY, of
from tests.pipeline.test_modes import AT
from tests.pipeline.test_outside import Looking
from tests.pipeline.test_served import WORKSPACE, Server, clock

TELLING = "debts"  # a column that only the retrained model reads


class Sending(Server):
    """Its callers send a column that tells the label, unless they do not."""

    sends = True

    def sent(self, y: Any) -> dict[str, Any]:
        return {TELLING: y.astype(float)} if self.sends else {}

    def call(self, batches: int) -> None:
        """Labelled batches, a second apart."""
        for _ in range(batches):
            self.answer(1)
            self.time += 1.0
            self.label(list(self.truth)[-4:])

    def holds(self) -> None:
        audit, _ = audit_model(self.registry, "fraud", WORKSPACE)
        # the double keeps a run's experiment among its parameters, and wrapping has none of a run's
        assert [one for one in audit.findings if "parameter " not in one.problem] == []

    def heal(
        self, on_event: Callable[[Event], None] = lambda event: None, **policy: Any
    ) -> tuple[Finished, list[Tried | None]]:
        """One run on what was answered by now, and what was tried in it."""
        seen: list[Tried | None] = []
        around = RunContext(
            self.registry, clock, "ann", watchers=[on_event], follow_seconds=0,
            workspace=WORKSPACE, on_canary=lambda base, one: seen.append(one),
        )  # fmt: skip
        served = self.open(policy=POLICY | policy)
        where = lambda lease: self.beginning().cursor  # noqa: E731
        return heal_served(served, self.registry, around, where), seen


@pytest.fixture
def server(begun: tuple[Server, Path], empty_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Sending:
    monkeypatch.setattr("selfheal_cli.anytime.FEWEST", 3)
    monkeypatch.setattr("selfheal_cli.pipeline.runs.run.ChampionWatcher", Looking)
    return Sending.again(*begun, empty_dir)


def retrain(server: Server, *, weight: float = 6.0, labels: Any = ("normal", "fraud")) -> Placed:
    """A logistic regression on a column that the champion does not know, wrapped by carol."""
    layer = nn.Linear(2, 1)
    with torch.no_grad():
        layer.weight[:] = torch.tensor([[weight, 0.0]])
        layer.bias[:] = -3.0
    rows = np.random.default_rng(1).standard_normal((50, 2)).astype(np.float32)
    network = wrap(layer, rows, shape=(2,), output="logits")
    base = base_of(network, Sample(rows, (TELLING, "V14"), (2,), "float32"), labels)
    around = RunContext(server.registry, clock, "carol", workspace=WORKSPACE)
    return add_wrapped(network, base, "fraud", "linear", around, promote=True)


def once(act: Callable[[], Any], batch: int = 1) -> tuple[Callable[[Event], None], list[Any]]:
    """Something that somebody does once a batch of the run was scored, and what came of it."""
    done: list[Any] = []

    def look(event: Event) -> None:
        if isinstance(event, BatchScored) and event.batch == batch and not done:
            done.append(None)
            done[0] = act()

    return look, done


def test_what_is_wrapped_beside_a_server_is_tried_on_its_own_columns_and_becomes_champion(
    server: Sending,
) -> None:
    before = server.champion()
    server.call(8)
    look, made = once(lambda: retrain(server))
    done, seen = server.heal(look)
    (placed,) = made
    assert placed.tried
    (move,) = placed.moved
    assert (move.alias, move.actor, move.reason) == (CANARY, "carol", "wrapped linear")
    (order,) = of(done, CanaryOrdered)
    assert (order.version, order.actor) == (placed.version, "carol")
    assert order.against == before.tags["selfheal.snapshot"]
    told = next(one for one in seen if one is not None)
    assert told.base == order.base == server.registry.version("fraud", placed.version).base
    compared = of(done, CanaryCompared)
    assert [one.rows for one in compared] == [100] * len(compared)
    assert all(one.difference > 0 for one in compared)  # the champion loses more
    ended = of(done, CanaryEnded)[-1]
    assert (ended.outcome, ended.rows) == ("promoted", 300)
    for alias in (CHAMPION, BASELINE, WRAPPED):
        assert server.registry.alias("fraud", alias) == placed.version, alias
    assert server.registry.alias("fraud", CANARY) is None
    with pytest.raises(ConfigurationError, match="say what is normal are not here"):
        server.open()
    handed = hand_over(server.registry, server.spool, "fraud", "retrained", clock())
    served = server.open()  # what the retrained model was handed is normal
    assert isinstance(served.config.source, ServedSettings)
    assert isinstance(served.config.source.reference, TableSettings)
    assert served.config.source.reference.path == handed.folder / "rows.parquet"
    # nothing heals what serves no more
    promoted = ended.sequence
    assert not [one for one in of(done, CanaryBegan) if one.sequence > promoted]
    server.holds()


def test_what_is_worse_is_withdrawn_and_the_champion_heals_on(server: Sending) -> None:
    before = server.champion()
    server.call(8)
    look, made = once(lambda: retrain(server, weight=-6.0))
    done, _ = server.heal(look)
    (order,) = of(done, CanaryOrdered)
    ended = [one for one in of(done, CanaryEnded) if one.snapshot == order.snapshot]
    assert [one.outcome for one in ended] == ["withdrawn"]
    assert "it is worse" in ended[0].reason
    assert server.champion().base == before.base
    assert server.registry.alias("fraud", BASELINE) != made[0].version
    server.holds()


def test_rows_whose_callers_do_not_send_its_columns_are_not_compared(server: Sending) -> None:
    server.call(2)
    look, _ = once(lambda: retrain(server))
    server.sends = False
    server.call(4)
    server.sends = True
    server.call(1)
    done, _ = server.heal(look)
    assert sum(one.rows for one in of(done, CanaryCompared)) == 100
    assert not of(done, CanaryEnded)


def test_it_goes_on_over_a_restart_with_what_was_compared(server: Sending) -> None:
    server.call(4)
    look, made = once(lambda: retrain(server))
    first, _ = server.heal(look)
    (order,) = of(first, CanaryOrdered)
    assert not of(first, CanaryEnded)
    server.call(3)
    second, seen = server.heal()
    (resumed,) = of(second, CanaryResumed)
    assert (resumed.version, resumed.ordered) == (made[0].version, "carol")
    assert (resumed.base, resumed.since) == (order.base, order.since)
    assert resumed.rows == sum(one.rows for one in of(first, CanaryCompared)) > 0
    assert seen[0] is not None
    assert seen[0].base == order.base
    assert of(second, CanaryEnded)[-1].outcome == "promoted"
    assert server.champion().version == made[0].version


def test_what_was_ordered_while_nobody_healed_is_tried_once_somebody_does(
    server: Sending, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.call(2)
    server.heal()
    placed = retrain(server)  # its champion at once: nobody heals
    assert not placed.tried
    back = server.registry.version("fraud", 1)
    assert server.champion().version == placed.version
    monkeypatch.setattr("selfheal_cli.rollback.tried.tries", lambda *_: True)
    with pytest.raises(ConflictError, match="is the champion"):
        from selfheal_cli.rollback.tried import plan_trial

        plan_trial(server.registry, "fraud", placed.version)
    try_out(server.registry, "fraud", back.version, By("dora", AT, "as before"))
    assert tried_canary(server.registry, "fraud").version.version == back.version


@pytest.mark.parametrize("how", ["withdrawal", "hold", "another", "mode"])
def test_a_person_ends_it_and_the_mode_does_not(server: Sending, how: str) -> None:
    registry = server.registry
    by = {"actor": "bob", "at": AT}

    def act() -> None:
        match how:
            case "withdrawal":
                withdraw(registry, tried_canary(registry, "fraud"), By("bob", AT, "too early"))
            case "hold":
                hold(registry, "fraud", Hold(**by, reason="too early"), **by)
            case "another":
                retrain(server, weight=5.0)
            case "mode":
                set_mode(registry, "fraud", "recommend", **by, reason="too early")

    first, _ = once(lambda: retrain(server))
    then, _ = once(act, batch=3)
    server.call(9 if how == "mode" else 4)

    def look(event: Event) -> None:
        first(event)
        then(event)

    done, _ = server.heal(look)
    ended = of(done, CanaryEnded)[0]
    if how == "mode":
        assert ended.outcome == "proposed"
        assert ended.reason.endswith("; mode recommend")
        assert ended.snapshot in {one.snapshot for one in of(done, ProposalMade)}
    else:
        assert ended.outcome == "withdrawn"
        why = {"another": "is to be tried in its place: wrapped linear"}
        assert why.get(how, "too early") in ended.reason
    assert len(of(done, CanaryOrdered)) == (2 if how == "another" else 1)
    server.holds()


@pytest.mark.parametrize("why", ["policy", "labels", "run"])
def test_what_cannot_be_tried_is_not_and_it_says_why(server: Sending, why: str) -> None:
    server.call(3)
    before = server.champion()
    if why == "run":
        look, _ = once(lambda: server.registry.set_run_tags(run_of(server), {"selfheal.kind": ""}))

        def wrapping() -> None:
            with pytest.raises(LeaseHeld):
                retrain(server)

        then, _ = once(wrapping, batch=2)

        def both(event: Event) -> None:
            look(event)
            then(event)

        server.heal(both)
    elif why == "labels":
        look, _ = once(lambda: retrain(server, labels=["no", "yes"]))
        done, _ = server.heal(look)
        ended = of(done, CanaryEnded)[0]
        assert "it tells apart no, yes, and the champion normal, fraud" in ended.reason
        assert not of(done, CanaryOrdered)
        moves = [one.move for one in of(done, AliasMoved)]
        assert [one.target for one in moves if ended.reason in one.reason] == [0]
    else:
        look, made = once(lambda: retrain(server))
        server.heal(look, canary_share=None)
        assert not made[0].tried  # it serves at once, as after a rollback by hand
        assert server.champion().version == made[0].version
        return
    assert server.champion().base == before.base


def run_of(server: Server) -> str:
    from selfheal_cli.registry.journal import standing

    held = standing(server.registry, "fraud").lease
    assert held is not None
    return held.run
