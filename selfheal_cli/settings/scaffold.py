"""A first ``selfheal.yaml``, from what can be seen in the data; every value is one to look at."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from selfheal_cli.config_sources import BoundedSettings
from selfheal_cli.settings.findings import BATCH, Findings, Looked, ScaffoldOptions, find
from selfheal_cli.settings.layers import name_of_data
from selfheal_cli.settings.own_data import MONITORS, RECIPE
from selfheal_cli.settings.reference import Page, listed, percent
from selfheal_cli.sources.inspection import (
    NAMED_ID,
    ColumnProfile,
    many_values,
)
from selfheal_cli.sources.synthetic import RULE

STRONG = 0.9  # ROC AUC of a single column on later rows, from which on a person should look
MOST_STRONG = 3  # that are said of in the terminal


@dataclass(frozen=True, slots=True)
class Scaffold:
    """The file's text, and what a person should look at first."""

    text: str
    notes: tuple[str, ...]


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
    """For a CSV, Parquet or NDJSON file; ``shown_path`` is how the written file is to name it.

    Raises `DataError` where a run could not take the file either, or no target can be guessed.
    """
    findings = find(path, wishes)
    page = Page(f"selfheal init {shown_path}", schema)
    page.registry(name_of_data(path))
    page.blank()
    _write_source(page, shown_path, findings)
    feature = findings.rule.leaves[0].feature
    page.learning(
        RECIPE,
        findings.regime,
        "frozen",
        rules=[str(findings.rule)],
        sensitive=feature,
        batch_size=findings.batch_size,
        monitors=tuple(MONITORS),
        objective=findings.rare.objective if findings.rare else "accuracy",
        why=str(findings.rare or ""),
        note=f"the best rule with one split; {_classes(findings.labels)}",
    )
    return Scaffold(page.text(), tuple(_notes(findings)))


def _write_source(page: Page, shown_path: str, findings: Findings) -> None:
    rows, settings, target = findings.target.rows, findings.settings, findings.target
    page.put("source:")
    what = type(settings).model_fields["kind"].description
    page.value("kind", settings.kind, f"{what}; its rows are in time order", 1)
    page.value("path", shown_path, f"{rows:,} rows, {len(findings.looked.seen)} columns", 1)
    done = {"kind", "path", "target", "train_fraction", "drop", "categorical", "inputs"}
    done |= {"unlabelled", "drop_identifiers"} | _write_format(page, findings)
    page.value("target", target.name, _told(target), 1)
    if findings.others:
        page.note(f"columns that could be the target as well: {listed(findings.others)}", 1)
    if len(findings.labels) == 2:
        page.value("positive", findings.labels[1], "what a decision looks for", 1)
        done.add("positive")
    first = int(rows * settings.train_fraction)
    told = f"the first {first:,} rows train, {rows - first:,} stream"
    page.value("train_fraction", settings.train_fraction, told, 1)
    for name, said in _clocks(settings).items():
        page.value(name, getattr(settings, name), said, 1)
        done.add(name)
    page.note("what the columns hold:", 1)
    for column in findings.looked.seen:
        page.note(f"  {_line(column, findings)}", 1)
    page.note("left out: identifiers, times and what holds neither numbers nor text", 1)
    page.value("drop", list(settings.drop), "", 1)
    page.value("categorical", list(settings.categorical), "numbers that are names, as of a zone", 1)
    page.defaults("source", tuple(done), 1, kind=settings.kind)


def _clocks(settings: BoundedSettings) -> dict[str, str]:
    """The keys of times that hold, each with its comment."""
    said = {
        "sort_by": "the order that the rows are put in",
        "time": "never falls, so the rows are in its order",
        "label_time": "when the row's label came; labels is timed",
    }
    return {name: text for name, text in said.items() if getattr(settings, name) is not None}


def _write_format(page: Page, findings: Findings) -> set[str]:
    """The keys of how the file is written that are not as always."""
    settings, recognised = findings.settings, findings.looked.recognised
    said = {
        "encoding": "",
        "skip_lines": "above the header",
        "separator": "",
        "decimal": f"as in {listed(list(recognised.numbers))}" if recognised.numbers else "",
        "thousands": "",
        "date_format": f"as in {listed(list(recognised.dates))}" if recognised.dates else "",
        "missing_values": f"as in {listed(list(recognised.missing))}" if recognised.missing else "",
    }
    told = {name: text for name, text in said.items() if getattr(settings, name, None)}
    for name, text in told.items():
        value = getattr(settings, name)
        page.value(name, list(value) if isinstance(value, tuple) else value, text, 1)
    return set(told)


