"""One table in each form that a source reads, and streams whose lines and clock a test sets."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from selfheal_cli.config import RunConfig
from selfheal_cli.config_sources import (
    FolderSettings,
    NdjsonSettings,
    SqlSettings,
    StdinSettings,
    TableSettings,
)
from selfheal_cli.pipeline.prepare.rows import open_source
from selfheal_cli.sources.feed import PARTITION, FeedLine
from selfheal_cli.sources.stream import UnboundedSource

KINDS = ("web", "shop", "phone")
BOUNDED = ("csv", "parquet", "folder", "ndjson", "sqlite")


def plain(rows: int = 95) -> pd.DataFrame:
    """Rows that tell their own number, two classes, a text and some missing values."""
    number = np.arange(rows)
    return pd.DataFrame(
        {
            "number": number.astype(float),
            "wave": np.where(number % 7 == 3, np.nan, np.sin(number)),
            "kind": [None if n % 11 == 5 else KINDS[n % 3] for n in number],
            "y": np.where(number % 2, "yes", "no"),
        }
    )


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON has them."""
    plain = frame.astype(object).where(frame.notna(), None)
    return [dict(row) for row in plain.to_dict("records")]


def written(form: str, frame: pd.DataFrame, folder: Path) -> Any:
    """The frame in this form; returns the settings that name it."""
    if form == "csv":
        frame.to_csv(folder / "t.csv", index=False)
        return TableSettings(path=folder / "t.csv", target="y")
    if form == "parquet":
        frame.to_parquet(folder / "t.parquet", index=False)
        return TableSettings(path=folder / "t.parquet", target="y")
    if form == "folder":
        parts = folder / "parts"
        parts.mkdir()
        cut = len(frame) // 3
        # the parts' order is that of their names, not that in which they were written
        frame.iloc[cut:].to_parquet(parts / "b.parquet", index=False)
        frame.iloc[:cut].to_parquet(parts / "a.parquet", index=False)
        return FolderSettings(path=parts, target="y")
    if form == "ndjson":
        lines = [json.dumps(row) + "\n" for row in records(frame)]
        (folder / "t.ndjson").write_text("".join(lines), encoding="utf-8")
        return NdjsonSettings(path=folder / "t.ndjson", target="y")
    url = f"sqlite:///{folder}/t.db"
    into_database(frame, url)
    query = "SELECT number, wave, kind, y FROM t ORDER BY place"
    return SqlSettings(url=url, query=query, target="y")


def into_database(frame: pd.DataFrame, url: str) -> None:
    """A table ``t`` whose column ``place`` has the rows' order."""
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    engine = create_engine(url, poolclass=NullPool)
    frame.assign(place=range(len(frame))).to_sql("t", engine, index=False)


def opened(settings: Any, *, batch_size: int = 10, batches: int | None = None) -> Any:
    return open_source(RunConfig(source=settings, batch_size=batch_size, batches=batches))


class Clock:
    """Seconds that a test moves on."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class ScriptedFeed:
    """Gives one step of a script a read: lines of text, or seconds that pass with nothing."""

    where = "script"

    def __init__(self, clock: Clock, steps: Sequence[list[str] | float], first: int = 0) -> None:
        self._clock, self._steps, self._next = clock, iter(steps), first
        self.committed: dict[str, int] = {}
        self.closed = False

    def read(self, seconds: float, *, labels: bool = True) -> list[FeedLine] | None:
        step = next(self._steps, None)
        if step is None:
            return None
        if isinstance(step, float):
            self._clock.now += step
            return []
        lines = [
            FeedLine(PARTITION, self._next + place, text.encode())
            for place, text in enumerate(step)
        ]
        self._next += len(step)
        return lines

    def positions(self) -> dict[str, int]:
        return {PARTITION: self._next}

    def place(self, partition: str, offset: int) -> str:
        return f"script: line {offset + 1}"

    def commit(self, upto: Any, held: Any) -> None:
        self.committed = dict(upto)

    def close(self) -> None:
        self.closed = True


def as_lines(frame: pd.DataFrame) -> list[str]:
    return [json.dumps(row) for row in records(frame)]


def stream(
    steps: Sequence[list[str] | float],
    *,
    clock: Clock | None = None,
    idle: Callable[[], bool] = lambda: False,
    folder: Path | None = None,
    batch_size: int = 10,
    **values: Any,
) -> UnboundedSource:
    """A source over a script; batches of 10 rows, the first 30 train."""
    clock = clock or Clock()
    settings = StdinSettings(**({"target": "y", "train_rows": 30} | values))
    source = UnboundedSource(
        settings,
        ScriptedFeed(clock, steps),
        None,
        batch_size=batch_size,
        batches=None,
        clock=clock,
    )
    if folder is not None:
        source.attend(folder, idle)
    return source


def numbers(batches: Iterator[Any]) -> list[list[float]]:
    """Which rows of `plain` each batch holds."""
    return [batch.rows.columns["number"].tolist() for batch in batches]
