"""A canary: a healed version that answers a share, until it is known to be better or not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from selfheal_cli.anytime import RunningMean
from selfheal_cli.errors import ConfigurationError
from selfheal_cli.events.event import Event
from selfheal_cli.events.types import (
    AliasMoved,
    CanaryBegan,
    CanaryCompared,
    CanaryEnded,
    CanaryResumed,
    HealPublished,
    HealWithheld,
    ProposalMade,
)
from selfheal_cli.heal.engine import Tried
from selfheal_cli.pipeline.runs.run import Finished, RunContext
from selfheal_cli.pipeline.runs.serving import heal_served
from selfheal_cli.pipeline.stream.allowance import Allowance
from selfheal_cli.registry.base import BASELINE, CANARY, CHAMPION
from selfheal_cli.registry.journal import EntryKind, Hold
from selfheal_cli.registry.orders import hold, set_mode
from selfheal_cli.rollback.plan import By, execute, plan_version
from selfheal_cli.rollback.tried import tried_canary, withdraw
from selfheal_cli.rollback.trust import Unverified
from tests.conftest import enter
from tests.pipeline.test_modes import AT, WIDE
from tests.pipeline.test_outside import Looking
from tests.pipeline.test_served import WORKSPACE, Server, clock, events_of

E = TypeVar("E", bound=Event)
POLICY: dict[str, Any] = {**WIDE, "canary_share": 0.25, "canary_delay": "2s"}


@pytest.fixture(autouse=True, scope="module")
def _soon() -> Iterator[None]:
    """Three batches decide, and what others do is seen in the next one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("selfheal_cli.anytime.FEWEST", 3)
        patch.setattr("selfheal_cli.pipeline.runs.run.ChampionWatcher", Looking)
        yield


