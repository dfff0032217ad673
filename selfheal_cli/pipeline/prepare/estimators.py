"""A model that is no torch network: read, compared with what is stored of it, made a base."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from selfheal_cli.decide import HALF
from selfheal_cli.errors import DataError, ModelError, one_line
from selfheal_cli.estimators.describing import columns_of, describe, dtypes_of
from selfheal_cli.estimators.loading import library
from selfheal_cli.estimators.scorer import as_outputs, keep
from selfheal_cli.estimators.signed import labels_said
from selfheal_cli.estimators.spec import EstimatorSpec
from selfheal_cli.estimators.taking import (
    FittedClassifier,
    on_one_thread,
    without_names,
)
from selfheal_cli.metrics import classify
from selfheal_cli.model.checkpoint import estimator_tensors, make_base
from selfheal_cli.model.network import SelfHealingNetwork
from selfheal_cli.records import Base
from selfheal_cli.sources.encoding import Encoding
from selfheal_cli.sources.files import open_named
from selfheal_cli.sources.fit import side_columns
from selfheal_cli.sources.values import one_text

if TYPE_CHECKING:
    import pandas as pd

    from selfheal_cli.records import Columns, FloatArray

PROBABILITIES = (
    'its predict must give those, as of mlflow.sklearn.log_model(pyfunc_predict_fn="predict_proba")'
)
SAMPLE = 1_024  # rows that a model is compared on
OFF = 1e-3  # that the probabilities of K classes may sum to beside 1


@dataclass(frozen=True, slots=True)
class WrappedEstimator:
    """A classifier with what is stored of it, that gives the same: ``spec`` and ``encoding``, its
    answers (n, outputs) on the rows ``x`` (n, inputs), ``raw`` as columns, and what a person should
    know.
    """

    fitted: FittedClassifier
    spec: EstimatorSpec
    encoding: Encoding
    x: FloatArray
    raw: Columns
    labels: tuple[str, ...]
    remarks: tuple[str, ...]

    @property
    def network(self) -> SelfHealingNetwork:
        """A new one around its answers; its adapter changes nothing yet."""
        return SelfHealingNetwork.around_scores(self.encoding.width, self.spec.outputs)

    @property
    def own(self) -> FloatArray:
        """Its probabilities of the rows (n, outputs)."""
        return self.x[:, -self.spec.outputs :]


def rows_of(data: Path | None, drop: Sequence[str]) -> pd.DataFrame | None:
    """The first rows of a table, less the columns to drop; None without one."""
    if data is None:
        return None
    table = open_named(data)
    unknown = [name for name in drop if name not in table.columns]
    if unknown:
        known = ", ".join(table.columns)
        raise DataError(f"{data}: no column '{unknown[0]}' to drop; columns: {known}")
    frame = next(table.chunks(None), None)
    if frame is None or frame.empty:
        raise DataError(f"{data}: no rows below the header")
    return _as_pandas(frame[:SAMPLE]).drop(columns=list(drop))


def _as_pandas(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows as pandas reads them, which models are trained on."""
    import pandas as pd

    texts = frame.select_dtypes(["string", "object"]).columns
    if texts.empty:
        return frame
    read = pd.read_csv(io.StringIO(frame[texts].to_csv(index=False)), skip_blank_lines=False)
    return frame.assign(**{name: read[name].array for name in texts})


