"""The article's generator: the same draws in the same order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from selfheal_cli.config import SyntheticSettings
from selfheal_cli.records import Batch, Rows
from selfheal_cli.sources.synthetic import NAMES, SyntheticSource, bayes_limit, posterior


def drawn(
    seed: int = 42, batch_size: int = 100, batches: int | None = None, **values: object
) -> SyntheticSource:
    """A source with these settings."""
    chosen = SyntheticSettings.model_validate(values)
    return SyntheticSource(chosen, seed=seed, batch_size=batch_size, batches=batches)


def all_bytes(source: SyntheticSource) -> bytes:
    """Everything that a source gives, one after the other."""
    sets = [*source.training(), *source.held_out().values()]
    sets += [batch.rows for batch in source.batches()]
    return b"".join(rows.x.tobytes() + rows.y.tobytes() for rows in sets)


def by_hand(draw: np.random.RandomState, rows: int, drift: float) -> tuple[np.ndarray, np.ndarray]:
    """One set as the article's program draws it."""
    frauds = int(0.15 * rows)
    normal_v14 = draw.normal(-drift, 1.0, rows - frauds)
    normal_rest = draw.randn(rows - frauds, 9)
    fraud_v14 = draw.normal(-2.5, 0.8, frauds)
    fraud_rest = draw.randn(frauds, 9)
    v14 = np.concatenate([normal_v14, fraud_v14])[:, None]
    rest = np.concatenate([normal_rest, fraud_rest])
    x = np.concatenate([rest[:, :7], v14, rest[:, 7:]], axis=1).astype(np.float32)
    order = draw.permutation(rows)
    return x[order], np.repeat([0, 1], [rows - frauds, frauds])[order]


def test_sets_and_batches_are_drawn_in_the_article_s_order() -> None:
    source = drawn(seed=7, drift_strength=1.25, train_rows=500, test_rows=100, batches=3)
    draw = np.random.RandomState(7)
    expected = [by_hand(draw, 500, 0.0), by_hand(draw, 100, 0.0), by_hand(draw, 100, 1.25)]
    sets = [*source.training(), source.held_out()["clean"], source.held_out()["drifted"]]
    for rows, (x, y) in zip(sets, expected, strict=True):
        np.testing.assert_array_equal(rows.x, x)
        np.testing.assert_array_equal(rows.y, y)
    drifted_x, drifted_y = expected[2]
    for batch in source.batches():
        chosen = draw.choice(100, 100)
        np.testing.assert_array_equal(batch.rows.x, drifted_x[chosen])
        np.testing.assert_array_equal(batch.rows.y, drifted_y[chosen])


def test_the_article_s_seed_gives_the_article_s_figures() -> None:
    source = drawn()
    (training,) = source.training()
    v14 = training.columns["V14"]
    assert (v14.mean(), v14.std()) == pytest.approx((-0.363, 1.323), abs=5e-4)
    clean, drifted = (source.held_out()[stage].columns["V14"] for stage in ("clean", "drifted"))
    assert (clean.mean(), (clean < -1.5).mean()) == pytest.approx((-0.377, 0.188), abs=6e-4)
    assert (drifted.mean(), (drifted < -1.5).mean()) == pytest.approx((-2.261, 0.774), abs=6e-4)


@given(seed=st.integers(0, 2**32 - 1))
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(seed: int) -> None:
    small = {"train_rows": 40, "test_rows": 20, "batch_size": 10, "batches": 2}
    first = all_bytes(drawn(seed=seed, **small))
    assert all_bytes(drawn(seed=seed, **small)) == first
    assert all_bytes(drawn(seed=(seed + 1) % 2**32, **small)) != first


def test_draws_leave_the_global_generator_alone() -> None:
    np.random.seed(3)
    before = np.random.get_state()[1].tobytes()
    list(drawn(train_rows=40, test_rows=20).batches())
    after = np.random.get_state()[1].tobytes()
    assert after == before


def test_batches_may_be_asked_for_again() -> None:
    source = drawn(train_rows=40, test_rows=20, batches=3)
    assert [batch.rows.x.tobytes() for batch in source.batches()] == [
        batch.rows.x.tobytes() for batch in source.batches()
    ]


