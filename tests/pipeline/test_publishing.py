"""Which heals become versions, and what is kept of the version that served before each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from selfheal_cli.config import HealSettings, Policy
from selfheal_cli.events.state import RunView
from selfheal_cli.heal.publishing import Publishing, divergence
from selfheal_cli.records import BEFORE, Phase
from selfheal_cli.registry.base import snapshots
from tests.pipeline.small import DELAYED, Ran, config, ran, watch_heals

FIGURES = HealSettings(recipe="anchored", pre_heal="figures")
NEVER = Policy(publish_change=1e9)


def test_a_heal_that_changes_few_decisions_is_learned_and_makes_no_version(
    empty_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heals = watch_heals(monkeypatch)
    done = ran(config(policy=NEVER))
    learned = done.of("heal-learned")
    assert [one.batch for one in learned] == list(range(1, 9))
    assert not done.of("heal", "heal-rejected", "snapshot-scored")
    assert [version.phase for version in done.versions()] == [Phase.BASELINE]
    assert "learned, not published: decisions changed by" in learned[0].why
    rows = RunView.of(done.events).rows.values()
    assert {row.action for row in rows} == {"LEARNED"}
    # what served is the baseline in every batch, and each heal built on what the last one learned
    assert done.stage("healed")["log_loss"] == done.stage("unhealed")["log_loss"]
    for before, outcome in zip(heals.before[1:], heals.outcomes, strict=False):
        assert before.memory is outcome.after.memory


def test_what_was_learned_without_a_version_is_what_every_version_would_have_known(
    empty_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heals = watch_heals(monkeypatch)
    ran(config(policy=NEVER))
    ran(config())
    one, other = heals.outcomes[:8], heals.outcomes[8:]
    for mine, theirs in zip(one, other, strict=True):
        assert np.array_equal(mine.probabilities_after, theirs.probabilities_after)


def test_heals_are_published_where_they_change_enough(empty_dir: Path) -> None:
    never = ran(config(policy=NEVER))
    level = sorted(one.change for one in never.of("heal-learned"))[4]
    done = ran(config(policy=Policy(publish_change=level)))
    assert done.of("heal", "heal-rejected")
    assert done.of("heal-learned")
    assert all(one.change < one.needed == level for one in done.of("heal-learned"))


@pytest.mark.quick
def test_the_stream_raises_what_is_asked_where_too_many_heals_would_be_published() -> None:
    changes = np.random.default_rng(1).lognormal(size=400)
    for share, least in ((1.0, 0.0), (0.5, 0.0), (0.5, 0.1), (0.1, 0.0), (1.0, 2.0)):
        asked = Publishing(Policy(publish_change=least, publish_share=share), 100)
        published = [change for change in changes if change >= asked.needed(change)]
        assert len(published) <= 400 * share * 1.15 + 5
        assert len(published) <= (changes >= least).sum()
        assert len(published) >= min(400 * share, (changes >= least).sum()) * 0.8


@pytest.fixture(scope="module")
def carried(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("carried"))
        return ran(config(heal=FIGURES))


def test_a_snapshot_before_a_heal_is_the_version_that_served_and_its_figures_go_with_the_next(
    carried: Ran,
) -> None:
    taken = {one.id: one for one in carried.of("snapshot")}
    before = [one for one in taken.values() if one.phase is Phase.PRE_HEAL]
    assert len(before) == 8
    assert all(one.sha256 == taken[one.same_as].sha256 for one in before)
    assert all(one.threshold == taken[one.same_as].threshold for one in before)
    assert not carried.versions("pre-heal")
    by_heal = {one.heal_id: one for one in before}
    for version in carried.versions("post-heal"):
        earlier = by_heal[version.tags["selfheal.heal_id"]]
        number = carried.by_snapshot(earlier.same_as).version
        assert version.tags["selfheal.pre_heal"] == f"v{number}"
        assert version.tags["selfheal.parent"] == str(number)
        assert version.metrics["pre_f1"] == earlier.scores.f1
    assert not any(name.startswith(BEFORE) for name in carried.versions("baseline")[0].metrics)


def test_the_snapshots_before_heals_are_listed_and_counted_as_the_versions_that_they_are(
    carried: Ran,
) -> None:
    listed = snapshots(carried.registry, "fraud", phase=None, sort="version", limit=100)
    parents = {one.version: one.tags.get("selfheal.parent") for one in carried.versions()}
    for healed, before in zip(listed[:-1:2], listed[1::2], strict=True):
        assert (before.phase, before.batch) == (Phase.PRE_HEAL, healed.batch)
        assert str(before.version) == parents[healed.version]
    alone = snapshots(carried.registry, "fraud", phase=Phase.PRE_HEAL, sort="f1", limit=3)
    known = [one for one in listed if one.phase is Phase.PRE_HEAL]
    assert [one.f1 for one in alone] == sorted((one.f1 for one in known), reverse=True)[:3]
    view = RunView.of(carried.events)
    assert view.versions() == 9
    rows = [row for row in view.snapshots.values() if row.phase == "pre-heal"]
    assert [row.version for row in rows] == [one.version for one in reversed(known)]


def test_figures_that_come_late_leave_the_version_before_the_heal_as_it_was(
    empty_dir: Path,
) -> None:
    done = ran(config(heal=FIGURES, labels=DELAYED, batches=12))
    late = {one.snapshot: one.scores for one in done.of("snapshot-scored")}
    before = {one.heal_id: one.id for one in done.of("snapshot") if one.same_as}
    scored = [one for one in done.versions("post-heal") if one.tags["selfheal.snapshot"] in late]
    assert len(scored) > 3
    for version in scored:
        heal = version.tags["selfheal.heal_id"]
        assert version.metrics["f1"] == late[version.tags["selfheal.snapshot"]].f1
        assert version.metrics["pre_f1"] == late[before[heal]].f1


@pytest.mark.quick
def test_decisions_are_as_far_apart_as_their_divergence_says() -> None:
    p = np.array([0.2, 0.9], dtype=np.float32)
    both = np.stack([1 - p, p], axis=1)
    assert divergence(p, p) == 0.0
    assert divergence(p, p[::-1]) == pytest.approx(divergence(both, both[::-1]))
    assert divergence(np.array([1.0]), np.array([0.0])) > 10
