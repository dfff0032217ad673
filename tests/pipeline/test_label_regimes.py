"""Labels as fraud has them: complaints that come in weeks, and no label of what was declined."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selfheal_cli.config import LabelSettings, Policy
from selfheal_cli.events.types import (
    HealPublished,
    LabelsArrived,
    LabelsCorrected,
    LabelsMatured,
    SnapshotTaken,
)
from selfheal_cli.heal import gate
from selfheal_cli.pipeline.stream.batch import LabelFlow
from selfheal_cli.records import Batch
from selfheal_cli.spool.entries import Feedback
from tests.conftest import enter
from tests.pipeline.small import (
    Altered,
    Change,
    Ran,
    as_they_are,
    config,
    ran,
    stream_of,
    watch_heals,
)
from tests.pipeline.test_served import Server, events_of

DAY = 86_400.0
SIXTY = LabelSettings(regime="timed", negative_after="60d", horizon=100)
A_BATCH_A_FORTNIGHT = 14 * DAY
LATE_ONE = 10  # of so many positives one is complained about after the time


def complained(index: int, y: Any) -> Any:
    """When each row's complaint comes: half of them after three days, some after 80, NaN never."""
    at = index * A_BATCH_A_FORTNIGHT + np.arange(len(y))
    delay = np.where(np.arange(len(y)) % LATE_ONE == 0, 80 * DAY, 3 * DAY)
    return at, np.where(y == 1, at + delay, np.nan)


def complaints() -> Change:
    """Rows with their times; a positive's label comes with its complaint, no other ever."""

    def change(batch: Batch) -> Batch:
        at, label_at = complained(batch.index, batch.rows.y)
        return replace(batch, now=float(at.max()), at=at, label_at=label_at)

    return change


def walked(**changes: Any) -> Ran:
    settings = config(labels=SIXTY, batches=14, **changes)
    return ran(settings, Altered(stream_of(settings), complaints()))


