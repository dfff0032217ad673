"""Where a foreign model comes from, and the rows that it is shown."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from selfheal_cli.errors import DataError, ModelError
from selfheal_cli.model.checkpoint import make_base
from selfheal_cli.model.loading import (
    PICKLE_RISK,
    from_class,
    read_exported,
    read_pickle,
    read_safetensors,
)
from selfheal_cli.model.network import SelfHealingNetwork, use_one_thread
from selfheal_cli.model.wrapping import first_width
from selfheal_cli.records import Base
from selfheal_cli.registry.base import Registry
from selfheal_cli.registry.mlflow.format import input_names
from selfheal_cli.sources.encoding import Encoding
from selfheal_cli.sources.files import open_table
from selfheal_cli.sources.values import as_numbers

if TYPE_CHECKING:
    from torch import nn

    from selfheal_cli.records import FloatArray

SAMPLE = 1_024  # rows that a wrapped model is compared with its original on
MOST_DRAWN = 1 << 25  # values of rows that are drawn: of wide rows, fewer
EXPORTED, PICKLED = "data/model.pt2", "data/model.pth"  # MLflow's pytorch flavour


@dataclass(frozen=True, slots=True)
class ForeignOrigin:
    """A model by MLflow URI, or by its class and a file of weights."""

    uri: str | None
    target: str | None
    weights: Path | None
    init: dict[str, Any] = field(default_factory=dict)
    allow_pickle: bool = False

    def __str__(self) -> str:
        return self.uri or f"{self.target} with {self.weights}"


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows (n, prod(shape)) as a model takes them, and what its inputs are called."""

    rows: FloatArray
    names: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    drawn: bool = False  # and not the user's


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model as it was stored; ``names`` are what its signature calls its columns, if it does."""

    module: nn.Module
    names: tuple[str, ...] | None = None


def read_origin(registry: Registry | None, origin: ForeignOrigin) -> StoredModel:
    """The model itself; raises `ModelError` where it cannot be had without a pickle.

    A ``registry`` is asked only for a URI.
    """
    use_one_thread()
    if origin.uri is None or registry is None:
        if origin.target is None or origin.weights is None:
            raise ModelError("without a URI, a class and its weights are needed")
        return StoredModel(from_class(origin.target, origin.init, read_safetensors(origin.weights)))
    with tempfile.TemporaryDirectory() as into:
        folder = registry.model_files(origin.uri, Path(into))
        exported, pickled = folder / EXPORTED, folder / PICKLED
        names = input_names(folder)
        if exported.exists():
            if origin.target is None:
                raise ModelError(
                    f"{origin.uri}: is stored as a graph (pt2), which has weights and no class; "
                    "name its class with --from package.module:Class"
                )
            weights = read_exported(exported)
            return StoredModel(from_class(origin.target, origin.init, weights), names)
        if not pickled.exists():
            raise ModelError(
                f"{origin.uri}: is not of MLflow's pytorch flavour (no {EXPORTED} and no {PICKLED})"
            )
        if not origin.allow_pickle:
            raise ModelError(f"{origin.uri}: {PICKLE_RISK}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own words about pickles; ours were said
            module = read_pickle(pickled)
    if origin.target is None:
        return StoredModel(module, names)
    return StoredModel(from_class(origin.target, origin.init, module.state_dict()), names)


def sample_rows(
    stored: StoredModel,
    data: Path | None,
    drop: Sequence[str],
    shape: tuple[int, ...] | None,
    *,
    integers: bool,
) -> Sample:
    """Rows of a file, else drawn ones; raises `DataError` where they do not fill the shape.

    The columns that the model's signature names are taken by name, in its order.
    """
    dtype = "int64" if integers else "float32"
    if data is None:
        wanted = shape or (first_width(stored.module),)
        drawn = np.random.default_rng(0)
        size = (max(2, min(SAMPLE, MOST_DRAWN // prod(wanted))), prod(wanted))
        rows = drawn.integers(0, 2, size) if integers else drawn.standard_normal(size)
        names = stored.names or ()
        if len(names) != size[1]:
            names = tuple(f"x{place}" for place in range(size[1]))
        return Sample(rows.astype(np.float32), names, wanted, dtype, drawn=True)
    table = open_table(data, None)
    unknown = [name for name in drop if name not in table.columns]
    if unknown:
        known = ", ".join(table.columns)
        raise DataError(f"{data}: no column '{unknown[0]}' to drop; columns: {known}")
    names = _columns(stored, data, [name for name in table.columns if name not in drop])
    wanted = shape or (len(names),)
    if len(names) != prod(wanted):
        raise DataError(
            f"{data}: {len(names)} columns are left, the model takes {prod(wanted)} "
            f"({' x '.join(map(str, wanted))}); leave the target and others out with --drop"
        )
    frame = next(table.chunks(None), None)
    if frame is None or frame.empty:
        raise DataError(f"{data}: no rows below the header")
    frame = frame[:SAMPLE]
    with np.errstate(over="ignore"):  # what is too large is infinite, and said to be below
        taken = np.column_stack([as_numbers(frame[name]) for name in names]).astype(np.float32)
    if not np.isfinite(taken).all():
        row, column = np.argwhere(~np.isfinite(taken))[0]
        value = frame[names[column]].iloc[row]
        raise DataError(
            f"{data}: row {row + 1}, column '{names[column]}': {value!r}, and a number is needed"
        )
    return Sample(np.ascontiguousarray(taken), names, wanted, dtype)


def _columns(stored: StoredModel, data: Path, given: Sequence[str]) -> tuple[str, ...]:
    if stored.names is None:
        return tuple(given)
    missing = [name for name in stored.names if name not in given]
    if missing:
        raise DataError(
            f"{data}: no column '{missing[0]}', which the model's signature names; it takes "
            f"{', '.join(stored.names)}"
        )
    return stored.names


def fills(network: SelfHealingNetwork, sample: Sample) -> list[float | None]:
    """What goes in for a missing value of each input; None is NaN.

    NaN where the network takes it by itself; else what its rows have in the mean, of whole numbers
    the most frequent. Where no rows were given nobody knows: NaN, to which a network has no answer,
    and of whole numbers 0.
    """
    width = len(sample.names)
    if sample.dtype == "int64":
        if sample.drawn:
            return [0.0] * width
        return [_commonest(sample.rows[:, place]) for place in range(width)]
    holes = sample.rows[:width].copy()
    places = np.arange(len(holes))
    holes[places, places] = np.nan
    if sample.drawn or np.isfinite(network.predict(holes)).all():
        return [None] * width
    return [float(mean) for mean in sample.rows.mean(axis=0, dtype=np.float64)]


def filled_with(fill_values: Sequence[float | None], sample: Sample) -> str:
    """What goes in for a missing value, for a person."""
    if None in fill_values:
        return "NaN, and a row that the model has no answer to is left out"
    if sample.drawn:
        return "0, since no rows were given with --data"
    return "its column's commonest value" if sample.dtype == "int64" else "its column's mean"


def _commonest(values: FloatArray) -> float:
    known, counts = np.unique(values, return_counts=True)
    return float(known[counts.argmax()])


def base_of(network: SelfHealingNetwork, sample: Sample, labels: Sequence[str] | None) -> Base:
    """A wrapped network's frozen part, with some rows that each version is checked on."""
    outputs = network.architecture.outputs
    classes = max(outputs, 2)
    names = list(labels or map(str, range(classes)))
    if len(names) != classes or len(set(names)) != classes:
        raise ModelError(f"--classes {','.join(names)}: the model tells {classes} classes apart")
    encoding = Encoding.raw_columns(sample.names, fills(network, sample))
    document = {"encoding": encoding.model_dump(mode="json"), "labels": names}
    return make_base(network, {}, document, sample.rows)
