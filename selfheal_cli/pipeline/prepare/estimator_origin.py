"""Where a model that is no torch network comes from: a file, a folder, or a version in MLflow."""

from __future__ import annotations

import pickle
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from selfheal_cli.errors import ModelError, one_line
from selfheal_cli.estimators.loading import from_skops, library, unknown_types
from selfheal_cli.estimators.pyfunc import FLAVOR, own_code
from selfheal_cli.estimators.signed import packed
from selfheal_cli.estimators.taking import (
    FittedClassifier,
    from_catboost_file,
    from_lightgbm_text,
    from_pyfunc_folder,
    from_xgboost_file,
    take,
    take_transformer,
)
from selfheal_cli.estimators.trust import require_asked
from selfheal_cli.model.loading import PICKLE_RISK
from selfheal_cli.pipeline.prepare.foreign import pins
from selfheal_cli.registry.base import Registry
from selfheal_cli.registry.mlflow.format import input_names

READERS: dict[str, Callable[[bytes], FittedClassifier]] = {
    ".txt": from_lightgbm_text, ".lgb": from_lightgbm_text,
    ".json": from_xgboost_file, ".ubj": from_xgboost_file, ".xgb": from_xgboost_file,
    ".cbm": from_catboost_file, ".cb": from_catboost_file,
}  # fmt: skip
CODE_RISK = (
    "its python_function flavour runs the code and pickles that were stored with it when it is "
    "loaded; give --allow-pickle if you trust where it comes from"
)
PICKLES = (".pkl", ".pickle", ".joblib")
DESCRIPTION = "MLmodel"
FLAVORS = {"sklearn": "pickled_model", "lightgbm": "data", "xgboost": "data", "catboost": "data"}


@dataclass(frozen=True, slots=True)
class EstimatorOrigin:
    """A file, a folder that MLflow wrote, or MLflow's URI of one; ``trusted`` are types that the
    user trusts by name.
    """

    where: str
    trusted: tuple[str, ...] = ()
    allow_pickle: bool = False


def is_estimator_file(path: Path) -> bool:
    """Whether a file is of a kind that one of the libraries writes."""
    return path.suffix.lower() in (".skops", *READERS, *PICKLES)


def read_estimator(
    registry: Registry | None, origin: EstimatorOrigin
) -> tuple[FittedClassifier, tuple[str, ...] | None] | None:
    """A classifier and what its signature calls its columns; None for a version of torch's flavor.

    Raises `ModelError` where it cannot be read, or types that are not trusted would run.
    """
    path = Path(origin.where)
    if (path / DESCRIPTION).is_file():
        return _read_folder(path, origin)
    if registry is None or not origin.where.startswith(("models:/", "runs:/")):
        if not path.is_file() or not is_estimator_file(path):
            known = ", ".join((".skops", *READERS, *PICKLES))
            raise ModelError(f"{path}: no file of a model; {known} are read, or models:/NAME/7")
        return _read(path, origin), None
    with tempfile.TemporaryDirectory() as into:
        return _read_folder(registry.model_files(origin.where, Path(into)), origin)


def read_transformer(origin: EstimatorOrigin) -> FittedClassifier:
    """What goes before a network, from a file of scikit-learn's, by the same rules of trust.

    Raises `ModelError`.
    """
    path = Path(origin.where)
    if path.suffix.lower() not in (".skops", *PICKLES):
        raise ModelError(f"{path}: {', '.join(('.skops', *PICKLES))} are read as --preprocess")
    return _read(path, origin, taker=take_transformer)


def _read_folder(
    folder: Path, origin: EstimatorOrigin
) -> tuple[FittedClassifier, tuple[str, ...] | None] | None:
    flavors = yaml.safe_load((folder / DESCRIPTION).read_text(encoding="utf-8"))["flavors"]
    flavor = next((name for name in FLAVORS if name in flavors), None)
    if flavor is not None:
        file = folder / str(flavors[flavor][FLAVORS[flavor]])
        return _read(file, origin, flavor), input_names(folder)
    if "pytorch" in flavors:
        return None
    if FLAVOR not in flavors:
        raise ModelError(
            f"{origin.where}: is of the flavors {', '.join(flavors)}; pytorch, "
            f"{', '.join(FLAVORS)} and {FLAVOR} can be wrapped"
        )
    try:
        data = packed(folder)
        if own_code(data) and not origin.allow_pickle:
            raise ModelError(CODE_RISK)
        return from_pyfunc_folder(data, pins(folder)), input_names(folder)
    except ModelError as exc:
        raise _told(exc, origin.where) from exc


def _read(
    path: Path, origin: EstimatorOrigin, flavor: str = "",
    taker: Callable[[Any], FittedClassifier] = take,
) -> FittedClassifier:  # fmt: skip
    suffix = path.suffix.lower()
    if suffix == ".skops":
        data = path.read_bytes()
        try:
            types = unknown_types(data)
            require_asked(types, origin.trusted, origin.where)
            return taker(from_skops(data, types))
        except ModelError as exc:
            raise _told(exc, origin.where) from exc
    if suffix in PICKLES:
        return taker(_unpickled(path, origin))
    # LightGBM's flavor calls its text model.lgb; others' names say what they are
    reader = READERS.get(suffix)
    if reader is None:
        raise ModelError(f"{origin.where}: {flavor or 'a file'} of {path.name}, which is not read")
    try:
        return reader(path.read_bytes())
    except ModelError as exc:
        raise _told(exc, origin.where) from exc


def _told(exc: ModelError, where: str) -> ModelError:
    text = str(exc)
    return exc if text.startswith(where) else ModelError(f"{where}: {text}")


def _unpickled(path: Path, origin: EstimatorOrigin) -> Any:
    if not origin.allow_pickle:
        raise ModelError(f"{origin.where}: {PICKLE_RISK}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of another version: the rows say whether it matters
        try:
            return library("joblib").load(path)
        except (pickle.UnpicklingError, ImportError, AttributeError, ValueError, EOFError) as exc:
            raise ModelError(f"{origin.where}: cannot be unpickled: {one_line(exc)}") from exc
