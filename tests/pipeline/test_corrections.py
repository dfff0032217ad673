"""A label that was wrong and is corrected: from the next batch on it is as if it had been right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selfheal_cli.config import HealSettings, LabelSettings
from selfheal_cli.events.types import HealPublished, LabelsArrived, LabelsCorrected, LabelsRelearned
from selfheal_cli.pipeline.stream.session import Session
from selfheal_cli.records import Batch, LateLabels
from selfheal_cli.settings.own_data import OF_ENSEMBLE
from tests.pipeline.small import Altered, Ran, config, ran, stream_of

WRONG, FROM, COMES = 40, 3, 7  # rows of a batch with a wrong label, which batch, and corrected with
PAIRED = HealSettings(recipe="anchored", better_by="paired")
ARRIVING = LabelSettings(regime="arriving", horizon=100)


def told_late(wrong: int, corrected: int = COMES, of: int = FROM) -> Callable[[Batch], Batch]:
    """Each batch's labels come with the next; of one some are wrong until corrected."""
    truth: dict[int, Any] = {}

    def change(batch: Batch) -> Batch:
        y = truth[batch.index] = batch.rows.y
        before = batch.index - 1
        places, told = np.arange(len(y)), truth.get(before)
        batches = np.full(len(y), before)
        if told is not None and before == of:
            told = np.where(places < wrong, 1 - told, told).astype(np.int8)
        if told is not None and batch.index == corrected and wrong:
            batches = np.r_[batches, np.full(wrong, of)]
            places, told = np.r_[places, places[:wrong]], np.r_[told, truth[of][:wrong]]
        late = None if told is None else LateLabels(batches, places, told.astype(np.int8))
        unknown = np.full(len(y), -1, dtype=np.int8)
        return replace(batch, rows=replace(batch.rows, y=unknown), late=late)

    return change


