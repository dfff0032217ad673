"""Asks for the labels of a few rows by lot, takes the answers, and says what they tell of all."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from selfheal_cli.errors import DataError, StorageError
from selfheal_cli.labels.sampled import AskedRows, Sampled, sampled
from selfheal_cli.labels.sampling import AskPlan
from selfheal_cli.labels.words import classes_by_word
from selfheal_cli.labels.worth import Worth, worth
from selfheal_cli.pipeline.offline.rows_to_ask import RowsToAsk, ServedRows
from selfheal_cli.sources.first_contract import one_text
from selfheal_cli.spool.asking import Asking, DrawnRow, Place
from selfheal_cli.spool.entries import Feedback
from selfheal_cli.workspace import OWNER_ONLY

if TYPE_CHECKING:
    from typing import TextIO

ID, KEY, LABEL = "selfheal_id", "selfheal_key", "label"
FIRST = 20_000  # rows by whose scores it is decided whether to draw by score
NEITHER = "0 of {rows} labels are of rows that {where} has: {id} must be as it was asked with"


@dataclass(frozen=True, slots=True)
class AskedRow:
    """A row to label: its id, what the caller named it, its chance to be drawn, its values."""

    id: str
    key: str | None
    chance: float
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for so far, and what is known of all rows by that; ``rows`` wait for a label,
    in an order by lot, so that the first of them are a sample, too.
    """

    plan: AskPlan
    label: str  # the column for it, which no feature is called by
    result: Sampled
    worth: Worth | None
    rows: list[AskedRow] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class LabelsTaken:
    """Labels of a file: ``taken`` ones, ``volunteered`` of them for rows that nobody asked for;
    ``repeated`` for rows that have one, ``other`` of them another one; ``unknown`` rows; ``empty``.
    """

    taken: int
    volunteered: int
    repeated: int
    other: int
    unknown: int
    empty: int


def ask(rows: RowsToAsk, share: float, limit: int | None) -> Asked:
    """Draw of all rows that came since the last time, and list those that wait for a label.

    A larger share than the last one draws of the earlier rows again; those that were drawn stay.
    Raises `DataError` where there is no row.
    """
    asking = rows.open()
    try:
        plan = _draw(rows, asking, share)
        labels = rows.labels(asking)
        known = asking.rows(labels)
        if known is None:
            raise DataError(
                f"{rows.where}: none of its rows was drawn at a share of {plan.share:g}; give a "
                "larger --share, or wait for rows"
            )
        waiting = [one for one in asking.drawn() if (one.part, one.place) not in labels]
        listed = _values(rows, waiting[:limit])
        more = _worth(rows, asking, known, labels)
        return Asked(plan, label_column(rows.names), sampled(known), more, listed)
    finally:
        asking.close()


def result_of(rows: RowsToAsk) -> tuple[Sampled, Worth | None] | None:
    """What is known by the labels so far; None before any row was asked for."""
    asking = rows.open()
    try:
        labels = rows.labels(asking)
        known = asking.rows(labels)
        if known is None:
            return None
        return sampled(known), _worth(rows, asking, known, labels)
    finally:
        asking.close()


def _worth(
    rows: RowsToAsk, asking: Asking, known: AskedRows, labels: Mapping[Place, int]
) -> Worth | None:
    """What more labels would bring, by the rows that are answered and still there."""
    chosen = known.answered
    if known.probabilities.ndim > 1 or not chosen.any():
        return None
    places = [place for place in asking.places() if place in labels]
    columns = dict(rows.columns(sorted({part for part, _ in places})))
    there = np.array([part in columns for part, _ in places])
    if not there.all():
        return None
    numeric = [name for name in rows.names if next(iter(columns.values()))[name].dtype.kind != "O"]
    x = np.array([[columns[part][name][place] for name in numeric] for part, place in places])
    p, y = known.probabilities[chosen], known.y[chosen]
    return worth(x.reshape(len(places), len(numeric)), p, y, known.weight)


def _draw(rows: RowsToAsk, asking: Asking, share: float) -> AskPlan:
    before = asking.plan(rows.source)
    if before is None:
        parts = rows.parts(0)
        first, count = [], 0
        for part in parts:
            first.append(part)
            count += len(part.probabilities)
            if count >= FIRST:
                break
        if not first:
            raise DataError(f"{rows.where}: no row was answered yet")
        plan = AskPlan.of(rows.key, share, np.concatenate([one.probabilities for one in first]))
        asking.begin(plan, rows.source, anew=True)
        asking.draw(plan, chain(first, parts))
        return plan
    plan = before.with_share(share)
    if share != before.share:
        asking.begin(plan, rows.source, anew=share > before.share)
    asking.draw(plan, rows.parts(asking.last))
    return plan


def _values(rows: RowsToAsk, waiting: Sequence[DrawnRow]) -> list[AskedRow]:
    numbers = sorted({one.part for one in waiting})
    columns, keys = dict(rows.columns(numbers)), rows.keys(numbers)
    return [
        AskedRow(
            one.id,
            keys.get((one.part, one.place)),
            one.chance,
            {name: _plain(columns[one.part][name][one.place]) for name in rows.names},
        )
        for one in waiting
        if one.part in columns  # else the spool holds it no more
    ]


