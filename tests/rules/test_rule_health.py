"""Rules against their calibration: when one is stale, and where its threshold belongs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal_cli.errors import RuleError
from selfheal_cli.rules.conditions import Between, Comparison
from selfheal_cli.rules.health import RuleHealth, calibrate_rules
from selfheal_cli.rules.ruleset import Rule, parse_rule

ARTICLE = parse_rule("V14 < -1.5 => 1")


def rows(draw: np.random.Generator, count: int, drift: float = 0.0) -> dict[str, np.ndarray]:
    """The article's V14: normals move down by ``drift``."""
    positive = draw.random(count) < 0.15
    v14 = np.where(positive, draw.normal(-2.5, 0.8, count), draw.normal(-drift, 1, count))
    return {"V14": v14.astype(np.float32), "kind": draw.choice(["web", "shop"], count)}


def observed(
    rule: Rule, drift: float, *, batches: int = 10, seed: int = 0
) -> tuple[RuleHealth, float, dict[str, np.ndarray]]:
    """Rule health after these batches, the training rate, and the batches in one."""
    draw = np.random.default_rng(seed)
    known = calibrate_rules([rule], [rows(draw, 5_000)], 100)
    health = RuleHealth(known)
    window = [rows(draw, 100, drift) for _ in range(batches)]
    for batch in window:
        health.observe(batch)
    joined = {name: np.concatenate([batch[name] for batch in window]) for name in window[0]}
    return health, known[0].rate, joined


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("drift", [1.0, 2.2, 3.5])
def test_a_rule_whose_feature_moved_is_stale_and_fires_as_in_training_once_reanchored(
    drift: float, seed: int
) -> None:
    health, trained, window = observed(ARTICLE, drift, seed=seed)
    (stale,) = health.stale()
    assert stale.rule == ARTICLE
    assert stale.trained_rate == trained == pytest.approx(0.19, abs=0.02)
    assert stale.rate == float(ARTICLE.fires(window).mean())
    assert stale.z > 4
    assert stale.rows == 1_000
    moved = health.reanchored(ARTICLE)
    (comparison,) = moved.leaves
    assert isinstance(comparison, Comparison)
    assert (moved.label, comparison.operator) == (1, "<")
    assert float(comparison.value) < -1.5
    assert moved.fires(window).mean() == pytest.approx(trained, abs=0.002)
    assert parse_rule(str(moved)) == moved


def test_a_rule_that_fires_too_seldom_is_stale_too() -> None:
    draw = np.random.default_rng(0)
    health = RuleHealth(calibrate_rules([ARTICLE], [rows(draw, 5_000)], 100))
    window = {"V14": draw.normal(2, 1, 1_000), "kind": np.full(1_000, "web")}
    for _ in range(3):
        health.observe(window)
    (stale,) = health.stale()
    assert stale.z < -4
    moved = health.reanchored(ARTICLE)
    (comparison,) = moved.leaves
    assert isinstance(comparison, Comparison)
    assert float(comparison.value) > 0
    assert moved.fires(window).mean() == pytest.approx(stale.trained_rate, abs=0.002)


@pytest.mark.parametrize("seed", range(20))
def test_a_rule_on_clean_rows_is_not_stale_at_any_batch(seed: int) -> None:
    draw = np.random.default_rng(seed)
    health = RuleHealth(calibrate_rules([ARTICLE], [rows(draw, 5_000)], 100))
    for _ in range(30):
        health.observe(rows(draw, 100))
        assert health.stale() == ()


def test_a_rule_is_fresh_again_when_the_drift_ends() -> None:
    health, _, _ = observed(ARTICLE, 2.2)
    draw = np.random.default_rng(1)
    for _ in range(10):
        health.observe(rows(draw, 100))
    assert health.stale() == ()


def test_two_batches_are_too_few_to_call_a_rule_stale() -> None:
    assert observed(ARTICLE, 2.2, batches=2)[0].stale() == ()
    assert len(observed(ARTICLE, 2.2, batches=3)[0].stale()) == 1


def test_a_difference_that_does_not_matter_is_not_stale_however_sure() -> None:
    known = calibrate_rules([parse_rule("x < 0.5 => 1")], [{"x": np.arange(10_000) / 10_000}], 100)
    health = RuleHealth(known, z=0.0)
    for _ in range(10):
        health.observe({"x": np.arange(1_000) / 990})
    assert health.stale() == ()


def test_a_rare_rule_that_fires_twice_in_a_batch_is_not_stale() -> None:
    rare = parse_rule("x > 0.9995 => 1")
    health = RuleHealth(calibrate_rules([rare], [{"x": np.arange(10_000) / 10_000}], 100))
    for batch in (np.zeros(100), np.zeros(100), np.r_[np.zeros(98), 1.0, 1.0]):
        health.observe({"x": batch})
    assert health.stale() == ()


def test_a_training_part_whose_rate_varies_makes_the_watch_patient() -> None:
    draw = np.random.default_rng(0)
    levels = draw.normal(0, 1, 50)
    training = np.concatenate([draw.normal(level, 1, 100) for level in levels])
    rule = parse_rule("x < 0 => 1")
    uneven = calibrate_rules([rule], [{"x": training}], 100)
    even = calibrate_rules([rule], [{"x": draw.permutation(training)}], 100)
    assert uneven[0].sd > 3 * even[0].sd
    batch = {"x": draw.normal(-0.6, 1.4, 100)}
    stale_counts = []
    for known in (uneven, even):
        health = RuleHealth(known)
        for _ in range(10):
            health.observe(batch)
        stale_counts.append(len(health.stale()))
    assert stale_counts == [0, 1]