def described(
    fitted: FittedClassifier,
    frame: pd.DataFrame | None,
    signature: Sequence[str] | None,
    labels: Sequence[str] | None,
    *,
    trusted: bool = False,
) -> WrappedEstimator:
    """A classifier with what is stored of it; raises `ModelError` where that answers otherwise.

    On the rows of ``frame``, else on drawn ones. ``labels`` name its classes where it does not.
    The types in its file are ``trusted`` where it is a live object, or was a pickle.
    """
    names = columns_of(fitted, None if frame is None else list(frame.columns), signature)
    from pandas.api.types import is_numeric_dtype

    given = frame
    if frame is None:
        frame = _drawn(names, fitted)
    fitted = fitted.placed([not is_numeric_dtype(frame[name]) for name in names])
    theirs = _asked(fitted, frame[list(names)], drawn=given is None)
    outputs = 1 if theirs.ndim == 1 or theirs.shape[1] == 2 else theirs.shape[1]
    own = as_outputs(theirs, outputs).astype(np.float32)
    spoken = _labels(fitted, max(outputs, 2), labels)
    allowed = frozenset(fitted.types)
    decides_from, said = _decides_from(fitted, frame[list(names)], own, spoken)
    for dtype, (candidate, takes) in product(dtypes_of(given), _ways(fitted)):
        how = {"dtype": dtype, "decides_from": decides_from} | ({"takes": takes} if takes else {})
        spec = describe(candidate, outputs, given, names).model_copy(update=how)
        keep(spec, candidate.data, allowed.__contains__)
        encoding = Encoding(columns=side_columns(frame, spec), contract=2, model=spec)
        raw = encoding.raw(frame)
        x = encoding.encode(raw)
        if np.array_equal(x[:, -outputs:], own, equal_nan=True):
            return WrappedEstimator(
                candidate, spec, encoding, x, raw, spoken, (*said, *_remarks(own, given))
            )
    gap = float(np.nanmax(np.abs(x[:, -outputs:] - own)))
    raise ModelError(
        f"the {fitted.kind} stored as {spec.format} answers otherwise than the model itself, by up "
        f"to {gap:.2g}, on {len(own)} rows: its columns or their types are others than in training"
    )


def _ways(fitted: FittedClassifier) -> list[tuple[FittedClassifier, str | None]]:
    """Ways to ask it, the quicker ones first."""
    if fitted.format != "skops":
        return [(fitted, None)]
    fitted = on_one_thread(fitted)
    quick = without_names(fitted)
    return [*([(quick, "matrix")] if quick is not None else []), (fitted, "table")]


def _drawn(names: Sequence[str], fitted: FittedClassifier) -> pd.DataFrame:
    import pandas as pd

    drawn = np.random.default_rng(0).standard_normal((SAMPLE, len(names)))
    frame = pd.DataFrame(drawn.astype(np.float32).astype(np.float64), columns=list(names))
    for name, kind in zip(names, fitted.kinds or (), strict=False):
        if kind in ("integer", "flag"):
            frame[name] = frame[name].abs().round() if kind == "integer" else frame[name] > 0
    return frame


def _asked(fitted: FittedClassifier, frame: pd.DataFrame, *, drawn: bool) -> Any:
    """The model's own probabilities of a table; raises `ModelError` where they are none."""
    try:
        with warnings.catch_warnings(), library("joblib").parallel_config("sequential"):
            warnings.simplefilter("ignore")
            theirs = np.asarray(fitted.ask(_as_trained(fitted, frame)))
    except ModelError:
        raise
    except Exception as exc:  # the library's own words
        hint = "; give rows as it takes them with --data" if drawn else ""
        raise ModelError(
            f"the {fitted.kind} has no answer to {len(frame)} "
            f"{'drawn rows' if drawn else 'rows'}: {one_line(exc)[:300]}{hint}"
        ) from exc
    said = labels_said(theirs, len(frame), drawn=drawn) if fitted.format == "pyfunc" else None
    if said is not None:
        raise ModelError(f"the model {said}: {PROBABILITIES}")
    if theirs.dtype == object or theirs.ndim not in (1, 2) or len(theirs) != len(frame):
        raise ModelError(
            f"the {fitted.kind} gives {theirs.shape} for {len(frame)} rows; a probability for "
            "each class is needed (multi-output is not supported)"
        )
    _require_probabilities(fitted, theirs)
    return theirs


def _as_trained(fitted: FittedClassifier, frame: pd.DataFrame) -> Any:
    """Rows as the library had them: texts as categories where it keeps categories."""
    if fitted.names is None and fitted.format in ("skops", "lightgbm"):
        return np.ascontiguousarray(frame.to_numpy())  # float32 sums hang on the order
    shown = frame.set_axis(list(fitted.names or frame.columns), axis=1)
    for place, known in (fitted.categories or {}).items():
        name = shown.columns[place]
        if known:
            import pandas as pd

            shown[name] = pd.Categorical(shown[name], categories=list(known))
    return shown