def _line(column: ColumnProfile, findings: Findings) -> str:
    name, parts = column.name, [_told(column)]
    if name == findings.target.name:
        parts.append("the target")
    elif name in findings.why_dropped:
        parts.append(f"dropped: {findings.why_dropped[name]}")
    elif name == findings.times.time:
        parts.append("the time of the row")
    elif name == findings.times.label_time:
        parts.append("when the label came")
    elif column.constant:
        parts.append("constant")
    else:
        area = findings.tells.get(name, 0)
        parts += [f"strong: alone it has AUC {area:.3f} on later rows"] if area >= STRONG else []
        parts += filter(None, [many_values(column), _named_id(column)])
    return f"{name}: {'; '.join(parts)}"


def _named_id(column: ColumnProfile) -> str:
    """What is to be known of numbers that an id is called."""
    if column.kind != "number" or not column.whole or not NAMED_ID.search(column.name):
        return ""
    return "numbers under an id's name: categorical, if they are names"


def _told(column: ColumnProfile) -> str:
    missing = f", {percent(column.missing, column.rows)} missing" if column.missing else ""
    if column.kind == "number" and (column.values is None or len(column.values) > 2):
        return f"number, {column.low:g} to {column.high:g}{missing}"
    if column.values is None or column.kind in ("time", "other", "empty"):
        return f"{column.shown_kind}{missing}"
    held = column.rows - column.missing
    most = [f"{value} {percent(n, held)}" for value, n in islice(column.values.most_common(), 3)]
    more = f", and {len(column.values) - 3} more values" if len(column.values) > 3 else ""
    return f"{column.shown_kind}, {', '.join(most)}{more}{missing}"


def _classes(labels: Sequence[str]) -> str:
    return ", ".join(f"{place} is {name}" for place, name in islice(enumerate(labels), 8))


def _notes(findings: Findings) -> list[str]:
    """What the terminal says after writing."""
    guess = f"; could be as well: {listed(findings.others)}" if findings.others else ""
    return [
        f"target '{findings.target.name}', {_told(findings.target)}{guess}",
        *_of_format(findings.looked),
        *_of_times(findings),
        *(f"dropped '{name}': {why}" for name, why in findings.why_dropped.items()),
        *_of_columns(findings),
        *([str(findings.rare)] if findings.rare else []),
        f"rule '{findings.rule}'{_meaning(findings)}",
    ]


def _meaning(findings: Findings) -> str:
    """Which class its rule is for, where that is not its number."""
    number = findings.rule.label
    name = findings.labels[number]
    return "" if name == str(number) else f": {number} is {name}"


def _of_format(looked: Looked) -> list[str]:
    """How the file is written, where that is not as programs write one."""
    recognised, notes = looked.recognised, []
    if looked.encoding is not None:
        notes.append(f"text in {looked.encoding}; --encoding, if letters are wrong")
    if looked.skip_lines:
        notes.append(f"lines above the header, passed over: {looked.skip_lines}")
    if recognised.numbers:
        text = next(iter(recognised.numbers.values()))
        notes.append(
            f"numbers as people write them, '{text}' is {recognised.spelling.one(text)}: "
            f"{listed(list(recognised.numbers))}"
        )
    notes += [
        f"dates as '{text}', by {form}: {name}" for name, (form, text) in recognised.dates.items()
    ]
    notes += [f"'{word}' in '{name}' is missing" for name, word in recognised.missing.items()]
    return [*notes, *recognised.doubts]


def _of_times(findings: Findings) -> list[str]:
    times = findings.times
    notes = [f"time '{times.time}': the rows are in its order"] if times.time else []
    if times.label_time:
        notes.append(f"labels come at '{times.label_time}': labels is timed")
    if times.unordered is not None and times.unordered.first_fall is not None:
        name, row = times.unordered.name, times.unordered.first_fall + 1
        notes.append(
            f"the rows are not in the order of '{name}' (row {row:,} lies before an earlier one): "
            f"--sort-by {shlex.quote(name)} sorts them, if it is the time of the row"
        )
    elif findings.late:
        notes.append(
            f"labels are missing from row {(findings.target.first_missing or 0) + 1:,} on: "
            "labels is delayed:1; say how late yours are, or none"
        )
        notes.append(
            "without labels heal.assume heals on an assumption, and nothing can tell a relation "
            "that turned while inputs moved, nor a base rate that moved with them: 'selfheal "
            "ask-labels' asks for a few instead"
        )
    return notes


def _of_columns(findings: Findings) -> list[str]:
    """What a person should look at in the columns that stay."""
    kept = [c for c in findings.looked.seen if c.name in findings.tells]
    notes = [f"'{c.name}': {many}" for c in kept if (many := many_values(c))]
    notes += [f"'{c.name}': {named}" for c in kept if (named := _named_id(c))]
    strong = [f"'{name}' (AUC {area:.3f})" for name, area in findings.tells.items()
              if area >= STRONG]  # fmt: skip
    if strong:
        more = f" and {len(strong) - MOST_STRONG} more" if len(strong) > MOST_STRONG else ""
        notes.append(
            f"strong alone, on later rows: {', '.join(strong[:MOST_STRONG])}{more}; keep what is "
            "known when a row is scored"
        )
    return notes
