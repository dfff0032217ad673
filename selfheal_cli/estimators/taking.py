"""A fitted object of another library: whether it is a classifier, and the bytes to store of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from selfheal_cli.errors import ModelError, one_line
from selfheal_cli.estimators.loading import (
    booster_of_lightgbm,
    booster_of_xgboost,
    from_skops,
    library,
    model_of_catboost,
    parts,
    stored,
    transforming,
    unknown_types,
)
from selfheal_cli.estimators.pyfunc import opened, own_code
from selfheal_cli.estimators.signed import Signature

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfheal_cli.estimators.spec import Format, Kind

OTHERWISE = "regression, clustering, outlier detection and multi-output are not supported"
CALIBRATE = "wrap it in sklearn.calibration.CalibratedClassifierCV, fit that and wrap it here"
UNNAMED = re.compile(r"(Column_|f)?\d+")  # what libraries call columns that have no names


@dataclass(frozen=True, slots=True)
class FittedClassifier:
    """A classifier as its library has it, and the bytes that are stored of it.

    ``ask`` gives its own probabilities, (n,) or (n, K), of a table as in training. ``names`` are
    None where it was trained without; ``categories`` are those that its library keeps by column,
    ``kinds`` what its signature says of each. ``takes_array``: an array and no table.
    ``libraries`` are the packages that its owner wrote down for it, with their versions. ``decide``
    gives its own classes where they need not be the likeliest, ``thresholds`` what its owner set
    for them: probabilities of either class.
    """

    format: Format
    kind: str
    data: bytes
    ask: Callable[[Any], NDArray[Any]]
    width: int
    names: tuple[str, ...] | None
    classes: tuple[Any, ...] | None = None
    categories: dict[int, tuple[Any, ...]] | None = None
    types: tuple[str, ...] = ()
    model: Any = None
    unplaced: tuple[tuple[Any, ...], ...] = ()
    kinds: tuple[Kind, ...] | None = None
    takes_array: bool = False
    libraries: tuple[tuple[str, str], ...] = ()
    decide: Callable[[Any], NDArray[Any]] | None = None
    thresholds: tuple[float, ...] = ()

    def placed(self, texts: Sequence[bool]) -> FittedClassifier:
        """The same with its categories by column, where rows say which columns are ``texts``."""
        if self.categories is not None or not self.unplaced:
            return self
        places = [place for place, is_text in enumerate(texts) if is_text]
        if len(places) != len(self.unplaced):
            raise ModelError(
                f"the {self.kind} keeps the categories of {len(self.unplaced)} columns, and "
                f"{len(places)} columns hold texts: give rows as in training with --data"
            )
        return replace(self, categories=dict(zip(places, self.unplaced, strict=True)))


def take(model: Any) -> FittedClassifier:
    """Raises `ModelError` for what is no fitted classifier that gives probabilities."""
    place, name = type(model).__module__.partition(".")[0], type(model).__name__
    if place == "lightgbm":
        return _of_lightgbm(model, name)
    if place == "xgboost":
        return _of_xgboost(model, name)
    if place == "catboost":
        return _of_catboost(model, name)
    if not hasattr(model, "get_params"):
        raise ModelError(
            f"a {name} is no model that can be wrapped: a torch.nn.Module, a classifier of "
            "scikit-learn's, XGBoost's, LightGBM's or CatBoost's is needed"
        )
    return _of_sklearn(model, name)


def is_estimator(model: Any) -> bool:
    """Whether a live object is of one of these libraries, and holds no torch module, as those of
    skorch and pytorch-tabnet do.
    """
    place = type(model).__module__.partition(".")[0]
    if place in ("lightgbm", "xgboost", "catboost"):
        return True
    held = (getattr(model, name, None) for name in ("module_", "network"))
    is_network = any(hasattr(one, "named_parameters") for one in held)
    return hasattr(model, "get_params") and hasattr(model, "fit") and not is_network


def from_lightgbm_text(data: bytes) -> FittedClassifier:
    """A LightGBM text file; raises `ModelError`."""
    return _of_lightgbm(booster_of_lightgbm(data), "Booster")


def from_xgboost_file(data: bytes) -> FittedClassifier:
    """An XGBoost JSON or UBJSON file; raises `ModelError`."""
    return _of_xgboost(booster_of_xgboost(data), "Booster")


def from_catboost_file(data: bytes) -> FittedClassifier:
    """A CatBoost .cbm file; raises `ModelError`."""
    model = model_of_catboost(data)
    return _of_catboost(model, "CatBoostClassifier")


def from_pyfunc_folder(data: bytes, pins: Sequence[str]) -> FittedClassifier:
    """A packed folder of MLflow's whose code may run; ``pins`` are its requirements.

    Raises `ModelError`.
    """
    ask = opened(data)
    signed = Signature(ask.schema, ask.model.metadata.get_output_schema())
    return FittedClassifier(
        "pyfunc", "pyfunc", data, ask, signed.width, signed.names, signed.classes, None,
        own_code(data), kinds=signed.kinds, takes_array=signed.takes_array,
        libraries=tuple((name, version) for name, version in (one.split("==") for one in pins)),
    )  # fmt: skip


def _of_lightgbm(model: Any, name: str) -> FittedClassifier:
    booster = model
    if name != "Booster":
        _require_fitted(model, name)
        booster = model.booster_
    text = booster.model_to_string()
    objective = re.search(r"^objective=(.*)$", text, re.MULTILINE)
    _require_objective(
        name, objective[1] if objective else "", ("binary", "multiclass", "multiclassova")
    )
    names = booster.feature_name()
    ask = model.predict_proba if name != "Booster" else booster.predict
    return FittedClassifier(
        "lightgbm", name, text.encode(), ask, booster.num_feature(), _named(names),
        _classes(model), _lightgbm_categories(text, booster),
        unplaced=tuple(map(tuple, booster.pandas_categorical or ())),
    )  # fmt: skip


def _lightgbm_categories(text: str, booster: Any) -> dict[int, tuple[Any, ...]] | None:
    """Of pandas' categories LightGBM keeps the values, and not which columns they are of: None
    where its trees do not tell either.
    """
    kept = booster.pandas_categorical or []
    infos = (re.search(r"^feature_infos=(.*)$", text, re.MULTILINE) or ["", ""])[1].split()
    places = [place for place, info in enumerate(infos) if ":" in info and info[0] != "["]
    if len(kept) != len(places):
        # a column that no tree could use says nothing of its kind
        places += [place for place, info in enumerate(infos) if info == "none"]
    if len(kept) != len(places):
        return None
    return {place: tuple(values) for place, values in zip(sorted(places), kept, strict=False)}


def _of_xgboost(model: Any, name: str) -> FittedClassifier:
    booster = model
    if name != "Booster":
        _require_fitted(model, name)
        booster = model.get_booster()
    learner = json.loads(booster.save_config())["learner"]
    _require_objective(name, learner["objective"]["name"], ("binary:logistic", "multi:softprob"))
    if int(learner["learner_model_param"].get("num_target", 1)) > 1:
        raise ModelError(f"the {name} has more than one target: {OTHERWISE}")
    best = booster.attributes().get("best_iteration")
    if best is not None and "scikit_learn" in booster.attributes() | vars(model):
        booster = booster[: int(best) + 1]  # those that XGBClassifier asks
    types = booster.feature_types or []
    ask = model.predict_proba if name != "Booster" else _asking(booster)
    return FittedClassifier(
        "xgboost", name, bytes(booster.save_raw("ubj")), ask, booster.num_features(),
        _named(booster.feature_names), _classes(model), _xgboost_categories(booster, types),
    )  # fmt: skip


def _asking(booster: Any) -> Callable[[Any], NDArray[Any]]:
    """A Booster's own way with a table: as a DMatrix."""
    matrix = library("xgboost").DMatrix

    def ask(table: Any) -> Any:
        named = table if booster.feature_names else table.to_numpy()
        return booster.predict(matrix(named, enable_categorical=True))

    return ask


