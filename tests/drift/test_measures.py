"""The measures against their definitions, and against other people's code."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, ks_2samp

from selfheal_cli.config import Policy
from selfheal_cli.drift.fidi import Calibration, Fidi
from selfheal_cli.drift.monitor import (
    AlarmLimits,
    BatchView,
    Categories,
    FeatureReading,
    Level,
    Quantiles,
    Reservoir,
    apart,
    holm,
    homogeneity,
    read,
)
from selfheal_cli.drift.monitors import effect_size, kolmogorov_smirnov, psi
from selfheal_cli.records import Rows
from tests.drift.streams import batch, readings, sample

COUNTS = st.lists(st.integers(0, 500), min_size=2, max_size=12).map(np.array)
PAIRS = st.integers(2, 12).flatmap(
    lambda cells: st.tuples(
        *[st.lists(st.integers(0, 500), min_size=cells, max_size=cells).map(np.array)] * 2
    )
)


@given(PAIRS)
def test_psi_is_never_negative_and_the_same_both_ways(pair: tuple[np.ndarray, ...]) -> None:
    assert psi(*pair) >= 0
    assert psi(*pair) == pytest.approx(psi(*pair[::-1]))


@given(COUNTS, st.integers(1, 50))
def test_equal_shares_are_no_distance_by_any_measure(counts: np.ndarray, times: int) -> None:
    assert psi(counts, times * counts) == pytest.approx(0, abs=1e-12)
    assert apart(counts, times * counts) == pytest.approx(0, abs=1e-12)
    assert kolmogorov_smirnov(counts, times * counts)[0] == pytest.approx(0, abs=1e-12)
    assert homogeneity(counts, times * counts) > 0.999


@given(PAIRS)
def test_cells_without_order_may_come_in_any(pair: tuple[np.ndarray, ...]) -> None:
    order = np.random.default_rng(len(pair[0])).permutation(len(pair[0]))
    turned = pair[0][order], pair[1][order]
    assert psi(*turned) == pytest.approx(psi(*pair))
    assert apart(*turned) == pytest.approx(apart(*pair))
    assert homogeneity(*turned) == pytest.approx(homogeneity(*pair), abs=1e-6)


@given(PAIRS)
def test_distances_and_p_values_stay_in_their_range(pair: tuple[np.ndarray, ...]) -> None:
    distance, p = kolmogorov_smirnov(*pair)
    assert 0 <= distance <= 1
    assert 0 <= p <= 1
    assert 0 <= apart(*pair) <= 1 + 1e-12
    assert 0 <= homogeneity(*pair) <= 1


def test_psi_by_hand() -> None:
    expected = 0.1 * np.log(0.6 / 0.5) - 0.1 * np.log(0.4 / 0.5)
    assert psi(np.array([50, 50]), np.array([60, 40])) == pytest.approx(expected)


def test_the_likelihood_ratio_test_is_scipy_s_where_no_cell_is_rare() -> None:
    pair = np.array([[400, 300, 300], [90, 60, 50]])
    assert homogeneity(*pair) == pytest.approx(chi2_contingency(pair, lambda_=0).pvalue)


def test_one_row_of_a_new_category_is_no_significance() -> None:
    assert homogeneity(np.array([5000, 0]), np.array([99, 1])) > 0.01


def test_the_distance_of_two_samples_is_scipy_s_but_for_what_lies_between_cells() -> None:
    draw = np.random.default_rng(5)
    first, second = draw.normal(size=4000), draw.normal(0.2, size=1000)
    cells = Quantiles(first, 50)
    distance, p = kolmogorov_smirnov(cells.count(first), cells.count(second))
    whole = ks_2samp(first, second, method="asymp")
    assert whole.statistic - 0.02 < distance <= whole.statistic
    assert p >= whole.pvalue


def test_p_values_without_drift_are_rarely_small() -> None:
    """At most their nominal share, which is what false alarms are counted by."""
    draw = np.random.default_rng(6)
    reference = draw.normal(size=5000)
    deciles, fine = Quantiles(reference, 10), Quantiles(reference, 50)
    trained = deciles.count(reference), fine.count(reference)
    small = np.zeros(2)
    for _ in range(2000):
        values = draw.normal(size=100)
        small[0] += homogeneity(trained[0], deciles.count(values)) < 0.01
        small[1] += kolmogorov_smirnov(trained[1], fine.count(values))[1] < 0.01
    assert (small / 2000 < 0.02).all()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20).map(np.array))
def test_the_correction_only_raises_and_keeps_the_order(p: np.ndarray) -> None:
    corrected = holm(p)
    assert (corrected >= p).all()
    assert (corrected <= 1).all()
    assert corrected.min() == pytest.approx(min(1.0, p.min() * len(p)))
    order = np.argsort(p, kind="stable")
    assert (np.diff(corrected[order]) >= 0).all()


def test_among_many_features_one_small_p_value_is_no_sign() -> None:
    limits = AlarmLimits(0.1, 0.05, 0.01)
    alone = [FeatureReading("a", 0.3, 0.005)]
    crowd = [*alone, *(FeatureReading(f"n{place}", 0.01, 0.5) for place in range(9))]
    assert read(alone, limits).level is Level.ALARM
    assert read(crowd, limits).level is Level.QUIET


def test_a_significant_feature_goes_before_a_larger_one_that_may_be_chance() -> None:
    reading = read(
        [FeatureReading("a", 0.9, 0.4), FeatureReading("b", 0.3, 1e-9)], AlarmLimits(0.2, 0.1, 1e-4)
    )
    assert (reading.value, reading.level, reading.features) == (0.3, Level.ALARM, ("b",))


def test_fidi_on_one_feature_is_the_article_s() -> None:
    values = sample().values("a")
    theirs = Fidi(Calibration("a", values.mean(), values.std() + 1e-8), Policy())
    stream = [batch(seed, a=seed / 10) for seed in range(20)]
    expected = [theirs.observe(view.columns["a"]).z for view in stream]
    distances = [reading.value for reading in readings("fidi:on=a", *stream)]
    assert distances[2:] == pytest.approx(expected[2:])


def test_fidi_weighs_features_by_the_network_s_gradients() -> None:
    on_a = readings("fidi:on=a+b", batch(1, 5000, a=1.0))[0].value
    on_b = readings("fidi:on=a+b", batch(1, 5000, b=2.0))[0].value
    assert on_a == pytest.approx(np.sqrt(0.9), rel=0.05)
    assert on_b == pytest.approx(np.sqrt(0.1), rel=0.15)
    assert readings("fidi:on=a+b,weights=equal", batch(1, 5000, b=2.0))[0].value == pytest.approx(
        np.sqrt(0.5), rel=0.05
    )


def test_an_effect_of_shares_is_cohen_s() -> None:
    assert effect_size(0.3, 0.3) == 0
    assert effect_size(0.2, 0.4) == pytest.approx(effect_size(0.4, 0.2))
    assert effect_size(0.0, 1.0) == pytest.approx(np.pi)


def test_texts_that_training_did_not_have_are_a_cell_and_missing_ones_are_none() -> None:
    texts = np.array(["web", "kiosk", None, "web", np.nan], dtype=object)
    assert Categories(["shop", "web"]).count(texts).tolist() == [0, 2, 1]


def test_equal_values_make_few_cells() -> None:
    assert len(Quantiles(np.array([1.0] * 99 + [2.0]), 10).edges) == 1
    assert Quantiles(np.empty(0), 10).count(np.array([3.0])).tolist() == [1]


def test_the_sample_is_of_fixed_size_in_order_and_the_same_each_time() -> None:
    def drawn(block: int) -> np.ndarray:
        reservoir = Reservoir(50)
        numbers = np.arange(400.0)
        for part in np.array_split(numbers, 400 // block):
            labels = np.zeros(len(part), dtype=np.int8)
            reservoir.add(Rows(part[:, None].astype(np.float32), labels, {"a": part}))
        return reservoir.rows().columns["a"]

    assert len(drawn(40)) == 50
    assert (np.diff(drawn(40)) > 0).all()
    assert drawn(40).tolist() == drawn(100).tolist()


def test_a_wild_value_does_not_deafen_a_detector() -> None:
    wild = batch(1)
    wild.columns["a"][0] = 1e30
    calm = [batch(seed) for seed in range(2, 30)]
    drifted = [batch(seed, a=1.5) for seed in range(100, 110)]
    series = readings("page-hinkley:on=a", wild, *calm, *drifted)
    assert series[28].level is not Level.ALARM
    assert Level.ALARM in [one.level for one in series[29:]]


def test_k_classes_are_watched_by_the_largest_score() -> None:
    scores = np.array([[0.1, 0.7, 0.2]], dtype=np.float32)
    view = BatchView({}, scores, np.zeros(1, dtype=np.int8), 0, np.empty(0))
    assert view.values("scores").tolist() == pytest.approx([0.7])
