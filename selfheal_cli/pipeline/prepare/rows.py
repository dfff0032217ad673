"""The source that a configuration names, and the rows that a run kept of it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfheal_cli.config import RunConfig
from selfheal_cli.config_sources import (
    NDJSON_SUFFIXES,
    BoundedSettings,
    FolderSettings,
    KafkaSettings,
    NdjsonSettings,
    OwnSettings,
    RowSettings,
    SqlSettings,
    SyntheticSettings,
    TableSettings,
    UnboundedSettings,
)
from selfheal_cli.errors import DataError, RegistryError
from selfheal_cli.events.archive import LOG_NAME
from selfheal_cli.events.log import read
from selfheal_cli.events.types import ModelTrained, RowsTaken
from selfheal_cli.registry.base import Registry
from selfheal_cli.sources.base import Source
from selfheal_cli.workspace import OWNER_ONLY

if TYPE_CHECKING:
    from selfheal_cli.sources.feed import Feed, Past
    from selfheal_cli.sources.stream import UnboundedSource
    from selfheal_cli.sources.table_file import TableFile
    from selfheal_cli.sources.values import RowContract

Bounded = TableSettings | FolderSettings | NdjsonSettings | SqlSettings | OwnSettings
KEPT = "rows"  # a kept table's name, before its suffix
NEARLY_ALL = 0.9  # of a table that all train on: a source streams a batch at least
KEPT_LINES = f"{KEPT}.jsonl"


def open_source(config: RunConfig) -> Source:
    """Open it; what reads tables loads only where a table is read."""
    size: dict[str, Any] = {"batch_size": config.batch_size, "batches": config.batches}
    settings = config.source
    if isinstance(settings, UnboundedSettings):
        return _unbounded(config, settings, None, None, live=True)
    if isinstance(settings, BoundedSettings):
        from selfheal_cli.sources.table import TableSource

        rows = open_rows(settings, config.row_contract)
        return TableSource(settings, rows, segments=config.segments, **size)
    if isinstance(settings, SyntheticSettings):
        from selfheal_cli.sources.synthetic import SyntheticSource

        return SyntheticSource(settings, seed=config.seed, contract=config.row_contract, **size)
    raise DataError(
        "the rows of this run came from a program or through a server: they cannot be read again, "
        "so that it can be neither resumed nor replayed"
    )


def open_new(config: RunConfig) -> tuple[RunConfig, Source]:
    """The source of a run that begins, and the configuration with how its texts are written."""
    config, remarks = _spelled(config)
    source = open_source(config)
    if remarks:
        source.remarks = (*remarks, *source.remarks)
    return config, source


def _spelled(config: RunConfig) -> tuple[RunConfig, tuple[str, ...]]:
    """Numbers and dates of a table as people write them are read as such, where nobody said how
    they are written, and they could be nothing else.
    """
    settings = config.source
    if not isinstance(settings, BoundedSettings) or not settings.drop_identifiers:
        return config, ()
    if settings.decimal or settings.date_format:
        return config, ()
    from selfheal_cli.sources.recognition import recognise
    from selfheal_cli.sources.spelling import Spelling

    told = Spelling(missing=settings.missing_values)
    separator = getattr(settings, "separator", None)
    recognised = recognise(open_rows(settings, config.row_contract), told, separator)
    spelling = recognised.spelling
    texts = dict(recognised.numbers) | {name: text for name, (_, text) in recognised.dates.items()}
    if not texts:
        return config, ()
    options = [f"--decimal '{spelling.decimal}'"] if spelling.decimal else []
    options += [f"--thousands '{spelling.thousands}'"] if spelling.thousands else []
    options += [f"--date-format '{form}'" for form in spelling.dates]
    name, text = next(iter(texts.items()))
    written, as_asked = f"'{name}' is written as '{text}' and read as", " ".join(options)
    if recognised.doubts or set(texts) & {settings.target, *settings.categorical}:
        return config, (f"{written} a text: {as_asked} reads it",)
    read = {"decimal": spelling.decimal, "thousands": spelling.thousands,
            "date_format": spelling.dates, "missing_values": spelling.missing}  # fmt: skip
    meant = "a number" if name in recognised.numbers else "a date"
    remark = f"{written} {meant}, as with {as_asked}; --categorical {name} keeps the text"
    return config.model_copy(update={"source": settings.model_copy(update=read)}), (remark,)


def open_rows(settings: Bounded, contract: RowContract = 2) -> TableFile:
    """The rows that settings name, whatever they are kept in, and in whatever order."""
    from selfheal_cli.sources.spelling import as_told

    return as_told(_as_written(settings, contract), settings)


def _as_written(settings: Bounded, contract: RowContract) -> TableFile:
    if isinstance(settings, FolderSettings):
        from selfheal_cli.sources.parquet import ParquetFolder

        return ParquetFolder(settings.path, contract)
    if isinstance(settings, SqlSettings):
        from selfheal_cli.sources.sql import open_query

        return open_query(settings, contract)
    if isinstance(settings, OwnSettings):
        from selfheal_cli.sources.own import open_own

        return open_own(settings, contract)
    from selfheal_cli.sources.files import open_settled

    return open_settled(settings, contract)


def kept_rows(config: RunConfig, folder: Path) -> Path | None:
    """Where a run keeps its rows; None where it does not."""
    settings = config.source
    if not isinstance(settings, RowSettings) or not settings.record_rows:
        return None
    if isinstance(settings, UnboundedSettings):
        return folder / KEPT_LINES
    if isinstance(settings, TableSettings):
        return folder / f"{KEPT}{settings.path.suffix}"
    return folder / f"{KEPT}{'.parquet' if isinstance(settings, FolderSettings) else '.ndjson'}"


def keep_rows(config: RunConfig, source: Source, folder: Path) -> None:
    """Put a table into the run's folder, if that is wanted; a stream keeps its lines itself."""
    path = kept_rows(config, folder)
    if path is None or not isinstance(config.source, BoundedSettings):
        return
    from selfheal_cli.sources.table import TableSource

    if isinstance(source, TableSource):
        part = path.with_name(f"{path.name}.part")
        part.touch(OWNER_ONLY)
        source.table.keep(part)
        part.replace(path)


