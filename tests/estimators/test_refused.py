"""What is no classifier that gives probabilities is refused in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.cluster import KMeans
from sklearn.ensemble import HistGradientBoostingClassifier, IsolationForest, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import SVC
from skops import io as sio

from selfheal_cli.errors import DataError, ModelError
from selfheal_cli.estimators.describing import changed_libraries
from selfheal_cli.estimators.scorer import keep
from selfheal_cli.estimators.taking import take
from selfheal_cli.pipeline.prepare.estimator_origin import EstimatorOrigin, read_estimator
from selfheal_cli.pipeline.prepare.estimators import described
from tests.estimators.fitted import NUMBERS, table

TRAINED = table(200)
X, Y = TRAINED[NUMBERS].fillna(0.0), TRAINED["y"]
TWO = np.column_stack([Y, Y])
REFUSED = {
    "not fitted": LogisticRegression(),
    "a regressor": LinearRegression().fit(X, Y),
    "gives labels": SVC().fit(X, Y),
    "is clustering": KMeans(2, n_init=1).fit(X),
    "outlier detection": IsolationForest(n_estimators=2).fit(X),
    "more than one target": RandomForestClassifier(2).fit(X, TWO),
    "no model that can be wrapped": {"a": 1},
}


class GivesNaN(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier with no answer to anything."""

    def fit(self, x: Any, _y: Any) -> GivesNaN:
        self.classes_, self.n_features_in_ = np.array([0, 1]), x.shape[1]
        return self

    def predict_proba(self, x: Any) -> Any:
        return np.full((len(x), 2), np.nan)


@pytest.mark.parametrize("why", REFUSED)
def test_an_object_is_refused_with_its_reason(why: str) -> None:
    with pytest.raises(ModelError, match=why):
        take(REFUSED[why])


def test_a_function_without_a_name_cannot_be_stored() -> None:
    model = make_pipeline(FunctionTransformer(lambda x: x), LogisticRegression()).fit(X, Y)
    with pytest.raises(ModelError, match="no lambdas"):
        described(take(model), X, None, None)


def test_probabilities_that_are_all_nan_are_refused() -> None:
    with pytest.raises(ModelError, match="NaN for all 200 rows"):
        described(take(GivesNaN().fit(X, Y)), X, None, None)


def test_columns_that_are_missing_or_too_many_are_refused() -> None:
    with pytest.raises(DataError, match="no column 'age'"):
        described(take(LogisticRegression().fit(X, Y)), X[["amount"]], None, None)
    without_names = take(LogisticRegression().fit(X.to_numpy(), Y))
    with pytest.raises(ModelError, match="takes 2 columns and there are 3"):
        described(without_names, X.assign(other=1), None, None)


def test_a_skops_file_names_the_types_to_trust(tmp_path: Path) -> None:
    path = tmp_path / "model.skops"
    sio.dump(HistGradientBoostingClassifier(max_iter=2).fit(X, Y), path)
    with pytest.raises(ModelError, match=r"--trust sklearn.ensemble._hist_grad\S+TreePredictor"):
        read_estimator(None, EstimatorOrigin(str(path)))


def test_a_pickle_is_not_read_unless_allowed(tmp_path: Path) -> None:
    import joblib

    path = tmp_path / "model.pkl"
    joblib.dump(LogisticRegression().fit(X, Y), path)
    with pytest.raises(ModelError, match="--allow-pickle"):
        read_estimator(None, EstimatorOrigin(str(path)))
    read = read_estimator(None, EstimatorOrigin(str(path), allow_pickle=True))
    assert read is not None
    assert described(read[0], X, None, None).spec.format == "skops"


def test_a_stored_type_of_no_library_runs_only_where_it_was_allowed() -> None:
    taken = described(take(GivesHalf().fit(X, Y)), X, None, None)
    spec = taken.spec.model_copy(update={"libraries": {"other": "1"}})
    with pytest.raises(ModelError, match="nobody has allowed"):
        keep(spec, taken.fitted.data, lambda name: False)
    untrusted = spec.model_copy(update={"types": ()})
    with pytest.raises(ModelError, match="not trusted when it was wrapped"):
        keep(untrusted, taken.fitted.data, lambda name: True)


class GivesHalf(GivesNaN):
    """A classifier of a module that is no library."""

    def predict_proba(self, x: Any) -> Any:
        first = np.linspace(0.2, 0.8, len(x))
        return np.column_stack([first, 1 - first])


def test_another_version_of_a_library_than_it_was_stored_with_is_said() -> None:
    spec = described(take(LogisticRegression().fit(X, Y)), X, None, None).spec
    assert changed_libraries(spec) == "" == changed_libraries(None)
    older = spec.model_copy(update={"libraries": {**spec.libraries, "scikit-learn": "1.2"}})
    assert "(scikit-learn 1.2, here " in changed_libraries(older)
