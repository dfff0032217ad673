"""Batches of labels: which are held back, which let through, and when a new rate is believed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal_cli.errors import DataError
from selfheal_cli.labels.quarantine import LabelVerdict, LabelWatch

SEEDS = range(5)


def labels(draw: np.random.Generator, share: float, rows: int = 100) -> np.ndarray:
    return (draw.random(rows) < share).astype(np.int8)


def watch(draw: np.random.Generator, share: float = 0.15, **options: float | bool) -> LabelWatch:
    return LabelWatch([labels(draw, share, 5_000)], 2, 100, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", SEEDS)
def test_four_flipped_batches_are_implausible_and_the_normal_ones_after_them_are_not(
    seed: int,
) -> None:
    draw = np.random.default_rng(seed)
    watching = watch(draw)
    before = [watching.judge(labels(draw, 0.15)).implausible for _ in range(10)]
    flipped = [watching.judge(1 - labels(draw, 0.15)).implausible for _ in range(4)]
    after = [watching.judge(labels(draw, 0.15)).implausible for _ in range(10)]
    assert (before, flipped, after) == ([False] * 10, [True] * 4, [False] * 10)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("share", [0.05, 0.15, 0.30, 0.0])
def test_a_base_rate_that_moves_within_reason_is_plausible(share: float, seed: int) -> None:
    draw = np.random.default_rng(seed)
    watching = watch(draw)
    assert not any(watching.judge(labels(draw, share)).implausible for _ in range(20))


@pytest.mark.parametrize("limit", [1, 3, 8])
def test_a_rate_that_stays_is_believed_at_the_limit_and_from_then_on(limit: int) -> None:
    draw = np.random.default_rng(0)
    watching = watch(draw, limit=limit)
    verdicts = [watching.judge(labels(draw, 0.85)) for _ in range(20)]
    assert [v.implausible for v in verdicts] == [True] * (limit - 1) + [False] * (21 - limit)
    assert [v.believed for v in verdicts] == [n == limit for n in range(1, 21)]
    assert f"believed, as {limit} such batches" in verdicts[limit - 1].reason
    assert verdicts[limit].expected == pytest.approx(0.85, abs=0.06)


@pytest.mark.parametrize("seed", SEEDS)
def test_after_a_time_of_one_class_the_rate_of_training_is_plausible_at_once(
    seed: int,
) -> None:
    draw = np.random.default_rng(seed)
    watching = watch(draw, 0.45, returns=True)
    one = [watching.judge(labels(draw, 0.0)).implausible for _ in range(12)]
    back = [watching.judge(labels(draw, 0.45)).implausible for _ in range(12)]
    flipped = watching.judge(labels(draw, 0.97)).implausible
    assert one == [True] * 7 + [False] * 5
    assert not any(back)
    assert flipped


def test_an_accepted_batch_starts_the_count_again() -> None:
    draw = np.random.default_rng(0)
    watching = watch(draw)
    for share in [0.85] * 7 + [0.15] + [0.85] * 7:
        assert watching.judge(labels(draw, share)).implausible == (share > 0.5)


def test_what_was_held_back_does_not_move_what_is_expected() -> None:
    draw = np.random.default_rng(0)
    watching = watch(draw)
    before = watching.judge(labels(draw, 0.85)).expected
    assert watching.judge(labels(draw, 0.85)).expected == before


def test_a_base_rate_that_moves_slowly_is_followed() -> None:
    draw = np.random.default_rng(0)
    watching = watch(draw)
    for share in np.linspace(0.15, 0.85, 100):
        verdict = watching.judge(labels(draw, share))
        assert not verdict.implausible
    assert verdict.expected > 0.7


@pytest.mark.parametrize("y", [[0, 0], [1, 1], [0, 1], [1], []])
def test_a_batch_of_a_few_rows_is_never_implausible(y: list[int]) -> None:
    watching = watch(np.random.default_rng(0))
    for _ in range(20):
        assert not watching.judge(np.array(y, dtype=np.int8)).implausible


def test_a_training_part_that_varies_makes_the_watch_patient() -> None:
    draw = np.random.default_rng(0)
    steady = LabelWatch([labels(draw, 0.4, 5_000)], 2, 100)
    shares = draw.beta(2, 3, size=50)
    uneven = LabelWatch([labels(draw, share) for share in shares], 2, 100)
    batch = labels(draw, 0.95)
    assert steady.judge(batch).implausible
    assert not uneven.judge(batch).implausible


def test_of_several_classes_the_one_that_is_furthest_away_is_named() -> None:
    training = np.repeat(np.arange(4, dtype=np.int8), [400, 300, 200, 100])
    watching = LabelWatch([np.random.default_rng(0).permutation(training)], 4, 100)
    assert not watching.judge(training[::10]).implausible
    verdict = watching.judge(np.repeat(np.int8([0, 1, 2, 3]), [5, 3, 2, 90]))
    assert verdict.implausible
    assert (verdict.label, verdict.share) == (3, 0.9)
    assert "class 3 is 90.0% of 100 labels" in verdict.reason


def test_the_blocks_that_training_comes_in_make_no_difference() -> None:
    training = labels(np.random.default_rng(0), 0.15, 1_000)
    whole = LabelWatch([training], 2, 100)
    parts = LabelWatch(np.split(training, [7, 7, 230, 999]), 2, 100)
    assert whole.judge(training[:50]) == parts.judge(training[:50])


def test_a_training_part_shorter_than_a_batch_is_enough() -> None:
    assert not LabelWatch([np.int8([0, 1])], 2, 100).judge(np.int8([1, 0, 1])).implausible


def test_no_training_labels_are_refused() -> None:
    with pytest.raises(DataError, match="no training labels"):
        LabelWatch([], 2, 100)


@given(
    training=st.lists(st.integers(0, 2), min_size=1, max_size=60),
    batches=st.lists(st.lists(st.integers(0, 2), max_size=40), max_size=12),
    batch_size=st.integers(2, 20),
    limit=st.integers(1, 4),
)
def test_any_labels_get_the_same_finite_verdict_each_time(
    training: list[int], batches: list[list[int]], batch_size: int, limit: int
) -> None:
    def judged() -> list[LabelVerdict]:
        watching = LabelWatch([np.int8(training)], 3, batch_size, limit=limit)
        return [watching.judge(np.array(y, dtype=np.int8)) for y in batches]

    verdicts = judged()
    assert verdicts == judged()
    for verdict in verdicts:
        assert np.isfinite([verdict.z, verdict.share, verdict.expected]).all()
        assert not (verdict.implausible and verdict.believed)
