"""What healing gave: helped or hurt beyond chance, or no difference that could not be chance."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest

from selfheal_cli.config import Objective
from selfheal_cli.metrics import RunningScores
from selfheal_cli.report.gains import (
    CHANCE,
    HELPED,
    HURT,
    UNKNOWN,
    FigureGain,
    figure_gains,
    sentence_of,
)
from selfheal_cli.report.verdict import verdict
from selfheal_cli.scores import AnyScores
from tests.report.test_summary import STAGES

Pair = tuple[RunningScores, RunningScores]
STRETCHES, ROWS = 12, 200


def gains(
    better: float, stretches: int = STRETCHES, objective: Objective | None = None
) -> dict[str, FigureGain]:
    """Live ranks by the class plus noise, of which it has less by ``better`` than the baseline."""
    random = np.random.default_rng(5)
    parts = []
    for _ in range(stretches):
        y = (random.random(ROWS) < 0.3).astype(np.int8)
        noise = random.normal(size=(3, ROWS))
        live, frozen = RunningScores(), RunningScores()
        for running, of, width in ((live, 1, 1.0 - better), (frozen, 2, 1.0)):
            logit = 2 * y - 1.3 + width * (noise[0] + 0.2 * noise[of])
            running.add((1 / (1 + np.exp(-logit))).astype(np.float32), 0.5, y)
        parts.append((live, frozen))

    def pair(
        left: list[tuple[RunningScores, RunningScores]],
    ) -> tuple[AnyScores, AnyScores]:
        live, frozen = left[0]
        for more, other in left[1:]:
            live, frozen = live.plus(more), frozen.plus(other)
        return live.scores(), frozen.scores()

    without = [pair([*parts[:at], *parts[at + 1 :]]) for at in range(len(parts))]
    measured = figure_gains(pair(parts), without, objective or Objective(), stretches, None)
    return {one.figure: one for one in measured}


def test_what_is_better_in_each_stretch_helped_and_its_mirror_image_hurt() -> None:
    helped = gains(0.4)
    assert {one.word for one in helped.values()} == {HELPED}
    one = helped["ROC AUC"]
    assert one.low is not None
    assert one.high is not None
    assert 0 < one.low < one.after - one.before < one.high
    assert {one.word for one in gains(-0.5).values()} == {HURT}


def test_noise_is_no_difference() -> None:
    assert {one.word for one in gains(0.0).values()} == {CHANCE}


def test_what_is_sure_but_little_is_not_called_chance() -> None:
    sure = FigureGain("log loss", None, 0.427, 0.424, -0.004, -0.002, 1_000, 20)
    chance = FigureGain("accuracy", None, 0.835, 0.835, -0.001, 0.001, 1_000, 20)
    assert {sure.word, chance.word} == {CHANCE}
    assert sentence_of([chance, sure]) == (
        "Healing made no difference that could not be chance in accuracy 0.835 to 0.835 "
        "(-0.001 to +0.001); too little difference to matter in log loss 0.427 to 0.424 (-0.004 "
        "to -0.002); against the frozen baseline, 1,000 labelled rows in 20 batches."
    )


def test_on_too_few_batches_nothing_is_told_from_chance() -> None:
    few = gains(0.4, stretches=5)
    assert {one.word for one in few.values()} == {UNKNOWN}
    assert "too few batches" in sentence_of(list(few.values()))


def test_a_lower_cost_is_what_helped() -> None:
    costs = gains(0.4, objective=Objective(kind="cost", fn=5, fp=1))
    first = next(iter(costs.values()))
    assert (first.figure, first.word) == ("cost per 100 rows", HELPED)
    assert first.after < first.before


@pytest.mark.parametrize("better", [0.4, 0.0])
def test_the_verdict_says_for_each_figure_the_same_as_its_sentence(better: float) -> None:
    measured = list(gains(better).values())
    told = verdict(STAGES, Objective(), measured)
    assert {name: word for name, word in told.items() if name != "sentence"} == {
        one.figure: one.word for one in measured
    }
    expected = "Healing helped accuracy" if better else "no difference that could not be chance"
    assert expected in told["sentence"]
    assert "2,400 labelled rows in 12 batches" in told["sentence"]


def test_figures_come_back_from_a_log_as_they_were() -> None:
    for one in gains(0.1).values():
        assert FigureGain.from_dict(one.as_dict()) == one


def test_two_positives_are_too_few_to_say_that_it_hurt_but_what_all_others_say_is_told() -> None:
    def words(flagged: float, wrong: float) -> dict[str, str]:
        """Live and frozen flag these shares of the rows; two of 2,400 are positive."""
        draw = np.random.default_rng(1)
        parts = []
        for number in range(STRETCHES):
            y = np.zeros(ROWS, dtype=np.int8)
            y[0] = number in (3, 8)
            pair = RunningScores(), RunningScores()
            for running, share in zip(pair, (flagged, wrong), strict=True):
                p = np.where(draw.random(ROWS) < share, 0.9, 0.001)
                running.add(p.astype(np.float32), 0.5, y)
            parts.append(pair)
        whole = reduce(lambda a, b: (a[0].plus(b[0]), a[1].plus(b[1])), parts)
        without = [(whole[0].minus(a).scores(), whole[1].minus(b).scores()) for a, b in parts]
        pair_of_all = whole[0].scores(), whole[1].scores()
        told = figure_gains(pair_of_all, without, Objective(), STRETCHES, None)
        assert "outside of the commonest class" in sentence_of(told)
        return {one.figure: one.word for one in told}

    assert set(words(0.005, 0.001).values()) == {UNKNOWN}
    much = words(0.001, 0.10)
    assert (much["accuracy"], much["F1"], much["ROC AUC"]) == (HELPED, UNKNOWN, UNKNOWN)
