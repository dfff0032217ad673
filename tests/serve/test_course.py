"""A run's course in so many stretches, however long it is."""

from __future__ import annotations

from selfheal_cli.config import Objective
from selfheal_cli.events.types import (
    BatchScored,
    CanaryBegan,
    CanaryEnded,
    LabelsArrived,
    LabelsCorrected,
)
from selfheal_cli.scores import Scores
from selfheal_cli.serve.healer.history import Course
from selfheal_cli.serve.operator.charts import course
from selfheal_cli.serve.operator.status import Drift, Judged, ModelStatus
from selfheal_cli.serve.operator.verdict import verdict_of
from tests.events.examples import example


def walked(batches: int, most: int) -> Course:
    made = Course(most)
    for number in range(1, batches + 1):
        made.scored(example(BatchScored, batch=number, z=float(number), at=f"batch {number}"))
        if number > 3:  # labels come three batches later
            right = Scores(tp=5, tn=4, fp=1, fn=0)
            half = Scores(tp=5, tn=0, fp=5, fn=0)
            made.labelled(
                example(LabelsArrived, batch=number - 3, rows=10, live=right, shadow=half)
            )
    return made


def test_stretches_stay_few_and_count_every_batch_and_label_once() -> None:
    stretches = walked(70, most=8).stretches()
    assert [one.batches for one in stretches] == [16] * 5
    assert [one.batch for one in stretches] == [1, 17, 33, 49, 65]
    assert [one.at for one in stretches] == [f"batch {n}" for n in (16, 32, 48, 64, 70)]
    assert [one.z for one in stretches] == [8.5, 24.5, 40.5, 56.5, 67.5]
    assert [one.labels for one in stretches] == [160, 160, 160, 160, 30]
    assert {(one.live, one.shadow) for one in stretches} == {(0.9, 0.5)}


def test_what_healing_does_is_told_from_chance_and_a_corrected_label_counts_as_it_is_now() -> None:
    def told(made: Course) -> str:
        compared = made.compared(Objective())
        judged = Judged(rows=compared[0].rows)
        standing = ModelStatus(live=judged, shadow=judged, compared=compared)
        return verdict_of(standing).headline

    assert walked(3, most=8).compared(Objective()) == ()
    earlier = Judged(rows=40)  # labels of rows of the run before this one
    unsure = verdict_of(ModelStatus(live=earlier, shadow=earlier))
    assert unsure.headline.endswith("to tell from chance what healing does")
    assert "On 40 labelled rows" in unsure.sentences[0]
    assert "to tell from chance what healing does: accuracy 0.9" in told(walked(8, most=20))
    helped = walked(18, most=20)
    assert told(helped).startswith("Healing helps: accuracy 0.900 against 0.500 without it (+0.")
    assert "F1 0.909 against 0.667 without it (+0." in told(helped)
    chance = Course()
    for number in range(1, 31):  # as often better as worse, by one of ten rows
        both = Scores(tp=5, tn=4, fp=0, fn=0), Scores(tp=4, tn=4, fp=0, fn=1)
        live, shadow = both if number % 2 else both[::-1]
        chance.labelled(example(LabelsArrived, batch=number, rows=10, live=live, shadow=shadow))
    assert "no difference that could not be chance: accuracy" in told(chance)
    was, now = Scores(tp=5, tn=0, fp=0, fn=0), Scores(tp=0, tn=0, fp=5, fn=0)
    for number in range(1, 16):
        helped.corrected(
            example(
                LabelsCorrected, in_batch=number, rows=5, live=now, was=was, shadow=was,
                was_shadow=was,
            )
        )  # fmt: skip
    assert told(helped).startswith("Healing makes it worse: accuracy 0.400 against 0.500")


def test_labels_of_an_earlier_runs_rows_have_no_place_in_this_one() -> None:
    course_of_two = walked(2, most=8)
    before = course_of_two.stretches()
    course_of_two.labelled(example(LabelsArrived, batch=-18))
    assert course_of_two.stretches() == before


def test_before_labels_come_drift_and_labels_alone_are_drawn() -> None:
    history = walked(3, most=8).stretches()
    drift = Drift(feature="V1", z=3.0, threshold=1.0, drifting=True)
    drawn = course(ModelStatus(history=history, drift=drift))
    assert [one.chart.title for one in drawn] == ["Drift of V1", "Labels"]
    assert [tick.label for tick in drawn[0].times] == ["batch 1", "batch 3"]
    assert course(ModelStatus(history=history[:1])) == ()
    drawn = course(ModelStatus(history=walked(9, most=8).stretches()))
    assert [one.chart.title for one in drawn] == ["Accuracy", "Drift", "Labels"]
    assert "Live 0.900 at first and 0.900 at last, the shadow 0.500" in drawn[0].chart.description


def test_a_canarys_share_is_drawn_where_one_was_tried() -> None:
    made = Course(8)
    for number in range(1, 7):
        if number in (3, 5):
            kind = CanaryBegan if number == 3 else CanaryEnded
            made.tried(example(kind, **({"share": 0.25} if number == 3 else {})))
        made.scored(example(BatchScored, batch=number, z=1.0, at=f"batch {number}"))
    history = made.stretches()
    assert [one.canary for one in history] == [0.0, 0.0, 0.25, 0.25, 0.0, 0.0]
    drawn = course(ModelStatus(history=history))[-1].chart
    assert drawn.title == "Canary's share of requests"
    assert "25% of requests at most, 0% at last; one was tried in 2 of 6" in drawn.description
