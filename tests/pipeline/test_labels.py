"""When labels come late, at a time of their own, or never: events, files and versions."""

from __future__ import annotations

import csv
import dataclasses
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from selfheal_cli.config import HealSettings, LabelSettings, NetworkSettings, SyntheticSettings
from selfheal_cli.records import Batch
from selfheal_cli.sources.synthetic import NAMES, as_rows
from tests.conftest import enter
from tests.pipeline.small import (
    ANCHORED,
    DELAYED,
    NONE,
    Altered,
    Ran,
    as_they_are,
    by_hand,
    config,
    flipped,
    ran,
    stream_of,
    watch_heals,
)

FIGURES = ("pre_acc", "pre_f1", "healed_acc", "healed_f1", "shadow_acc", "precision", "tp", "fn")
COUNTS = ("tp", "fp", "fn", "tn")
TIMES_AND_PLACES = ("pending_writes", "serving_sha256")


@pytest.fixture(scope="module")
def delayed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    """Made once; whoever takes it stands in its folder."""
    with pytest.MonkeyPatch.context() as patch:
        enter(tmp_path_factory.mktemp("delayed"), patch)
        yield ran(config(labels=DELAYED))


def written(name: str = "monitoring_export/metrics.csv") -> list[dict[str, str]]:
    with Path(name).open() as stream:
        return list(csv.DictReader(stream))


def test_a_batch_without_labels_has_estimates_and_no_scores(delayed: Ran) -> None:
    for event in delayed.of("batch"):
        assert event["live"] is None
        assert event["shadow"] is None
        estimates = event.estimates
        assert estimates["est_accuracy_low"] <= estimates["est_accuracy"]
        assert estimates["est_accuracy"] <= estimates["est_accuracy_high"]
        assert {"est_f1", "est_precision", "est_recall", "est_roc_auc"} <= set(estimates)
    logged = delayed.registry.metrics[delayed.finished.run_id]
    assert all("est_accuracy" in step.figures for step in logged)
    assert not any(name.startswith("live_") for step in logged for name in step.figures)


def test_labels_come_three_batches_later_with_the_figures_of_that_batch(delayed: Ran) -> None:
    came: list[tuple[int, int]] = []
    batch = 0
    for event in delayed.events:
        batch = event.batch if event.kind == "batch" else batch
        if event.kind == "labels":
            came.append((batch + 1, event.batch))
    assert came == [(number, number - 3) for number in range(4, 9)]
    for event in delayed.of("labels"):
        served, rows = delayed.served_in(event.batch), delayed.rows(event.batch)
        figures = by_hand(delayed.network(served).predict(rows.x), rows.y, served.threshold)
        assert {name: event["live"][name] for name in COUNTS} == {
            name: figures[name] for name in COUNTS
        }
        assert event.rows == 100


def test_metrics_csv_is_empty_until_labels_come(delayed: Ran) -> None:
    rows = written()
    assert len(rows) == 8
    labels = {event.batch: event.as_dict() for event in delayed.of("labels")}
    for row in rows[:5]:
        came = labels[int(row["batch_idx"])]
        assert float(row["pre_acc"]) == round(came["live"]["accuracy"], 4)
        assert float(row["shadow_f1"]) == round(came["shadow"]["f1"], 4)
        assert int(row["tp"]) == came["live"]["tp"]
    assert {row[name] for row in rows[5:] for name in FIGURES} == {""}
    assert all(0 <= float(row["est_accuracy"]) <= 1 for row in rows)


def test_a_snapshot_awaits_its_labels_and_then_gets_figures(delayed: Ran) -> None:
    awaited = {event.id: event.as_dict() for event in delayed.of("snapshot")}
    healed = [data for data in awaited.values() if data["phase"] != "baseline"]
    assert {data["evaluation"] for data in healed} == {"awaiting-labels"}
    assert {data["scores"] for data in healed} == {None}
    assert Counter(delayed.batches("snapshot-scored")) == {4: 2, 5: 2}
    for version in delayed.versions()[1:]:
        tags = version.tags
        if version.batch <= 5:  # the labels of batch 5 came in batch 8
            assert tags["selfheal.evaluation"] == "prequential"
            assert (version.eval_rows, version.metrics["rows"]) == (300, 300.0)
            assert {"f1", "accuracy", "roc_auc", "log_loss"} <= set(version.metrics)
        else:
            assert tags["selfheal.evaluation"] == "awaiting-labels"
            assert (version.eval_rows, version.f1) == (0, None)