@pytest.fixture(scope="module")
def matured(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    with pytest.MonkeyPatch.context() as patch:
        enter(tmp_path_factory.mktemp("matured"), patch)
        return walked()


def by_batch(done: Ran) -> Iterator[tuple[int, Any]]:
    """Each event with the batch in which it was written."""
    step = 1
    for event in done.events:
        yield step, event
        step += event.kind == "batch"


def test_rows_count_when_their_time_is_over_and_the_negatives_are_made_by_then(
    matured: Ran,
) -> None:
    came = [(step, event) for step, event in by_batch(matured) if isinstance(event, LabelsMatured)]
    # 60 days are four batches and four days
    assert [(step, event.batch, event.rows) for step, event in came] == [
        (step, step - 5, 100) for step in range(6, 15)
    ]
    for step, event in came:
        truth = matured.rows(event.batch).y
        early = (truth == 1) & (np.arange(100) % LATE_ONE > 0)
        assert event.negatives == 100 - int(early.sum())
        assert event.by == step * A_BATCH_A_FORTNIGHT + 99
    figures = [event.live for event in matured.events if isinstance(event, LabelsArrived)]
    assert [one.rows for one in figures] == [100] * 9


def test_no_heal_learns_from_a_positive_before_the_negatives_of_its_days_are_known(
    matured: Ran,
) -> None:
    heals = [event.batch for event in matured.events if isinstance(event, HealPublished)]
    assert heals
    assert min(heals) >= 6
    truth = [matured.rows(batch).y for batch in range(1, 10)]
    told = [one for one in matured.events if isinstance(one, LabelsArrived)]
    for y, event in zip(truth, told, strict=True):  # neither more nor fewer than there are
        assert event.live.tp + event.live.fn <= int(y.sum())


def test_a_complaint_after_the_time_is_a_correction_of_a_row_and_of_its_figures(
    matured: Ran,
) -> None:
    corrected = [
        (step, event) for step, event in by_batch(matured) if isinstance(event, LabelsCorrected)
    ]
    assert corrected
    late = {n: int(matured.rows(n).y[::LATE_ONE].sum()) for n in range(1, 9)}
    assert {event.batch: event.rows for _, event in corrected} == {
        n: count for n, count in late.items() if count
    }
    for step, event in corrected:
        assert (step, event.in_batch) == (event.batch + 6, event.batch + 6)  # 80 days
        assert event.was.tp + event.was.fn == 0
        assert event.live.tp + event.live.fn == event.rows
    for number in range(1, 9):
        live, _ = matured.finished.view.by_batch.scores[number]
        assert live.tp + live.fn == int(matured.rows(number).y.sum())
        assert live.rows == 100
    counts = matured.stage("healed")
    truth = np.concatenate([matured.rows(n).y for n in range(1, 9)])
    last = matured.rows(9).y.copy()
    last[::LATE_ONE] = 0
    assert counts["tp"] + counts["fn"] == int(truth.sum() + last.sum())


def test_a_second_walk_is_the_first_one(matured: Ran, empty_dir: Path) -> None:
    first, second = matured, walked()
    kinds = (LabelsMatured, LabelsArrived, LabelsCorrected, HealPublished, SnapshotTaken)
    told = [
        [event.as_dict() for event in one.events if isinstance(event, kinds)]
        for one in (first, second)
    ]
    assert told[0] == told[1]
    assert first.serving == second.serving


def answer(server: Server, days: float) -> list[str]:
    """A batch of requests at the server's time; returns their ids."""
    server.time = days * DAY
    before = set(server.truth)
    server.answer(1)
    return [name for name in server.truth if name not in before]


def complain(server: Server, requests: list[str], places: range = range(25)) -> None:
    """The positives among these rows are told, and nothing else."""
    for name in requests:
        told = [Feedback(1, request=name, place=i) for i in places if server.truth[name][i]]
        server.spool.label(told, "chargebacks", server.time)


def test_behind_a_server_time_is_that_of_its_answers(server: Server) -> None:
    first = answer(server, 0)
    complain(server, first, range(12))
    answer(server, 59)
    served = server.open(labels={"negative_after": 60 * DAY})
    assert not events_of(server.serve(served), LabelsArrived)
    answer(server, 60)
    done = server.serve(server.open(labels={"negative_after": 60 * DAY}))
    (grown,) = events_of(done, LabelsMatured)
    told = sum(sum(server.truth[name][:12]) for name in first)
    assert (grown.rows, grown.negatives, grown["by"]) == (100, 100 - told, 60 * DAY)
    (came,) = events_of(done, LabelsArrived)
    assert came["live"]["tp"] + came["live"]["fn"] == told
    server.holds()


def test_after_a_restart_grown_rows_are_learned_again_and_counted_no_second_time(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {"labels": {"negative_after": 60 * DAY}}
    first = answer(server, 0)
    complain(server, first, range(12))
    answer(server, 30)
    answer(server, 60)
    assert len(events_of(server.serve(server.open(**wanted)), LabelsArrived)) == 1
    answer(server, 90)
    kept: list[int] = []
    remember = LabelFlow._remember

    def watched(flow: LabelFlow, parts: Any, *rest: Any) -> None:
        kept.extend(map(len, parts))
        remember(flow, parts, *rest)

    monkeypatch.setattr(LabelFlow, "_remember", watched)
    done = server.serve(server.open(**wanted))
    assert kept == [100, 100]
    assert [event.rows for event in events_of(done, LabelsArrived)] == [100]


ACCEPTED = LabelSettings(only_when="decision = 0")


def test_of_what_was_declined_no_label_is_in_any_figure_or_heal(
    empty_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heals = watch_heals(monkeypatch)
    settings = config(labels=ACCEPTED)
    done = ran(settings, Altered(stream_of(settings), as_they_are))
    for event in done.of("batch"):
        assert event.live.tp + event.live.fp == 0
    learned = sum(event.live.rows for event in done.of("batch"))
    assert 0 < learned < 800
    assert len(heals.tasks[-1].rows) == learned
    title = done.stage("healed")["title"]
    assert title == "Live (healing), among those let through"
    told = str(done.finished.view.finished.evaluation)
    assert "Only rows let through have labels: decision = 0." in told


def test_rows_let_through_by_lot_are_labelled_and_stand_for_the_others(
    empty_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heals = watch_heals(monkeypatch)
    policy = Policy(explore=0.25)
    done = ran(config(labels=ACCEPTED, policy=policy))
    flagged = sum(event.live.tp + event.live.fp for event in done.of("batch"))
    rows = heals.tasks[-1].rows
    assert flagged > 0
    assert rows.weight is not None
    assert int((rows.weight == 4).sum()) == flagged
    again = ran(config(labels=ACCEPTED, policy=policy))
    assert again.serving == done.serving


def test_who_was_declined_never_grows_into_a_negative(empty_dir: Path) -> None:
    labels = SIXTY.model_copy(update={"only_when": "decision = 0"})
    settings = config(labels=labels, batches=14)
    done = ran(settings, Altered(stream_of(settings), complaints()))
    for event in done.of("labels"):
        assert event.live.tp + event.live.fp == 0
    assert sum(event.rows for event in done.of("labels-matured")) < 900


def test_a_heal_that_is_worse_on_what_is_declined_is_rejected_by_the_rows_let_through() -> None:
    """Hundred rows get better a little, one that stands for fifty gets much worse."""
    difference = np.r_[np.full(100, -0.1), 1.0]
    arrival = np.zeros(101, dtype=np.int32)
    weight = np.r_[np.ones(100), 50.0].astype(np.float32)
    assert gate._discounted(difference, arrival)[0] < 0
    assert gate._discounted(difference, arrival, weight)[0] > 0
