"""What keeps a bad heal from serving: quarantine, gate, rollback, stale rules, and the verdict."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from selfheal_cli.config import (
    HealSettings,
    LabelSettings,
    NetworkSettings,
    Objective,
    Policy,
    RunConfig,
    SyntheticSettings,
    TableSettings,
)
from selfheal_cli.drift.kinds import parse_monitor
from selfheal_cli.events.event import Event
from selfheal_cli.heal.engine import InlineEngine, LiveModel
from selfheal_cli.heal.recipe import Recipes
from selfheal_cli.heal.task import AdapterState, HealOutcome, HealTask
from selfheal_cli.pipeline.prepare.rows import open_source
from selfheal_cli.pipeline.runs import run as running
from selfheal_cli.records import Batch
from selfheal_cli.rules.ruleset import RuleSet, parse_rule
from tests.pipeline.small import (
    DELAYED,
    RULE,
    Altered,
    Ran,
    config,
    flipped,
    ran,
    stream_of,
    watch_heals,
)

# heals that fall are noticed after three, and nothing else interferes
WATCHFUL = Policy(
    rollback_f1_drop=0.05,
    rollback_acc_drop=0.05,
    health_window=3,
    gate_tolerance=1e9,
    cooldown=4,
    conflict_min=1,
)
ARTICLE = HealSettings(recipe="article")
DRIFTED = SyntheticSettings(fresh=True, drift_strength=2.2)


def action(batch: int) -> str:
    with Path("monitoring_export/metrics.csv").open() as stream:
        return list(csv.DictReader(stream))[batch - 1]["action"]


# --- implausible labels


def test_a_batch_with_flipped_labels_is_held_back_from_healing_and_from_the_table(
    empty_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heals = watch_heals(monkeypatch)
    settings = config(batches=10)
    done = ran(settings, Altered(stream_of(settings), flipped({5})))
    (event,) = done.of("labels-quarantined")
    assert (event.batch, event.rows, event.held_back) == (5, 100, True)
    assert "out of all proportion" in event["reason"]
    assert done.batches("heal", "heal-rejected") == [1, 2, 3, 4, 6, 7, 8, 9, 10]
    (batch,) = [e for e in done.of("batch") if e.batch == 5]
    assert batch.heal_requested is False
    arrived = {int(step) for task in heals.tasks for step in task.rows.arrival}
    assert arrived == set(range(1, 11)) - {5}
    for stage in ("healed", "unhealed", "nothing", "everything"):
        assert done.stage(stage)["rows"] == 900
    assert list(done.finished.view.finished.notes.values()) == [100]
    assert action(5) == "NONE"


def test_a_rate_that_stays_is_believed_after_the_limit_and_a_shorter_stretch_forgotten(
    empty_dir: Path,
) -> None:
    settings = config(batches=10, policy=Policy(quarantine_limit=3))
    done = ran(settings, Altered(stream_of(settings), flipped({3, 4, *range(6, 11)})))
    told = {e.batch: e.as_dict() for e in done.of("labels-quarantined")}
    assert {batch: data["held_back"] for batch, data in told.items()} == {
        3: True,
        4: True,  # shorter than the limit, and forgotten
        6: True,
        7: True,
        8: False,
    }
    assert told[8]["believed"] is True
    assert "believed" in told[8]["reason"]
    assert not {3, 4, 6, 7} & set(done.batches("heal", "heal-rejected"))
    assert {8, 9, 10} <= set(done.batches("heal", "heal-rejected"))
    assert done.stage("healed")["rows"] == 600


def test_the_articles_recipe_is_told_of_implausible_labels_and_heals_as_ever(
    empty_dir: Path,
) -> None:
    settings = config(batches=6, heal=ARTICLE, policy=Policy(conflict_min=1))
    done = ran(settings, Altered(stream_of(settings), flipped({5})))
    (event,) = done.of("labels-quarantined")
    assert (event.batch, event.held_back) == (5, False)
    assert 5 in done.batches("heal")
    assert done.stage("healed")["rows"] == 600


def test_on_implausible_labels_that_come_late_neither_table_nor_version_is_scored(
    empty_dir: Path,
) -> None:
    settings = config(batches=10, labels=DELAYED)
    done = ran(settings, Altered(stream_of(settings), flipped({4})))
    assert list(done.finished.view.finished.notes.values()) == [100]
    assert done.stage("healed")["rows"] == 900
    assert done.batches("labels-quarantined") == [4]
    of_four = [version for version in done.versions("post-heal") if version.batch == 4]
    assert [version.eval_rows for version in of_four] == [200]  # of batches 2 and 3


# --- the gate


def test_a_heal_that_is_worse_on_held_out_rows_is_kept_as_rejected_and_never_serves(
    empty_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heals = watch_heals(monkeypatch, spoil={4})
    done = ran(config(policy=Policy(gate_tolerance=3), network=NetworkSettings(epochs=5)))
    (event,) = done.of("heal-rejected")
    assert event.batch == 4
    assert "held-out rows rises" in event.rejected
    (version,) = done.versions("rejected")
    assert version.tags["selfheal.rejected"] == event.rejected
    assert version.tags["selfheal.snapshot"] == event.to_snapshot
    assert version.f1 is not None
    moves = [e["target"] for e in done.of("alias-moved") if e["alias"] == "champion"]
    assert version.version not in moves
    before, after = done.served_in(4), done.versions("pre-heal")[4]
    assert (before.batch, after.batch) == (3, 5)
    assert after.sha256 == before.sha256
    assert after.tags["selfheal.parent"] == str(before.version)
    assert action(4) == "REJECTED"
    healed_from = heals.before[heals.at(5)]
    assert healed_from.memory["last"].item() == 4  # what the recipe learned of itself goes on
    best = done.registry.best("fraud", base=version.base)
    assert best is not None
    assert best.phase == "post-heal"
    kept = [other for other in done.versions() if other != version]
    assert all("selfheal.rejected" not in other.tags for other in kept)


def test_a_rejected_heal_gets_its_late_figures_too(
    empty_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch_heals(monkeypatch, spoil={5})
    done = ran(config(labels=DELAYED, batches=10))
    assert 5 in done.batches("heal-rejected")
    of_five = [version for version in done.versions() if version.batch == 5]
    assert len(of_five) == 2
    assert {version.tags["selfheal.evaluation"] for version in of_five} == {"prequential"}


# --- rollback


def test_after_a_rollback_anchored_begins_anew_and_pauses(
    empty_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heals = watch_heals(monkeypatch, spoil={6, 7, 8})
    done = ran(config(policy=WATCHFUL, batches=16))
    (rollback,) = done.of("rollback")
    back = rollback.batch
    assert back in (6, 7, 8)
    restored = done.registry.version("fraud", rollback.version)
    assert restored.batch < 6
    quiet = set(range(back + 1, back + 1 + WATCHFUL.cooldown))
    assert not quiet & set(done.batches("heal", "heal-rejected", "heal-refused"))
    asked = {e.batch: e.heal_requested for e in done.of("batch")}
    assert not any(asked[batch] for batch in quiet)
    again = heals.tasks[heals.at(back) + 1]
    assert again.batch == back + 1 + WATCHFUL.cooldown
    state = heals.before[heals.at(again.batch)]
    assert state.memory == {}
    stored = done.versions("pre-heal")[heals.at(again.batch)]
    assert stored.sha256 == restored.sha256
    assert action(back) == "HEALED"


def test_a_pause_after_a_rollback_ends_where_drift_begins(
    empty_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heals = watch_heals(monkeypatch, spoil={6, 7, 8})
    policy = WATCHFUL.model_copy(update={"cooldown": 20, "cooldown_until": "drift"})
    settings = config(
        policy=policy, batches=13, drift_by="monitors", monitors=(parse_monitor("psi:window=1"),)
    )

    def moved(batch: Batch) -> Batch:
        rows = batch.rows
        by = 5.0 * (batch.index >= 12)
        columns = {**rows.columns, "V9": rows.columns["V9"] + by}
        return replace(batch, rows=replace(rows, columns=columns))

    done = ran(settings, Altered(stream_of(settings), moved))
    (back,) = done.batches("rollback")
    again = heals.tasks[heals.at(back) + 1]
    assert back < 12 == again.batch
    assert again.reason.endswith("drift began, so that the pause after a rollback is over")


def test_after_a_rollback_the_articles_optimiser_goes_on_and_nothing_pauses(
    empty_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heals = watch_heals(monkeypatch)
    policy = Policy(conflict_min=1, rollback_f1_drop=0.0, rollback_acc_drop=0.0)
    done = ran(
        config(source=SyntheticSettings(), heal=ARTICLE, policy=policy, batches=14),
    )
    back = done.batches("rollback")[0]
    assert back < 14
    assert back + 1 in done.batches("heal")
    place = heals.at(back)
    gone_on, left = heals.before[place + 1].memory, heals.outcomes[place].after.memory
    assert gone_on
    assert gone_on.keys() == left.keys()
    assert all((gone_on[name] == left[name]).all() for name in left)
    restored = done.registry.version("fraud", done.of("rollback")[0].version)
    assert done.versions("pre-heal")[place + 1].sha256 == restored.sha256


def test_a_rollback_to_a_version_that_is_no_better_is_declined(empty_dir: Path) -> None:
    policy = Policy(rollback_f1_drop=0.0, rollback_acc_drop=0.0)
    done = ran(config(source=DRIFTED, policy=policy, network=NetworkSettings(epochs=5), batches=20))
    declined = done.of("rollback-declined")
    assert declined
    assert done.of("rollback") == []
    for event in declined:
        assert "is not better on the held-out rows" in event.declined
        assert event["reason"].startswith("mean ")
    after = declined[0].batch + 1
    assert after in done.batches("heal", "heal-rejected")


def test_a_rollback_restores_the_versions_own_threshold(
    empty_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch_heals(monkeypatch, spoil={6, 7, 8})
    lives: list[LiveModel] = []
    serve = running.serve
    served: list[float] = []

    def remember(*arguments: object) -> LiveModel:
        lives.append(serve(*arguments))  # type: ignore[arg-type]
        return lives[0]

    def look(event: Event) -> None:
        if event.kind == "rollback":
            served.append(lives[0].serving.threshold)

    monkeypatch.setattr(running, "serve", remember)
    objective = Objective(kind="f1")
    done = ran(config(policy=WATCHFUL, batches=10, objective=objective), watchers=[look])
    (rollback,) = done.of("rollback")
    fallen = done.by_snapshot(rollback.from_snapshot)
    restored = done.registry.version("fraud", rollback.version)
    assert served == [restored.threshold]
    assert restored.threshold != fallen.threshold
    assert len({version.threshold for version in done.versions("post-heal")}) > 1


def test_heals_whose_late_figures_fall_are_rolled_back_and_the_batch_that_saw_it_says_so(
    empty_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = late_rollback(monkeypatch)
    (rollback,) = done.of("rollback")
    restored = done.registry.version("fraud", rollback.version)
    assert restored.batch < 8
    # the labels of a heal in batch 8 come in batch 11: from there on it is quiet
    noticed = next(step for step, event in by_step(done.events) if event.kind == "rollback")
    assert noticed >= 11
    quiet = set(range(noticed + 1, noticed + 1 + WATCHFUL.cooldown))
    assert not quiet & set(done.batches("heal", "heal-rejected"))
    again = done.versions("pre-heal")[-1]
    assert again.batch > noticed
    assert max(quiet) + 1 in done.batches("heal", "heal-rejected")
    states = {e.batch: e.state for e in done.of("batch")}
    assert states[noticed] == "ROLLED_BACK"


def test_a_stream_whose_first_labels_are_implausible_goes_on(empty_dir: Path) -> None:
    heal = HealSettings(recipe="anchored", assume="positives-stable")
    settings = config(labels=DELAYED, heal=heal)
    done = ran(settings, Altered(stream_of(settings), flipped({1})))
    assert done.finished.outcome == "FINISHED"
    assert len(done.of("batch")) == 8


class BusyEngine(InlineEngine):
    """As a worker beside scoring, with heals that each take two batches."""

    def __init__(self, live: LiveModel, recipes: Recipes) -> None:
        super().__init__(live, recipes)
        self._running: tuple[HealTask, AdapterState] | None = None
        self._asked = 0

    @property
    def in_flight(self) -> bool:
        return self._running is not None or self._task is not None

    def take(self, *, wait: bool = False) -> HealOutcome | None:
        if self._running is None and self._task is not None:
            self._running, self._task = (self._task, self._live.serving.adapter), None
            self._asked = 0
        self._asked += 1
        if self._running is None or (self._asked < 2 and not wait):
            return None
        (task, before), self._running = self._running, None
        return self._recipes.heal(before, task)


@pytest.mark.parametrize("labels", [LabelSettings(), DELAYED])
def test_a_heal_under_way_when_a_rollback_comes_is_not_published_in_the_pause(
    empty_dir: Path, monkeypatch: pytest.MonkeyPatch, labels: LabelSettings
) -> None:
    def busy(settings: RunConfig, live: LiveModel, recipes: Recipes) -> BusyEngine:
        return BusyEngine(live, recipes)

    monkeypatch.setattr("selfheal_cli.pipeline.stream.outside.engine_of", busy)
    done = late_rollback(monkeypatch, labels)
    back = next(step for step, event in by_step(done.events) if event.kind == "rollback")
    after = done.events[done.events.index(done.of("rollback")[0]) :]
    told = [event for event in after if event.kind == "heal"]
    assert told
    assert all(event.batch > back for event in told)
    assert "HEALING" in {event.state for event in done.of("batch") if event.batch < back}


def late_rollback(patch: pytest.MonkeyPatch, labels: LabelSettings = DELAYED) -> Ran:
    watch_heals(patch, spoil=range(8, 15))
    network = NetworkSettings(epochs=5)
    return ran(config(policy=WATCHFUL, labels=labels, batches=20, network=network))


def by_step(events: list[Event]) -> Iterator[tuple[int, Event]]:
    """Events with the number of the batch that was being worked on."""
    step = 1
    for event in events:
        yield step, event
        step += event.kind == "batch"


# --- rules that went stale


def stale_run(treatment: str, recipe: str = "anchored") -> Ran:
    policy = Policy(stale_rules=treatment, conflict_probability=0.9)  # type: ignore[arg-type]
    heal = HealSettings(recipe=recipe)  # type: ignore[arg-type]
    return ran(config(source=DRIFTED, heal=heal, policy=policy, batches=8))


def firing(done: Ran, rule: str, batch: int) -> float:
    return float(RuleSet([parse_rule(rule)]).judge(done.rows(batch).columns).fired.mean())


def test_a_stale_rule_is_an_event_and_no_longer_makes_conflicts(empty_dir: Path) -> None:
    done = stale_run("drop")
    (event,) = done.of("rule-stale")
    assert event.rule == RULE
    assert event.treatment == "drop"
    assert event.rate > 2 * event.trained_rate
    assert "it is stale" in event["reason"]
    conflicts = {e.batch: e.conflicts for e in done.of("batch")}
    since = event.batch
    assert conflicts[1] > 0
    assert [conflicts[batch] for batch in range(since + 1, 9)] == [0] * (8 - since)


@pytest.mark.parametrize(("treatment", "recipe"), [("keep", "anchored"), ("drop", "article")])
def test_a_stale_rule_that_is_kept_goes_on_making_conflicts(
    empty_dir: Path, treatment: str, recipe: str
) -> None:
    done = stale_run(treatment, recipe)
    (event,) = done.of("rule-stale")
    assert event.treatment == "keep"
    later = [e.conflicts for e in done.of("batch") if e.batch > event.batch]
    assert min(later) > 0


def test_a_stale_rule_that_is_moved_fires_about_as_often_as_in_training(empty_dir: Path) -> None:
    done = stale_run("reanchor")
    (event,) = done.of("rule-stale")
    moved, trained = event.now, event.trained_rate
    assert moved != RULE
    rates = [firing(done, moved, batch) for batch in range(event.batch + 1, 9)]
    kept = [firing(done, RULE, batch) for batch in range(event.batch + 1, 9)]
    assert np.mean(rates) == pytest.approx(trained, abs=0.05)
    assert np.mean(kept) > 2 * trained


def test_a_rule_that_fires_as_in_training_is_not_called_stale(empty_dir: Path) -> None:
    still = SyntheticSettings(fresh=True, drift_strength=0.0)
    done = ran(config(source=still))
    assert done.of("rule-stale") == []


# --- the verdict


@pytest.mark.parametrize(("drift", "advice"), [(2.2, "gone"), (3.5, "heal")])
def test_a_verdict_before_the_first_heal_and_later_ones_say_whether_healing_can_help(
    empty_dir: Path, drift: float, advice: str
) -> None:
    source = SyntheticSettings(fresh=True, drift_strength=drift)
    done = ran(config(source=source, network=NetworkSettings(epochs=5), batches=15))
    kinds = [event.kind for event in done.events]
    assert kinds.index("diagnosis") < kinds.index("heal")
    first, *_, last = (event.as_dict() for event in done.of("diagnosis"))
    assert first["reason"] == "before the first heal"
    assert last["advice"] == advice
    assert last["inputs_moved"] is True
    assert "V14" in last["sentence"]
    assert last["sentence"].startswith("the information is gone" if advice == "gone" else "heal")


def test_without_drift_the_verdict_on_a_table_is_that_the_model_holds(empty_dir: Path) -> None:
    draw = np.random.default_rng(5)
    label = draw.random(4000) < 0.3
    frame = pd.DataFrame(
        {
            "amount": draw.normal(np.where(label, 2.0, 0.0)),
            "age": draw.integers(18, 80, 4000),
            "label": label.astype(int),
        }
    )
    frame.to_csv("still.csv", index=False)
    settings = config(
        source=TableSettings(path=Path("still.csv"), target="label"),
        network=NetworkSettings(epochs=10, shadow="frozen"),
        rules=("amount > 2 => 1",),
        batches=20,
    )
    assert isinstance(settings.source, TableSettings)
    done = ran(settings, open_source(settings))
    last = done.of("diagnosis")[-1].as_dict()
    assert last["advice"] == "holds"
    assert (last["inputs_moved"], last["base_rate_moved"]) == (False, False)


def turned(verdict: str, **changes: Any) -> tuple[Ran, Any]:
    """A run on a relation that turns about in the middle, and the labels after that."""
    draw = np.random.default_rng(5)
    amount = draw.normal(size=4_000)
    late = np.arange(4_000) >= 2_000
    logit = np.where(late, -1.5 * amount - 1.8, 1.5 * amount)
    label = (draw.random(4_000) < 1 / (1 + np.exp(-logit))).astype(int)
    pd.DataFrame({"amount": amount, "label": label}).to_csv("turned.csv", index=False)
    settings = config(
        source=TableSettings(path=Path("turned.csv"), target="label"),
        network=NetworkSettings(epochs=10, shadow="frozen"),
        heal=HealSettings(recipe="anchored", verdict=verdict),
        monitors=(parse_monitor("page-hinkley:on=errors"),),
        drift_by="monitors", rules=(), batches=24, **changes,
    )  # fmt: skip
    return ran(settings, open_source(settings)), label[late]


def test_a_verdict_on_a_change_is_given_again_on_the_rows_after_it_alone(empty_dir: Path) -> None:
    done, label = turned("window")
    last = done.of("diagnosis")[-1].as_dict()
    assert last["reason"] == "the window is new"
    assert last["rows"] < 1_500
    assert last["base_rate"][1] == pytest.approx(label.mean(), abs=0.03)
    assert last["advice"] == "heal"


def test_a_verdict_of_a_change_is_of_the_rows_since_it_began(empty_dir: Path) -> None:
    done, label = turned("change")
    began, *_ = done.of("column-moved")
    told = [one for one in done.of("diagnosis") if one.batch >= began.batch]
    assert "gone" not in {one["advice"] for one in told}
    first = next(one for one in told if one["advice"] != "undecided")
    assert first["reason"] == "drift began"
    rows = 100 * (first.batch - began.since + 1)
    assert (first["rows"], first["advice"]) == (rows, "heal")
    assert first["base_rate"][1] == pytest.approx(label.mean(), abs=0.06)