def test_a_version_that_awaits_its_labels_is_never_the_best(empty_dir: Path) -> None:
    early = ran(config(labels=DELAYED, batches=6))
    base = early.versions()[0].base
    assert len(early.of("heal")) == 3
    assert early.registry.best("fraud", base=base) is None
    later = ran(config(labels=DELAYED, batches=8))
    best = later.registry.best("fraud", base=later.versions()[0].base)
    assert best is not None
    assert best.batch in (4, 5)


def test_late_figures_are_those_of_the_stored_weights_on_the_rows_that_waited(delayed: Ran) -> None:
    scored = delayed.of("snapshot-scored")
    assert len(scored) == 4
    for event in scored:
        version = delayed.by_snapshot(event.snapshot)
        waiting = [delayed.rows(batch) for batch in range(version.batch - 2, version.batch + 1)]
        x, y = (np.concatenate([getattr(rows, name) for rows in waiting]) for name in "xy")
        probabilities = delayed.network(version).predict(x)
        figures = by_hand(probabilities, y, version.threshold)
        assert {name: event["scores"][name] for name in COUNTS} == {
            name: figures[name] for name in COUNTS
        }
        assert version.metrics["accuracy"] == pytest.approx(figures["accuracy"])
        assert version.f1 == pytest.approx(figures["f1"], abs=1e-6)
        assert version.metrics["roc_auc"] == pytest.approx(roc_auc_score(y, probabilities))


