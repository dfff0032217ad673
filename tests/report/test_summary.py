"""One plain sentence: what healing did, and what deciding without a model would have given."""

from __future__ import annotations

from selfheal_cli.config import Objective
from selfheal_cli.report.verdict import verdict
from selfheal_cli.scores import ClassScores, Scores

UNHEALED = Scores(tp=100, tn=400, fp=450, fn=50, roc_auc=0.6)
HEALED = Scores(tp=140, tn=300, fp=550, fn=10, roc_auc=0.7)
NOTHING = Scores(tp=0, tn=850, fp=0, fn=150)
EVERYTHING = Scores(tp=150, tn=0, fp=850, fn=0)
STAGES = {
    "unhealed": UNHEALED,
    "healed": HEALED,
    "nothing": NOTHING,
    "everything": EVERYTHING,
}


def test_figures_that_rose_helped_and_that_fell_hurt() -> None:
    told = verdict(STAGES, Objective())
    assert told["accuracy"] == "hurt"
    assert told["F1"] == "helped"
    assert "cost" not in str(told)
    assert told["sentence"].endswith("accuracy 0.850, above the healed model's 0.440.")


def test_a_healed_model_with_less_f1_than_flagging_everything_has_is_told_so() -> None:
    idle = Scores(tp=15, tn=800, fp=50, fn=135)
    told = verdict(STAGES | {"healed": idle}, Objective())["sentence"]
    assert told.endswith(
        "Flagging everything would have had F1 0.261, above the healed model's 0.140."
    )
    assert "Flagging everything" not in verdict(STAGES, Objective())["sentence"]


def test_with_costs_a_lower_cost_is_what_helped() -> None:
    told = verdict(STAGES, Objective(kind="cost", fn=100, fp=10))
    assert told["cost per 100 rows"] == "helped"
    assert "helped cost per 100 rows (950.0 to 650.0)" in told["sentence"]
    assert "accuracy 0.850, above" not in told["sentence"]
    assert told["sentence"].endswith("on 1,000 rows.")


def test_with_costs_a_blind_decision_that_is_cheaper_is_named() -> None:
    told = verdict(STAGES, Objective(kind="cost", fn=10_000, fp=1))
    assert "Flagging everything would have cost 85.0 per 100 rows" in told["sentence"]


def test_without_labels_nothing_is_said_of_healing() -> None:
    none = Scores(0, 0, 0, 0)
    assert "No label is known" in verdict(STAGES | {"healed": none}, Objective())["sentence"]


def test_of_several_classes_the_commonest_is_the_blind_decision() -> None:
    stages = {
        "unhealed": ClassScores(((30, 20, 0), (0, 30, 0), (20, 0, 0))),
        "healed": ClassScores(((20, 30, 0), (0, 10, 20), (0, 0, 20))),
        "nothing": ClassScores(((60, 0, 0), (30, 0, 0), (10, 0, 0))),
    }
    sentence = verdict(stages, Objective())["sentence"]
    assert "Always saying the commonest class would have had accuracy 0.600" in sentence
