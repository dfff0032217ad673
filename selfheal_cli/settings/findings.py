"""What can be found out about a table that nobody has described, each part with its reason."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from selfheal_cli.config import TableSettings, checked
from selfheal_cli.config_sources import NDJSON_SUFFIXES, NdjsonSettings
from selfheal_cli.errors import DataError
from selfheal_cli.rules.ruleset import Rule
from selfheal_cli.rules.search import suggest_rule
from selfheal_cli.settings.objective import RarityAdvice, advise
from selfheal_cli.settings.telling import tell
from selfheal_cli.sources.files import CsvTable, open_settled
from selfheal_cli.sources.inspection import ColumnProfile, likely_targets, look_at, no_features
from selfheal_cli.sources.recognition import Recognised, open_found
from selfheal_cli.sources.sorted_table import SortedTable
from selfheal_cli.sources.spelling import Spelling, as_told
from selfheal_cli.sources.table import TableSource
from selfheal_cli.sources.table_file import TableFile, require_column
from selfheal_cli.sources.times import in_seconds

FRACTION, STEP, LARGEST = 0.25, 0.05, 0.9
BATCH = 100
LABELLED = re.compile(
    r"label|known|confirm|charge.?back|report|outcome|resol|feedback|settle|verif|decid|review",
    re.I,
)


@dataclass(frozen=True, slots=True)
class ScaffoldOptions:
    """What the user said of the columns; None and nothing where it is to be guessed."""

    target: str | None = None
    positive: str | None = None
    separator: str | None = None
    drop: Sequence[str] = ()
    categorical: Sequence[str] = ()
    time: str | None = None
    label_time: str | None = None
    sort_by: str | None = None
    decimal: str | None = None
    thousands: str | None = None
    encoding: str | None = None
    date_format: Sequence[str] = ()
    missing_values: Sequence[str] = ()

    def named(self) -> Iterator[str]:
        """Columns that must be there."""
        said = (self.target, self.time, self.label_time, self.sort_by)
        yield from filter(None, said)
        yield from (*self.drop, *self.categorical)

    def spelling(self) -> Spelling:
        """How texts are written."""
        dates, missing = tuple(self.date_format), tuple(self.missing_values)
        return Spelling(self.decimal, self.thousands, dates, missing)


@dataclass(frozen=True, slots=True)
class Looked:
    """A table as it is read, and what its columns hold."""

    path: Path
    table: TableFile
    seen: tuple[ColumnProfile, ...]
    recognised: Recognised
    encoding: str | None
    skip_lines: int

    def column(self, name: str) -> ColumnProfile:
        """One of its columns."""
        return next(one for one in self.seen if one.name == name)


@dataclass(frozen=True, slots=True)
class Clocks:
    """Columns of times: the row's own, its label's, and one that the rows are not in order of."""

    time: str | None
    label_time: str | None
    unordered: ColumnProfile | None
    after: tuple[str, ...]  # later than the row's own in all rows, but not the label's by name


@dataclass(frozen=True, slots=True)
class Findings:
    """What the data say, each part with its reason."""

    looked: Looked
    target: ColumnProfile
    others: tuple[str, ...]
    settings: TableSettings | NdjsonSettings
    times: Clocks
    batch_size: int
    rare: RarityAdvice | None  # what rare positives need
    labels: tuple[str, ...]
    why_dropped: dict[str, str]
    late: bool
    tells: Mapping[str, float]
    rule: Rule

    @property
    def regime(self) -> str:
        """When labels come, as the file says it."""
        if self.settings.label_time is not None:
            return "timed"
        return "delayed:1" if self.late else "full"


def _look(path: Path, wishes: ScaffoldOptions) -> Looked:
    """Find out how the file is written, then what is in it."""
    opened = open_found(path, wishes.separator, wishes.encoding, wishes.spelling())
    for name in wishes.named():
        require_column(opened.written, name)
    skipped = opened.written.skip_lines if isinstance(opened.written, CsvTable) else 0
    read = opened.reads if wishes.sort_by is None else SortedTable(opened.reads, wishes.sort_by)
    return Looked(path, read, look_at(read), opened.recognised, opened.encoding, skipped)


def find(path: Path, wishes: ScaffoldOptions) -> Findings:
    """Look at a CSV, Parquet or NDJSON file, and read it as a run would.

    Raises `DataError` where a run could not take the file, or no target can be guessed.
    """
    looked = _look(path, wishes)
    guesses = [name for name in likely_targets(looked.seen, FRACTION) if name not in wishes.drop]
    if wishes.target is None and not guesses:
        raise DataError(
            f"{path}: no column has 2 to 64 values and labels from the first row on, so that none "
            f"can be the target; give --target one of: {', '.join(looked.table.columns)}"
        )
    target = looked.column(wishes.target or guesses[0])
    times = _clocks(looked, target, wishes)
    why = _why_dropped(looked, target, times, wishes)
    late = target.first_missing is not None
    settings, batch = _settings(looked, target, times, tuple(why), wishes)
    source = TableSource(
        settings, as_told(open_settled(settings), settings), batch_size=batch, batches=None
    )
    first = next(source.training())
    two = len(source.labels) == 2
    rare = advise(int((first.y == 1).sum()), len(first), source.streamed) if two else None
    return Findings(
        looked,
        target,
        tuple(name for name in guesses if name != target.name),
        settings,
        times,
        batch if rare is None or batch < BATCH else rare.batch_size,
        rare,
        source.labels,
        why,
        late,
        tell(first, source.encoding.numeric),
        suggest_rule(first, source.encoding.numeric, source.encoding.text),
    )


def _settings(
    looked: Looked,
    target: ColumnProfile,
    times: Clocks,
    drop: tuple[str, ...],
    wishes: ScaffoldOptions,
) -> tuple[TableSettings | NdjsonSettings, int]:
    """How a run is to read the table, and in batches of how many rows."""
    spelling = looked.recognised.spelling
    fraction = _fraction(target)
    batch = max(2, min(BATCH, int(target.rows * min(fraction, 1 - fraction) / 5)))
    values = {
        "path": looked.path, "target": target.name, "positive": wishes.positive, "drop": drop,
        "categorical": tuple(wishes.categorical),
        "train_fraction": fraction, "time": times.time, "label_time": times.label_time,
        "unlabelled": target.first_missing is not None or times.label_time is not None,
        "sort_by": wishes.sort_by, "decimal": spelling.decimal, "thousands": spelling.thousands,
        "date_format": spelling.dates, "missing_values": spelling.missing,
    }  # fmt: skip
    if looked.path.suffix.lower() in NDJSON_SUFFIXES:
        return checked(NdjsonSettings, values, where=str(looked.path)), batch
    values |= {
        "separator": wishes.separator,
        "encoding": looked.encoding,
        "skip_lines": looked.skip_lines or None,
    }
    return checked(TableSettings, values, where=str(looked.path)), batch


def _clocks(looked: Looked, target: ColumnProfile, wishes: ScaffoldOptions) -> Clocks:
    """Which of the columns of times says what."""
    stamped = [c for c in looked.seen
               if c.kind == "time" and c is not target and c.name not in wishes.drop]  # fmt: skip
    own = wishes.time or wishes.sort_by
    own = own or next((c.name for c in stamped if c.rising), None)
    if own is None:
        whole = [c for c in stamped if not c.missing and not LABELLED.search(c.name)]
        return Clocks(None, None, whole[0] if whole else None, ())
    if looked.column(own).missing:
        return Clocks(None, None, looked.column(own), ())
    others = [c.name for c in stamped if c.name != own]
    after = [name for name in others if _lies_after(looked.table, own, name)]
    named = [name for name in after if LABELLED.search(name) or target.name in name]
    label_time = wishes.label_time or (named[0] if len(named) == 1 else None)
    return Clocks(own, label_time, None, tuple(name for name in after if name != label_time))


def _lies_after(table: TableFile, time: str, other: str) -> bool:
    """Whether a second time is never before the row's own, and later in some rows."""
    later = False
    for frame in table.chunks(None):
        own, second = in_seconds(frame[time]), in_seconds(frame[other])
        if (second < own).any():
            return False
        later = later or bool((second > own).any())
    return later


def _why_dropped(
    looked: Looked, target: ColumnProfile, times: Clocks, wishes: ScaffoldOptions
) -> dict[str, str]:
    """Columns that are left out, each with the reason."""
    kept = {target.name, times.time, times.label_time, *wishes.categorical}
    why = {
        name: f"{reason} after the row's own: a leak" if name in times.after else reason
        for name, reason in no_features(looked.seen).items()
        if name not in kept
    }
    return dict.fromkeys(wishes.drop, "you said so") | {
        name: reason for name, reason in why.items() if name not in wishes.drop
    }


def _fraction(target: ColumnProfile) -> float:
    """A quarter of the rows, or more until every value of the target is in the training part."""
    latest = max(target.first_rows.values(), default=0)
    fraction = FRACTION
    while int(target.rows * fraction) <= latest and fraction < LARGEST:
        fraction = round(fraction + STEP, 2)
    return fraction