def test_no_version_is_scored_on_a_row_that_it_learned_from(
    empty_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heals = watch_heals(monkeypatch)
    done = ran(config(labels=DELAYED))
    post = {version.batch: version for version in done.versions("post-heal")}
    for event in done.of("snapshot-scored"):
        version = done.by_snapshot(event.snapshot)
        if version != post[version.batch]:
            continue
        network = done.network(version)
        learned: set[bytes] = set()
        for task in heals.tasks[: heals.at(version.batch) + 1]:
            learned |= {row.tobytes() for row in task.rows.features}
        waiting = [done.rows(batch).x for batch in range(version.batch - 2, version.batch + 1)]
        judged = {row.tobytes() for row in network.features(np.concatenate(waiting))}
        assert len(judged) == version.eval_rows
        assert learned
        assert not learned & judged


def test_no_heal_ever_learns_from_a_row_that_was_held_out(
    empty_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heals = watch_heals(monkeypatch)
    done = ran(config(heal=ANCHORED.model_copy(update={"window": 4})))  # holds fewer batches
    held_out: set[bytes] = set()
    learned: set[bytes] = set()
    for task in heals.tasks:
        rows = task.rows
        held_out |= {row.tobytes() for row in rows.features[rows.held_out]}
        learned |= {row.tobytes() for row in rows.features[~rows.held_out]}
    assert (len(held_out), len(learned)) == (20 * 8, 80 * 8)
    assert not held_out & learned
    assert {v.tags["selfheal.evaluation"] for v in done.versions()} == {"held-out"}


def test_without_labels_and_without_an_assumption_nothing_heals(empty_dir: Path) -> None:
    for recipe in ("article", "anchored"):
        done = ran(config(labels=NONE, heal=HealSettings(recipe=recipe)))
        assert done.batches("heal", "heal-refused", "heal-rejected", "labels", "diagnosis") == []
        assert [event.heal_requested for event in done.of("batch")] == [False] * 8
        assert done.serving == done.versions()[0].sha256
        assert len(done.versions()) == 1


def test_without_labels_figures_are_estimates_alone(empty_dir: Path) -> None:
    done = ran(config(labels=NONE, heal=assuming("positives-stable")))
    assert done.batches("heal")
    for version in done.versions()[1:]:
        assert version.tags["selfheal.evaluation"] == "estimated"
        assert (version.eval_rows, version.f1) == (0, None)
    for version in done.versions("post-heal"):
        assert 0 <= version.metrics["est_accuracy"] <= 1
    assert done.registry.best("fraud", base=done.versions()[0].base) is None
    assert {row[name] for row in written() for name in FIGURES} == {""}


def assuming(assumption: str) -> HealSettings:
    return HealSettings(recipe="anchored", assume=assumption)  # type: ignore[arg-type]


def told(done: Ran) -> list[dict[str, Any]]:
    """Every event but the end, and but when the writing thread said what."""
    return [
        {"kind": event.kind}
        | {name: value for name, value in event.as_dict().items() if name not in TIMES_AND_PLACES}
        for event in done.events
        if event.kind not in ("registered", "alias-moved", "run-finished")
    ]


@pytest.mark.parametrize("heal", [HealSettings(recipe="anchored"), assuming("positives-stable")])
def test_labels_that_never_come_decide_nothing_but_the_table_at_the_end(
    empty_dir: Path, heal: HealSettings
) -> None:
    settings = config(labels=NONE, heal=heal)
    plain = ran(settings, Altered(stream_of(settings), as_they_are))
    other = ran(settings, Altered(stream_of(settings), flipped()))
    assert told(plain) == told(other)
    assert plain.serving == other.serving
    assert plain.stage("healed")["accuracy"] != other.stage("healed")["accuracy"]
    assert "used for this table and for nothing else" in plain.finished.view.finished.evaluation


def test_an_assumption_that_does_not_hold_is_refused_and_the_shadow_goes_on_serving(
    empty_dir: Path,
) -> None:
    moved = SyntheticSettings(positive_shift=1.0, fresh=True, drift_strength=0)
    done = ran(
        config(
            source=moved,
            labels=NONE,
            heal=assuming("positives-stable"),
            network=NetworkSettings(epochs=5),
            batches=25,
        )
    )
    refused = done.of("heal-refused")
    assert len(refused) >= 15
    assert done.batches("heal", "heal-failed") == []
    for event in refused:
        assert "--assume positives-stable does not hold" in event["reason"]
        assert "rho" in event["reason"]
        assert "wait for labels" in event["reason"]
    assert done.serving == done.versions()[0].sha256
    unnamed = {"key": "", "title": ""}
    assert done.stage("healed") | unnamed == done.stage("shadow") | unnamed
    actions = Counter(row["action"] for row in written())
    assert actions["REFUSED"] == len(refused)
    assert set(actions) <= {"REFUSED", "NONE"}


def test_an_assumption_that_holds_heals_without_a_label(empty_dir: Path) -> None:
    done = ran(
        config(
            labels=NONE,
            heal=assuming("positives-stable"),
            network=NetworkSettings(epochs=5),
            batches=25,
        )
    )
    heals = done.of("heal")
    assert len(heals) == 21
    assert {event.recipe for event in heals} == {"assumed"}
    assert "positives-stable is assumed" in heals[0]["reason"]
    assert done.batches("heal-refused") == []
    assert done.stage("healed")["log_loss"] < 0.7 * done.stage("unhealed")["log_loss"]


def test_a_refuted_assumption_takes_its_heals_with_it(empty_dir: Path) -> None:
    def positives_leave(batch: Batch) -> Batch:
        if batch.index <= 12:
            return batch
        rows, place = batch.rows, NAMES.index("V14")
        x = rows.x.copy()
        x[rows.y == 1, place] += 3.0
        x[rows.y == 0, place] += 3.0
        return dataclasses.replace(batch, rows=as_rows(x, rows.y))

    settings = config(
        labels=NONE,
        heal=HealSettings(recipe="anchored", assume="positives-stable", window=8),
        network=NetworkSettings(epochs=5),
        batches=25,
    )
    done = ran(settings, Altered(stream_of(settings), positives_leave))
    assert done.batches("heal")
    (back,) = [event for event in done.of("heal-refused") if "to_snapshot" in event.as_dict()]
    assert done.serving == done.versions()[0].sha256
    assert back.batch > 12


def test_without_drift_nothing_heals_and_once_it_ends_the_heal_is_taken_back(
    empty_dir: Path,
) -> None:
    heal = assuming("positives-stable").model_copy(update={"assume_strictly": True, "window": 5})
    still = SyntheticSettings(fresh=True, drift_strength=0)
    ended = SyntheticSettings(phases=((7, 2.2), (9, 0.0)))
    same = {"labels": NONE, "heal": heal, "network": NetworkSettings(epochs=5)}
    done = ran(config(source=still, batches=12, **same))
    assert done.batches("heal", "heal-refused", "heal-rejected") == []
    done = ran(config(source=ended, batches=None, **same))
    heals = done.of("heal")
    assert "; nobody could tell: more positives than in training" in heals[0]["reason"]
    (back,) = done.of("heal-refused")
    assert "are as in training: there is nothing" in back["reason"]
    assert back["to_snapshot"]
    assert done.serving == done.versions()[0].sha256


def test_labels_lead_as_soon_as_there_are_enough_of_them(empty_dir: Path) -> None:
    done = ran(config(labels=DELAYED, heal=assuming("positives-stable"), batches=10))
    recipes = {event.batch: event.recipe for event in done.of("heal")}
    assert {recipes[batch] for batch in recipes if batch < 8} == {"assumed"}
    assert {recipes[batch] for batch in recipes if batch >= 8} == {"anchored"}


def late_by(rows: float) -> Any:
    """Rows one a second whose labels come ``rows`` seconds later; every tenth never."""

    def change(batch: Batch) -> Batch:
        at = (batch.index - 1) * 100 + np.arange(len(batch.rows), dtype=np.float64)
        come = np.where(np.arange(len(at)) % 10 == 0, np.nan, at + rows)
        return dataclasses.replace(batch, now=float(at[-1]), label_at=come)

    return change


def test_timed_labels_come_when_their_time_comes_in_parts_and_some_never(empty_dir: Path) -> None:
    settings = config(labels=LabelSettings(regime="timed"))
    done = ran(settings, Altered(stream_of(settings), late_by(150)))
    came: Counter[int] = Counter()
    step = 1
    for event in done.events:
        if event.kind == "labels":
            came[step] += event.rows
        if event.kind == "batch":
            step += 1
    known = [n for n in range(800) if n % 10]
    assert came == {
        step: count
        for step in range(1, 9)
        if (count := sum(100 * (step - 1) <= n + 150 < 100 * step for n in known))
    }
    by_batch = Counter[int]()
    for event in done.of("labels"):
        by_batch[event.batch] += event.rows
    assert by_batch == {**dict.fromkeys(range(1, 7), 90), 7: 45}
    for version in done.versions()[1:]:
        if version.tags["selfheal.evaluation"] == "prequential":
            assert version.eval_rows <= 180  # two batches at most wait, without those of never
    assert done.of("snapshot-scored")
    parts = [e["live"] for e in done.of("labels") if e.batch == 3]
    assert len(parts) == 2
    row = written()[2]
    for name in COUNTS:
        assert int(row[name]) == sum(part[name] for part in parts)


def test_rows_that_never_get_a_label_do_not_keep_a_snapshot_waiting(empty_dir: Path) -> None:
    def some_unknown(batch: Batch) -> Batch:
        y = batch.rows.y.copy()
        y[::10] = -1
        return dataclasses.replace(batch, rows=dataclasses.replace(batch.rows, y=y))

    settings = config(labels=DELAYED)
    done = ran(settings, Altered(stream_of(settings), some_unknown))
    assert Counter(done.batches("snapshot-scored")) == {4: 2, 5: 2}


def test_the_articles_late_heals_leave_the_last_rows_of_metrics_csv_empty(empty_dir: Path) -> None:
    ran(config(labels=DELAYED, heal=HealSettings()))
    assert {row[name] for row in written()[5:] for name in FIGURES} == {""}
