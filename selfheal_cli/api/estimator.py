"""A program's classifier that is no torch module: its rows are tables, as in its training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from selfheal_cli.api.intake import Intake, ProgramModel
from selfheal_cli.errors import DataError, MissingColumn, NoRows, WrongShape
from selfheal_cli.estimators.taking import take
from selfheal_cli.estimators.trust import is_of_library
from selfheal_cli.model.allowed import remember
from selfheal_cli.model.network import use_one_thread_here
from selfheal_cli.pipeline.prepare.estimators import SAMPLE, described, estimator_base
from selfheal_cli.sources.values import numbers, texts

if TYPE_CHECKING:
    from selfheal_cli.records import Columns, FloatArray
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
    frame = x if isinstance(x, pd.DataFrame) else _table(x, columns)
    if frame.empty:
        raise NoRows("x: no rows; some that the model was trained on are needed")
    taken = described(take(model), frame[-SAMPLE:], None, labels)
    remember(one for one in taken.spec.types if not is_of_library(one))
    names, held_as_text = taken.spec.names, frozenset(taken.spec.texts)
    intake = TableIntake(names, (len(names),), taken.labels, held_as_text)
    wide, vocabulary = np.empty((len(frame), len(names))), {}
    for place, (name, values) in enumerate(intake.columns(intake.rows(frame)).items()):
        if name in held_as_text:
            wide[:, place], known = pd.factorize(values)
            vocabulary[name] = tuple(known.tolist())
        else:
            wide[:, place] = values
    network = taken.network
    return ProgramModel(network, estimator_base(network, taken), intake, wide, vocabulary)


def _table(x: Any, columns: Sequence[str] | None) -> pd.DataFrame:
    array = np.asarray(x)
    if array.ndim != 2:
        raise WrongShape(f"x: rows of one value a column are needed, and not {array.shape}")
    return pd.DataFrame(array, columns=list(columns or map("x{}".format, range(array.shape[1]))))
