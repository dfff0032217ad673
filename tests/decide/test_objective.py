"""From which probability on a row is flagged: what the objective asks for, without labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal_cli.config import Objective
from selfheal_cli.decide import RECENT, parse_objective, threshold_for
from selfheal_cli.errors import ConfigurationError

F1 = Objective(kind="f1")
PROBABILITIES = st.lists(
    st.floats(0, 1, width=32) | st.sampled_from([0.1, 0.25, 0.5]), min_size=1, max_size=30
).map(lambda values: np.array(values, dtype=np.float32))
COSTS = st.floats(1e-3, 1e6)


def expected_f1(probabilities: np.ndarray, flagged: np.ndarray) -> float:
    """F1 to be expected of flagging these rows, if the probabilities are right."""
    p = probabilities.astype(np.float64)
    return float(2 * p[flagged].sum() / max(flagged.sum() + p.sum(), 1e-300))


@pytest.mark.parametrize("text", ["accuracy", "f1", "cost:5000,15", "cost:0.5,2"])
def test_an_objective_reads_as_it_is_written(text: str) -> None:
    assert str(parse_objective(text)) == text


def test_costs_are_those_of_a_miss_and_of_a_false_alarm() -> None:
    objective = parse_objective("cost:5000,15")
    assert (objective.kind, objective.fn, objective.fp) == ("cost", 5000.0, 15.0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "auc",
        "F1",
        "accuracy:",
        "f1:1,2",
        "accuracy:1,2",
        "cost",
        "cost:",
        "cost:5",
        "cost:1,2,3",
        "COST:1,2",
    ],
)
def test_another_text_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_objective(text)
    assert str(caught.value) == (
        f"--objective {text!r}: 'accuracy', 'f1' or 'cost:FN,FP' is allowed, such as "
        "cost:5000,15 where a missed positive costs 5000 and a false alarm 15"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cost:a,1", "fn = 'a': input should be a valid number"),
        ("cost:,1", "fn = '': input should be a valid number"),
        ("cost:0,1", "fn = '0': input should be greater than 0"),
        ("cost:1,-2", "fp = '-2': input should be greater than 0"),
        ("cost:inf,1", "fn = 'inf': input should be a finite number"),
        ("cost:1,nan", "fp = 'nan': input should be a finite number"),
    ],
)
def test_a_cost_that_is_none_is_refused_with_its_value(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_objective(text)
    assert str(caught.value).startswith(f"--objective '{text}': {said}")


@given(probabilities=PROBABILITIES)
def test_accuracy_decides_at_one_half(probabilities: np.ndarray) -> None:
    assert threshold_for(Objective(), probabilities) == 0.5


@given(probabilities=PROBABILITIES, fn=COSTS, fp=COSTS)
def test_costs_decide_where_missing_and_alarming_cost_the_same(
    probabilities: np.ndarray, fn: float, fp: float
) -> None:
    threshold = threshold_for(Objective(kind="cost", fn=fn, fp=fp), probabilities)
    assert 0 < threshold < 1
    assert threshold * fn == pytest.approx((1 - threshold) * fp)


@given(probabilities=PROBABILITIES)
def test_no_cut_gives_a_higher_expected_f1(probabilities: np.ndarray) -> None:
    threshold = threshold_for(F1, probabilities)
    at_threshold = expected_f1(probabilities, probabilities >= threshold)
    cuts = [expected_f1(probabilities, probabilities >= cut) for cut in probabilities]
    assert at_threshold == pytest.approx(max(cuts), abs=1e-12)


@given(values=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=8))
def test_no_set_of_rows_gives_a_higher_expected_f1(values: list[float]) -> None:
    probabilities = np.array(values, dtype=np.float32)
    threshold = threshold_for(F1, probabilities)
    at_threshold = expected_f1(probabilities, probabilities >= threshold)
    sets = np.array(np.meshgrid(*[[False, True]] * len(values))).reshape(len(values), -1).T
    assert at_threshold >= max(expected_f1(probabilities, flagged) for flagged in sets) - 1e-12


@given(probabilities=PROBABILITIES, seed=st.integers(0, 100))
def test_the_order_of_the_rows_has_no_say(probabilities: np.ndarray, seed: int) -> None:
    shuffled = np.random.default_rng(seed).permutation(probabilities)
    flagged, again = (probabilities >= threshold_for(F1, one) for one in (probabilities, shuffled))
    assert expected_f1(probabilities, flagged) == pytest.approx(
        expected_f1(probabilities, again), abs=1e-12
    )


def test_only_recent_rows_have_a_say() -> None:
    draw = np.random.default_rng(0)
    recent = draw.beta(1, 8, RECENT).astype(np.float32)
    old = draw.random(500).astype(np.float32)
    assert threshold_for(F1, np.concatenate([old, recent])) == threshold_for(F1, recent)
    assert threshold_for(F1, np.concatenate([recent, old])) != threshold_for(F1, recent)


def test_rows_are_not_changed() -> None:
    probabilities = np.array([0.2, 0.9, 0.1], dtype=np.float32)
    threshold_for(F1, probabilities)
    assert probabilities.tolist() == np.array([0.2, 0.9, 0.1], dtype=np.float32).tolist()


@pytest.mark.parametrize("kind", ["accuracy", "f1"])
def test_without_rows_it_is_one_half(kind: str) -> None:
    objective = Objective.model_validate({"kind": kind})
    assert threshold_for(objective, np.empty(0, dtype=np.float32)) == 0.5


def test_three_classes_need_no_threshold() -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(3), 50).astype(np.float32)
    assert threshold_for(F1, probabilities) == 0.5