@pytest.fixture(scope="module")
def tried(
    begun: tuple[Server, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Server, Path, Finished]:
    """A server whose first run ended while a canary was tried, made once, and that run."""
    folder = tmp_path_factory.mktemp("tried")
    with pytest.MonkeyPatch.context() as patch:
        enter(folder, patch)
        server = Server.again(*begun, folder)
        answer(server, 4)
        first, _ = serve(server)
        server.spool.close()
    return server, folder, first


@pytest.fixture
def restarted(tried: tuple[Server, Path, Finished], empty_dir: Path) -> tuple[Server, Finished]:
    """Such a server and its first run, to go on with."""
    before, folder, first = tried
    return Server.again(before, folder, empty_dir), first


def answer(server: Server, batches: int) -> None:
    """Batches of rows, a second apart, labelled at once."""
    for _ in range(batches):
        server.answer(1)
        server.time += 1.0
        server.label(list(server.truth)[-4:])


def serve(
    server: Server, on_event: Callable[[Event], None] = lambda event: None, **policy: Any
) -> tuple[Finished, list[Tried | None]]:
    """One run on what was answered by now, and what was tried in it."""
    seen: list[Tried | None] = []
    around = RunContext(
        server.registry, clock, "ann", watchers=[on_event], follow_seconds=0, workspace=WORKSPACE,
        on_canary=lambda base, one: seen.append(one),
    )  # fmt: skip
    served = server.open(policy=POLICY | policy)
    return heal_served(
        served, server.registry, around, lambda lease: server.beginning().cursor
    ), seen


def of(done: Finished, kind: type[E]) -> list[E]:
    return [one for one in events_of(done) if isinstance(one, kind)]


def test_a_heal_is_tried_and_serves_once_it_is_no_worse_while_learning_goes_on(
    server: Server,
) -> None:
    before = server.champion()
    answer(server, 10)
    done, seen = serve(server, canary_margin=2.0)
    began, ended = of(done, CanaryBegan), of(done, CanaryEnded)
    first = began[0]
    assert (first.against, first.share) == (before.tags["selfheal.snapshot"], 0.25)
    compared = [one for one in of(done, CanaryCompared) if one.sequence < ended[0].sequence]
    assert [one.batch for one in compared] == [first.batch + 1 + at for at in range(3)]
    assert (ended[0].outcome, ended[0].batches, ended[0].rows) == ("promoted", 3, 300)
    assert ended[0].snapshot == first.to_snapshot
    # heals between are kept, and nobody is asked about them
    between = [one for one in of(done, HealWithheld) if one.sequence < ended[0].sequence]
    assert between
    assert all("is being tried" in one.withheld and not one.proposed for one in between)
    assert not of(done, HealPublished)
    assert not of(done, ProposalMade)
    moves = [(one.move.alias, one.move.target) for one in of(done, AliasMoved)]
    (number, *_) = (target for alias, target in moves if alias == CANARY)
    assert moves[:3] == [(CANARY, number), (CHAMPION, number), (CANARY, 0)]
    assert server.registry.version("fraud", number).tags["selfheal.snapshot"] == first.to_snapshot
    assert len(began) > 1  # the state at its end is the next candidate
    assert began[1].batch > ended[0].batch - 1
    shown = [one and one.serving.snapshot for one in seen]
    assert shown[:4] == [None, first.to_snapshot, None, began[1].to_snapshot]
    server.holds()


def test_a_canary_that_is_worse_is_withdrawn_and_the_alias_with_it(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = server.champion()
    monkeypatch.setattr(
        RunningMean, "interval", lambda self, level: None if self.count < 3 else (-0.2, -0.1)
    )
    answer(server, 5)
    done, seen = serve(server, canary_margin=1.0)
    ended = of(done, CanaryEnded)[0]
    assert (ended.outcome, ended.low, ended.high) == ("withdrawn", -0.2, -0.1)
    assert "it is worse" in ended.reason
    assert server.champion() == before
    if seen[-1] is None:
        assert server.registry.alias("fraud", CANARY) is None
    server.holds()


def test_a_canary_that_nothing_is_known_of_is_withdrawn_when_its_time_is_over(
    server: Server,
) -> None:
    for _ in range(8):
        server.answer(1)
        server.time += 1.0
        if len(server.truth) <= 8:
            server.label(list(server.truth)[-4:])
    done, _ = serve(server, canary_limit="4s")
    (ended,) = of(done, CanaryEnded)
    assert (ended.outcome, ended.batches, ended.difference) == ("withdrawn", 0, None)
    assert "not decided within" in ended.reason
    assert server.registry.alias("fraud", CANARY) is None


def test_what_is_promoted_beyond_the_budget_is_proposed_with_its_figures(server: Server) -> None:
    answer(server, 6)
    before = server.champion()
    with pytest.MonkeyPatch.context() as patched:

        def spend(event: Event) -> None:
            if isinstance(event, CanaryBegan):
                patched.setattr(Allowance, "spent", lambda self: "spent")

        done, _ = serve(server, spend, canary_margin=2.0)
    ended = of(done, CanaryEnded)[0]
    assert (ended.outcome, ended.reason.endswith("; spent")) == ("proposed", True)
    assert server.champion() == before
    assert ended.snapshot in {one.snapshot for one in of(done, ProposalMade)}


@pytest.mark.parametrize("how", ["mode", "hold", "rollback", "promotion", "withdrawal"])
def test_what_a_person_orders_while_a_canary_runs_ends_it(server: Server, how: str) -> None:
    registry = server.registry
    by = {"actor": "bob", "at": AT}

    def act() -> None:
        if how == "mode":
            set_mode(registry, "fraud", "shadow", **by, reason="too early")
        elif how == "hold":
            hold(registry, "fraud", Hold(**by, reason="too early"), **by)
        elif how == "withdrawal":
            withdraw(registry, tried_canary(registry, "fraud"), By("bob", AT, "too early"))
        else:
            number = registry.alias("fraud", BASELINE if how == "rollback" else CANARY)
            assert number is not None
            plan = plan_version(registry, "fraud", number, Unverified())
            execute(registry, plan, By("bob", AT, "by hand"))

    def once_there(event: Event) -> None:
        there = isinstance(event, AliasMoved) and event.move.alias == CANARY
        if there and not acted:
            acted.append(event)
            act()

    acted: list[Event] = []
    answer(server, 5)
    done, _ = serve(server, once_there)
    assert acted
    ended = of(done, CanaryEnded)[0]
    assert ended.outcome == ("promoted" if how == "promotion" else "withdrawn")
    why = {"mode": "mode shadow by bob: too early", "hold": "healing is held by bob: too early",
           "rollback": "the champion was moved", "promotion": "from outside",
           "withdrawal": "too early"}  # fmt: skip
    assert why[how] in ended.reason
    assert ended.by == ("bob" if how == "withdrawal" else "")
    server.holds()


def test_a_canary_goes_on_over_a_restart_and_no_row_is_counted_twice_or_left_out(
    restarted: tuple[Server, Finished],
) -> None:
    server, first = restarted
    (began,) = of(first, CanaryBegan)
    number = server.registry.alias("fraud", CANARY)
    for _ in range(2):  # unlabelled when the server ends
        server.answer(1)
        server.time += 1.0
    second, seen = serve(server)
    (resumed,) = of(second, CanaryResumed)
    assert (resumed.version, resumed.snapshot) == (number, began.to_snapshot)
    assert resumed.rows == sum(one.rows for one in of(first, CanaryCompared))
    assert seen[0] is not None
    assert seen[0].serving.snapshot == began.to_snapshot
    server.label(list(server.truth)[-8:])
    answer(server, 1)
    third, _ = serve(server, canary_margin=2.0)
    told = [one for done in (first, second, third) for one in of(done, CanaryCompared)]
    batches = 4 + 2 + 1 - began.batch
    assert sum(one.rows for one in told) == 100 * min(batches, told[-1].seen["count"])
    assert told[-1].seen["count"] == len(told) == batches or of(third, CanaryEnded)
    server.holds()


@pytest.mark.parametrize("why", ["policy", "mode", "moved", "log"])
def test_a_canary_that_cannot_go_on_after_a_restart_is_withdrawn_and_says_why(
    restarted: tuple[Server, Finished], why: str
) -> None:
    server, first = restarted
    assert of(first, CanaryBegan)
    assert server.registry.alias("fraud", CANARY) is not None
    if why == "mode":
        set_mode(server.registry, "fraud", "recommend", actor="bob", at=AT, reason="x")
    elif why == "moved":
        plan = plan_version(server.registry, "fraud", 1, Unverified())
        execute(server.registry, plan, By("bob", AT, "by hand"))
    elif why == "log":
        (first.folder / "events.jsonl").unlink()
    server.answer(1)
    policy = {"canary_share": None} if why == "policy" else {}
    second, seen = serve(server, **policy)
    (ended,) = of(second, CanaryEnded)
    told = {"policy": "wants no canary", "mode": "mode recommend", "moved": "champion by now",
            "log": "not in this folder"}  # fmt: skip
    assert told[why] in ended.reason
    assert seen[0] is None
    moves = [one.data for one in server.registry.entries("fraud") if one.kind is EntryKind.MOVED]
    assert 0 in [one["target"] for one in moves if one["alias"] == CANARY]


def test_while_the_registry_is_away_a_canary_begins_and_its_alias_comes_later(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(server, 6)
    registry, away = server.registry, []

    def gone(event: Event) -> None:
        if isinstance(event, CanaryBegan):
            away.append(registry.alias("fraud", CANARY))

    done, seen = serve(server, gone)
    assert away == [None]  # it is tried before the registry knows
    assert seen[-1] is not None
    kinds = [one.data["alias"] for one in registry.entries("fraud") if one.kind is EntryKind.MOVED]
    assert kinds[-1] == CANARY
    assert of(done, CanaryBegan)


def test_nobody_tries_a_canary_who_does_not_say_how_late_labels_come(server: Server) -> None:
    with pytest.raises(ConfigurationError, match="nobody says how late"):
        server.open(policy={"canary_share": 0.1})
    with pytest.raises(ConfigurationError, match="over before the first labels count"):
        server.open(policy={"canary_share": 0.1, "canary_delay": "7d", "canary_limit": "1d"})