def open_kept(
    config: RunConfig,
    folder: Path,
    registry: Registry,
    run_id: str,
    into: Path,
    *,
    live: bool = False,
) -> Source:
    """A run's source once more: the rows that it kept, here or in the registry, if it kept any.

    A stream gives what the run took of it, and with ``live`` goes on from there.
    Raises `DataError` where rows are gone and were not kept.
    """
    settings = config.source
    kept = _find_kept(config, folder, registry, run_id, into)
    if isinstance(settings, UnboundedSettings):
        return _unbounded(config, settings, folder / LOG_NAME, kept, live=live)
    if kept is None:
        return open_source(config)
    if isinstance(settings, TableSettings):
        again: Bounded = settings.model_copy(update={"path": kept})
    else:
        kind = TableSettings if isinstance(settings, FolderSettings) else NdjsonSettings
        common = settings.model_dump(include=set(BoundedSettings.model_fields))
        again = kind(path=kept, **common)
    return open_source(config.model_copy(update={"source": again}))


def _find_kept(
    config: RunConfig, folder: Path, registry: Registry, run_id: str, into: Path
) -> Path | None:
    kept = kept_rows(config, folder)
    if kept is None or kept.exists():
        return kept
    try:
        return registry.run_file(run_id, kept.name, into)
    except RegistryError:
        return None


def _unbounded(
    config: RunConfig,
    settings: UnboundedSettings,
    log: Path | None,
    kept: Path | None,
    *,
    live: bool,
) -> UnboundedSource:
    from selfheal_cli.sources.feed import Keeping, KeepingFeed, KeptLines, Past, positions_in
    from selfheal_cli.sources.stream import UnboundedSource

    past = Past() if log is None else past_of(log)
    begin = past.begin if kept is None else positions_in(kept)
    keeping = Keeping() if settings.record_rows and live else None
    feed: Feed | None = None
    if kept is None or live:
        feed = _feed(settings, begin, again=log is not None and kept is None)
        feed = feed if keeping is None else KeepingFeed(feed, keeping)
    return UnboundedSource(
        settings,
        feed if kept is None and feed is not None else KeptLines(kept or Path(), feed),
        None if settings.train is None else _training_table(settings.train, config.row_contract),
        batch_size=config.batch_size,
        batches=config.batches,
        past=past,
        keeping=keeping,
        live=live,
        contract=config.row_contract,
        segments=config.segments,
    )


def _feed(settings: UnboundedSettings, begin: Mapping[str, int], *, again: bool) -> Feed:
    if isinstance(settings, KafkaSettings):
        from selfheal_cli.sources.kafka import KafkaFeed

        return KafkaFeed(settings, begin)
    from selfheal_cli.sources.feed import PARTITION, StdinFeed

    if again:
        raise DataError(
            "the rows of this run came on standard input and were not kept, as source.record_rows "
            "does: it can be neither resumed nor replayed"
        )
    return StdinFeed(sys.stdin.buffer, begin.get(PARTITION, 0))


def training_table(settings: UnboundedSettings) -> TableSettings | NdjsonSettings:
    """The table that a stream's network is trained on, as a source of its own."""
    assert settings.train is not None  # noqa: S101 - who asks has looked
    common = settings.model_dump(include=set(RowSettings.model_fields))
    lines = settings.train.suffix.lower() in NDJSON_SUFFIXES
    kind = NdjsonSettings if lines else TableSettings
    return kind(path=settings.train, train_fraction=NEARLY_ALL, **common)


def _training_table(path: Path, contract: RowContract) -> TableFile:
    """A labelled table beside a stream: CSV, Parquet, or NDJSON by its suffix."""
    from selfheal_cli.sources.files import open_named

    return open_named(path, None, contract)


def past_of(log: Path) -> Past:
    """What a run's log says of its feed; empty where it had not begun to stream."""
    from selfheal_cli.sources.feed import Past

    begin: Mapping[str, int] = {}
    stream: Mapping[str, int] = {}
    taken: list[tuple[int, Mapping[str, int]]] = []
    for event in read(log):
        if isinstance(event, ModelTrained) and event.positions is not None:
            begin, stream = event.positions["begin"], event.positions["stream"]
        elif isinstance(event, RowsTaken):
            taken.append((event.rows, event.offsets))
    return Past(begin, stream, tuple(taken))
