"""Every registry keeps the same promises: each check runs over every store that it can have."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from selfheal_cli.errors import (
    ApprovalNeeded,
    ConflictError,
    LeaseHeld,
    RegistryError,
    VersionCorrupt,
    VersionNotFound,
)
from selfheal_cli.model.architecture import Architecture
from selfheal_cli.model.checkpoint import make_base, pack
from selfheal_cli.model.network import SelfHealingNetwork
from selfheal_cli.records import (
    PROPOSAL_TAG,
    SHOWN_TAGS,
    Base,
    Evaluation,
    Phase,
    Snapshot,
    digest,
)
from selfheal_cli.registry.aliases import Move, move_alias
from selfheal_cli.registry.base import CHAMPION, Lineage, Registry
from selfheal_cli.registry.journal import Hold, JournalState, Lease, Proposal, standing
from selfheal_cli.registry.lease import release_lease, take_lease
from selfheal_cli.registry.manifest import MANIFEST_FILE, file_hash, parse_manifest
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from selfheal_cli.registry.orders import hold, propose, reject, set_four_eyes
from selfheal_cli.scores import Scores
from selfheal_cli.sources.encoding import Encoding
from tests.registry.chains import check_chain
from tests.registry.conftest import DATABASES

# what is in no file is as in SQLite where files are in S3
in_databases = pytest.mark.parametrize("registry", DATABASES, indirect=True)
NAMES = ["a", "b", "c"]
NOW = "2026-01-01T00:00:00+00:00"


def network() -> SelfHealingNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        built = SelfHealingNetwork.build(Architecture(len(NAMES), 8))
    built.freeze()
    return built


def a_base(note: str = "") -> Base:
    encoding = Encoding.identity(NAMES).model_dump(mode="json")
    document = {"encoding": encoding, "labels": ["no", "yes"], "note": note}
    return make_base(network(), {}, document)


ADAPTER = pack(network().adapter.state_dict())


def snapshot(number: int, phase: Phase = Phase.POST_HEAL, f1: float | None = 0.5) -> Snapshot:
    metrics = {"accuracy": 0.75} if f1 is None else {"accuracy": 0.75, "f1": f1}
    return Snapshot(
        id=f"s{number}",
        phase=phase,
        batch=number,
        sha256=digest(ADAPTER),
        scores=Scores(tp=1, tn=2, fp=3, fn=4),
        evaluation=Evaluation.HELD_OUT,
        reason="because",
        threshold=0.4,
        metrics=metrics,
    )


@pytest.fixture
def lineage(registry: Registry) -> Lineage:
    run_id = registry.begin_run("trial", {"seed": "1"}, {"selfheal.model": "m"})
    return Lineage("m", run_id, registry.store_base(run_id, a_base()), "article", "full", "1")


def test_the_same_base_is_stored_once_and_another_beside_it(
    registry: Registry, lineage: Lineage
) -> None:
    assert registry.store_base(lineage.run_id, a_base()) == lineage.base
    other = registry.store_base(lineage.run_id, a_base("other"))
    assert other != lineage.base
    assert registry.base(lineage.base) == a_base()


def test_versions_count_from_one_and_say_what_they_are(
    registry: Registry, lineage: Lineage
) -> None:
    added = [registry.add_version(lineage, snapshot(n), ADAPTER, n - 1 or None) for n in (1, 2)]
    assert [one.version for one in added] == [1, 2]
    entry = registry.version("m", 2)
    assert (entry.phase, entry.batch, entry.f1, entry.eval_rows) == (Phase.POST_HEAL, 2, 0.5, 10)
    assert entry.sha256 == digest(ADAPTER)
    assert (entry.base, entry.run_id) == (lineage.base, lineage.run_id)
    expected = {"parent": "1", "recipe": "article", "labels": "full", "reason": "because",
                "evaluation": "held-out", "snapshot": "s2", "schema": "1",
                "threshold": "0.4"}  # fmt: skip
    assert (
        expected.items() <= {k.removeprefix("selfheal."): v for k, v in entry.tags.items()}.items()
    )


def test_an_adapter_comes_back_byte_for_byte(registry: Registry, lineage: Lineage) -> None:
    registry.add_version(lineage, snapshot(1), ADAPTER, None)
    assert registry.adapter(registry.version("m", 1)) == ADAPTER


@in_databases
def test_best_is_the_highest_f1_after_a_heal_on_this_base(
    registry: Registry, lineage: Lineage
) -> None:
    other = replace(lineage, base=registry.store_base(lineage.run_id, a_base("other")))
    registry.add_version(lineage, snapshot(1, f1=0.09), ADAPTER, None)
    registry.add_version(lineage, snapshot(2, f1=0.4), ADAPTER, None)
    registry.add_version(lineage, snapshot(3, f1=0.3), ADAPTER, None)
    registry.add_version(lineage, snapshot(4, Phase.PRE_HEAL, f1=0.9), ADAPTER, None)
    registry.add_version(lineage, snapshot(5, Phase.BASELINE, f1=0.95), ADAPTER, None)
    registry.add_version(lineage, snapshot(6, f1=None), ADAPTER, None)
    registry.add_version(other, snapshot(7, f1=0.99), ADAPTER, None)
    best = registry.best("m", base=lineage.base)
    assert best is not None
    assert (best.version, best.f1) == (2, 0.4)


@in_databases
def test_best_can_be_held_to_one_run(registry: Registry, lineage: Lineage) -> None:
    registry.add_version(lineage, snapshot(1, f1=0.9), ADAPTER, None)
    second = replace(lineage, run_id=registry.begin_run("trial", {}, {}))
    registry.add_version(second, snapshot(2, f1=0.2), ADAPTER, None)
    within = registry.best("m", base=lineage.base, run_id=second.run_id)
    anywhere = registry.best("m", base=lineage.base)
    assert within is not None
    assert anywhere is not None
    assert (within.version, anywhere.version) == (2, 1)


@in_databases
def test_there_is_no_best_before_a_heal(registry: Registry, lineage: Lineage) -> None:
    registry.add_version(lineage, snapshot(1, Phase.BASELINE), ADAPTER, None)
    assert registry.best("m", base=lineage.base) is None


@in_databases
def test_versions_are_listed_from_the_highest_down(registry: Registry, lineage: Lineage) -> None:
    for number, f1 in ((1, 0.2), (2, 0.9), (3, 0.5)):
        registry.add_version(lineage, snapshot(number, f1=f1), ADAPTER, None)
    registry.add_version(lineage, snapshot(4, Phase.PRE_HEAL, f1=0.7), ADAPTER, None)
    assert [v.version for v in registry.versions("m")] == [4, 3, 2, 1]
    assert [v.version for v in registry.versions("m", sort="f1", limit=2)] == [2, 4]
    healed = registry.versions("m", phase=Phase.POST_HEAL, sort="f1")
    assert [v.version for v in healed] == [2, 3, 1]


def move(target: int, **more: Any) -> Move:
    values: dict[str, Any] = {"actor": "ann", "at": "2026-01-01T00:00:00+00:00", "reason": "better"}
    return Move("m", CHAMPION, target, **(values | more))


@in_databases
def test_a_moved_alias_says_who_from_where_and_why(registry: Registry, lineage: Lineage) -> None:
    for number in (1, 2):
        registry.add_version(lineage, snapshot(number), ADAPTER, None)
    assert registry.alias("m", CHAMPION) is None
    first = move_alias(registry, move(1))
    second = move_alias(registry, move(2, actor="bob"))
    assert (first.source, first.target, second.source, second.target) == (None, 1, 1, 2)
    assert standing(registry, "m").moves == {CHAMPION: second}
    assert [entry.data for entry in registry.entries("m")] == [
        first.as_dict(),
        second.as_dict(),
    ]
    assert registry.version("m", 2).aliases == (CHAMPION,)
    assert registry.aliases("m") == {CHAMPION: 2}


@in_databases
def test_a_move_is_refused_when_somebody_else_moved_since_it_was_planned(
    registry: Registry, lineage: Lineage
) -> None:
    for number in (1, 2, 3):
        registry.add_version(lineage, snapshot(number), ADAPTER, None)
    planned = move_alias(registry, move(1)).sequence
    move_alias(registry, move(2, actor="bob", reason="mine"))
    with pytest.raises(ConflictError, match=r"moved to v2 by bob .*\(mine\)"):
        move_alias(registry, move(3, after=planned))
    assert registry.alias("m", CHAMPION) == 2
    assert check_chain(registry, "m") == 2


@in_databases
def test_a_runs_moves_follow_one_another_until_a_person_moves(
    registry: Registry, lineage: Lineage
) -> None:
    for number in (1, 2, 3):
        registry.add_version(lineage, snapshot(number), ADAPTER, None)
    move_alias(registry, move(1, run="r", key="k1", after=0))
    move_alias(registry, move(2, run="r", key="k2", after=0))
    move_alias(registry, move(1, actor="bob"))
    with pytest.raises(ConflictError, match="by bob"):
        move_alias(registry, move(3, run="r", key="k3", after=0))


@in_databases
def test_a_repeated_move_is_one_move(registry: Registry, lineage: Lineage) -> None:
    registry.add_version(lineage, snapshot(1), ADAPTER, None)
    wanted = move(1, run="r", key="k1", after=0)
    assert move_alias(registry, wanted) == move_alias(registry, wanted)
    assert check_chain(registry, "m") == 1


@in_databases
def test_a_journal_goes_on_over_its_pages_for_whoever_reads_it(
    registry: Registry, lineage: Lineage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfheal_cli.registry.mlflow.journal.ENTRIES_A_RUN", 20)
    registry.add_version(lineage, snapshot(1), ADAPTER, None)
    who = {"actor": "ann", "at": "2026-01-01T00:00:00+00:00"}
    for number in range(45):
        hold(registry, "m", Hold("ann", who["at"], "x") if number % 2 == 0 else None, **who)
    assert check_chain(registry, "m") == 45
    assert standing(registry, "m").hold is not None
    if isinstance(registry, MlflowRegistry):
        assert MlflowRegistry(registry.uri).last_entry("m") == registry.last_entry("m")


@in_databases
def test_four_eyes_want_a_second_person(registry: Registry, lineage: Lineage) -> None:
    for number in (1, 2):
        registry.add_version(lineage, snapshot(number), ADAPTER, None)
    lease = take_lease(registry, "m", Lease("r", "ann", "t"), four_eyes=True, alive=lambda _: "")
    release_lease(registry, "m", lease, "t")
    with pytest.raises(ApprovalNeeded, match="wants two people"):
        move_alias(registry, move(1))
    made = propose(registry, "m", Proposal(2, "sha", "ann", "t", "why", after=0))
    with pytest.raises(ApprovalNeeded, match="ann's own"):
        move_alias(registry, move(2, proposal=made.sequence))
    with pytest.raises(RegistryError, match="is for v2"):
        move_alias(registry, move(1, actor="bob", proposal=made.sequence))
    move_alias(registry, move(2, actor="bob", proposal=made.sequence))
    assert standing(registry, "m").proposals == ()
    assert move_alias(registry, move(1, run="r", key="k")).target == 1  # a run's own moves go on
    if isinstance(registry, MlflowRegistry):
        assert_whoever_browses_sees_what_became_of_a_proposal(registry)


def assert_whoever_browses_sees_what_became_of_a_proposal(registry: MlflowRegistry) -> None:
    def seen(number: int) -> str:
        return registry.version("m", number).tags.get(PROPOSAL_TAG, "")

    assert (seen(1), seen(2)) == ("", "approved by bob; proposal 3")
    one = propose(registry, "m", Proposal(1, "sha", "ann", "t", "why", after=0))
    assert seen(1) == f"proposed by ann; proposal {one.sequence}"
    killed = MlflowRegistry(registry.uri)  # between the journal and what is shown
    killed.show_proposals = lambda *_: None  # type: ignore[method-assign]
    told = {"actor": "bob", "at": "t"}
    reject(killed, "m", one.sequence, reason="no", **told)
    again = propose(killed, "m", Proposal(2, "sha", "ann", "t", "why", after=0))
    assert (seen(1)[:8], seen(2)[:8]) == ("proposed", "approved")
    hold(MlflowRegistry(registry.uri), "m", None, **told)  # whatever is written next
    assert (seen(1)[:13], seen(2)[:15]) == ("waits no more", "proposed by ann")
    reject(registry, "m", again.sequence, reason="too old", **told)
    assert seen(2) == f"rejected by bob: too old; proposal {again.sequence}"


@in_databases
def test_no_policy_loosens_four_eyes_and_one_person_cannot(
    registry: Registry, lineage: Lineage
) -> None:
    registry.add_version(lineage, snapshot(1), ADAPTER, None)
    told = {"at": "t", "reason": "why"}
    set_four_eyes(registry, "m", on=True, actor="ann", **told)
    lease = take_lease(registry, "m", Lease("r", "eve", "t"), four_eyes=False, alive=lambda _: "")
    release_lease(registry, "m", lease, "t")
    with pytest.raises(ApprovalNeeded, match="wants two people"):
        move_alias(registry, move(1))
    with pytest.raises(ApprovalNeeded, match="also to want that no more"):
        set_four_eyes(registry, "m", on=False, actor="bob", **told)
    rollback = propose(registry, "m", Proposal(1, "sha", "ann", "t", "why", 0))
    loosen = propose(registry, "m", Proposal(0, "", "ann (claimed)", "t", "why", 0, loosens=True))
    for actor in ("ann", "Ann (claimed)"):  # one name, however it is given
        with pytest.raises(ApprovalNeeded, match="own; somebody else must approve it"):
            set_four_eyes(registry, "m", on=False, actor=actor, proposal=loosen.sequence, **told)
    with pytest.raises(RegistryError, match="is a rollback, and loosens no rule"):
        set_four_eyes(registry, "m", on=False, actor="bob", proposal=rollback.sequence, **told)
    set_four_eyes(registry, "m", on=False, actor="bob", proposal=loosen.sequence, **told)
    assert standing(registry, "m").proposals == (rollback,)
    assert move_alias(registry, move(1)).target == 1
    kinds = [entry.kind.value for entry in registry.entries("m")]
    assert kinds.count("four-eyes") == 2
    check_chain(registry, "m")


@in_databases
def test_a_lease_is_held_by_one_living_run(registry: Registry, lineage: Lineage) -> None:
    first = Lease("run-a", "ann", "noon")
    taken = take_lease(registry, "m", first, four_eyes=False, alive=lambda _: "")
    with pytest.raises(LeaseHeld, match=r"run-a of ann .* since noon .*alive"):
        take_lease(registry, "m", Lease("b", "bob", "t"), four_eyes=False, alive=lambda _: "alive")
    over = take_lease(registry, "m", Lease("b", "bob", "t"), four_eyes=False, alive=lambda _: "")
    release_lease(registry, "m", taken, "t")  # the dead one's, too late
    assert standing(registry, "m").lease == over
    release_lease(registry, "m", over, "t")
    assert standing(registry, "m").lease is None


def test_a_repeated_registration_is_one_version(registry: Registry, lineage: Lineage) -> None:
    for number in (1, 2):
        registry.add_version(lineage, snapshot(number), ADAPTER, None)
    assert registry.add_version(lineage, snapshot(1), ADAPTER, None, again=True).version == 1
    assert registry.add_version(lineage, snapshot(3), ADAPTER, None, again=True).version == 3
    assert [v.version for v in registry.versions("m")] == [3, 2, 1]


def test_a_version_holds_a_manifest_of_all_that_it_was_born_with(
    registry: Registry, lineage: Lineage
) -> None:
    taken = snapshot(1)
    added = registry.add_version(lineage, taken, ADAPTER, None)
    stored = registry.stored(registry.version("m", 1))
    data = stored.files[MANIFEST_FILE]
    manifest = parse_manifest(data, "m v1")
    assert added.manifest == digest(data)
    assert registry.add_version(lineage, taken, ADAPTER, None, again=True) == added
    assert (manifest.model, manifest.snapshot) == ("m", "s1")
    assert manifest.tags == lineage.tags(taken, None)
    assert manifest.tags.items() <= stored.logged.items()
    shown = {name: value for name, value in manifest.tags.items() if name in SHOWN_TAGS}
    assert shown.items() <= stored.tags.items()
    assert manifest.figures == taken.metrics == stored.figures
    assert manifest.files == {
        name: file_hash(name, data) for name, data in stored.files.items() if name != MANIFEST_FILE
    }


def test_late_figures_leave_the_manifest_as_it_was(registry: Registry, lineage: Lineage) -> None:
    awaiting = replace(snapshot(1, f1=None), scores=None, evaluation=Evaluation.AWAITING)
    added = registry.add_version(lineage, awaiting, ADAPTER, None)
    scores = Scores(tp=2, tn=2, fp=1, fn=0)
    registry.score_version(lineage, 1, 1, scores.figures(), scores)
    version = registry.version("m", 1)
    stored = registry.stored(version)
    assert digest(stored.files[MANIFEST_FILE]) == added.manifest
    assert stored.figures["f1"] == scores.f1
    assert stored.logged["selfheal.counts"] == "2,2,1,0"
    assert version.counts == (2, 2, 1, 0)


def test_a_deleted_version_is_gone_with_its_file(registry: Registry, lineage: Lineage) -> None:
    for number in (1, 2):
        registry.add_version(lineage, snapshot(number, f1=0.5 + number / 10), ADAPTER, None)
    gone = registry.version("m", 2)
    assert registry.delete_version(gone) >= len(ADAPTER)
    with pytest.raises(VersionCorrupt):
        registry.adapter(gone)
    with pytest.raises(VersionNotFound):
        registry.version("m", 2)
    best = registry.best("m", base=lineage.base)
    assert best is not None
    assert best.version == 1


def test_what_is_not_there_is_not_found(registry: Registry, lineage: Lineage) -> None:
    registry.add_version(lineage, snapshot(1), ADAPTER, None)
    with pytest.raises(VersionNotFound, match="no version 9"):
        registry.version("m", 9)
    with pytest.raises(VersionNotFound, match="no registered model 'nobody'"):
        registry.versions("nobody")
    with pytest.raises(VersionCorrupt):
        registry.base("m-0123456789abcdef0123456789abcdef")
    assert standing(registry, "m") == JournalState()
    assert registry.last_entry("nobody") is None


def test_a_deleted_model_is_gone(registry: Registry, lineage: Lineage) -> None:
    registry.add_version(lineage, snapshot(1), ADAPTER, None)
    assert registry.models() == ["m"]
    registry.delete_model("m")
    assert registry.models() == []
    assert registry.best("m", base=lineage.base) is None


def test_files_kept_with_a_run_come_back(
    registry: Registry, lineage: Lineage, tmp_path: Path
) -> None:
    kept = tmp_path / "note.txt"
    kept.write_text("hello")
    registry.log_files(lineage.run_id, [kept])
    into = tmp_path / "into"
    into.mkdir()
    assert registry.run_file(lineage.run_id, "note.txt", into).read_text() == "hello"
    with pytest.raises(RegistryError):
        registry.run_file(lineage.run_id, "absent.txt", into)


def test_it_can_be_written_to_and_leaves_nothing_behind(registry: Registry) -> None:
    registry.require_writable()
    assert registry.models() == []


@in_databases
def test_a_move_written_down_and_not_carried_out_yet_is_where_the_next_one_begins(
    registry: Registry, lineage: Lineage
) -> None:
    for number in (1, 2, 3):
        registry.add_version(lineage, snapshot(number), b"adapter", None)
    move_alias(registry, Move("m", "champion", 1, "ann", NOW, "first"))
    with pytest.MonkeyPatch.context() as slow:
        slow.setattr(type(registry), "set_alias", lambda *_: None)
        slow.setattr(type(registry), "alias", lambda *_: 1)
        with suppress(RegistryError):  # it reads back what was not set
            move_alias(registry, Move("m", "champion", 2, "ann", NOW, "on its way"))
    last = move_alias(registry, Move("m", "champion", 3, "bob", NOW, "next"))
    assert (last.source, last.target) == (2, 3)
    registry.set_alias("m", "champion", 1)  # another tool
    assert move_alias(registry, Move("m", "champion", 2, "bob", NOW, "last")).source == 1