@given(
    start=st.integers(1, 12),
    batches=st.integers(1, 9),
    batch_size=st.integers(2, 30),
    scenario=st.sampled_from([{}, {"fresh": True}, {"phases": ((2, 0.0), (3, 2.2), (9, 1.0))}]),
)
def test_batches_from_a_start_equal_the_tail_of_all_batches(
    start: int, batches: int, batch_size: int, scenario: dict[str, object]
) -> None:
    source = drawn(train_rows=40, test_rows=20, batches=batches, batch_size=batch_size, **scenario)

    def content(batches: list[Batch]) -> list[tuple[int, bytes, bytes]]:
        return [(batch.index, batch.rows.x.tobytes(), batch.rows.y.tobytes()) for batch in batches]

    assert content(list(source.batches(start))) == content(list(source.batches()))[start - 1 :]


@given(train_rows=st.integers(1, 300), test_rows=st.integers(1, 300), share=st.floats(0.01, 0.99))
def test_sets_have_their_sizes_and_their_share_of_positives(
    train_rows: int, test_rows: int, share: float
) -> None:
    source = drawn(train_rows=train_rows, test_rows=test_rows, positive_share=share)
    (training,) = source.training()
    held_out = source.held_out()
    assert list(held_out) == ["clean", "drifted"]
    for rows, size in ((training, train_rows), *((rows, test_rows) for rows in held_out.values())):
        assert rows.x.shape == (size, 10)
        assert rows.x.dtype == np.float32
        assert rows.y.dtype == np.int8
        assert len(rows) == size
        assert int(rows.y.sum()) == int(share * size)


def test_only_the_normals_v14_drifts() -> None:
    source = drawn(drift_strength=3.0, train_rows=20, test_rows=20_000)
    clean, drifted = source.held_out()["clean"], source.held_out()["drifted"]

    def mean_of(rows: Rows, label: int) -> np.ndarray:
        return np.asarray(rows.x[rows.y == label].mean(axis=0))

    moved = mean_of(drifted, 0) - mean_of(clean, 0)
    assert NAMES[7] == "V14"
    assert moved[7] == pytest.approx(-3.0, abs=0.05)
    assert np.abs(np.delete(moved, 7)).max() < 0.05
    assert np.abs(mean_of(drifted, 1) - mean_of(clean, 1)).max() < 0.1
    assert mean_of(clean, 1)[7] == pytest.approx(-2.5, abs=0.05)


def test_columns_are_the_inputs_by_name() -> None:
    rows = next(drawn(train_rows=40, test_rows=20).batches()).rows
    assert list(rows.columns) == NAMES
    for position, name in enumerate(NAMES):
        np.testing.assert_array_equal(rows.columns[name], rows.x[:, position])


def test_a_stream_has_25_batches_unless_told_otherwise() -> None:
    source = drawn(train_rows=40, test_rows=20)
    assert source.batch_count == 25
    assert [batch.index for batch in source.batches()] == list(range(1, 26))
    assert drawn(train_rows=40, test_rows=20, batches=4).batch_count == 4


def test_the_limit_is_that_of_the_settings() -> None:
    source = drawn(train_rows=40, test_rows=20, drift_strength=1.0, positive_share=0.3)
    assert source.limit() == bayes_limit(1.0, 0.3)
    assert source.notes() == {}


SMALL = {"train_rows": 40, "test_rows": 20}


def v14(rows: Rows, label: int) -> np.ndarray:
    """V14 of one class."""
    return np.asarray(rows.columns["V14"][rows.y == label])


def test_settings_that_change_nothing_change_no_draw() -> None:
    plain, told = drawn(**SMALL), drawn(**SMALL, positive_shift=0.0, stream_positive_share=0.15)
    assert all_bytes(told) == all_bytes(plain)


@pytest.mark.parametrize("scenario", [{"fresh": True}, {"phases": ((25, 2.2),)}])
def test_a_fresh_stream_leaves_the_sets_as_they_were(scenario: dict[str, object]) -> None:
    fresh, article = drawn(**scenario), drawn()
    sets = [[*source.training(), *source.held_out().values()] for source in (fresh, article)]
    for one, other in zip(*sets, strict=True):
        np.testing.assert_array_equal(one.x, other.x)
    assert not np.array_equal(next(fresh.batches()).rows.x, next(article.batches()).rows.x)


def test_one_phase_is_a_fresh_stream_at_its_drift() -> None:
    fresh = drawn(**SMALL, fresh=True, drift_strength=1.5, batches=6)
    assert all_bytes(drawn(**SMALL, phases=((6, 1.5),))) == all_bytes(fresh)


def test_no_row_of_a_fresh_stream_comes_twice_or_from_the_held_out_rows() -> None:
    source = drawn(fresh=True, batches=20)
    streamed = np.concatenate([batch.rows.x for batch in source.batches()])
    everything = np.concatenate([streamed, *(rows.x for rows in source.held_out().values())])
    assert len(np.unique(everything, axis=0)) == 2_000 + 2 * 1_000


