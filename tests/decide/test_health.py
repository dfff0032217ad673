"""Rolling means of the heals against the first heal."""

from __future__ import annotations

from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal_cli.config import Policy
from selfheal_cli.decide import Health
from selfheal_cli.scores import Scores

GOOD = Scores(tp=40, tn=50, fp=5, fn=5)
BAD_F1 = Scores(tp=5, tn=85, fp=5, fn=5)  # as accurate as GOOD
BAD_ACCURACY = Scores(tp=80, tn=0, fp=15, fn=5)  # its F1 is no worse than GOOD's
COUNTS = st.builds(Scores, *[st.integers(0, 40)] * 4)


def told(policy: Policy, *heals: Scores) -> list[str | None]:
    """What each heal leads to."""
    health = Health(policy)
    return [health.observe(heal) for heal in heals]


def test_a_fall_of_f1_is_told_with_its_figures() -> None:
    policy = Policy(health_min_heals=2, health_window=2, rollback_f1_drop=0.08)
    assert told(policy, GOOD, BAD_F1, BAD_F1) == [
        None,
        "mean F1 of the last 2 heals 0.694 is more than 0.08 below the first heal's 0.889",
        "mean F1 of the last 2 heals 0.500 is more than 0.08 below the first heal's 0.889",
    ]


def test_a_fall_of_accuracy_is_told_where_f1_did_not_fall() -> None:
    policy = Policy(health_min_heals=2, health_window=5, rollback_acc_drop=0.04)
    assert told(policy, GOOD, BAD_ACCURACY) == [
        None,
        "mean accuracy of the last 2 heals 0.850 is more than 0.04 below the first heal's 0.900",
    ]


def test_nothing_is_told_before_enough_heals() -> None:
    policy = Policy(health_min_heals=4, health_window=5)
    reasons = told(policy, GOOD, *[BAD_F1] * 4)
    assert [reason is None for reason in reasons] == [True, True, True, False, False]


def test_a_window_shorter_than_the_heals_to_wait_for_is_enough() -> None:
    policy = Policy(health_min_heals=3, health_window=1)
    reasons = told(policy, GOOD, BAD_F1, BAD_F1, GOOD)
    assert [reason is None for reason in reasons] == [True, True, False, True]


def test_old_heals_leave_the_window() -> None:
    policy = Policy(health_min_heals=1, health_window=2)
    reasons = told(policy, GOOD, BAD_F1, GOOD, GOOD)
    assert [reason is None for reason in reasons] == [True, False, False, True]


def test_the_first_heal_stays_the_baseline_though_it_left_the_window() -> None:
    policy = Policy(health_min_heals=1, health_window=1)
    assert told(policy, BAD_F1, GOOD, BAD_F1) == [None, None, None]


def test_a_fall_of_just_the_drop_is_not_told() -> None:
    policy = Policy(health_min_heals=1, health_window=1, rollback_f1_drop=0.0)
    assert told(policy, GOOD, GOOD) == [None, None]
    allowed = Policy(health_min_heals=1, health_window=1, rollback_f1_drop=1.0)
    assert told(allowed, GOOD, BAD_F1) == [None, None]


@given(
    heals=st.lists(COUNTS, min_size=1, max_size=12),
    window=st.integers(1, 6),
    least=st.integers(1, 6),
    f1_drop=st.floats(0, 0.5),
    accuracy_drop=st.floats(0, 0.5),
)
def test_a_rollback_is_told_when_a_mean_of_the_window_is_too_low(
    heals: list[Scores], window: int, least: int, f1_drop: float, accuracy_drop: float
) -> None:
    policy = Policy(
        health_window=window,
        health_min_heals=least,
        rollback_f1_drop=f1_drop,
        rollback_acc_drop=accuracy_drop,
    )
    for count, reason in enumerate(told(policy, *heals), 1):
        last = heals[:count][-window:]
        fallen = (
            fmean(heal.f1 for heal in last) < heals[0].f1 - f1_drop
            or fmean(heal.accuracy for heal in last) < heals[0].accuracy - accuracy_drop
        )
        assert (reason is not None) == (count >= least and fallen)


@pytest.mark.parametrize("drop", ["rollback_f1_drop", "rollback_acc_drop"])
def test_each_drop_can_be_switched_off_by_one(drop: str) -> None:
    policy = Policy(health_min_heals=1, rollback_f1_drop=1.0, rollback_acc_drop=1.0)
    worst = Scores(tp=0, tn=0, fp=50, fn=50)
    assert told(policy, GOOD, worst) == [None, None]
    assert told(policy.model_copy(update={drop: 0.2}), GOOD, worst)[1] is not None