def _xgboost_categories(booster: Any, types: Sequence[str]) -> dict[int, tuple[Any, ...]]:
    if "c" not in types or not hasattr(booster, "get_categories"):
        return {}
    columns = booster.get_categories(export_to_arrow=True).to_arrow()
    return {
        place: tuple(values.to_pylist())
        for place, (_, values) in enumerate(columns)
        if values is not None
    }


def _of_catboost(model: Any, name: str) -> FittedClassifier:
    if not model.is_fitted():
        raise ModelError(f"the {name} is not fitted: call fit first")
    loss = str(model.get_all_params().get("loss_function", ""))
    _require_objective(name, loss, ("Logloss", "CrossEntropy", "MultiClass", "MultiClassOneVsAll"))
    with stored(b"", ".cbm") as path:
        model.save_model(path)
        data = _read(path)
    classifier = model_of_catboost(data)
    texts: dict[int, tuple[Any, ...]] = dict.fromkeys(model.get_cat_feature_indices(), ())
    return FittedClassifier(
        "catboost", name, data, classifier.predict_proba, len(model.feature_names_),
        _named(model.feature_names_), _classes(model), texts, decide=model.predict,
    )  # fmt: skip


def _of_sklearn(model: Any, name: str) -> FittedClassifier:
    if hasattr(model, "best_estimator_"):  # a search; what it searched through is not needed
        model = model.best_estimator_
        if type(model).__module__.partition(".")[0] in ("lightgbm", "xgboost", "catboost"):
            return take(model)
    _require_classifier(model, name)
    _require_fitted(model, name)
    if not hasattr(model, "predict_proba"):
        raise ModelError(f"the {name} gives labels and no probabilities: {CALIBRATE}")
    classes = getattr(model, "classes_", None)
    if classes is None:
        raise ModelError(f"the {name} tells no classes apart: {OTHERWISE}")
    if isinstance(classes, list) or getattr(classes, "ndim", 1) != 1:
        raise ModelError(f"the {name} has more than one target: {OTHERWISE}")
    return packed(model, name)


