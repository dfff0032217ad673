"""A first ``selfheal.yaml``, from what can be seen in the data; every value is one to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from selfheal_cli.config import TableSettings, checked
from selfheal_cli.errors import DataError
from selfheal_cli.records import Rows
from selfheal_cli.rules.ruleset import Rule
from selfheal_cli.rules.search import suggest_rule
from selfheal_cli.settings.inspection import ColumnProfile, likely_ids, likely_targets, look_at
from selfheal_cli.settings.reference import Page, listed, percent
from selfheal_cli.settings.resolve import WATCHED
from selfheal_cli.sources.files import open_table
from selfheal_cli.sources.profile import nearest
from selfheal_cli.sources.synthetic import RULE
from selfheal_cli.sources.table import TableSource

LEAK = 0.98  # ROC AUC of a single column from which on it is hardly a coincidence
SUSPECT = 0.8  # from which on a person should look
FEWEST = 2  # rows of each side


def tell(rows: Rows, numeric: Sequence[str]) -> Mapping[str, float]:
    """Column to ROC AUC of its values alone, 0.5 to 1, most telling first.

    Texts count by the share of positives that their value has; of K classes the best told against
    the others counts. All on the rows given, so that a column of many texts is flattered.
    """
    known = rows.y >= 0
    y = rows.y[known]
    areas = {}
    for name, values in rows.columns.items():
        areas[name] = max(
            (
                _separation(_sizes(values[known], y == label, number=name in numeric), y == label)
                for label in np.unique(y)
            ),
            default=0.5,
        )
    return dict(sorted(areas.items(), key=lambda pair: -pair[1]))


def _sizes(
    values: NDArray[np.generic], positive: NDArray[np.bool_], *, number: bool
) -> NDArray[np.float64]:
    if number:
        sizes = values.astype(np.float64)
        missing = np.isnan(sizes)
        return np.where(missing, sizes[~missing].mean() if not missing.all() else 0.0, sizes)
    _, codes = np.unique(values.astype(str), return_inverse=True)
    return (np.bincount(codes, positive) / np.bincount(codes))[codes]


def _separation(sizes: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """The chance that a positive lies above a negative, ties half; the better direction."""
    ones, zeros = int(positive.sum()), int((~positive).sum())
    if min(ones, zeros) < FEWEST:
        return 0.5
    _, codes, counts = np.unique(sizes, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[codes]
    auc = float((ranks[positive].sum() - ones * (ones + 1) / 2) / (ones * zeros))
    return max(auc, 1 - auc)


FRACTION, STEP, LARGEST = 0.25, 0.05, 0.9
BATCH = 100


@dataclass(frozen=True, slots=True)
class ScaffoldOptions:
    """What the user said of the columns; None and nothing where it is to be guessed."""

    target: str | None = None
    positive: str | None = None
    separator: str | None = None
    drop: Sequence[str] = ()
    categorical: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Scaffold:
    """The file's text, and what a person should look at first."""

    text: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Found:
    """What the data say, each part with its reason."""

    seen: tuple[ColumnProfile, ...]
    target: ColumnProfile
    others: tuple[str, ...]
    settings: TableSettings
    batch_size: int
    labels: tuple[str, ...]
    why_dropped: dict[str, str]
    late: bool
    tells: dict[str, float]
    rule: Rule


def draft_synthetic(schema: str | None = None) -> Scaffold:
    """For the article's stream, which needs no data."""
    page = Page("selfheal init", schema)
    page.registry("fraud")
    page.blank()
    page.put("source:")
    page.value("kind", "synthetic", "the article's stream; 'selfheal init DATA' for your own", 1)
    page.defaults("source", ("kind",), 1, kind="synthetic")
    page.learning("article", "full", "plain", rules=[RULE], sensitive="V14", batch_size=BATCH)
    return Scaffold(page.text(), ())


def draft_table(
    path: Path, shown_path: str, wishes: ScaffoldOptions, schema: str | None = None
) -> Scaffold:
    """For a CSV or Parquet file; ``shown_path`` is how the written file is to name it.

    Raises `DataError` where a run could not take the file either, or no target can be guessed.
    """
    findings = _find(path, wishes)
    page = Page(f"selfheal init {shown_path}", schema)
    page.registry("".join(c if c.isascii() and c.isalnum() else "-" for c in path.stem).strip("-"))
    page.blank()
    _write_source(page, shown_path, findings)
    feature = findings.rule.leaves[0].feature
    page.learning(
        "anchored",
        "delayed:1" if findings.late else "full",
        "frozen",
        rules=[str(findings.rule)],
        sensitive=feature,
        batch_size=findings.batch_size,
        monitors=tuple(WATCHED),
        note=f"the best rule with one split; {_classes(findings.labels)}",
    )
    return Scaffold(page.text(), tuple(_notes(findings)))


