"""Where a foreign model comes from, and the rows that it is shown."""

from __future__ import annotations

import inspect
import re
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from selfheal_cli.errors import DataError, ModelError
from selfheal_cli.model.allowed import allow
from selfheal_cli.model.brought import bring, code_in, known_as
from selfheal_cli.model.checkpoint import assemble, estimator_tensors, make_base
from selfheal_cli.model.description import find_named
from selfheal_cli.model.interface import WHOLE, ModelInput
from selfheal_cli.model.loading import (
    PICKLE_RISK,
    made,
    read_exported,
    read_pickle,
    read_safetensors,
)
from selfheal_cli.model.network import SelfHealingNetwork
from selfheal_cli.model.original import Original, first_width, take, takes_tokens
from selfheal_cli.model.threads import use_one_thread
from selfheal_cli.pipeline.prepare.inputs import AskedInput, place_inputs
from selfheal_cli.records import Base
from selfheal_cli.registry.base import Registry
from selfheal_cli.registry.carried import OURS
from selfheal_cli.registry.layout import REQUIREMENTS_FILE
from selfheal_cli.registry.mlflow.format import input_names
from selfheal_cli.sources.encoding import Encoding
from selfheal_cli.sources.recognition import open_found
from selfheal_cli.sources.values import as_numbers

if TYPE_CHECKING:
    from torch import nn

    from selfheal_cli.records import FloatArray

SAMPLE = 1_024  # rows that a wrapped model is compared with its original on
MOST_DRAWN = 1 << 23  # values of rows that are drawn: of wide rows, fewer
SIZES = (1, 7, 100)  # of batches that a stored model is tried on
PIN = re.compile(r"[A-Za-z0-9][\w.-]*==[\w.!]+")
CODE = "code"  # where MLflow puts the files that were logged with a model
EXPORTED, PICKLED = "data/model.pt2", "data/model.pth"  # MLflow's pytorch flavour


@dataclass(frozen=True, slots=True)
class ForeignOrigin:
    """A model by MLflow URI, or by its class and a file of weights."""

    uri: str | None
    target: str | None
    weights: Path | None
    init: dict[str, Any] = field(default_factory=dict)
    allow_pickle: bool = False

    @property
    def factory(self) -> str | None:
        """The function that makes the model, where it is not named by its class."""
        is_class = self.target is None or inspect.isclass(find_named(self.target))
        return None if is_class else self.target

    def __str__(self) -> str:
        with_weights = f" with {self.weights}" if self.weights else ""
        return self.uri or f"{self.target}{with_weights}"


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows (n, prod(shape)) as a model takes them, and what its inputs are called."""

    rows: FloatArray
    names: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    drawn: bool = False  # and not the user's
    several: tuple[ModelInput, ...] = ()  # where the model takes more than one tensor, or by name
    before: Encoding | None = None  # columns to these rows, by a pipeline before the network
    before_data: bytes | None = None  # that pipeline, as it is stored

    @property
    def inputs(self) -> tuple[ModelInput, ...]:
        """The tensors that a row becomes."""
        return self.several or (ModelInput(shape=self.shape, dtype=self.dtype),)

    @property
    def whole(self) -> list[bool]:
        """Of each column, whether the model takes whole numbers."""
        return [one.dtype in WHOLE for one in self.inputs for _ in range(one.size)]

    def as_taken(self, original: Original) -> Sample:
        """With what the model was seen to take."""
        (first, *_) = inputs = original.interface.inputs
        return replace(self, shape=first.shape, dtype=first.dtype, several=inputs)


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model as it was stored; ``names`` are what its signature calls its columns, if it does;
    ``requirements`` the packages with versions that it names, ``code`` the files that it brings.
    """

    module: nn.Module
    names: tuple[str, ...] | None = None
    requirements: tuple[str, ...] = ()
    code: Mapping[str, str] = field(default_factory=dict)

    @property
    def takes_tokens(self) -> bool:
        """Whether its first layer is an embedding."""
        return takes_tokens(self.module)


def read_origin(registry: Registry | None, origin: ForeignOrigin) -> StoredModel:
    """The model itself; raises `ModelError` where it cannot be had without a pickle.

    A ``registry`` is asked only for a URI.
    """
    use_one_thread()
    if origin.uri is None or registry is None:
        if origin.target is None:
            raise ModelError("without a URI, a class or a function that makes the model is needed")
        weights = read_safetensors(origin.weights) if origin.weights is not None else None
        return StoredModel(made(origin.target, origin.init, weights))
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
            return StoredModel(made(origin.target, origin.init, weights), names, pins(folder))
        if not pickled.exists():
            raise ModelError(
                f"{origin.uri}: is not of MLflow's pytorch flavour (no {EXPORTED} and no {PICKLED})"
            )
        if not origin.allow_pickle:
            raise ModelError(f"{origin.uri}: {PICKLE_RISK}")
        code = code_in(folder / CODE)
        allow([known_as(code)])
        bring(code)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own words about pickles; ours were said
            module = read_pickle(pickled)
        required = pins(folder)
    if origin.target is None:
        return StoredModel(module, names, required, code)
    module = made(origin.target, origin.init, module.state_dict())
    return StoredModel(module, names, required, code)


