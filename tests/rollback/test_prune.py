"""Prune beside whoever moves an alias: what serves, and what may be gone back to, stays."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from selfheal_cli.config_policy import Retention
from selfheal_cli.errors import ConflictError, RegistryError, VersionCorrupt, VersionNotFound
from selfheal_cli.records import AliasMove, Phase
from selfheal_cli.registry.aliases import Move, move_alias
from selfheal_cli.registry.base import CHAMPION, Lineage, Registry
from selfheal_cli.registry.journal import (
    GENESIS,
    Entry,
    EntryKind,
    JournalState,
    Proposal,
    fold,
    standing,
    write,
)
from selfheal_cli.registry.memory import MemoryRegistry
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from selfheal_cli.registry.orders import propose
from selfheal_cli.rollback.plan import By, execute, plan_version
from selfheal_cli.rollback.retention import Pruned, look, prune
from selfheal_cli.rollback.trust import Unverified
from selfheal_cli.rollback.verify import load_verified
from tests.conftest import Invoke
from tests.registry.chains import check_chain
from tests.registry.stepped import interleave
from tests.registry.test_contract import ADAPTER, a_base, snapshot

NOTHING = Retention(keep_best=0, keep_last=0, keep_days=0)
NOW = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=10_000)
AT = NOW.isoformat(timespec="milliseconds")


def filled(registry: Registry, model: str = "m", versions: int = 8) -> Registry:
    """A baseline, heals each a little better than the one before, and the last but one serving."""
    run_id = registry.begin_run("trial", {}, {"selfheal.model": model})
    lineage = Lineage(model, run_id, registry.store_base(run_id, a_base()), "article", "full", "1")
    for number in range(1, versions + 1):
        phase = Phase.BASELINE if number == 1 else Phase.POST_HEAL
        made = snapshot(number, phase, f1=number / 100)
        registry.add_version(lineage, made, ADAPTER, None)
    for target in (1, versions - 1):
        move_alias(registry, Move(model, CHAMPION, target, "ann", AT, "heal"))
    return registry


def pruned(registry: Any, model: str = "m", now: datetime = NOW) -> Pruned:
    split = look(registry, model, NOTHING, lambda: now)
    return prune(registry, model, split, actor="bob", clock=lambda: now)


def rolled_back(registry: Any, target: int, model: str = "m") -> AliasMove | None:
    return execute(
        registry, plan_version(registry, model, target, Unverified()), By("ann", AT, "fell")
    )


def check_serves(registry: Registry, model: str) -> int:
    """The champion and its base load, and it is what the journal says."""
    number = registry.alias(model, CHAMPION)
    assert number is not None
    load_verified(registry, registry.version(model, number))
    assert standing(registry, model).moves[CHAMPION].target == number
    return number


def one_race(
    seed: int, registry: Registry, first: Any, second: Any, model: str, versions: int = 8
) -> str:
    """Prune beside a rollback to a version that may go; who won."""
    filled(registry, model, versions)
    target = 2 + seed % (versions - 3)
    prune_end, move = interleave(
        seed,
        (lambda own: pruned(own, model), first),
        (lambda own: rolled_back(own, target, model), second),
    )
    assert isinstance(prune_end, Pruned), prune_end
    serves = check_serves(registry, model)
    check_chain(registry, model)
    if isinstance(move, AliasMove):
        assert serves == target
        assert target not in prune_end.removed
        return "moved"
    assert isinstance(move, RegistryError), move
    assert serves == versions - 1
    assert isinstance(move, ConflictError | VersionNotFound | VersionCorrupt), move
    return "refused"


@pytest.mark.slow
def test_of_100_ways_that_a_prune_runs_beside_a_rollback_none_removes_what_serves() -> None:
    ends = Counter(
        one_race(seed, registry, registry, registry, "m")
        for seed in range(100)
        for registry in (MemoryRegistry(),)
    )
    assert min(ends["moved"], ends["refused"]) > 10


def test_on_sqlite_none_does_either(workdir: Path) -> None:
    for seed in range(5):
        registries = MlflowRegistry(), MlflowRegistry(), MlflowRegistry()
        one_race(seed, *registries, f"m{seed}", versions=5)


def test_each_removal_is_written_down_before_it_is_done() -> None:
    registry, seen = filled(MemoryRegistry()), []
    remove = registry.delete_version

    def watched(version: Any) -> int:
        last = registry.last_entry("m")
        assert last is not None
        seen.append((last.kind, last.data["versions"], version.version))
        return remove(version)

    registry.delete_version = watched  # type: ignore[method-assign]
    assert pruned(registry).removed == (2, 3, 4, 5, 6)
    assert seen == [(EntryKind.PRUNED, [number], number) for number in (2, 3, 4, 5, 6)]


def before_the_first_removal(registry: Registry, act: Callable[[], object]) -> Pruned:
    """A prune that looked, and then something happens."""
    split = look(registry, "m", NOTHING, lambda: NOW)
    act()
    return prune(registry, "m", split, actor="bob", clock=lambda: NOW)


def test_what_is_needed_since_it_was_looked_at_stays_and_is_named() -> None:
    registry = filled(MemoryRegistry())
    registry.set_alias("m", "shadow", 2)  # another tool's, after the look
    scored: dict[str, Any] = {"metrics": {"f1": 0.99}}

    def act() -> None:
        registry.set_alias("m", "canary", 3)
        propose(registry, "m", Proposal(4, "s", "ann", AT, "better", 2))
        run_id = registry.version("m", 5).run_id
        lineage = Lineage("m", run_id, registry.version("m", 5).base, "article", "full", "1")
        scores = snapshot(5).scores
        assert scores is not None
        registry.score_version(lineage, 5, 5, scored["metrics"], scores)

    done = before_the_first_removal(registry, act)
    assert done.removed == (6,)
    assert done.stayed == {
        3: "is canary",
        4: "is proposed",
        5: "was given other figures since it was looked at",
    }


def test_a_version_that_is_being_removed_is_refused_in_words() -> None:
    registry = filled(MemoryRegistry())
    refused: list[str] = []
    remove = registry.delete_version

    def slow(version: Any) -> int:
        for act in (
            lambda: rolled_back(registry, version.version),
            lambda: propose(registry, "m", Proposal(version.version, "s", "ann", AT, "why", 2)),
        ):
            with pytest.raises(ConflictError) as caught:
                act()
            refused.append(str(caught.value))
        return remove(version)

    registry.delete_version = slow  # type: ignore[method-assign]
    pruned(registry)
    assert refused[0] == (
        f"m v2 is being removed by the 'selfheal prune' of bob since {AT}; if that was "
        "interrupted, the next one decides anew"
    )
    assert len(refused) == 10


def stop(*_: object) -> int:
    raise KeyboardInterrupt


def test_what_an_interrupted_prune_claimed_is_decided_anew_once_its_time_is_over() -> None:
    registry = filled(MemoryRegistry())
    remove = registry.delete_version
    registry.delete_version = stop  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        pruned(registry)
    registry.delete_version = remove  # type: ignore[method-assign]

    soon = look(registry, "m", NOTHING, lambda: NOW + timedelta(seconds=5))
    assert soon.kept[2] == "is being removed by bob"  # it may be at work still
    later = NOW + timedelta(seconds=61)
    keeps = look(registry, "m", Retention(keep_last=50), lambda: later)
    assert (sorted(keeps.begun), keeps.going) == ([2], ())
    assert prune(registry, "m", keeps, actor="eve", clock=lambda: later).removed == ()
    assert rolled_back(registry, 2) is not None  # withdrawn
    assert not look(registry, "m", NOTHING, lambda: later).begun


def test_a_prune_that_was_frozen_removes_nothing_that_another_one_spared() -> None:
    registry = filled(MemoryRegistry())
    later = NOW + timedelta(seconds=61)
    put = registry.put_entry

    def freeze_after(model: str, entry: Entry) -> bool:
        stored = put(model, entry)
        if entry.kind is EntryKind.PRUNED and entry.data["version"] == 2:
            registry.put_entry = put  # type: ignore[method-assign]
            keeps = look(registry, "m", Retention(keep_last=50), lambda: later)
            prune(registry, "m", keeps, actor="eve", clock=lambda: later)
            rolled_back(registry, 2)
        return stored

    registry.put_entry = freeze_after  # type: ignore[method-assign]
    done = pruned(registry)
    assert done.stayed[2] == "another prune took it up"
    assert check_serves(registry, "m") == 2


def as_the_first_release_wrote_it(
    registry: Registry, model: str, kind: EntryKind, data: Mapping[str, Any]
) -> None:
    """An entry with the whole standing in it."""
    last = registry.last_entry(model)
    assert last is not None
    stands = {name: value for name, value in asdict(last.standing).items() if name != "removals"}
    entry = Entry(
        last.sequence + 1, kind, AT, "ann", data, last.standing, last.digest, "n" * 32, stands
    )
    assert registry.put_entry(model, entry)


def test_a_list_of_an_interrupted_prune_removes_nothing_that_serves_by_now(
    article_copy: Path, invoke: Invoke
) -> None:
    registry = MlflowRegistry()
    as_the_first_release_wrote_it(registry, "fraud", EntryKind.PRUNED, {"versions": [5, 7, 9]})
    Path("all.yaml").write_text("retention: {keep_last: 100}\n")
    said = invoke("prune", "--policy", "all.yaml").stdout
    assert "had meant to remove v5, v7, v9; decided anew: none may go, v5, v7, v9 stay" in said
    assert "Would go: none." in said
    invoke("rollback", "--to", "7", "--yes")
    Path("short.yaml").write_text("retention: {keep_best: 2, keep_last: 3, keep_days: 0}\n")
    shown = json.loads(invoke("prune", "--policy", "short.yaml", "--json").stdout)
    assert shown["interrupted"] == [5, 7, 9]
    assert (7 in shown["going"], 5 in shown["going"]) == (False, True)
    said = invoke("prune", "--policy", "all.yaml", "--apply").stdout
    assert "Removed: none; 0 bytes" in said
    assert "interrupted" not in invoke("prune", "--policy", "all.yaml").stdout
    check_serves(registry, "fraud")
    assert "Everything holds" in invoke("audit").stdout


def test_an_entry_of_the_first_release_keeps_its_digest() -> None:
    registry = filled(MemoryRegistry())
    as_the_first_release_wrote_it(registry, "m", EntryKind.PRUNED, {"versions": [2, 3]})
    check_chain(registry, "m")
    last = registry.last_entry("m")
    assert last is not None
    assert '"removals"' not in last.as_text()
    assert last.standing.removals == ()
    assert fold(JournalState(), EntryKind.SPARED, {"versions": [2]}) == JournalState()
    assert last.previous != GENESIS
    write(registry, "m", EntryKind.HELD, lambda *_: {"actor": "a", "at": AT, "reason": "r"},
          actor="a", at=AT)  # fmt: skip
    check_chain(registry, "m")


def test_what_stands_is_the_same_from_a_checkpoint() -> None:
    registry = filled(MemoryRegistry())
    registry.delete_version = stop  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        pruned(registry)
    propose(registry, "m", Proposal(0, "", "ann", AT, "slow", 0, loosens=True))
    now = standing(registry, "m")
    assert [one.version for one in now.removals] == [2]
    assert JournalState.from_dict(json.loads(json.dumps(now.as_dict()))) == now