def _find(path: Path, wishes: ScaffoldOptions) -> _Found:
    table = open_table(path, wishes.separator)
    seen = look_at(table)
    by_name = {column.name: column for column in seen}
    for name in (*filter(None, [wishes.target]), *wishes.drop, *wishes.categorical):
        if name not in by_name:
            raise DataError(f"{path}: no column '{name}'{nearest(name, list(by_name))}; columns: "
                            f"{', '.join(by_name)}")  # fmt: skip
    guesses = [name for name in likely_targets(seen, FRACTION) if name not in wishes.drop]
    if wishes.target is None and not guesses:
        raise DataError(
            f"{path}: no column has 2 to 64 values and labels from the first row on, so that none "
            f"can be the target; give --target one of: {', '.join(by_name)}"
        )
    target = by_name[wishes.target or guesses[0]]
    why = dict.fromkeys(wishes.drop, "you said so") | _why_dropped(seen, target, wishes)
    times = [c.name for c in seen if c.kind == "time" and c.rising and c.name not in wishes.drop]
    time = next((name for name in times if name != target.name), None)
    why.pop(time or "", None)
    rows = target.rows
    fraction = _fraction(target)
    batch = max(2, min(BATCH, int(rows * min(fraction, 1 - fraction) / 5)))
    late = target.first_missing is not None
    values = {
        "path": path, "target": target.name, "positive": wishes.positive, "drop": tuple(why),
        "categorical": tuple(wishes.categorical), "separator": wishes.separator, "time": time,
        "train_fraction": fraction, "unlabelled": late,
    }  # fmt: skip
    settings = checked(TableSettings, values, where=str(path))
    opened = open_table(settings.path, settings.separator)
    source = TableSource(settings, opened, batch_size=batch, batches=None)
    first = next(source.training())
    _require_numbers_or_categories(path, seen, source)
    rule = suggest_rule(first, source.encoding.numeric, source.encoding.text)
    telling = dict(tell(first, source.encoding.numeric))
    others = tuple(name for name in guesses if name != target.name)
    return _Found(
        seen, target, others, settings, batch, source.labels, why, late, telling, rule
    )  # fmt: skip


def _require_numbers_or_categories(
    path: Path, seen: Sequence[ColumnProfile], source: TableSource
) -> None:
    """Raise `DataError` where all that could be numbers is spelled for people."""
    spelled = [column for column in seen if column.spelled]
    if spelled and not source.encoding.numeric:
        raise DataError(f"{path}: {_spelled(spelled[0])}")


def _spelled(column: ColumnProfile) -> str:
    return (
        f"column '{column.name}' looks like numbers with {column.spelled}, and is read as text: "
        "write them with a decimal point and nothing between thousands, as 1234.5"
    )


def _why_dropped(
    seen: Sequence[ColumnProfile], target: ColumnProfile, wishes: ScaffoldOptions
) -> dict[str, str]:
    """Columns that a network can make nothing of, each with the reason."""
    ids = likely_ids(seen)
    why = {}
    for column in seen:
        if column is target or column.name in wishes.categorical or column.name in wishes.drop:
            continue
        if column.kind == "other":
            why[column.name] = "neither numbers nor text"
        elif column.kind == "time":
            why[column.name] = "a time; source.label_time, if it is when the label came"
        elif column.kind == "empty":
            why[column.name] = "always empty"
        elif column.name in ids:
            why[column.name] = "likely an id: no value comes twice"
    return why


def _fraction(target: ColumnProfile) -> float:
    """A quarter of the rows, or more until every value of the target is in the training part."""
    latest = max(target.first_rows.values(), default=0)
    fraction = FRACTION
    while int(target.rows * fraction) <= latest and fraction < LARGEST:
        fraction = round(fraction + STEP, 2)
    return fraction