def take_transformer(model: Any) -> FittedClassifier:
    """What goes before a network: a fitted pipeline, or another object, of scikit-learn's that
    transforms rows. Raises `ModelError`.
    """
    name = type(model).__name__
    if not hasattr(model, "get_params") or not hasattr(model, "transform"):
        raise ModelError(
            f"a {name} transforms no rows: --preprocess takes a fitted pipeline of scikit-learn's "
            "whose last step is a transformer"
        )
    _require_fitted(model, name)
    return packed(model, name)


def packed(model: Any, name: str, names: tuple[str, ...] | None = None) -> FittedClassifier:
    """An object of scikit-learn's with its skops bytes; raises `ModelError` where it has none."""
    try:
        data = library("skops.io").dumps(model)
    except ModelError:
        raise
    except Exception as exc:  # what its types' own code raises
        raise ModelError(
            f"the {name} cannot be stored without a pickle ({one_line(exc)[:300]})"
        ) from exc
    known = getattr(model, "feature_names_in_", None)
    if known is not None:
        names = tuple(str(one) for one in known)
    ask = getattr(model, "predict_proba", None) or transforming(model)
    return FittedClassifier(
        "skops", name, data, ask, int(getattr(model, "n_features_in_", 0)), names,
        _classes(model), None, tuple(unknown_types(data)), model,
        decide=getattr(model, "predict", None), thresholds=_thresholds(model),
    )  # fmt: skip


def _thresholds(model: Any) -> tuple[float, ...]:
    """Those that scikit-learn's meta-estimators hold, and the same for the other class."""
    while hasattr(model, "steps"):
        model = model.steps[-1][1]
    held: Any = getattr(model, "best_threshold_", getattr(model, "threshold", None))
    named = ("TunedThresholdClassifierCV", "FixedThresholdClassifier")
    is_one = type(model).__name__ in named and isinstance(held, float | int)
    return (float(held), 1 - float(held)) if is_one else ()


def on_one_thread(fitted: FittedClassifier) -> FittedClassifier:
    """The same, whose parts ask no more than one thread; for an object that is nobody else's."""
    for one in parts(fitted.model):
        for setting in ("n_jobs", "thread_count"):
            if vars(one).get(setting) not in (None, 1):
                setattr(one, setting, 1)
    return replace(packed(fitted.model, fitted.kind, fitted.names), kind=fitted.kind)


def without_names(fitted: FittedClassifier) -> FittedClassifier | None:
    """The same for rows without names, which scikit-learn takes in a fraction of the time; None
    where it needs names, as to choose columns.
    """
    copy = from_skops(fitted.data, fitted.types)
    for one in parts(copy):
        if type(one).__name__ == "ColumnTransformer":
            return None
        vars(one).pop("feature_names_in_", None)
    return replace(packed(copy, fitted.kind), names=fitted.names)


def _require_classifier(model: Any, name: str) -> None:
    base = library("sklearn.base")
    for is_other, what in (
        (base.is_regressor, "a regressor"),
        (base.is_clusterer, "clustering"),
        (base.is_outlier_detector, "outlier detection"),
    ):
        if is_other(model):
            raise ModelError(f"the {name} is {what}, and no classifier: {OTHERWISE}")


def _require_fitted(model: Any, name: str) -> None:
    try:
        library("sklearn.utils.validation").check_is_fitted(model)
    except ModelError:
        raise
    except Exception as exc:  # scikit-learn's NotFittedError, or what has no such thing
        raise ModelError(f"the {name} is not fitted: call fit first") from exc


def _require_objective(name: str, objective: str, allowed: Sequence[str]) -> None:
    kind = re.split(r"[ ]", objective, maxsplit=1)[0]
    if kind not in allowed:
        what = f"has the objective {objective}" if objective else "has an objective of its own"
        raise ModelError(
            f"the {name} {what}, which gives no probabilities; {', '.join(allowed)} do: {OTHERWISE}"
        )


def _classes(model: Any) -> tuple[Any, ...] | None:
    classes = getattr(model, "classes_", None)
    return (
        None
        if classes is None or len(classes) == 0
        else tuple(getattr(classes, "tolist", lambda: classes)())
    )


def _named(names: Sequence[str] | None) -> tuple[str, ...] | None:
    """Names of columns; None where the library made them up."""
    if not names or all(UNNAMED.fullmatch(str(one)) for one in names):
        return None
    return tuple(str(one) for one in names)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123 - CatBoost's own path
        return file.read()
