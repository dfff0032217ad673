"""Fewer rows than there are batches, for pictures that cannot show them all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from itertools import islice
from statistics import fmean
from typing import Any

from selfheal_cli.report.rows import Row

WHOLE = ("batch_idx", "state", "action", "rolled_back")
FIGURES = tuple(field.name for field in fields(Row) if field.name not in WHOLE)


def thinned(rows: Iterable[Row], step: int) -> Iterator[Row]:
    """Each ``step`` rows as one, in order; with a step of 1 the rows as they are.

    Figures are means of what is known of them, state and action those of most; a rollback in any
    of the rows is one.
    """
    if step == 1:
        yield from rows
        return
    left = iter(rows)
    while part := list(islice(left, step)):
        yield _one(part)


def _one(rows: Sequence[Row]) -> Row:
    figures: dict[str, Any] = {}
    for name in FIGURES:
        known = [value for row in rows if (value := getattr(row, name)) is not None]
        figures[name] = fmean(known) if known else None
    return Row(
        batch_idx=rows[len(rows) // 2].batch_idx,
        state=_most(row.state for row in rows),
        action=_most(row.action for row in rows),
        rolled_back=any(row.rolled_back for row in rows),
        **figures,
    )


def _most(words: Iterable[str]) -> str:
    return Counter(words).most_common(1)[0][0]