def _require_probabilities(fitted: FittedClassifier, theirs: Any) -> None:
    known = theirs[~np.isnan(theirs).reshape(len(theirs), -1).any(axis=1)]
    if not len(known):
        raise ModelError(f"the {fitted.kind} gives NaN for all {len(theirs)} rows")
    if known.min() < 0 or known.max() > 1:
        raise ModelError(
            f"the {fitted.kind} gives values from {known.min():.4g} to {known.max():.4g}: "
            "probabilities lie between 0 and 1"
        )
    if theirs.ndim == 2 and np.abs(known.sum(axis=1) - 1).max() > OFF:
        raise ModelError(
            f"the {fitted.kind} gives {theirs.shape[1]} probabilities that do not sum to 1: "
            "multi-label is not supported; one class a row is needed"
        )


def _labels(fitted: FittedClassifier, classes: int, given: Sequence[str] | None) -> tuple[str, ...]:
    own = None if fitted.classes is None else [str(one_text(one)) for one in fitted.classes]
    names = list(given or own or map(str, range(classes)))
    if len(names) != classes or len(set(names)) != classes:
        raise ModelError(f"--classes {','.join(names)}: the model tells {classes} classes apart")
    return tuple(names)


def _decides_from(
    fitted: FittedClassifier, frame: pd.DataFrame, own: FloatArray, labels: Sequence[str]
) -> tuple[float, tuple[str, ...]]:
    """From which probability of class 1 on the model itself decides for it, as far as its decisions
    on these rows tell, and what a person should know of that.
    """
    if fitted.decide is None or fitted.classes is None:
        return HALF, ()
    places = {one: place for place, one in enumerate(fitted.classes)}
    decided = np.ravel(fitted.decide(_as_trained(fitted, frame))).tolist()
    said = np.array([places.get(one, -1) for one in decided])
    known = ~np.isnan(own).any(axis=1)
    said, p = said[known], own[known, 0] if own.shape[1] == 1 else own[known]
    possible = fitted.thresholds
    if p.ndim == 1:
        no, yes = float(p[said == 0].max(initial=0)), float(p[said == 1].min(initial=1))
        possible = (*possible, HALF, (no + yes) / 2)
    for limit in possible or (HALF,):
        if 0 < limit < 1 and np.array_equal(classify(p, limit), said):
            told = (
                f"It decides for '{labels[1]}' from a probability of {limit:.3g} on, and so do its "
                "versions, unless --objective says otherwise."
            )
            return limit, () if limit == HALF or p.ndim > 1 else (told,)
    others = int((classify(p, HALF) != said).sum())
    return HALF, (
        f"Its own predict decides {others} of {len(said)} rows otherwise than by the likeliest "
        "class; its versions decide by that.",
    )


def _remarks(own: FloatArray, given: pd.DataFrame | None) -> list[str]:
    remarks = []
    if given is None:
        remarks.append(
            f"No --data was given: it was compared on {len(own)} drawn rows, and its inputs count "
            "as they are for heals until a run has seen training rows."
        )
    elif bool(np.isin(own[~np.isnan(own)], (0, 1)).all()):
        remarks.append(
            "It gives only 0 and 1 on these rows: no row is surer than another, so that a heal has "
            "little to go by."
        )
    if np.isnan(own).any():
        missing = int(np.isnan(own).any(axis=1).sum())
        remarks.append(f"It has no answer to {missing} of {len(own)} rows; such rows are left out.")
    return remarks


def estimator_base(network: SelfHealingNetwork, described: WrappedEstimator) -> Base:
    """Its frozen part, with some rows that each version is checked on."""
    document = {
        "encoding": described.encoding.model_dump(mode="json"),
        "labels": list(described.labels),
    }
    whole = described.x[np.isfinite(described.x).all(axis=1)]
    return make_base(network, estimator_tensors(described.fitted.data), document, whole)
