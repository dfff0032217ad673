"""Hands the labelled rows of a served model over to whoever retrains it: Parquet, and why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from selfheal_cli.config import recorded
from selfheal_cli.errors import DataError, StorageError
from selfheal_cli.events.log import read
from selfheal_cli.events.types import RunStarted
from selfheal_cli.labels.selection import LabelSelection, lots_of
from selfheal_cli.pipeline.runs.handed_over import ABOUT_NAME, ROWS_NAME, handovers
from selfheal_cli.pipeline.runs.recovery import served_logs
from selfheal_cli.records import digest
from selfheal_cli.registry.base import BASELINE, CHAMPION, Registry
from selfheal_cli.registry.encoding import encoding_of
from selfheal_cli.rollback.plan import last_own, serving_version
from selfheal_cli.sources.encoding import TEXTS, Encoding
from selfheal_cli.spool.entries import LoggedRequest
from selfheal_cli.spool.store import Spool
from selfheal_cli.workspace import OWNER_ONLY, WORKSPACE

if TYPE_CHECKING:
    import pyarrow as pa

    from selfheal_cli.records import Columns

ROWS = 100_000  # of the spool's latest that are looked through
AT_ONCE = 500  # requests
LABEL = "label"
ABOUT = ("selfheal_probability", "selfheal_snapshot", "selfheal_at", "selfheal_request")


@dataclass(frozen=True, slots=True)
class HandOver:
    """What was written: its folder, and how many labelled rows."""

    folder: Path
    rows: int


def hand_over(
    registry: Registry,
    spool: Spool,
    model: str,
    reason: str,
    at: datetime,
    *,
    rows: int = ROWS,
    workspace: Path = WORKSPACE,
) -> HandOver:
    """Write the labelled ones of the latest answered ``rows``, the oldest first, with their schema,
    the reason and the versions that it concerns.

    Raises `DataError` where no row has a label, `StorageError` where the disk is full.
    """
    champion = serving_version(registry, model) or last_own(registry, model)
    base = registry.base(champion.base)
    encoding, classes = encoding_of(base), tuple(base.describe()["labels"])
    moment = at.astimezone(UTC)
    maturing = _maturing(model, workspace, encoding, at.timestamp())
    folder = handovers(model, workspace) / f"{moment:%Y%m%dT%H%M%S.%fZ}"
    table = RowTable(encoding, classes, maturing)
    try:
        folder.mkdir(parents=True, mode=0o700)
        count = _write(folder / ROWS_NAME, table, spool, rows)
        if not count:
            (folder / ROWS_NAME).unlink()
            folder.rmdir()
            raise DataError(f"'{model}': none of the latest {rows:,} answered rows has a label")
        about = {
            "format": 1,
            "model": model,
            "at": moment.isoformat(timespec="milliseconds"),
            "reason": reason,
            "rows": count,
            "file": ROWS_NAME,
            "sha256": digest((folder / ROWS_NAME).read_bytes()),
            "target": table.target,
            "classes": list(classes),
            "schema": table.described(),
            "versions": {
                "champion": champion.version,
                "base": champion.base,
                "run": champion.run_id,
                BASELINE: registry.alias(model, BASELINE),
                "serves": registry.alias(model, CHAMPION),
            },
        }
        (folder / ABOUT_NAME).write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n")
        for name in (ROWS_NAME, ABOUT_NAME):
            (folder / name).chmod(OWNER_ONLY)
    except OSError as exc:
        raise StorageError(f"{folder}: cannot be written ({exc.strerror})") from exc
    return HandOver(folder, count)


@dataclass(frozen=True, slots=True)
class Maturing:
    """A row that nobody complained about ``before`` a time, in seconds since 1970, is a negative,
    as the server that answered counts it: among those that ``may`` get a label at all.
    """

    before: float
    may: LabelSelection | None

    def negatives(self, request: LoggedRequest, columns: Columns) -> list[int]:
        """Places of the rows that are, unless they have a label."""
        rows = len(request)
        if request.at > self.before:
            return []
        if self.may is None:
            return list(range(rows))
        among = self.may.let_through(columns, request.probabilities, request.threshold)
        among |= self.may.chosen(lots_of(request.request, 0, rows))
        return [int(place) for place in among.nonzero()[0]]


def _maturing(model: str, workspace: Path, encoding: Encoding, now: float) -> Maturing | None:
    """By what the latest run that a server here healed with was told; None where time is no
    label.
    """
    begun = [next(read(log)) for log in served_logs(model, workspace)]
    runs = [one for one in begun if isinstance(one, RunStarted)]
    if not runs:
        return None
    last = max(runs, key=lambda one: one.at)
    config = recorded(last.config, where=f"run {last.run_id}", parts=last.parts)
    labels = config.labels
    if labels.negative_after is None:
        return None
    may: LabelSelection | None = None
    if labels.only_when is not None:
        may = LabelSelection(labels.only_when, config.policy.explore, encoding.names)
    elif labels.ask is not None:
        may = LabelSelection(None, labels.ask)
    return Maturing(now - labels.negative_after, may)


def _write(path: Path, table: RowTable, spool: Spool, rows: int) -> int:
    import pyarrow.parquet as pq

    count = 0
    with pq.ParquetWriter(path, table.schema) as writer:
        for part in _parts(spool, rows):
            batch = table.of(part, spool)
            if batch.num_rows:
                writer.write_table(batch)
            count += batch.num_rows
    return count


def _parts(spool: Spool, rows: int) -> Iterator[list[LoggedRequest]]:
    """The latest answered requests, some at a time."""
    at = spool.first_within(rows, 2**62) - 1
    while part := spool.rows_after(at, AT_ONCE):
        at = part[-1].number
        yield part


class RowTable:
    """Labelled rows as a table: the columns as callers sent them, the label's word, and what was
    answered. A column of the caller's called as the label's keeps its name, and the label gets
    another.
    """

    def __init__(
        self, encoding: Encoding, classes: tuple[str, ...], maturing: Maturing | None = None
    ) -> None:
        self._encoding, self._maturing = encoding, maturing
        self._texts = {one.name: one.kind in TEXTS for one in encoding.columns}
        self._classes = classes
        self.target = LABEL if LABEL not in self._texts else f"selfheal_{LABEL}"

    @property
    def schema(self) -> pa.Schema:
        """Of the file."""
        import pyarrow as pa

        own = [(name, pa.string() if text else pa.float64()) for name, text in self._texts.items()]
        about = (pa.list_(pa.float64()), pa.string(), pa.timestamp("us", "UTC"), pa.string())
        return pa.schema([*own, (self.target, pa.string()), *zip(ABOUT, about, strict=True)])

    def described(self) -> list[dict[str, str]]:
        """The schema in words, the model's columns first."""
        return [
            {"name": one.name, "type": str(one.type),
             "is": "input" if one.name in self._texts else
             "target" if one.name == self.target else "about"}
            for one in self.schema
        ]  # fmt: skip

    def of(self, part: list[LoggedRequest], spool: Spool) -> pa.Table:
        """The labelled rows of some requests."""
        import pyarrow as pa

        labels: dict[int, dict[int, int]] = {}
        for one in spool.labels_of([request.number for request in part]):
            labels.setdefault(one.answered, {})[one.place] = one.y
        rows = [
            row for one in part for row in self._rows(one, self._known(one, labels.get(one.number)))
        ]
        return pa.Table.from_pylist(rows, schema=self.schema)

    def _known(self, request: LoggedRequest, labels: dict[int, int] | None) -> dict[int, int]:
        """The class of each place that has one: one that was taken back (-1) is none."""
        known = {place: y for place, y in (labels or {}).items() if y >= 0}
        if self._maturing is None or not request.columns.keys() >= set(self._encoding.names):
            return known
        columns = self._encoding.cleaned(request.columns)
        return dict.fromkeys(self._maturing.negatives(request, columns), 0) | known

    def _rows(self, request: LoggedRequest, labels: dict[int, int]) -> Iterator[dict[str, Any]]:
        probabilities = request.probabilities
        wide = (
            probabilities
            if probabilities.ndim > 1
            else np.stack([1 - probabilities, probabilities], axis=1)
        )
        for place, y in sorted(labels.items()):
            row = {
                name: _value(request.columns[name][place], text=text)
                for name, text in self._texts.items()
                if name in request.columns
            }
            about = (
                wide[place].astype(float).tolist(), request.snapshot,
                datetime.fromtimestamp(request.at, UTC), request.request,
            )  # fmt: skip
            yield row | {self.target: self._classes[y]} | dict(zip(ABOUT, about, strict=True))


def _value(value: Any, *, text: bool) -> Any:
    if text:
        return None if value is None else str(value)
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return None if np.isnan(number) else number
