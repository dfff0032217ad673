"""What a version answers to the rows of a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from selfheal_cli.errors import DataError, ModelError
from selfheal_cli.metrics import classify
from selfheal_cli.model.attribution import input_gradients
from selfheal_cli.model.checkpoint import assemble
from selfheal_cli.model.network import Weights
from selfheal_cli.records import Base, VersionRecord
from selfheal_cli.registry.encoding import encoding_of
from selfheal_cli.sources.encoding import TEXTS
from selfheal_cli.sources.table_file import TableFile, require_column
from selfheal_cli.sources.values import parsed, texts

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from selfheal_cli.records import Columns, FloatArray


class VersionScorer:
    """One version that was checked, which answers frames of a table."""

    def __init__(
        self, version: VersionRecord, base: Base, weights: Weights, *, explain: bool
    ) -> None:
        self._version = version
        self._labels = tuple(base.describe()["labels"])
        self._encoding = encoding_of(base)
        where = f"{version.model} v{version.version}"
        self._network = assemble(base, weights, where=where)
        self._explain = explain
        self.contract = self._encoding.contract
        # by contract 2 a text in place of a number is a row's fault, not the table's
        self.numeric = self._encoding.numeric if self.contract == 1 else None
        if explain and self._encoding.model is not None:
            raise ModelError(
                f"{where}: a wrapped model that is no torch network has no gradient by its "
                "columns: leave out --explain"
            )

    def kept(self, table: TableFile, asked: tuple[str, ...] | None) -> list[str]:
        """The table's columns that stand beside the answer.

        Raises `DataError` where the table lacks a column, or has one that the answer has too.
        """
        for name in (*self._encoding.names, *(asked or ())):
            require_column(table, name)
        known = set(self._encoding.names)
        kept = [name for name in table.columns if name not in known] if asked is None else asked
        twice = next((name for name in kept if name in self._own_names()), None)
        if twice is not None:
            raise DataError(
                f"{table.where}: its column '{twice}' is one of the answer's: choose others with "
                "--keep"
            )
        return list(kept)

    def answer(
        self, frame: pd.DataFrame, kept: list[str], before: int, table: TableFile
    ) -> pd.DataFrame:
        """A row for each of the frame's: what is kept, score, decision, version, and why a row
        has no score. ``before`` rows precede the frame in the table.

        Raises `DataError` where most of them can have none.
        """
        columns, problems = self._read(frame)
        broken = table.broken()
        problems |= {
            row: broken[before + row + 1].reason
            for row in range(len(frame)) if before + row + 1 in broken
        }  # fmt: skip
        x = self._encoding.encode(columns)
        probabilities = self._network.predict(x)
        answered = np.isfinite(probabilities.reshape(len(x), -1)).all(axis=1)
        problems = {int(row): "the model gives no number" for row in np.flatnonzero(~answered)} | (
            problems
        )
        if len(problems) > len(frame) / 2:
            first = min(problems)
            raise DataError(
                f"{table.place(before + first + 1)}: {problems[first]}; most of {len(frame):,} "
                "rows are like it: --decimal, --missing and others say how the input is written"
            )
        return self._as_frame(frame[kept], x, probabilities, problems)

    def _as_frame(
        self,
        kept: pd.DataFrame,
        x: FloatArray,
        probabilities: FloatArray,
        problems: Mapping[int, str],
    ) -> pd.DataFrame:
        import pandas as pd

        lost = list(problems)
        labels = np.array(self._labels, dtype=object)
        decision = labels[classify(probabilities, self._version.threshold)]
        decision[lost] = None
        why = np.full(len(x), None, dtype=object)
        why[lost] = list(problems.values())
        scores = probabilities.astype(np.float64).reshape(len(x), -1)
        scores[lost] = np.nan
        held = dict(zip(self._score_names(), scores.T, strict=True))
        held |= {"decision": decision, "version": np.full(len(x), self._version.version)}
        if self._explain:
            shares = self._attributions(x)
            shares[lost] = np.nan
            held |= dict(zip(self._attribution_names(), shares.T, strict=True))
        own = pd.DataFrame(held | {"problem": why}, index=kept.index)
        return pd.concat([kept, own], axis=1)

    def _read(self, frame: pd.DataFrame) -> tuple[Columns, dict[int, str]]:
        """The model's columns, and what is wrong with a row: a text where a number must be."""
        if self.contract == 1:
            return self._encoding.raw(frame), {}
        columns: dict[str, Any] = {}
        problems: dict[int, str] = {}
        for column in self._encoding.columns:
            values = frame[column.name]
            if column.kind in TEXTS:
                columns[column.name] = texts(values)
                continue
            columns[column.name], wrong = parsed(values)
            for row in map(int, np.flatnonzero(wrong)):
                problems.setdefault(
                    row, f"column '{column.name}': {values.iloc[row]!r} is not a number"
                )
        return columns, problems

    def _attributions(self, x: FloatArray) -> NDArray[np.float64]:
        """Gradient times input (n, columns) of each row's logit, of K classes the likeliest's."""
        inputs = x[:, : self._encoding.width]
        shares = (input_gradients(self._network, x) * inputs).astype(np.float64)
        widths = [column.width for column in self._encoding.columns if column.width]
        starts = np.cumsum([0, *widths])[:-1]
        summed: NDArray[np.float64] = np.add.reduceat(shares, starts, axis=1)
        return summed

    def _score_names(self) -> list[str]:
        if len(self._labels) == 2:
            return ["score"]
        return [f"score_{label}" for label in self._labels]

    def _attribution_names(self) -> list[str]:
        return [f"attribution_{name}" for name in self._encoding.features]

    def _own_names(self) -> set[str]:
        why = self._attribution_names() if self._explain else []
        return {*self._score_names(), *why, "decision", "version", "problem"}
