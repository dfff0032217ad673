"""What retention keeps, and that what goes is gone and accounted for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal_cli.config_policy import Retention
from selfheal_cli.records import AliasMove, Phase, VersionRecord
from selfheal_cli.registry.journal import JournalState, Lease, Proposal
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from selfheal_cli.rollback.retention import DAY_MS, sort_versions
from selfheal_cli.settings.policy_file import load
from tests.conftest import Invoke

NOTHING = Retention(keep_best=0, keep_last=0, keep_days=0)
POLICY = "description: short\nretention: {keep_best: 2, keep_last: 3, keep_days: 0}\n"


def version(number: int, f1: float = 0.5, **more: Any) -> VersionRecord:
    tags = {"selfheal.base": "b", "selfheal.run_id": f"run-{number % 3}"}
    if number > 1:
        tags["selfheal.parent"] = str(number - 1)
    values: dict[str, Any] = {"phase": Phase.POST_HEAL, "created_ms": 0, "metrics": {"f1": f1}}
    return VersionRecord(model="m", version=number, batch=number, tags=tags, **(values | more))


def move(source: int | None, target: int) -> AliasMove:
    return AliasMove("m", "champion", source, target, "ann", "t", "why", 1)


def test_with_nothing_to_keep_only_what_is_needed_stays() -> None:
    versions = [version(number, f1=number / 100) for number in range(1, 30)]
    now = JournalState(
        {"champion": move(20, 10)}, None, None, (Proposal(15, "s", "a", "t", "r", 1),)
    )
    split = sort_versions(versions, now, NOTHING, 0)
    assert split.kept == {
        9: "parent of v10",
        10: "is champion",
        14: "parent of v15",
        15: "is proposed",
        19: "parent of v20",
        20: "was champion before",
        28: "parent of v29",
        29: "best of its base",
    }


def test_what_a_run_under_way_made_stays() -> None:
    versions = [version(number) for number in range(1, 7)]
    now = JournalState(lease=Lease("run-1", "ann", "t", 1))
    kept = sort_versions(versions, now, NOTHING, 0).kept
    assert {number for number, why in kept.items() if "under way" in why} == {1, 4}


def test_the_best_the_latest_and_the_young_stay() -> None:
    versions = [version(n, f1=1 / n, created_ms=n * DAY_MS) for n in range(1, 11)]
    retention = Retention(keep_best=2, keep_last=1, keep_days=3)
    split = sort_versions(versions, JournalState(), retention, 11 * DAY_MS)
    assert split.kept == {
        1: "best of its base",
        2: "among the best",
        8: "parent of v9",
        9: "young",
        10: "among the latest",
    }


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=40),
    st.integers(0, 50),
    st.integers(0, 50),
    st.data(),
)
def test_what_serves_and_the_best_never_go(
    scores: list[float], best: int, last: int, data: st.DataObject
) -> None:
    versions = [version(number, f1) for number, f1 in enumerate(scores, 1)]
    serving = data.draw(st.integers(1, len(scores)))
    retention = Retention(keep_best=best, keep_last=last, keep_days=0)
    split = sort_versions(versions, JournalState({"champion": move(None, serving)}), retention, 1)
    going = {one.version for one in split.going}
    assert going | set(split.kept) == set(range(1, len(scores) + 1))
    assert not going & set(split.kept)
    top = max(versions, key=lambda one: (one.metrics["f1"], one.version)).version
    assert {serving, top} <= set(split.kept)
    assert len(split.kept) <= 2 * (2 + best + last)


@pytest.fixture
def policy(article_copy: Path) -> str:
    Path("short.yaml").write_text(POLICY)
    return "short.yaml"


def test_what_serves_the_best_and_the_latest_twenty_stay_where_nothing_else_is_said() -> None:
    versions = [version(n, f1=1 / n) for n in range(1, 41)]
    now = JournalState({"champion": move(None, 30)})
    for name in ("default", "strict", "lenient", "drill"):
        split = sort_versions(versions, now, load(name).retention, DAY_MS)
        assert {1, 30, *range(21, 41)} <= set(split.kept)
        assert len(split.kept) <= 24  # and the parents of these
    assert load("default").retention == Retention()


def test_a_listing_removes_nothing(policy: str, invoke: Invoke) -> None:
    assert "Nothing was removed" in invoke("prune", "--policy", policy).stdout
    assert len(MlflowRegistry().versions("fraud", limit=100)) == 51


def test_pruned_versions_are_gone_with_their_files_and_the_audit_stays_whole(
    policy: str, invoke: Invoke
) -> None:
    files = len(list(Path("mlruns").rglob("adapter.safetensors")))
    done = json.loads(invoke("prune", "--policy", policy, "--apply", "--json").stdout)
    left = {one.version for one in MlflowRegistry().versions("fraud", limit=100)}
    assert left == {int(number) for number in done["kept"]}
    assert {1, 21, 51} <= left
    assert done["bytes"] > 1000 * len(done["going"])
    assert len(list(Path("mlruns").rglob("adapter.safetensors"))) == files - len(done["going"])
    assert "Everything holds" in invoke("audit").stdout
    assert "v21" in invoke("rollback", "--to-best", "--dry-run").stdout
    assert '"pruned"' in invoke("history", "--json").stdout


def test_a_removal_that_was_interrupted_is_finished_by_the_next(
    policy: str, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove, seen = MlflowRegistry.delete_version, list[int]()

    def stop_after_three(registry: MlflowRegistry, one: VersionRecord) -> int:
        if len(seen) == 3:
            raise KeyboardInterrupt
        seen.append(one.version)
        return remove(registry, one)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowRegistry, "delete_version", stop_after_three)
        invoke("prune", "--policy", policy, "--apply", expect=130)
    assert len(MlflowRegistry().versions("fraud", limit=100)) == 48
    monkeypatch.setattr(
        "selfheal_cli.rollback.retention.CLAIM_SECONDS", -1.0
    )  # as if that was long ago
    assert (
        "An interrupted prune had meant to remove v5; decided anew: v5 may go"
        in invoke("prune", "--policy", policy).stdout
    )
    invoke("prune", "--policy", policy, "--apply")
    assert "Everything holds" in invoke("audit").stdout
    assert json.loads(invoke("prune", "--policy", policy, "--json").stdout)["going"] == []