def pins(folder: Path) -> tuple[str, ...]:
    """The packages that a stored model names with their versions, without labels of local builds.

    Anything else that a line may say (an address, an option of pip) is left out, and so is ours.
    """
    try:
        lines = (folder / REQUIREMENTS_FILE).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError):
        return ()
    plain = (line.strip().partition("+")[0] for line in lines)
    return tuple(line for line in plain if PIN.fullmatch(line) and not OURS.match(line))


def sample_rows(
    stored: StoredModel,
    data: Path | None,
    drop: Sequence[str],
    asked: Sequence[AskedInput],
) -> Sample:
    """Rows of a file, else drawn ones; raises `DataError` where they do not fill the inputs.

    The columns that the model's signature names are taken by name, in its order.
    """
    if data is None:
        return _drawn(stored, asked)
    table = open_found(data).reads
    unknown = [name for name in drop if name not in table.columns]
    if unknown:
        known = ", ".join(table.columns)
        raise DataError(f"{data}: no column '{unknown[0]}' to drop; columns: {known}")
    names = _columns(stored, data, [name for name in table.columns if name not in drop])
    inputs, names = place_inputs(asked or _guessed(stored), names, str(data))
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
    rows = np.ascontiguousarray(taken)
    return Sample(rows, names, inputs[0].shape, inputs[0].dtype, several=several_of(inputs))


def _drawn(stored: StoredModel, asked: Sequence[AskedInput]) -> Sample:
    """Rows drawn by chance: of whole numbers 0 and 1, which every vocabulary has."""
    wanted = list(asked or _guessed(stored))
    for place, one in enumerate(wanted):
        if not one.shape:
            count = len(one.columns) or first_width(stored.module)
            wanted[place] = replace(one, shape=(count,), columns=())
    width = sum(prod(one.shape) for one in wanted)
    known = [name for one in asked for name in one.columns]
    names = tuple(known if len(known) == width else stored.names or ())
    if len(names) != width:
        names = tuple(f"x{place}" for place in range(width))
    inputs, names = place_inputs(wanted, names, "the model")
    drawn = np.random.default_rng(0)
    count = max(2, min(SAMPLE, MOST_DRAWN // width))
    pieces = [
        drawn.integers(0, 2, (count, one.size)) if one.dtype in WHOLE
        else drawn.standard_normal((count, one.size))
        for one in inputs
    ]  # fmt: skip
    rows = np.hstack(pieces).astype(np.float32)
    first = inputs[0]
    return Sample(rows, names, first.shape, first.dtype, drawn=True, several=several_of(inputs))


def several_of(inputs: tuple[ModelInput, ...]) -> tuple[ModelInput, ...]:
    """The tensors, where they are more than one or have names."""
    return inputs if len(inputs) > 1 or inputs[0].name is not None else ()


def _guessed(stored: StoredModel) -> tuple[AskedInput, ...]:
    return (AskedInput(None, stored.takes_tokens),)


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


def taken(stored: StoredModel, sample: Sample, origin: ForeignOrigin, gives: str) -> Original:
    """The module as it is taken for wrapping; raises `ModelError`."""
    original = take(
        stored.module, sample.rows, inputs=sample.inputs, init=origin.init,
        factory=origin.factory, output=gives,
    )  # fmt: skip
    return replace(original, requirements=stored.requirements, code=stored.code)


def fills(network: SelfHealingNetwork, sample: Sample) -> list[float | None]:
    """What goes in for a missing value of each input; None is NaN.

    NaN where the network takes it by itself; else what its rows have in the mean, of whole numbers
    the most frequent. Where no rows were given nobody knows: NaN, to which a network has no answer,
    and of whole numbers 0.
    """
    whole = sample.whole
    floats = [place for place, one in enumerate(whole) if not one]
    holes = sample.rows[: len(floats)].copy()
    holes[np.arange(len(holes)), floats[: len(holes)]] = np.nan
    try:
        takes_nan = sample.drawn or bool(np.isfinite(network.predict(holes)).all())
    except Exception:  # the author's code, which need not take it
        takes_nan = False
    means = sample.rows.mean(axis=0, dtype=np.float64)
    return [
        (0.0 if sample.drawn else _commonest(sample.rows[:, place]))
        if one
        else (None if takes_nan else float(means[place]))
        for place, one in enumerate(whole)
    ]


def filled_with(fill_values: Sequence[float | None], sample: Sample) -> str:
    """What goes in for a missing value, for a person."""
    if None in fill_values:
        return "NaN, and a row that the model has no answer to is left out"
    if sample.drawn:
        return "0, since no rows were given with --data"
    return "its column's commonest value" if sample.whole[0] else "its column's mean"


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
    encoding = sample.before or Encoding.raw_columns(sample.names, fills(network, sample))
    document = {"encoding": encoding.model_dump(mode="json"), "labels": names}
    base = make_base(network, estimator_tensors(sample.before_data), document, sample.rows)
    _require_same_when_stored(network, base, sample)
    return base


def _require_same_when_stored(network: SelfHealingNetwork, base: Base, sample: Sample) -> None:
    """Raise `ModelError` unless what is stored decides as the network, in batches of any size."""
    stored = assemble(base, network.adapter.state_dict(), where="the stored model")
    for count in SIZES:
        rows = sample.rows[:count]
        if not np.array_equal(stored.predict(rows), network.predict(rows)):
            raise ModelError("the model decides otherwise once it was stored, so it is not")
