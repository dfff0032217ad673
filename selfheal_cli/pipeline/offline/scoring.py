"""A table of any length scored with one version, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfheal_cli.errors import ConfigurationError
from selfheal_cli.pipeline.offline.part_scorer import UNSCORED, PartScorer, PartTask, RowsIn
from selfheal_cli.pipeline.offline.scored_parts import ScoredParts
from selfheal_cli.registry.base import Registry
from selfheal_cli.rollback.verify import load_verified

ROWS = "rows.ndjson"  # of a query, in the unfinished folder
Notes = Mapping[str, int]
ScoreRest = Callable[[PartScorer, ScoredParts, Callable[[int], None]], Notes]


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
    notes: Notes


def score_table(
    job: ScoreJob,
    registry: Registry,
    told: Callable[[int], None],
    score_rest: ScoreRest | None = None,
) -> ScoredTable:
    """Score every row once, in the table's order; ``told`` hears how many are written.
    ``score_rest`` scores what no part has yet, by default in this process.

    Raises `DataError` for an input that does not fit the model, `RegistryError`, and
    `ConfigurationError` for an output that is there.
    """
    _require_apart(job)
    parts = ScoredParts(job.output)
    with parts.open(job.describe(), force=job.force):
        parts.pin(parts.version or job.version())
        version = registry.version(job.model, parts.version or 0)
        scorer = PartScorer(
            PartTask(
                rows=job.rows,
                copy=parts.folder / ROWS,
                version=version,
                base=registry.base(version.base),
                weights=load_verified(registry, version),
                explain=job.explain,
                keep=job.keep,
                part_rows=job.part_rows,
                form=parts.form,
                kinds=parts.kinds,
            )
        )
        before = parts.rows
        told(before)
        notes = (score_rest or _here)(scorer, parts, told)
        parts.finish()
        counts = parts.counts
    unscored = counts.pop(UNSCORED, 0)
    return ScoredTable(version.version, parts.rows, before, dict(counts), unscored, notes)


def _here(scorer: PartScorer, parts: ScoredParts, told: Callable[[int], None]) -> Notes:
    """Score what no part has yet, in this process."""
    for part in scorer.parts(parts.rows, None, parts.stream, told):
        parts.end(part.end, part.counts)
    return scorer.table.notes()


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
