"""The training rows by segment, where a run watches segments."""

from __future__ import annotations

from collections import Counter

import numpy as np

from selfheal_cli.config import RunConfig
from selfheal_cli.drift.monitor import Reservoir, TrainingSample
from selfheal_cli.drift.segment_evidence import CELLS
from selfheal_cli.drift.segments import ColumnCells, SegmentReference, most_segments
from selfheal_cli.engine.cluster import require_cluster
from selfheal_cli.errors import ConfigurationError, DataError
from selfheal_cli.heal.recipe import kind_of
from selfheal_cli.records import Rows
from selfheal_cli.segment_keys import keys_of
from selfheal_cli.sources.base import Source
from selfheal_cli.sources.table_file import nearest

FEWEST = 20  # rows, from which on a column whose values hardly repeat names rows
REPEATED = 2.0  # rows a value, on average, below which it does


def check_segments(config: RunConfig, source: Source) -> None:
    """Raise `DataError` for a column that makes no segments, before training takes its time; and
    `ConfigurationError` where none can be healed.
    """
    by = config.segments.by
    if config.segments.heal:
        _check_heals(config)
    if by is None:
        return
    counts: Counter[str] = Counter()
    rows = 0
    for block in source.training():
        if by not in block.columns:
            names = list(block.columns)
            raise DataError(
                f"segments.by = '{by}' is not a column of the rows{nearest(by, names)}; they have: "
                f"{', '.join(names)}"
            )
        counts.update(key for key in keys_of(block.columns[by]) if key is not None)
        rows += len(block)
    if not counts:
        raise DataError(f"segments.by = '{by}': the training rows have no value in it")
    known = counts.total()
    if known >= FEWEST and len(counts) * REPEATED > known:
        raise DataError(
            f"segments.by = '{by}' has {len(counts):,} values in {known:,} training rows: it names "
            "rows, not segments; name a column whose values repeat"
        )
    most = min(config.segments.most, most_segments(len(columns_of(source, by))))
    if len(counts) > most:
        raise DataError(
            f"segments.by = '{by}' has {len(counts):,} values in {rows:,} training rows; at most "
            f"{most:,} segments are told apart with {len(columns_of(source, by))} columns: name a "
            "coarser column, or raise segments.most where that is the bound"
        )


def _check_heals(config: RunConfig) -> None:
    """Raise `ConfigurationError` where segments cannot have adapters, or what `require_cluster`
    does where they are to learn on one.
    """
    if config.segments.by is None:
        raise ConfigurationError(
            "segments.heal = true: no column says which segment a row is of; give --segment-by "
            "COLUMN, or leave segments.heal out"
        )
    if not kind_of(config.heal.recipe).guarded:
        raise ConfigurationError(
            f"segments.heal = true: recipe '{config.heal.recipe}' heals without a gate; give "
            "--recipe anchored or ensemble, or leave segments.heal out"
        )
    if config.heal.assume is not None:
        raise ConfigurationError(
            f"segments.heal = true: heal.assume = {config.heal.assume} heals without labels, and "
            "segments learn from labels alone; leave out one of the two"
        )
    if config.heal.engine == "ray":
        require_cluster()


def columns_of(source: Source, by: str) -> tuple[str, ...]:
    """The features that segments are watched in: all but the one that says which it is."""
    return tuple(name for name in source.encoding.features if name != by)


def segment_reference(config: RunConfig, source: Source) -> SegmentReference | None:
    """What is normal in each segment; None where none are watched. Walks the rows twice."""
    by = config.segments.by
    if by is None:
        return None
    reservoir = Reservoir()
    for rows in source.training():
        reservoir.add(rows)
    sample = _sample(source, reservoir.rows())
    columns = {name: ColumnCells.of(sample, name) for name in columns_of(source, by)}
    counted = SegmentReference(by, (), columns, np.zeros((0, len(columns), CELLS), np.int32))
    for rows in source.training():
        counted = counted.with_rows(rows.columns)
    return counted


def _sample(source: Source, rows: Rows) -> TrainingSample:
    """The rows alone: what the model says of them is not asked."""
    numeric = tuple(source.encoding.numeric)
    known = {
        column.name: column.categories
        for column in source.encoding.columns
        if column.kind == "categorical"
    }
    none = np.zeros(0, dtype=np.float32), np.zeros(0, dtype=np.int8)
    return TrainingSample(rows, *none, 0, tuple(source.labels), numeric, known, {})
