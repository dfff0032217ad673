"""A program's classifier that is no torch module: its rows are tables, as in its training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from selfheal_cli.api.intake import Intake, ProgramModel, require_told_apart
from selfheal_cli.errors import DataError, MissingColumn, NoRows, WrongShape
from selfheal_cli.estimators.taking import take, take_transformer
from selfheal_cli.estimators.trust import is_of_library
from selfheal_cli.model.allowed import remember
from selfheal_cli.model.live import unwrapped
from selfheal_cli.model.threads import use_one_thread_here
from selfheal_cli.model.wrapping import wrap
from selfheal_cli.pipeline.prepare.estimators import SAMPLE, described, estimator_base
from selfheal_cli.pipeline.prepare.foreign import StoredModel, base_of
from selfheal_cli.pipeline.prepare.preprocessing import preprocessing
from selfheal_cli.sources.values import numbers, texts

if TYPE_CHECKING:
    from selfheal_cli.estimators.spec import EstimatorSpec
    from selfheal_cli.model.network import SelfHealingNetwork
    from selfheal_cli.pipeline.prepare.inputs import AskedInput
    from selfheal_cli.records import Base, Columns, FloatArray
    from selfheal_cli.sources.encoding import QuickEncoding


@dataclass(frozen=True, slots=True)
class TableIntake(Intake):
    """What is given is a table, or becomes one; the columns ``held_as_text`` hold texts."""

    held_as_text: frozenset[str] = frozenset()

    def rows(self, given: Any, argument: str = "x") -> Any:
        """A table of the model's columns; raises `MissingColumn` and `WrongShape`."""
        if isinstance(given, Mapping):
            given = [given]
        if not isinstance(given, pd.DataFrame):
            listed = isinstance(given, list) and bool(given) and isinstance(given[0], Mapping)
            given = pd.DataFrame(given) if listed else self._named(given, argument)
        missing = next((name for name in self.names if name not in given.columns), None)
        if missing is not None:
            raise MissingColumn(
                f"{argument}: no column '{missing}'; the model takes {', '.join(self.names)}"
            )
        return given[list(self.names)]

    def columns(self, rows: Any) -> Columns:
        """A table's columns (n,): numbers or texts; raises `DataError` for a text among numbers."""
        try:
            return {
                name: texts(rows[name]) if name in self.held_as_text else numbers(rows[name])
                for name in self.names
            }
        except ValueError as exc:
            raise DataError(f"x: {exc}") from exc

    def inputs(self, rows: Any, quick: QuickEncoding) -> FloatArray:
        """A table as the network takes it."""
        return quick.encode(self.columns(rows), None)

    def _named(self, given: Any, argument: str) -> pd.DataFrame:
        array = np.asarray(given)
        if array.ndim != 2 or array.shape[1] != len(self.names):
            raise WrongShape(
                f"{argument}: rows have shape {array.shape[1:]}, the model takes "
                f"{len(self.names)} columns"
            )
        return pd.DataFrame(array, columns=list(self.names))


def live_estimator(
    model: Any, x: Any, columns: Sequence[str] | None, labels: Sequence[str] | None
) -> ProgramModel:
    """Raises `ModelError` and `DataError`, as `described` does."""
    use_one_thread_here()
    frame = _table(x, columns)
    taken = described(take(model), frame[-SAMPLE:], None, labels)
    remember(one for one in taken.spec.types if not is_of_library(one))
    network = taken.network
    base = estimator_base(network, taken)
    return _with_table(network, base, taken.spec, taken.labels, frame)


def live_pipeline(
    pipeline: Any, module: Any, x: Any, columns: Sequence[str] | None,
    labels: Sequence[str] | None, asked: Sequence[AskedInput], **how: Any,
) -> ProgramModel:  # fmt: skip
    """A torch module behind a fitted ``pipeline`` of scikit-learn's, which takes the table ``x``.

    Raises `ModelError` and `DataError`, as `preprocessing` and `wrap` do.
    """
    use_one_thread_here()
    frame = _table(x, columns)
    before = preprocessing(take_transformer(pipeline), frame[-SAMPLE:], "x")
    remember(one for one in before.spec.types if not is_of_library(one))
    sample = before.sample(StoredModel(unwrapped(module)), asked)
    network = wrap(module, sample.rows, inputs=sample.inputs, **how)
    base = base_of(network, sample, labels)
    return _with_table(network, base, before.spec, tuple(base.describe()["labels"]), frame)


def _with_table(
    network: SelfHealingNetwork, base: Base, spec: EstimatorSpec, labels: tuple[str, ...],
    frame: pd.DataFrame,
) -> ProgramModel:  # fmt: skip
    """What the table's rows say is normal, texts by their places in a vocabulary."""
    names, held_as_text = spec.names, frozenset(spec.texts)
    intake = TableIntake(names, (len(names),), labels, held_as_text)
    wide, vocabulary = np.empty((len(frame), len(names))), {}
    for place, (name, values) in enumerate(intake.columns(intake.rows(frame)).items()):
        if name in held_as_text:
            wide[:, place], known = pd.factorize(values)
            vocabulary[name] = tuple(known.tolist())
        else:
            wide[:, place] = values
    return ProgramModel(network, base, intake, wide, vocabulary)


def _table(x: Any, columns: Sequence[str] | None) -> pd.DataFrame:
    """The rows as a table; raises `NoRows`, and `WrongShape` where they are none."""
    if not isinstance(x, pd.DataFrame):
        array = np.asarray(x)
        if array.ndim != 2:
            raise WrongShape(f"x: rows of one value a column are needed, and not {array.shape}")
        names = list(columns or map("x{}".format, range(array.shape[1])))
        if len(names) != array.shape[1]:
            raise DataError(f"columns: {len(names)} are named, a row has {array.shape[1]} values")
        x = pd.DataFrame(array, columns=names)
    frame: pd.DataFrame = x
    require_told_apart(list(frame.columns))
    if frame.empty:
        raise NoRows("x: no rows; some that the model was trained on are needed")
    return frame
