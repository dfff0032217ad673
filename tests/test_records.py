"""What the frozen records say of themselves."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    cohen_kappa_score,
    f1_score,
    precision_score,
    recall_score,
)

from selfheal_cli.records import AliasMove, Batch, Phase, Rows, VersionRecord
from selfheal_cli.scores import ClassScores, Scores, scores_from

if TYPE_CHECKING:
    from selfheal_cli.scores import AnyScores

SHARE = st.none() | st.floats(0, 1)
SCORES = st.builds(
    Scores,
    *[st.integers(0, 50)] * 4,
    roc_auc=SHARE,
    pr_auc=SHARE,
    log_loss=SHARE,
    ece=SHARE,
)
CONFUSIONS = st.integers(3, 6).flatmap(
    lambda classes: st.tuples(*[st.tuples(*[st.integers(0, 9)] * classes)] * classes)
)
CLASS_SCORES = st.builds(ClassScores, CONFUSIONS, roc_auc=SHARE, log_loss=SHARE, ece=SHARE)
DERIVED = {"accuracy", "f1", "precision", "recall", "kappa"}
TAGS = {
    "selfheal.sha256": "ab" * 32,
    "selfheal.base": "m-1",
    "selfheal.run_id": "r-1",
    "selfheal.eval_rows": "100",
}


@given(scores=SCORES)
def test_figures_equal_scikit_learn(scores: Scores) -> None:
    truth = np.repeat([1, 0, 0, 1], [scores.tp, scores.tn, scores.fp, scores.fn])
    answer = np.repeat([1, 0, 1, 0], [scores.tp, scores.tn, scores.fp, scores.fn])
    assert scores.rows == len(truth)
    if not len(truth):
        assert (scores.accuracy, scores.f1) == (0.0, 0.0)
        return
    assert scores.accuracy == pytest.approx(accuracy_score(truth, answer))
    for figure, expected in (
        (scores.precision, precision_score(truth, answer, zero_division=0)),
        (scores.recall, recall_score(truth, answer, zero_division=0)),
        (scores.f1, f1_score(truth, answer, zero_division=0)),
    ):
        assert figure == pytest.approx(expected, abs=1e-6)
    assert scores.kappa == pytest.approx(kappa_of(truth, answer))


def kappa_of(truth: np.ndarray[Any, Any], answer: np.ndarray[Any, Any]) -> float:
    """Scikit-learn's kappa, which is undefined where one class is all there is."""
    if len(set(truth) | set(answer)) == 1:
        return 0.0
    return float(cohen_kappa_score(truth, answer))


@given(scores=CLASS_SCORES)
def test_figures_of_many_classes_equal_scikit_learn(scores: ClassScores) -> None:
    table = np.array(scores.confusion)
    truth, answer = (np.repeat(axis.ravel(), table.ravel()) for axis in np.indices(table.shape))
    assert scores.rows == len(truth)
    if not len(truth):
        assert {scores.figures()[name] for name in DERIVED} == {0.0}
        return
    assert scores.accuracy == pytest.approx(accuracy_score(truth, answer))
    for figure, scorer in (
        (scores.precision, precision_score),
        (scores.recall, recall_score),
        (scores.f1, f1_score),
    ):
        expected = scorer(truth, answer, average="macro", zero_division=0)
        assert figure == pytest.approx(expected, abs=1e-6)
    assert scores.kappa == pytest.approx(kappa_of(truth, answer))


@given(scores=SCORES | CLASS_SCORES)
def test_scores_of_either_kind_come_back_from_json(scores: AnyScores) -> None:
    record = json.loads(json.dumps(scores.as_dict(), allow_nan=False))
    assert record == scores.as_dict()
    assert scores_from(record) == scores
    assert record["rows"] == scores.rows
    assert (record["f1"], record["kappa"]) == (scores.f1, scores.kappa)
    assert ("tp" in record, "confusion" in record) == (
        isinstance(scores, Scores),
        isinstance(scores, ClassScores),
    )


def test_scores_written_before_there_was_log_loss_are_read() -> None:
    record = {"tp": 1, "tn": 2, "fp": 3, "fn": 4, "roc_auc": 0.5, "pr_auc": None, "rows": 10}
    assert scores_from({**record, "accuracy": 0.3}) == Scores(1, 2, 3, 4, roc_auc=0.5)


def test_undefined_areas_are_left_out_of_the_figures() -> None:
    assert set(Scores(1, 2, 3, 4).figures()) == DERIVED
    assert set(ClassScores(((1, 2, 0), (0, 1, 0), (0, 0, 1))).figures()) == DERIVED
    ranked = Scores(1, 2, 3, 4, roc_auc=0.0, pr_auc=0.25)
    assert (ranked.figures()["roc_auc"], ranked.figures()["pr_auc"]) == (0.0, 0.25)


def test_figures_come_in_one_order() -> None:
    head = ["accuracy", "f1", "precision", "recall", "roc_auc"]
    tail = ["log_loss", "ece", "kappa"]
    assert list(Scores(1, 2, 3, 4, 0.5, 0.5, 0.5, 0.5).figures()) == [*head, "pr_auc", *tail]
    assert list(ClassScores(((1,),), 0.5, 0.5, 0.5).figures()) == [*head, *tail]


def test_errors_cost_what_they_are_said_to_per_hundred_rows() -> None:
    assert Scores(tp=5, tn=30, fp=10, fn=5).cost(fn=20, fp=1) == 100 * (5 * 20 + 10) / 50
    assert Scores(0, 0, 0, 0).cost(fn=20, fp=1) == 0.0


def test_rows_count_their_labels() -> None:
    rows = Rows(np.zeros((3, 2), dtype=np.float32), np.zeros(3, dtype=np.int8), {})
    assert len(rows) == 3


def test_a_version_reads_its_tags() -> None:
    version = VersionRecord("fraud", 3, Phase.POST_HEAL, 1, {"f1": 0.4}, TAGS, 1_700_000_000_000)
    assert (version.f1, version.sha256, version.base) == (0.4, "ab" * 32, "m-1")
    assert (version.run_id, version.eval_rows, version.aliases) == ("r-1", 100, ())
    assert dataclasses.replace(version, metrics={}).f1 is None


def test_a_version_and_a_move_are_json() -> None:
    version = VersionRecord("fraud", 3, Phase.POST_HEAL, 1, {"f1": 0.4}, TAGS, 5, ("champion",))
    record = json.loads(json.dumps(version.as_dict()))
    assert (record["phase"], record["aliases"], record["tags"]) == ("post-heal", ["champion"], TAGS)
    move = AliasMove("fraud", "champion", None, 2, "ops", "2026-01-01T00:00:00+00:00", "better")
    assert AliasMove(**json.loads(json.dumps(move.as_dict()))) == move


def test_records_cannot_be_changed() -> None:
    rows = Rows(np.zeros((1, 1), dtype=np.float32), np.zeros(1, dtype=np.int8), {})
    for record, name in (
        (Scores(1, 2, 3, 4), "tp"),
        (ClassScores(((1,),)), "confusion"),
        (Batch(1, rows), "index"),
    ):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(record, name, 9)
