"""A holder that is frozen at any of its calls, taken for dead, and goes on or is killed."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from selfheal_cli.errors import LeaseHeld, RegistryError
from selfheal_cli.events.event import Event
from selfheal_cli.events.types import MoveRefused
from selfheal_cli.pipeline.prepare.lease import RunLease
from selfheal_cli.pipeline.stream.champion import ChampionWatcher
from selfheal_cli.records import Phase
from selfheal_cli.registry import writer as writing
from selfheal_cli.registry.base import CHAMPION, Lineage
from selfheal_cli.registry.journal import standing
from selfheal_cli.registry.memory import MemoryRegistry
from selfheal_cli.registry.outbox import Outbox
from selfheal_cli.registry.writer import RegistryWriter
from tests.conftest import PATIENCE
from tests.registry.chains import check_chain
from tests.registry.stepping import Freezing
from tests.registry.test_contract import ADAPTER, NOW, a_base, snapshot

pytestmark = pytest.mark.slow

PLENTY = 5.0  # seconds of patience; never waited for


def clock() -> datetime:
    return datetime.now(UTC)


def an_hour_later() -> datetime:
    return datetime(2100, 1, 1, tzinfo=UTC)


class Holder:
    """A run in a folder of its own, with its lease and its writer."""

    def __init__(self, registry: Any, name: str, now: Any = clock) -> None:
        self.registry = registry
        run_id = registry.begin_run("trial", {}, {})
        self.folder = Path(f"{name}/runs/{run_id}")
        self.lease = RunLease(registry, "m", run_id, self.folder, name, now, four_eyes=False)
        self.known = self.lease.known
        base = registry.store_base(run_id, a_base())
        self.lineage = Lineage("m", run_id, base, "article", "full", "1")
        self.outbox = Outbox(self.folder / "outbox.db")
        self.writer = RegistryWriter(registry, self.lineage, self.outbox, lease=self.lease)

    def heal(self, number: int, f1: float) -> None:
        """A snapshot that is champion from then on."""
        self.writer.add(
            replace(snapshot(number, Phase.POST_HEAL, f1), id=self.id_of(number)), ADAPTER
        )
        self.writer.point(
            CHAMPION, self.id_of(number), actor="run", at=NOW, reason="healed",
            after=self.known,
        )  # fmt: skip

    def heal_unrefused(self, number: int, f1: float, where: str) -> None:
        self.heal(number, f1)
        assert not [one for one in self.arrive() if isinstance(one, MoveRefused)], where

    def id_of(self, number: int) -> str:
        return f"{self.lineage.run_id}-{number}"

    def arrive(self) -> list[Event]:
        """Until the registry has everything; raises what prevented that."""
        self.writer.flush(PLENTY)
        return self.writer.results()

    def end(self) -> None:
        self.writer.close()
        with suppress(RegistryError):
            self.lease.release()


def calls_of_a_heal() -> list[str]:
    """The calls that a writer makes from its first sign of life until a heal has arrived."""
    registry = Freezing(MemoryRegistry(), 0, after=False)
    holder = Holder(registry, "counting")
    holder.heal(1, 0.5)
    holder.arrive()
    holder.end()
    return registry.calls


def test_a_writer_holds_its_lease_until_another_takes_it(empty_dir: Path) -> None:
    registry = MemoryRegistry()
    first = Holder(registry, "first")
    first.heal(1, 0.5)
    first.arrive()
    assert first.writer.holds
    following = Holder(registry, "following", an_hour_later)
    first.heal(2, 0.6)
    with pytest.raises(LeaseHeld):
        first.arrive()
    assert not first.writer.holds
    first.end()
    following.end()


def test_a_look_at_the_lease_by_the_heartbeat_leaves_nothing_to_wait_for(
    empty_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "BEAT_SECONDS", 0.0)  # before each job and after the last
    monkeypatch.setattr(writing, "CHECK_SECONDS", 1e9)
    holder = Holder(MemoryRegistry(), "first")
    for number in range(1, 6):
        learned = replace(snapshot(number, Phase.POST_HEAL, 0.5), id=holder.id_of(number))
        holder.writer.add(learned, ADAPTER)  # that nothing comes after
        waiting = threading.Thread(target=holder.arrive, daemon=True)
        waiting.start()
        waiting.join(PATIENCE)
        assert not waiting.is_alive()
    holder.end()


def test_a_move_shows_that_the_lease_is_held_and_no_other_look_is_needed(
    empty_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "BEAT_SECONDS", 1e9)
    monkeypatch.setattr(writing, "CHECK_SECONDS", 1e9)
    holder = Holder(MemoryRegistry(), "first")
    holder.heal(1, 0.5)
    holder.arrive()
    looks: list[str] = []
    monkeypatch.setattr(holder.lease, "require", lambda: looks.append("look"))
    holder.heal(2, 0.6)
    holder.arrive()
    assert looks == []
    assert not holder.lease.saw(standing(holder.registry, "m").moves[CHAMPION].sequence)
    holder.end()


@pytest.fixture(params=[-1.0, 1e9], ids=["looks at each job", "looks at the end"])
def looks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How often a writer looks at its lease: before each job, or only after all of them."""
    monkeypatch.setattr(writing, "CHECK_SECONDS", request.param)


