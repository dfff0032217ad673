"""What must hold of each monitor: quiet without drift, loud with its own, the same each time."""

from __future__ import annotations

import math

import numpy as np
import pytest

from selfheal_cli.drift.kinds import KINDS
from selfheal_cli.drift.monitor import BatchView, Level
from tests.drift.streams import batch, levels, readings

DRIFTS = {  # each monitor with the drift that it is there for
    "fidi": {"a": 1.5},
    "fidi:on=b": {"b": 3.0},
    "fidi:weights=equal": {"b": 4.0},
    "adwin": {"a": 1.5},
    "adwin:on=scores": {"scores": 0.3},
    "adwin:on=errors": {"wrong": 0.5},
    "kswin": {"scores": 0.3},
    "kswin:on=errors": {"wrong": 0.5},
    "page-hinkley": {"b": 3.0},
    "page-hinkley:on=errors": {"wrong": 0.5},
    "psi": {"a": 1.5},
    "psi:on=kind": {"new": 0.5},
    "psi:on=scores": {"scores": 0.3},
    "two-sample": {"a": 1.5},
    "two-sample:on=kind": {"new": 0.5},
    "prediction-rate": {"flagged": 0.5},
    "missing": {"missing": 0.4},
    "category": {"new": 0.5},
    "conflicts": {"conflicts": 20},
}
# errors that fall, values that are there again: nothing to be alarmed by
GOOD_NEWS = {"adwin:on=errors": {"wrong": 0.0}, "page-hinkley:on=errors": {"wrong": 0.0}}


def test_every_kind_is_covered() -> None:
    assert {text.partition(":")[0] for text in DRIFTS} == set(KINDS)


@pytest.mark.parametrize("text", DRIFTS)
def test_without_drift_it_stays_quiet(text: str) -> None:
    calm = [batch(seed) for seed in range(60)]
    assert Level.ALARM not in levels(text, *calm)


@pytest.mark.parametrize("text", DRIFTS)
def test_many_rows_alone_are_no_alarm(text: str) -> None:
    """A shift of a fiftieth of a standard deviation in 20,000 rows is significant, and nothing."""
    slight = {"a": 0.02, "b": 0.04, "scores": 0.002, "wrong": 0.052, "flagged": 0.104}
    large = [batch(seed, 20_000, **slight) for seed in range(12)]
    assert set(levels(text, *large)) == {Level.QUIET}


@pytest.mark.parametrize("text", DRIFTS)
def test_few_rows_alone_are_no_alarm(text: str) -> None:
    """A batch of two rows may lie anywhere."""
    tiny = [batch(seed, 2) for seed in range(40)]
    assert Level.ALARM not in levels(text, *tiny)


@pytest.mark.parametrize("text", DRIFTS)
def test_its_drift_is_an_alarm_within_fifteen_batches(text: str) -> None:
    calm = [batch(seed) for seed in range(20)]
    drifted = [batch(seed, **DRIFTS[text]) for seed in range(100, 115)]
    assert Level.ALARM in levels(text, *calm, *drifted)[20:]


@pytest.mark.parametrize("text", [text for text in DRIFTS if "errors" not in text])
def test_drift_that_is_there_from_the_first_batch_on_is_seen(text: str) -> None:
    assert Level.ALARM in levels(text, *[batch(seed, **DRIFTS[text]) for seed in range(15)])


@pytest.mark.parametrize("text", GOOD_NEWS)
def test_fewer_errors_are_no_alarm(text: str) -> None:
    bad = [batch(seed, wrong=0.5) for seed in range(20)]
    good = [batch(seed, **GOOD_NEWS[text]) for seed in range(100, 120)]
    assert Level.ALARM not in levels(text, *bad, *good)


@pytest.mark.parametrize("text", DRIFTS)
def test_the_same_batches_give_the_same_readings_and_finite_ones(text: str) -> None:
    stream = [batch(seed, **(DRIFTS[text] if seed > 15 else {})) for seed in range(30)]
    first, second = readings(text, *stream), readings(text, *stream)
    assert first == second
    assert all(math.isfinite(one.value) and 0 <= one.p <= 1 for one in first)


@pytest.mark.parametrize("text", DRIFTS)
def test_a_batch_without_a_value_changes_nothing_and_breaks_nothing(text: str) -> None:
    empty = BatchView(
        {"a": np.array([np.nan]), "b": np.array([np.nan]), "flat": np.array([np.nan]),
         "kind": np.array([None], dtype=object)},
        np.array([0.2], dtype=np.float32), np.zeros(1, dtype=np.int8), 0, np.empty(0),
    )  # fmt: skip
    assert levels(text, empty) == [Level.QUIET]


@pytest.mark.parametrize("text", [text for text in DRIFTS if KINDS[text.partition(":")[0]].reads])
def test_an_alarm_names_what_moved(text: str) -> None:
    drift = DRIFTS[text]
    calm, drifted = [batch(seed) for seed in range(20)], [
        batch(seed, **drift) for seed in range(100, 115)
    ]  # fmt: skip
    loud = [one for one in readings(text, *calm, *drifted) if one.level is Level.ALARM]
    (name,) = drift
    expected = {"wrong": "errors", "new": "kind", "missing": "b"}.get(name, name)
    assert {one.features[:1] for one in loud} == {(expected,)}


@pytest.mark.parametrize("text", ["psi", "two-sample", "missing", "category", "prediction-rate"])
def test_the_order_of_the_rows_changes_nothing(text: str) -> None:
    views = [batch(seed, a=0.5, new=0.1, missing=0.1) for seed in range(5)]
    turned = [
        BatchView(
            {name: values[::-1] for name, values in view.columns.items()},
            view.scores[::-1], view.classes[::-1], view.conflicts, view.errors[::-1],
        )
        for view in views
    ]  # fmt: skip
    assert readings(text, *views) == readings(text, *turned)


def test_an_alarm_ends_when_the_drift_has_left_the_window() -> None:
    drifted = [batch(seed, a=1.5) for seed in range(5)]
    calm = [batch(seed) for seed in range(100, 115)]
    assert levels("psi", *drifted, *calm)[4] is Level.ALARM
    assert levels("psi", *drifted, *calm)[-1] is Level.QUIET