def _plain(value: Any) -> Any:
    """As JSON and CSV have it: None where missing."""
    if value is None or isinstance(value, str):
        return value
    number = float(value)
    return None if np.isnan(number) else number


def label_column(names: Sequence[str]) -> str:
    """What the column of labels is called in a file with columns of these names."""
    return LABEL if LABEL not in names else f"selfheal_{LABEL}"


def write_csv(asked: Asked, names: Sequence[str], file: TextIO) -> None:
    """The rows with their ids and features, and an empty column for the label."""
    keyed = any(row.key is not None for row in asked.rows)
    table = csv.writer(file)
    table.writerow([ID, *([KEY] if keyed else []), *names, asked.label])
    for row in asked.rows:
        values = (row.values[name] for name in names)
        table.writerow([row.id, *([row.key] if keyed else []), *values, ""])


def save_csv(asked: Asked, names: Sequence[str], path: Path) -> None:
    """`write_csv` to a file that its owner alone may read, once it is whole."""
    part = path.with_name(f"{path.name}.part")
    try:
        part.touch(OWNER_ONLY)
        with part.open("w", encoding="utf-8", newline="") as file:
            write_csv(asked, names, file)
        part.replace(path)
    except OSError as exc:
        raise StorageError(f"{path}: cannot be written ({exc.strerror})") from exc


def take(rows: RowsToAsk, path: Path, caller: str, at: float) -> LabelsTaken:
    """Take the labels of a file: all of them, or none where one is none of the target's.

    Raises `DataError` for what is no such file, and where it names no row that is known.
    """
    label = label_column(rows.names)
    labels, empty = _labels(path, rows.classes, label)
    places = {name: _place(rows, name) for name in labels}
    known = {place: labels[name] for name, place in places.items() if place is not None}
    if labels and not known:
        raise DataError(f"{path}: {NEITHER.format(rows=len(labels), where=rows.where, id=ID)}")
    asking = rows.open()
    try:
        asked = {(one.part, one.place) for one in asking.drawn()}
        before = rows.labels(asking)
        volunteered = sum(place not in asked for place in known)
        unknown = len(labels) - len(known)
        if isinstance(rows, ServedRows):
            told = [
                Feedback(y, *_split(name)) for name, y in labels.items() if places[name] is not None
            ]
            joined = rows.spool.label(told, caller, at, lambda teller: teller == caller)
            taken = joined.joined + joined.corrected
            repeated = joined.repeated - joined.corrected
            return LabelsTaken(taken, volunteered, repeated, joined.other, unknown, empty)
        fresh = {place: y for place, y in known.items() if place in asked and place not in before}
        asking.answer(fresh)
        repeated = len(known) - volunteered - len(fresh)
        other = sum(before.get(place, y) != y for place, y in known.items() if place in asked)
        return LabelsTaken(len(fresh), volunteered, repeated, other, unknown, empty)
    finally:
        asking.close()


def _place(rows: RowsToAsk, name: str) -> Place | None:
    part, place = _split(name)
    return None if place < 0 else rows.place_of(part, place)


def _split(name: str) -> tuple[str, int]:
    """The name of a part and a place in it; -1 where there is none."""
    part, _, place = name.rpartition(":")
    return (part, int(place)) if place.isdecimal() and len(place) < 10 else (name, -1)


def _labels(path: Path, classes: Sequence[str], label: str) -> tuple[dict[str, int], int]:
    """Classes by id, and how many rows have no label."""
    known, labels, empty = classes_by_word(classes), dict[str, int](), 0
    for number, row in enumerate(_rows(path, label), start=1):
        name, told = row.get(ID), row.get(label)
        if told is None or (isinstance(told, str) and not told.strip()):
            empty += 1
            continue
        if not isinstance(name, str) or not name:
            raise DataError(f"{path}: row {number}: {ID} is missing or no text")
        y = known.get(one_text(told).casefold())
        if y is None:
            raise DataError(
                f"{path}: row {number}: {label} is {told!r}; allowed: {', '.join(classes)}, or "
                "empty where it is not known"
            )
        if labels.setdefault(name, y) != y:
            raise DataError(f"{path}: row {number}: {name} has another label further up")
    return labels, empty


def _rows(path: Path, label: str) -> Iterator[Mapping[str, Any]]:
    """Rows of a CSV file, or of what ``--json`` printed."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is no UTF-8 text"
        raise DataError(f"{path}: cannot be read ({reason})") from exc
    if path.suffix.lower() == ".json":
        yield from _documents(path, text)
        return
    table = csv.DictReader(text.splitlines(), delimiter=_separator(text))
    names = table.fieldnames or []
    if ID not in names or label not in names:
        raise DataError(
            f"{path}: columns {ID} and {label} are needed; it has {', '.join(islice(names, 10))}"
        )
    yield from table


def _separator(text: str) -> str:
    """What stands between the columns: spreadsheets of many countries write semicolons."""
    head = text.partition("\n")[0]
    return max(",;\t", key=head.count)


def _documents(path: Path, text: str) -> Iterator[Mapping[str, Any]]:
    try:
        document = json.loads(text)
    except ValueError as exc:
        raise DataError(f"{path}: is no JSON ({exc})") from exc
    rows = document.get("waiting") if isinstance(document, dict) else document
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path}: a list of rows, or the document of ask-labels --json is expected")
    yield from rows