@pytest.mark.parametrize("after", [False, True], ids=["before a call", "after it"])
@pytest.mark.parametrize("killed", [False, True], ids=["goes on", "is killed"])
@pytest.mark.parametrize("moved", [False, True], ids=["the next has only its lease", "has moved"])
def test_what_a_frozen_holder_does_late_is_undone_and_never_restored(
    empty_dir: Path, looks: None, after: bool, killed: bool, moved: bool
) -> None:
    calls = calls_of_a_heal()
    assert {"add_version", "put_entry", "set_alias", "mark_move"} <= set(calls)
    for number, name in enumerate(calls, 1):
        where = f"frozen at call {number}, {name}"
        registry = MemoryRegistry()
        earlier = Holder(registry, f"earlier{number}")
        earlier.heal(1, 0.1)
        earlier.arrive()
        earlier.end()
        frozen = Freezing(registry, number, after=after)
        stale = Holder(frozen, f"stale{number}")
        stale.heal(2, 0.9)
        assert frozen.frozen.wait(PATIENCE), where
        following = Holder(registry, f"following{number}", an_hour_later)
        lineage = following.lineage
        follower = ChampionWatcher(registry, "m", lineage.run_id, lineage.base, following.known)
        if moved:
            following.heal_unrefused(3, 0.3, where)
        frozen.dead = killed
        frozen.thawed.set()
        lost = _ends(stale, killed=killed)
        follower.look()
        follower.look()
        following.heal_unrefused(4, 0.2, where)
        _check(registry, following, stale, where)
        assert lost or killed, where
        following.end()


def _ends(stale: Holder, *, killed: bool) -> bool:
    """Whether the run heard that it had lost its lease."""
    try:
        if not killed:
            stale.arrive()
            stale.lease.require()
    except LeaseHeld as exc:
        assert "taken over" in str(exc)
        return True
    finally:
        stale.writer.close()
    return False


def _check(registry: MemoryRegistry, following: Holder, stale: Holder, where: str) -> None:
    now = standing(registry, "m")
    last = now.moves[CHAMPION]
    assert (registry.alias("m", CHAMPION), last.run) == (last.target, following.lineage.run_id), (
        where
    )
    assert now.lease == following.lease.lease, where
    assert check_chain(registry, "m") > 0
    moves = [entry for entry in registry.entries("m") if entry.data.get("alias") == CHAMPION]
    own = [entry.sequence for entry in moves if entry.data["run"] == stale.lineage.run_id]
    assert max(own, default=0) < following.lease.sequence, where
    late = {
        version.version: version.stale
        for version in registry.versions("m")
        if version.run_id == stale.lineage.run_id and version.version > now.fences[-1].versions
    }
    assert all(late.values()), where
    candidates = {one.version for one in registry.ranked("m", base=following.lineage.base)}
    assert not candidates & late.keys(), where
