"""How a fitted classifier's columns look, by what it says of them and by a table of rows."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from selfheal_cli.errors import DataError, ModelError
from selfheal_cli.estimators.spec import EstimatorInput, EstimatorSpec, Kind
from selfheal_cli.records import digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from selfheal_cli.estimators.taking import FittedClassifier

STORED_WITH = {
    "skops": ("scikit-learn", "skops"), "lightgbm": ("lightgbm",), "xgboost": ("xgboost",),
    "catboost": ("catboost",), "pyfunc": ("mlflow",),
}  # fmt: skip
BUILDS = {"xgboost": ("xgboost", "xgboost-cpu")}  # distributions of one library


def describe(
    fitted: FittedClassifier, outputs: int, frame: pd.DataFrame | None, names: Sequence[str]
) -> EstimatorSpec:
    """What a base says of it; ``names`` are its columns, as `columns_of` gives them.

    Its ``frame`` of rows says which columns hold texts; without one they are numbers.
    """
    inputs = tuple(
        _input(name, place, fitted, None if frame is None else frame[name])
        for place, name in enumerate(names)
    )
    # CatBoost takes no texts but in a table
    numbers = all(one.kind in ("float", "integer") for one in inputs)
    plain = fitted.format in ("lightgbm", "xgboost") or (fitted.format == "catboost" and numbers)
    return EstimatorSpec(
        format=fitted.format,
        sha256=digest(fitted.data),
        inputs=inputs,
        outputs=outputs,
        takes="matrix" if plain or fitted.takes_array else "table",
        types=fitted.types,
        libraries=dict(fitted.libraries)
        or {name: _version(name) for name in STORED_WITH[fitted.format]},
    )


def dtypes_of(frame: pd.DataFrame | None) -> tuple[Literal["float64", "float32"], ...]:
    """In which types a model may compute on rows like these, the one that is tried first before the
    other: on float32 alone much of scikit-learn computes in float32.
    """
    floats = [] if frame is None else [one for one in frame.dtypes if one.kind == "f"]
    narrow = bool(floats) and all(one == "float32" for one in floats)
    return ("float64", "float32") if narrow else ("float64",)


def changed_libraries(spec: EstimatorSpec | None) -> str:
    """What is said where a model's libraries are here in other versions than it was stored with,
    which may answer otherwise; or nothing.
    """
    stored = spec.libraries.items() if spec is not None else ()
    pairs = [(name, was, _version(name)) for name, was in stored if was]
    others = [f"{name} {was}, here {now}" for name, was, now in pairs if now and now != was]
    if not others:
        return ""
    return (
        f"its model was stored with other versions and may answer otherwise ({'; '.join(others)})"
    )


def columns_of(
    fitted: FittedClassifier, given: Sequence[str] | None, signature: Sequence[str] | None
) -> tuple[str, ...]:
    """The names of its columns, in its order: its own, else its signature's, else those ``given``.

    Raises `DataError` where one of them is not given, `ModelError` where their number is another.
    """
    wanted = fitted.names or signature
    if wanted is None:
        names = tuple(given or (f"x{place}" for place in range(fitted.width)))
    else:
        names = tuple(_as_given(name, given) for name in wanted)
    if fitted.width and len(names) != fitted.width:
        raise ModelError(
            f"the {fitted.kind} takes {fitted.width} columns and there are {len(names)} "
            f"({', '.join(names[:8])}{', ...' * (len(names) > 8)}): leave others out with --drop"
        )
    return names


def _as_given(name: str, given: Sequence[str] | None) -> str:
    """The name of a column in the rows; LightGBM writes an underscore for a space."""
    if given is None or name in given:
        return name
    same = [one for one in given if one.replace(" ", "_") == name]
    if len(same) != 1:
        raise DataError(
            f"the rows have no column '{name}', which the model takes; columns: {', '.join(given)}"
        )
    return same[0]


def _input(
    name: str, place: int, fitted: FittedClassifier, values: pd.Series[Any] | None
) -> EstimatorInput:
    if fitted.kinds is not None:
        return EstimatorInput(name=name, kind=fitted.kinds[place])
    known = (fitted.categories or {}).get(place)
    if known:
        return EstimatorInput(name=name, kind="category", categories=known)
    if known is not None and (values is None or not pd.api.types.is_integer_dtype(values)):
        return EstimatorInput(name=name, kind="text")
    if values is None:
        return EstimatorInput(name=name)
    if isinstance(values.dtype, pd.CategoricalDtype):
        return EstimatorInput(
            name=name, kind="category", categories=tuple(values.cat.categories.tolist())
        )
    return EstimatorInput(name=name, kind=_kind(name, values))


def _kind(name: str, values: pd.Series[Any]) -> Kind:
    kinds = pd.api.types
    if kinds.is_bool_dtype(values):
        return "flag"
    if kinds.is_integer_dtype(values):
        return "integer"
    if kinds.is_numeric_dtype(values):
        return "float"
    if kinds.is_string_dtype(values) or kinds.is_object_dtype(values):
        return "text"
    raise DataError(f"column '{name}' holds {values.dtype}; numbers and texts are taken")


def _version(distribution: str) -> str:
    for name in BUILDS.get(distribution, (distribution,)):
        try:
            return version(name)
        except ModuleNotFoundError:  # importlib's own is one
            continue
    return ""