def _write_source(page: Page, shown_path: str, findings: _Found) -> None:
    rows, settings, target = findings.target.rows, findings.settings, findings.target
    page.put("source:")
    page.value("kind", "table", "a CSV or Parquet file whose rows are in time order", 1)
    page.value("path", shown_path, f"{rows:,} rows, {len(findings.seen)} columns", 1)
    page.value("target", target.name, _told(target), 1)
    if findings.others:
        page.note(f"columns that could be the target as well: {listed(findings.others)}", 1)
    if len(findings.labels) == 2:
        page.value("positive", findings.labels[1], "what a decision looks for", 1)
    first = int(rows * settings.train_fraction)
    told = f"the first {first:,} rows train, {rows - first:,} stream"
    page.value("train_fraction", settings.train_fraction, told, 1)
    if settings.time is not None:
        page.value("time", settings.time, "never falls, so the rows are in its order", 1)
    if settings.separator is not None:
        page.value("separator", settings.separator, "", 1)
    page.note("what the columns hold:", 1)
    for column in findings.seen:
        page.note(f"  {_line(column, findings)}", 1)
    page.note("left out: ids, times and what holds neither numbers nor text; add leaks", 1)
    page.value("drop", list(settings.drop), "", 1)
    page.value("categorical", list(settings.categorical), "numbers that are names, as of a zone", 1)
    done = {"kind", "path", "target", "train_fraction", "drop", "categorical", "inputs"}
    done |= {"unlabelled"} | {n for n in ("time", "separator") if getattr(settings, n) is not None}
    done |= {"positive"} if len(findings.labels) == 2 else set()
    page.defaults("source", tuple(done), 1, kind="table")


def _line(column: ColumnProfile, findings: _Found) -> str:
    parts = [_told(column)]
    if column.name == findings.target.name:
        parts.append("the target")
    elif column.name in findings.why_dropped:
        parts.append(f"dropped: {findings.why_dropped[column.name]}")
    elif column.name == findings.settings.time:
        parts.append("the time of the row")
    elif column.constant:
        parts.append("constant")
    elif findings.tells.get(column.name, 0) >= LEAK:
        parts.append(f"LIKELY A LEAK: alone it tells nearly all (AUC {_auc(findings, column)})")
    elif findings.tells.get(column.name, 0) >= SUSPECT:
        parts.append(f"tells much alone (AUC {_auc(findings, column)}): known in time, or a leak?")
    if column.spelled:
        parts.append(f"looks like numbers with {column.spelled}, and is read as text")
    return f"{column.name}: {'; '.join(parts)}"


def _auc(findings: _Found, column: ColumnProfile) -> str:
    return f"{findings.tells[column.name]:.3f}"


def _told(column: ColumnProfile) -> str:
    missing = f", {percent(column.missing, column.rows)} missing" if column.missing else ""
    if column.kind == "number" and (column.values is None or len(column.values) > 2):
        return f"number, {column.low:g} to {column.high:g}{missing}"
    if column.values is None or column.kind in ("time", "other", "empty"):
        return f"{column.kind}{missing}"
    held = column.rows - column.missing
    most = [f"{value} {percent(n, held)}" for value, n in islice(column.values.most_common(), 3)]
    more = f", and {len(column.values) - 3} more values" if len(column.values) > 3 else ""
    return f"{column.kind}, {', '.join(most)}{more}{missing}"


def _classes(labels: Sequence[str]) -> str:
    return ", ".join(f"{place} is {name}" for place, name in islice(enumerate(labels), 8))


def _notes(findings: _Found) -> list[str]:
    """What the terminal says after writing."""
    guess = f"; could be as well: {listed(findings.others)}" if findings.others else ""
    notes = [f"target '{findings.target.name}', {_told(findings.target)}{guess}"]
    notes += [f"dropped '{name}': {why}" for name, why in findings.why_dropped.items()]
    notes += [_spelled(column) for column in findings.seen if column.spelled]
    leaks = [name for name, auc in findings.tells.items() if auc >= LEAK]
    notes += [f"'{name}' is likely a leak: drop it unless it is known in time" for name in leaks]
    notes += [
        f"'{name}' tells much alone (AUC {auc:.3f}): drop it unless it is known in time"
        for name, auc in findings.tells.items()
        if SUSPECT <= auc < LEAK
    ]
    if findings.late:
        notes.append(
            f"labels are missing from row {(findings.target.first_missing or 0) + 1:,} on: "
            "labels is delayed:1; say how late yours are, or none"
        )
    notes.append(f"rule '{findings.rule}'")
    return notes
