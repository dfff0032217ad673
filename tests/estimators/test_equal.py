"""A wrapped model of another library gives its own probabilities, whichever way rows come."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    VotingClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    TunedThresholdClassifierCV,
)
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from selfheal_cli.decide import threshold_for
from selfheal_cli.estimators.taking import take
from selfheal_cli.metrics import classify
from selfheal_cli.model.network import SelfHealingNetwork
from selfheal_cli.pipeline.prepare.estimators import WrappedEstimator, described
from selfheal_cli.pipeline.prepare.objective import by_the_model
from selfheal_cli.pipeline.prepare.wrapped import Wrapped
from selfheal_cli.sources.encoding import Encoding
from selfheal_cli.sources.fit import side_columns
from tests.estimators.fitted import NUMBERS, pipeline, table

TRAINED = table(400)
X, Y = TRAINED.drop(columns="y"), TRAINED["y"]
WHOLE = X[NUMBERS].fillna(0.0)
BY_CATEGORY = X.assign(country=X["country"].astype("category"))
FORESTS = {
    "RandomForest": RandomForestClassifier(5, n_jobs=-1, random_state=0),
    "DecisionTree": DecisionTreeClassifier(random_state=0),  # 0 and 1 alone
    "CalibratedClassifierCV": CalibratedClassifierCV(SVC()),
    "VotingClassifier": VotingClassifier(
        [("f", RandomForestClassifier(3, random_state=0)), ("l", LogisticRegression())],
        voting="soft",
    ),
    "GridSearchCV": GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}),
}


def is_equal_every_way(taken: WrappedEstimator, model: Any, frame: pd.DataFrame) -> bool:
    """From CSV, from JSON and from a table, in batches of 1, 7 and 100."""
    network = SelfHealingNetwork.around_scores(taken.encoding.width, taken.spec.outputs)
    for rows in (1, 7, 100):
        part = frame[:rows]
        theirs = model.predict_proba(part).astype(np.float32)
        plain = [[None if pd.isna(one) else one for one in row] for row in part.values.tolist()]
        for given in (
            pd.read_csv(io.StringIO(part.to_csv(index=False))),
            pd.DataFrame(json.loads(json.dumps(plain)), columns=list(part.columns)),
            part,
        ):
            ours = network.predict(taken.encoding.encode(taken.encoding.raw(given)))
            if not np.array_equal(ours, theirs if ours.ndim == 2 else theirs[:, 1]):
                return False
    return True


def test_a_pipeline_with_texts_truth_values_and_gaps() -> None:
    model = pipeline(TRAINED)
    taken = described(take(model), X, None, None)
    assert is_equal_every_way(taken, model, X)
    assert (taken.spec.takes, taken.labels) == ("table", ("0", "1"))


def test_histogram_trees_with_pandas_categories_and_gaps() -> None:
    model = HistGradientBoostingClassifier(max_iter=5, categorical_features="from_dtype")
    model.fit(BY_CATEGORY, Y)
    assert is_equal_every_way(described(take(model), BY_CATEGORY, None, None), model, BY_CATEGORY)


@pytest.mark.parametrize("name", FORESTS)
def test_a_model_of_numbers_is_asked_by_an_array(name: str) -> None:
    model = FORESTS[name].fit(WHOLE, Y)
    taken = described(take(model), WHOLE, None, None)
    assert is_equal_every_way(taken, model, WHOLE)
    assert taken.spec.takes == "matrix"


@pytest.mark.parametrize("classes", [2, 3])
def test_lightgbm_with_categories_is_stored_as_its_text(classes: int) -> None:
    lightgbm = pytest.importorskip("lightgbm")
    target = table(400, classes=classes)["y"]
    model = lightgbm.LGBMClassifier(n_estimators=3, verbose=-1, n_jobs=1).fit(BY_CATEGORY, target)
    taken = described(take(model), BY_CATEGORY, None, None)
    assert is_equal_every_way(taken, model, BY_CATEGORY)
    assert taken.spec.format == "lightgbm" and len(taken.labels) == classes
    text = described(take(lightgbm.Booster(model_str=taken.fitted.data.decode())), X, None, None)
    assert np.array_equal(text.own, taken.own)


def test_rows_tell_which_columns_are_categories_where_lightgbm_does_not() -> None:
    lightgbm = pytest.importorskip("lightgbm")
    frame = BY_CATEGORY.assign(zero=0, bank=pd.Categorical(["A"] * len(X)))
    model = lightgbm.LGBMClassifier(n_estimators=3, verbose=-1, n_jobs=1).fit(frame, Y)
    assert is_equal_every_way(described(take(model), frame, None, None), model, frame)


THRESHOLDS = {
    "of class 1": (FixedThresholdClassifier, {"threshold": 0.2}, 0.2, 0.2),
    "of class 0": (FixedThresholdClassifier, {"threshold": 0.3, "pos_label": 0}, 0.7, 0.7),
    "of a logit": (
        FixedThresholdClassifier,
        {"threshold": 1.0, "response_method": "decision_function"},
        0.70,
        0.76,
    ),
    "tuned": (TunedThresholdClassifierCV, {"scoring": "recall", "cv": 2}, 0.0, 0.1),
    "none": (FixedThresholdClassifier, {}, 0.5, 0.5),
}


@pytest.mark.parametrize("of", THRESHOLDS)
def test_a_threshold_that_its_owner_chose_is_what_versions_decide_by(of: str) -> None:
    kind, how, low, high = THRESHOLDS[of]
    model = kind(LogisticRegression(), **how).fit(WHOLE, Y)
    taken = described(take(model), WHOLE, None, None)
    objective = by_the_model(taken.spec)
    limit = threshold_for(objective, taken.own)
    assert low <= round(limit, 9) <= high
    assert np.array_equal(classify(taken.own[:, 0], limit), model.predict(WHOLE))
    assert (objective.kind == "accuracy") == (of == "none") == (taken.remarks == ())
    if of != "none":
        assert taken.remarks[0].startswith("It decides for '1' from a probability of ")


def test_decisions_that_no_threshold_gives_are_told_of() -> None:
    model = LogisticRegression().fit(WHOLE, Y)
    odd = model.predict(WHOLE)[::-1]
    taken = described(replace(take(model), decide=lambda _: odd), WHOLE, None, None)
    others = int((odd != (taken.own[:, 0] >= 0.5)).sum())
    assert f"decides {others} of 400 rows otherwise" in taken.remarks[0]
    assert taken.spec.decides_from == 0.5


def test_names_of_classes_are_the_models_own() -> None:
    model = LogisticRegression().fit(WHOLE, Y.map({0: "no", 1: "yes"}))
    assert described(take(model), WHOLE, None, None).labels == ("no", "yes")


def test_columns_go_by_their_names_in_any_order() -> None:
    model = LogisticRegression().fit(WHOLE, Y)
    taken = described(take(model), WHOLE[NUMBERS[::-1]].assign(other=1), None, None)
    assert taken.spec.names == tuple(NUMBERS)
    assert is_equal_every_way(taken, model, WHOLE)


def test_a_run_whose_rows_have_other_categories_takes_them() -> None:
    model = pipeline(TRAINED)
    taken = described(take(model), X, None, None)
    network = SelfHealingNetwork.around_scores(taken.encoding.width, 1)
    wrapped = Wrapped(network, taken.spec.names, taken.labels, None, taken.encoding)  # type: ignore[arg-type]
    other = X.assign(country=X["country"].fillna("FR"))
    encoding = Encoding(columns=side_columns(other, taken.spec), contract=2, model=taken.spec)
    assert encoding.width == taken.encoding.width + 1
    ours = wrapped.network_for(encoding).predict(encoding.encode(encoding.raw(other)))
    assert np.array_equal(ours, model.predict_proba(other)[:, 1].astype(np.float32))


def test_a_row_that_the_model_has_no_answer_to_is_nan_and_the_others_have_theirs() -> None:
    model = LogisticRegression().fit(WHOLE, Y)
    taken = described(take(model), WHOLE, None, None)
    with_gap = WHOLE[:5].copy()
    with_gap.loc[2, "amount"] = np.nan
    ours = taken.encoding.encode(taken.encoding.raw(with_gap))[:, -1]
    assert np.isnan(ours).tolist() == [False, False, True, False, False]


def test_until_a_heal_0_and_1_stay_0_and_1_and_after_it_every_row_has_a_logit() -> None:
    model = FORESTS["DecisionTree"].fit(WHOLE, Y)
    taken = described(take(model), WHOLE, None, None)
    network = SelfHealingNetwork.around_scores(taken.encoding.width, 1)
    before = network.predict(taken.x)
    assert set(before) == {0.0, 1.0}
    weights = {name: value.clone() for name, value in network.adapter.state_dict().items()}
    weights["bias"] += 1.0
    after = network.with_adapter(weights).predict(taken.x)
    assert ((after > before) | (before == 1)).all() and ((after > 0) & (after < 1)).all()