def walked(
    wrong: int, labels: LabelSettings = ARRIVING, heal: HealSettings = PAIRED, **more: Any
) -> Ran:
    settings = config(labels=labels, batches=10, heal=heal)
    return ran(settings, Altered(stream_of(settings), told_late(wrong, **more)))


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What was known after each batch, of all runs one after the other."""
    kept: list[dict[str, Any]] = []
    step = Session._step

    def watched(session: Session, batch: Batch) -> None:
        step(session, batch)
        adapter, rows = session.run.live.serving.adapter, session.flow.labelled
        parts = rows.rows() if len(rows) else None
        kept.append(
            {
                **{f"weights {name}": value.numpy() for name, value in adapter.weights.items()},
                **{f"memory {name}": value.numpy() for name, value in adapter.memory.items()},
                **({} if parts is None else {"y": parts.y, "held out": parts.held_out}),
                "figures": session.live_scores.scores().as_dict(),
            }
        )

    monkeypatch.setattr(Session, "_step", watched)
    return kept


def truth_of(batch: int) -> Any:
    return next(stream_of(config(batches=10)).batches(batch)).rows.y


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        np.array_equal(one[name], other[name]) for name in one if name != "figures"
    )


def test_from_the_batch_that_brings_it_on_the_state_is_that_of_labels_that_were_right(
    empty_dir: Path, states: list[dict[str, Any]]
) -> None:
    wrong, right = walked(WRONG), walked(0)
    with_wrong, with_right = states[:10], states[10:]
    alike = [same(one, other) for one, other in zip(with_wrong, with_right, strict=True)]
    # batch 4 brings the wrong labels, batch 7 the right ones
    assert alike == [*[True] * 3, *[False] * 3, *[True] * 4]
    (event,) = [one for one in wrong.events if isinstance(one, LabelsRelearned)]
    assert (event.batch, event.rows, event.since, event.heals, event.beyond) == (7, 40, 4, 3, 0)
    assert not [one for one in right.events if isinstance(one, LabelsRelearned)]
    (heal,) = [one for one in wrong.events if isinstance(one, HealPublished) and one.batch == COMES]
    assert heal.reason == "corrected labels"


def test_what_an_ensemble_knows_is_as_exact_back_to_the_first_label_of_all(
    empty_dir: Path, states: list[dict[str, Any]]
) -> None:
    heal = HealSettings(recipe="ensemble", trees=True, better_by="paired", **OF_ENSEMBLE)
    wrong, _ = walked(WRONG, heal=heal, of=1), walked(0, heal=heal, of=1)
    alike = [same(one, other) for one, other in zip(states[:10], states[10:], strict=True)]
    assert alike == [True, *[False] * 5, *[True] * 4]
    (event,) = [one for one in wrong.events if isinstance(one, LabelsRelearned)]
    assert (event.since, event.rows) == (2, WRONG)


def test_figures_have_todays_labels_and_what_was_written_down_stays(
    empty_dir: Path, states: list[dict[str, Any]]
) -> None:
    wrong = walked(WRONG)
    arrived = [one for one in wrong.events if isinstance(one, LabelsArrived) and one.batch == FROM]
    (corrected,) = [one for one in wrong.events if isinstance(one, LabelsCorrected)]
    assert (corrected.batch, corrected.in_batch, corrected.rows) == (FROM, COMES, WRONG)
    y = truth_of(FROM)
    live, shadow = wrong.finished.view.by_batch.scores[FROM]
    for scores in (live, shadow):
        assert (scores.rows, scores.tp + scores.fn) == (100, int(y.sum()))
    assert arrived[0].live.tp + arrived[0].live.fn == int(y[WRONG:].sum() + (1 - y[:WRONG]).sum())
    at_the_end = states[9]["figures"]
    truth = np.concatenate([truth_of(n) for n in range(1, 10)])
    assert (at_the_end["rows"], at_the_end["tp"] + at_the_end["fn"]) == (900, int(truth.sum()))
    evidence = wrong.finished.view.evidence.batches[FROM]
    assert (evidence.rows, evidence.positives) == (100, int(y.sum()))


def test_further_back_than_the_horizon_a_correction_changes_figures_alone(
    empty_dir: Path, states: list[dict[str, Any]]
) -> None:
    near = ARRIVING.model_copy(update={"horizon": 2})
    wrong, right = walked(WRONG, near), walked(0, near)
    (event,) = [one for one in wrong.events if isinstance(one, LabelsRelearned)]
    assert (event.rows, event.heals, event.beyond) == (0, 0, WRONG)
    assert "too old and change figures alone" in event.why
    assert not same(states[9], states[19])
    scores = [one.finished.view.by_batch.scores[FROM][0] for one in (wrong, right)]
    assert scores[0].tp + scores[0].fn == scores[1].tp + scores[1].fn


def test_without_a_horizon_the_first_label_stays(empty_dir: Path) -> None:
    first = walked(WRONG, LabelSettings(regime="arriving"))
    assert not first.of("labels-corrected", "labels-relearned")


def test_a_label_that_is_taken_back_is_in_no_figure_and_no_heal(empty_dir: Path) -> None:
    change = told_late(WRONG)

    def taken_back(batch: Batch) -> Batch:
        batch = change(batch)
        if batch.index != COMES or batch.late is None:
            return batch
        back = (batch.late.batch == FROM).nonzero()[0]
        y = batch.late.y.copy()
        y[back] = -1
        return replace(batch, late=replace(batch.late, y=y))

    settings = config(labels=ARRIVING, batches=10, heal=PAIRED)
    done = ran(settings, Altered(stream_of(settings), taken_back))
    (corrected,) = [one for one in done.events if isinstance(one, LabelsCorrected)]
    assert (corrected.rows, corrected.was.rows, corrected.live.rows) == (WRONG, WRONG, 0)
    assert done.finished.view.by_batch.scores[FROM][0].rows == 100 - WRONG
    assert done.finished.view.evidence.batches[FROM].rows == 100 - WRONG
    assert done.stage("healed")["rows"] == 900 - WRONG