def test_equalities_and_their_labels_stay_where_they_are() -> None:
    rule = parse_rule("V14 < -1.5 and kind == 'web' and V14 != 3 => 0")
    health, _, _ = observed(rule, 2.2)
    moved = health.reanchored(rule)
    assert moved.leaves[1:] == rule.leaves[1:]
    assert moved.leaves[0] != rule.leaves[0]
    assert moved.label == 0


def test_the_thresholds_of_a_range_in_any_depth_move_with_their_quantiles() -> None:
    rule = parse_rule("kind is missing or not (V14 not between -3 and -1.5) => 1 @ 0.7")
    health, trained, window = observed(rule, 2.2)
    moved = health.reanchored(rule)
    missing, between = moved.leaves
    assert missing == rule.leaves[0]
    assert isinstance(between, Between)
    assert between.low < -3
    assert between.low < between.high < -1.5
    assert moved.confidence == 0.7
    assert moved.fires(window).mean() == pytest.approx(trained, abs=0.01)


@pytest.mark.parametrize("value", ["-100", "100"])
def test_a_threshold_beyond_all_training_values_stays(value: str) -> None:
    rule = parse_rule(f"V14 < {value} => 1")
    assert observed(rule, 2.2)[0].reanchored(rule) == rule


def test_a_rule_stays_while_no_value_was_seen() -> None:
    health = RuleHealth(calibrate_rules([ARTICLE], [rows(np.random.default_rng(0), 500)], 100))
    assert health.reanchored(ARTICLE) == ARTICLE
    health.observe({"V14": np.full(5, np.nan), "kind": np.full(5, "web")})
    assert health.reanchored(ARTICLE) == ARTICLE


def test_a_rule_that_was_not_calibrated_is_refused() -> None:
    health, _, _ = observed(ARTICLE, 0.0)
    with pytest.raises(RuleError, match=r"'V14 > 3.0 => 1' was not calibrated; calibrated: V14 <"):
        health.reanchored(parse_rule("V14 > 3 => 1"))


def test_only_the_window_is_kept() -> None:
    health, _, _ = observed(ARTICLE, 0.0, batches=25)
    assert sum(len(batch) for batch in health._values["V14"]) == 1_000


def test_an_empty_batch_changes_nothing() -> None:
    health, _, _ = observed(ARTICLE, 2.2)
    before = health.stale()
    health.observe({"V14": np.empty(0), "kind": np.empty(0, dtype=object)})
    assert health.stale() == before
    RuleHealth([]).observe({"V14": np.zeros(3)})


def test_the_blocks_that_training_comes_in_make_no_difference() -> None:
    whole = rows(np.random.default_rng(0), 1_050)

    def blocks(*places: int) -> Iterator[dict[str, np.ndarray]]:
        parts = {name: np.split(values, places) for name, values in whole.items()}
        for number in range(len(places) + 1):
            yield {name: split[number] for name, split in parts.items()}

    (once,), (often,) = (calibrate_rules([ARTICLE], blocks(*at), 100) for at in ([], [3, 150, 990]))
    assert once == often
    assert once.batches == 10


def test_a_stale_rule_says_what_happened() -> None:
    (stale,) = observed(ARTICLE, 2.2)[0].stale()
    assert "fires on" in str(stale)
    assert "of the last 1,000 rows" in str(stale)


@given(
    operator=st.sampled_from(["<", "<=", ">", ">="]),
    training=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40),
    window=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40),
    value=st.floats(-1e6, 1e6),
    kind=st.sampled_from([np.float32, np.float64]),
)
def test_the_reanchored_rate_is_the_nearest_that_the_windows_values_allow(
    operator: str, training: list[float], window: list[float], value: float, kind: type
) -> None:
    rule = parse_rule(f"x {operator} {value!r} => 1")
    (known,) = calibrate_rules([rule], [{"x": np.array(training)}], 10)
    health = RuleHealth([known])
    batch = {"x": np.array(window, dtype=kind)}
    health.observe(batch)
    moved = health.reanchored(rule)
    if known.quantiles[0] in (0.0, 1.0):
        assert moved == rule
        return
    values = np.sort(window)
    steps = np.flatnonzero(np.diff(values) > 0) + 1
    rates = np.array([0, *steps, len(values)]) / len(values)
    if operator in (">", ">="):
        rates = 1 - rates
    rate = float(moved.fires(batch).mean())
    assert abs(rate - known.rate) <= np.abs(rates - known.rate).min() + 1e-9


def test_values_too_large_for_float32_get_a_threshold_too() -> None:
    rule = parse_rule("x < 5e299 => 1")
    values = np.linspace(0, 1e300, 100)
    health = RuleHealth(calibrate_rules([rule], [{"x": values}], 10))
    health.observe({"x": values * 2})
    assert health.reanchored(rule).fires({"x": values * 2}).sum() == rule.fires({"x": values}).sum()