def test_fresh_rows_have_the_distribution_of_the_drifted_set() -> None:
    source = drawn(fresh=True, batches=1, batch_size=100_000, positive_shift=-1.0)
    (batch,) = source.batches()
    rows = batch.rows
    assert (rows.x.dtype, rows.y.dtype, rows.x.shape) == (np.float32, np.int8, (100_000, 10))
    assert rows.y.mean() == pytest.approx(0.15, abs=0.004)
    assert (v14(rows, 0).mean(), v14(rows, 0).std()) == pytest.approx((-2.2, 1.0), abs=0.02)
    assert (v14(rows, 1).mean(), v14(rows, 1).std()) == pytest.approx((-3.5, 0.8), abs=0.03)
    others = np.delete(rows.x, 7, axis=1)
    assert np.abs(others.mean(axis=0)).max() < 0.02
    assert np.abs(others.std(axis=0) - 1).max() < 0.02


def test_each_phase_streams_at_its_own_drift() -> None:
    source = drawn(**SMALL, phases=((2, 0.0), (3, 3.0), (1, -1.0)), batch_size=5_000)
    means = [v14(batch.rows, 0).mean() for batch in source.batches()]
    assert source.batch_count == 6
    assert means == pytest.approx([0.0, 0.0, -3.0, -3.0, -3.0, 1.0], abs=0.1)


def test_fewer_batches_than_the_phases_have_can_be_asked_for_but_not_more() -> None:
    phases = ((2, 0.0), (3, 3.0))
    assert drawn(**SMALL, phases=phases, batches=4).batch_count == 4
    assert drawn(**SMALL, phases=phases, batches=40).batch_count == 5
    assert len(list(drawn(**SMALL, phases=phases, batches=4).batches())) == 4


def test_the_drifted_rows_and_the_limit_are_those_of_the_last_phase() -> None:
    source = drawn(phases=((1, 0.0), (2, 3.0)), train_rows=20, test_rows=20_000)
    drifted = source.held_out()["drifted"]
    assert len(drifted) == 20_000
    assert v14(drifted, 0).mean() == pytest.approx(-3.0, abs=0.05)
    assert source.limit() == bayes_limit(3.0, 0.15)


def test_a_shift_and_a_share_of_the_stream_leave_the_clean_rows_alone() -> None:
    moved = {"positive_shift": 1.0, "stream_positive_share": 0.4}
    source = drawn(train_rows=500, test_rows=20_000, batches=2, batch_size=10_000, **moved)
    article = drawn(train_rows=500, test_rows=20_000)
    clean, drifted = source.held_out().values()
    np.testing.assert_array_equal(clean.x, article.held_out()["clean"].x)
    np.testing.assert_array_equal(next(source.training()).y, next(article.training()).y)
    assert int(drifted.y.sum()) == 8_000
    for rows in (drifted, *(batch.rows for batch in source.batches())):
        assert rows.y.mean() == pytest.approx(0.4, abs=0.02)
        assert v14(rows, 1).mean() == pytest.approx(-1.5, abs=0.05)
        assert v14(rows, 0).mean() == pytest.approx(-2.2, abs=0.05)


def test_the_limit_is_reached_on_the_drifted_rows_by_their_posterior() -> None:
    settings = {"positive_shift": -2.0, "stream_positive_share": 0.3, "phases": ((1, 0), (1, 1.5))}
    source = drawn(train_rows=20, test_rows=100_000, **settings)
    rows, limit = source.held_out()["drifted"], source.limit()
    assert limit == bayes_limit(1.5, 0.3, -4.5)
    probabilities = posterior(rows.columns["V14"], 1.5, 0.3, -4.5)
    assert np.mean((probabilities > 0.5) == rows.y) == pytest.approx(limit.accuracy, abs=0.003)


@pytest.mark.parametrize(
    "values",
    [
        {"phases": ((0, 1.0),)},
        {"phases": ((1, 101.0),)},
        {"phases": ((1, float("nan")),)},
        {"phases": ((1,),)},
        {"positive_shift": float("inf")},
        {"stream_positive_share": 0.0},
        {"stream_positive_share": 1.0},
    ],
)
def test_scenarios_that_cannot_be_drawn_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SyntheticSettings.model_validate(values)


def test_a_scenario_is_the_same_after_json() -> None:
    told = SyntheticSettings(phases=((10, 0.0), (25, 2.2)), positive_shift=0.5)
    assert SyntheticSettings.model_validate_json(told.model_dump_json()) == told
