"""Parts of the answer to a table, scored in this process or in another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from selfheal_cli.config_sources import FolderSettings, NdjsonSettings, SqlSettings, TableSettings
from selfheal_cli.model.network import Weights
from selfheal_cli.pipeline.offline.scored_parts import Kinds, kind_of, part_file
from selfheal_cli.pipeline.offline.version_scorer import VersionScorer
from selfheal_cli.pipeline.prepare.rows import open_rows
from selfheal_cli.records import Base, VersionRecord
from selfheal_cli.sources.feed import on_disk
from selfheal_cli.sources.table_file import TableFile

if TYPE_CHECKING:
    import pandas as pd

RowsIn = TableSettings | FolderSettings | NdjsonSettings | SqlSettings
Stream = Callable[[], AbstractContextManager[IO[bytes]]]
UNSCORED = ""  # among the counts of decisions: rows that got none


@dataclass(frozen=True, slots=True)
class PartTask:
    """Which rows are scored by what, and how the answer is written; it may cross processes.

    ``copy`` is where the rows of a query are kept. ``keep`` None: all columns that are no inputs of
    the model. ``kinds`` are the types of the answer's columns, where they are known.
    """

    rows: RowsIn
    copy: Path
    version: VersionRecord
    base: Base
    weights: Weights
    explain: bool
    keep: tuple[str, ...] | None
    part_rows: int
    form: str
    kinds: Kinds


@dataclass(frozen=True, slots=True)
class ScoredPart:
    """A part's rows, after ``begin`` others up to ``end``, and how many got which decision."""

    begin: int
    end: int
    counts: Counter[str]


class PartScorer:
    """Scores the rows of a table, frame by frame, into parts of at least ``part_rows``.

    Raises `DataError` for a table that does not fit the model.
    """

    def __init__(self, task: PartTask) -> None:
        self.task = task
        self._model = VersionScorer(task.version, task.base, task.weights, explain=task.explain)
        self.table = _opened(task.rows, self._model.contract, task.copy)
        self._kept = self._model.kept(self.table, task.keep)
        self._kinds = task.kinds

    def parts(
        self, first: int, last: int | None, stream: Stream, told: Callable[[int], None]
    ) -> Iterator[ScoredPart]:
        """Score the rows after the first so many, up to the frame that ends at ``last``, or all.

        Each part is written to a ``stream`` of its own; ``told`` hears up to which row.
        """
        answers = self._answers(first, last)
        answer, row = next(answers, None), first
        while answer is not None:
            begin, counts = row, Counter[str]()
            with stream() as written, closing(self._part(written, answer, begin)) as part:
                while answer is not None and row < begin + self.task.part_rows:
                    part.add(answer)
                    counts.update(answer["decision"].fillna(UNSCORED))
                    row += len(answer)
                    told(row)
                    answer = next(answers, None)
            yield ScoredPart(begin, row, counts)

    def cuts(self, first: int) -> list[tuple[int, int | None]]:
        """Rows of the parts to come, where the table knows of its frames before they are read;
        else all rows in one.
        """
        frames = getattr(self.table, "frame_rows", None)
        if frames is None:
            return [(first, None)]
        cuts, begin = list[tuple[int, int | None]](), first
        for end in accumulate(frames()):
            if end >= begin + self.task.part_rows:
                cuts.append((begin, end))
                begin = end
        return [*cuts, (begin, None)]

    def kinds(self) -> Kinds:
        """The types of the answer's columns, by its first frame; none where there is no row."""
        answer = None if self._kinds else next(self._answers(0, None), None)
        return self._kinds if answer is None else self._kinds_of(answer)

    def _part(self, stream: IO[bytes], answer: pd.DataFrame, begin: int) -> Any:
        self._kinds = self._kinds or self._kinds_of(answer)
        return part_file(stream, self.task.form, self._kinds, header=not begin)

    def _kinds_of(self, answer: pd.DataFrame) -> Kinds:
        schema = getattr(self.table, "schema", None)
        return {str(name): kind_of(answer[name], schema) for name in answer}

    def _answers(self, first: int, last: int | None) -> Iterator[pd.DataFrame]:
        frames = self.table.chunks(self._model.numeric, first)
        for frame, before in _numbered(frames, first, last):
            yield self._model.answer(frame, self._kept, before, self.table)


def _numbered(
    frames: Iterable[pd.DataFrame], before: int, last: int | None
) -> Iterator[tuple[pd.DataFrame, int]]:
    """Frames up to ``last``, each with how many rows precede it."""
    for frame in frames:
        yield frame, before
        before += len(frame)
        if before == last:
            return


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
