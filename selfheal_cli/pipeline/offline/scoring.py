"""A table of any length scored with one version, chunk by chunk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from selfheal_cli.config_sources import FolderSettings, NdjsonSettings, SqlSettings, TableSettings
from selfheal_cli.errors import ConfigurationError, DataError, ModelError
from selfheal_cli.metrics import classify
from selfheal_cli.model.attribution import input_gradients
from selfheal_cli.model.checkpoint import assemble
from selfheal_cli.pipeline.offline.scored_parts import ScoredParts, kind_of
from selfheal_cli.pipeline.prepare.rows import open_rows
from selfheal_cli.records import VersionRecord
from selfheal_cli.registry.base import Registry
from selfheal_cli.registry.encoding import encoding_of
from selfheal_cli.rollback.verify import load_verified
from selfheal_cli.sources.feed import on_disk
from selfheal_cli.sources.table_file import TableFile, require_column
from selfheal_cli.sources.values import parsed, texts

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from selfheal_cli.records import Columns, FloatArray

RowsIn = TableSettings | FolderSettings | NdjsonSettings | SqlSettings
UNSCORED = ""  # among the counts of decisions: rows that got none
ROWS = "rows.ndjson"  # of a query, in the unfinished folder


@dataclass(frozen=True, slots=True)
class ScoreJob:
    """What is scored into what. ``keep`` None: all columns that are no inputs of the model.

    ``chosen`` is the version as it was asked for; ``version`` finds its number.
    """

    rows: RowsIn
    output: Path
    model: str
    chosen: str
    version: Callable[[], int]
    keep: tuple[str, ...] | None
    explain: bool
    part_rows: int
    force: bool

    def describe(self) -> dict[str, Any]:
        """What must be the same where an unfinished job goes on."""
        path = getattr(self.rows, "path", None)
        return {
            "model": self.model,
            "version": self.chosen,
            "input": self.rows.model_dump(mode="json", exclude={"target"}),
            "state of the input": [] if path is None else _state(path),
            "--keep": self.keep,
            "--explain": self.explain,
            "--part-rows": self.part_rows,
        }


@dataclass(frozen=True, slots=True)
class ScoredTable:
    """What was done: ``resumed_after`` rows had been written before."""

    version: int
    rows: int
    resumed_after: int
    decisions: Mapping[str, int]
    unscored: int
    notes: Mapping[str, int]


def score_table(job: ScoreJob, registry: Registry, told: Callable[[int], None]) -> ScoredTable:
    """Score every row once, in the table's order; ``told`` hears how many are written.

    Raises `DataError` for an input that does not fit the model, `RegistryError`, and
    `ConfigurationError` for an output that is there.
    """
    _require_apart(job)
    parts = ScoredParts(job.output)
    with parts.open(job.describe(), force=job.force):
        parts.pin(parts.version or job.version())
        version = registry.version(job.model, parts.version or 0)
        model = VersionScorer(registry, version, explain=job.explain)
        before = parts.rows
        told(before)
        notes = _score_rest(job, parts, model, told)
        parts.finish()
        counts = parts.counts
    unscored = counts.pop(UNSCORED, 0)
    return ScoredTable(version.version, parts.rows, before, dict(counts), unscored, notes)


def _score_rest(
    job: ScoreJob, parts: ScoredParts, model: VersionScorer, told: Callable[[int], None]
) -> Mapping[str, int]:
    """Score what no part has yet; returns what was unusual in the table."""
    table = _opened(job.rows, model.contract, parts.folder / ROWS)
    kept = model.kept(table, job.keep)
    schema = getattr(table, "schema", None)
    row = parts.rows
    answers = (
        model.answer(frame, kept, before, table)
        for frame, before in _numbered(table.chunks(model.numeric, row), row)
    )
    answer = next(answers, None)
    while answer is not None:
        counts, end = Counter[str](), row + job.part_rows
        with parts.part({str(name): kind_of(answer[name], schema) for name in answer}) as part:
            while answer is not None and row < end:
                part.add(answer)
                counts.update(answer["decision"].fillna(UNSCORED))
                row += len(answer)
                told(row)
                answer = next(answers, None)
        parts.end(row, counts)
    return table.notes()


def _numbered(frames: Iterable[pd.DataFrame], before: int) -> Iterator[tuple[pd.DataFrame, int]]:
    """Frames, each with how many rows precede it."""
    for frame in frames:
        yield frame, before
        before += len(frame)


class VersionScorer:
    """One version, checked, which answers frames of a table."""

    def __init__(self, registry: Registry, version: VersionRecord, *, explain: bool) -> None:
        weights = load_verified(registry, version)
        base = registry.base(version.base)
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
            if column.kind == "categorical":
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
        shares = (input_gradients(self._network, x) * x).astype(np.float64)
        starts = np.cumsum([0, *(column.width for column in self._encoding.columns)])[:-1]
        summed: NDArray[np.float64] = np.add.reduceat(shares, starts, axis=1)
        return summed

    def _score_names(self) -> list[str]:
        if len(self._labels) == 2:
            return ["score"]
        return [f"score_{label}" for label in self._labels]

    def _attribution_names(self) -> list[str]:
        return [f"attribution_{name}" for name in self._encoding.names]

    def _own_names(self) -> set[str]:
        why = self._attribution_names() if self._explain else []
        return {*self._score_names(), *why, "decision", "version", "problem"}


def _opened(rows: RowsIn, contract: Any, copy: Path) -> TableFile:
    """The table; what a query gives is kept until the job is done, as a database moves."""
    if not isinstance(rows, SqlSettings):
        return open_rows(rows, contract)
    if not copy.exists():
        fresh = copy.with_suffix(".tmp")
        with on_disk(copy):
            open_rows(rows, contract).keep(fresh)
            fresh.replace(copy)
    common = rows.model_dump(exclude={"kind", "url", "query"})
    return open_rows(NdjsonSettings(path=copy, **common), contract)


def _require_apart(job: ScoreJob) -> None:
    path = getattr(job.rows, "path", None)
    if path is None:
        return
    output = job.output.resolve()
    if path.resolve() in (output, output.parent if path.is_dir() else None):
        raise ConfigurationError(f"{job.output}: lies in what is read; name a place beside it")


def _state(path: Path) -> list[Any]:
    """Names, sizes and times of what is read."""
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    states = ((one.name, one.stat()) for one in files if one.exists())
    return [[name, state.st_size, state.st_mtime_ns] for name, state in states]
