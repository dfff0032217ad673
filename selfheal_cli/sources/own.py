"""Rows of other packages: asked for once, and kept in a file, since a run reads them often."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import IO, TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd

from selfheal_cli.errors import DataError, PartError
from selfheal_cli.installed import load, part_of
from selfheal_cli.sources.sql import as_line, spooled
from selfheal_cli.sources.table_file import require_names

if TYPE_CHECKING:
    from collections.abc import Iterable

    from selfheal_cli.config_sources import OwnSettings
    from selfheal_cli.sources.ndjson import NdjsonTable
    from selfheal_cli.sources.values import RowContract


class SourcePart(Protocol):
    """Where rows come from: a function that is called with its options, texts all of them."""

    def __call__(self, **options: str) -> Iterable[Mapping[str, Any] | pd.DataFrame]:
        """The rows in time order, as mappings of column to value or as DataFrames; all have the
        same columns. They end.
        """


def open_own(settings: OwnSettings, contract: RowContract = 2) -> NdjsonTable:
    """Ask for the rows and keep them in a temporary file, which goes with the table.

    Raises `DataError` where the source fails or gives what is no row, naming its package.
    """
    where = str(part_of("source", settings.provider))
    return spooled(partial(_fetch, settings, where), where, contract)


def _fetch(settings: OwnSettings, where: str, spool: IO[str]) -> None:
    columns: list[str] = []
    for row, values in enumerate(_rows(settings, where), 1):
        place = partial("{}: row {}".format, where, row)
        if not columns:
            columns = list(values)
            require_names(columns, where=where)
        if list(values) != columns:
            odd = sorted(set(values) ^ set(columns)) or ["their order"]
            raise DataError(f"{place()} has other columns than the first one: {odd[0]}")
        spool.write(as_line(columns, values.values(), place))


def _rows(settings: OwnSettings, where: str) -> Iterator[Mapping[str, Any]]:
    """What the source gives, row by row; its errors are ours."""
    part = part_of("source", settings.provider)
    source = load("source", settings.provider)
    options = dict(one.split("=", 1) for one in settings.options)
    try:
        for given in source(**options):
            if isinstance(given, pd.DataFrame):
                yield from _of_frame(given)
            elif isinstance(given, Mapping):
                yield {str(name): _plain(value) for name, value in given.items()}
            else:
                raise PartError(f"gave {type(given).__name__}, and no mapping or DataFrame")
    except DataError:
        raise
    except Exception as exc:
        said = str(exc) if isinstance(exc, PartError) else exc
        raise DataError(str(part.failed(said))) from exc


def _of_frame(frame: pd.DataFrame) -> Iterator[Mapping[str, Any]]:
    names = [str(name) for name in frame.columns]
    for values in frame.itertuples(index=False, name=None):
        yield dict(zip(names, map(_plain, values), strict=True))


def _plain(value: Any) -> Any:
    """A value without numpy's and pandas' types."""
    if value is None or value is pd.NaT or value is pd.NA:
        return None
    return value.item() if isinstance(value, np.generic) else value
