"""Bytes to a function that gives probabilities, one format after another."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from selfheal_cli.errors import ModelError, one_line
from selfheal_cli.estimators.pyfunc import opened, own_code
from selfheal_cli.estimators.trust import require_code, require_trusted

if TYPE_CHECKING:
    from selfheal_cli.estimators.spec import EstimatorSpec, Matrix

INSTALLED_BY = {"skops": "skops scikit-learn", "sklearn": "scikit-learn", "xgboost": "xgboost"}
Predict = Callable[[Any], "Matrix"]


def loaded(spec: EstimatorSpec, data: bytes, is_allowed: Callable[[str], bool]) -> Predict:
    """What turns rows as the spec has them into probabilities (n,) or (n, K).

    Raises `ModelError` where the library is missing, where the bytes hold what it does not read,
    or types that are not trusted or not allowed.
    """
    if spec.format == "skops":
        require_trusted(unknown_types(data), spec.types, is_allowed)
        if spec.gives == "inputs":
            return transforming(from_skops(data, spec.types))
    if spec.format == "pyfunc":
        require_code(own_code(data), is_allowed)
    return PREDICTS[spec.format](data)


def library(name: str) -> ModuleType:
    """An optional library; raises `ModelError` that says how to install it."""
    try:
        return import_module(name)
    except ImportError as exc:
        wanted = INSTALLED_BY.get(name, name)
        raise ModelError(
            f"the model needs {name}, which cannot be imported ({one_line(exc)}): pip install "
            f"{wanted}"
        ) from exc


@contextmanager
def stored(data: bytes, suffix: str) -> Iterator[str]:
    """A file with these bytes, for libraries that read nothing else."""
    handle, name = tempfile.mkstemp(suffix)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        yield name
    finally:
        Path(name).unlink()


def from_skops(data: bytes, trusted: Iterable[str]) -> Any:
    """An object of scikit-learn's; raises `ModelError` where it cannot be built."""
    sio = library("skops.io")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of another version: the caller compares and says so
            return sio.loads(data, trusted=list(trusted))
    except Exception as exc:  # whatever the types' own code raises
        raise ModelError(
            f"the model cannot be built from a skops file ({one_line(exc)[:300]}): its classes and "
            "functions must be importable, and no lambdas"
        ) from exc


def unknown_types(data: bytes) -> list[str]:
    """Types in a skops file that are not loaded without being trusted; raises `ModelError`."""
    try:
        return sorted(library("skops.io").get_untrusted_types(data=data))
    except ModelError:
        raise
    except Exception as exc:
        raise ModelError(f"no skops file ({one_line(exc)[:200]})") from exc


def booster_of_lightgbm(data: bytes) -> Any:
    """Of a text file; raises `ModelError`."""
    lightgbm = library("lightgbm")
    try:
        return lightgbm.Booster(model_str=data.decode("utf-8"))
    except (lightgbm.basic.LightGBMError, ValueError) as exc:
        raise ModelError(f"no text file of LightGBM's ({one_line(exc)[:200]})") from exc


def booster_of_xgboost(data: bytes) -> Any:
    """Of JSON or UBJSON; raises `ModelError`."""
    xgboost = library("xgboost")
    try:
        booster = xgboost.Booster(model_file=bytearray(data))
    except xgboost.core.XGBoostError as exc:
        raise ModelError(f"no JSON or UBJSON file of XGBoost's ({one_line(exc)[:200]})") from exc
    booster.set_param({"nthread": 1})
    return booster


def model_of_catboost(data: bytes) -> Any:
    """Of a .cbm file; raises `ModelError`."""
    catboost = library("catboost")
    model = catboost.CatBoostClassifier()
    try:
        return model.load_model(blob=data)
    except catboost.CatBoostError as exc:
        raise ModelError(f"no .cbm file of CatBoost's ({one_line(exc)[:200]})") from exc


def _skops(data: bytes) -> Predict:
    model = from_skops(data, unknown_types(data))
    limit = library("threadpoolctl").ThreadpoolController().limit

    def predict(rows: Any) -> Any:
        with limit(limits=1, user_api="openmp"):
            return model.predict_proba(rows)

    own: Predict = model.predict_proba
    return predict if uses_openmp(model) else own


def transforming(model: Any) -> Predict:
    """Rows to the inputs of a network (n, d), also where the model gives them sparse."""

    def transform(rows: Any) -> Matrix:
        given = model.transform(rows)
        table: Matrix = np.asarray(given.toarray() if hasattr(given, "toarray") else given)
        return table

    return transform


def uses_openmp(model: Any) -> bool:
    """Whether scikit-learn's histogram trees are in it, which take all cores by themselves."""
    return any(type(one).__name__.startswith("HistGradient") for one in parts(model))


def parts(model: Any, seen: set[int] | None = None) -> Iterator[Any]:
    """An estimator and every one in it, however they are held."""
    seen = set() if seen is None else seen
    if id(model) in seen:
        return
    seen.add(id(model))
    if isinstance(model, dict):
        inside: Iterable[Any] = model.values()
    elif isinstance(model, list | tuple):
        inside = model
    elif hasattr(model, "get_params") or hasattr(model, "calibrators"):
        yield model
        inside = vars(model).values()
    elif type(model).__name__ == "ndarray" and model.dtype == object:
        inside = model.ravel().tolist()
    else:
        return
    for one in inside:
        yield from parts(one, seen)


def _lightgbm(data: bytes) -> Predict:
    booster = booster_of_lightgbm(data)
    return lambda rows: booster.predict(rows, num_threads=1)


def _xgboost(data: bytes) -> Predict:
    booster = booster_of_xgboost(data)
    return lambda rows: booster.inplace_predict(rows, validate_features=False)


def _catboost(data: bytes) -> Predict:
    model = model_of_catboost(data)
    return lambda rows: model.predict_proba(rows, thread_count=1)


PREDICTS: dict[str, Callable[[bytes], Predict]] = {
    "skops": _skops,
    "lightgbm": _lightgbm,
    "xgboost": _xgboost,
    "catboost": _catboost,
    "pyfunc": opened,
}
