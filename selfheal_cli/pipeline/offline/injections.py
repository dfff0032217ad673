"""Changes that are put into rows of a table, by kind; `kinds.INJECTIONS` lists the names.

Each takes a batch and those after it, and gives the batch as it would have come. What a change
hangs on is the numeric column that the network uses most, and where two are needed the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from selfheal_cli.errors import DataError
from selfheal_cli.kinds import UNCHANGED
from selfheal_cli.model.network import Classifier
from selfheal_cli.pipeline.prepare.baseline import Trained, most_used
from selfheal_cli.records import Batch, Rows
from selfheal_cli.sources.base import Source
from selfheal_cli.sources.encoding import Encoding

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfheal_cli.records import LabelArray

POOL = 5  # batches that rows are drawn from, this one and those after it
TILT = 1.0  # by which the log odds of being drawn rise with a standard deviation of the column
ODDS = 3.0  # by which those of a positive rise
UNIT = 1.609  # miles become kilometres
GONE = 0.3  # share of values that go missing
NOISE = 0.2  # share of labels that come as the other class


@dataclass(frozen=True, slots=True)
class Injected:
    """A batch with the change in it, and the classes (n,) that its rows truly have."""

    batch: Batch
    truth: LabelArray


@dataclass(frozen=True, slots=True)
class Subject:
    """A table as injections know it: ``used`` are its numeric columns, the most used one first;
    ``centre`` and ``spread`` are that one's in training. The target has so many ``classes``; what
    is said of positives holds, where there are more than two, of the second one.
    """

    encoding: Encoding
    network: Classifier
    used: tuple[str, ...]
    centre: float
    spread: float
    classes: int


def subject_of(source: Source, trained: Trained) -> Subject:
    """Raises `DataError` where a table has fewer than two numeric columns."""
    used = tuple(trained.used or most_used(trained.network, source))
    if len(used) < 2:
        raise DataError(
            f"changes are put into numeric columns, and there {'is 1' if used else 'are 0'}: "
            "--inject needs two"
        )
    values = np.concatenate([rows.columns[used[0]] for rows in source.training()])
    centre, spread = float(np.nanmedian(values)), float(np.nanstd(values)) or 1.0
    return Subject(
        source.encoding, trained.network, used, centre, spread, len(source.labels)
    )  # fmt: skip


def unchanged(subject: Subject, pool: Sequence[Batch], draw: np.random.Generator) -> Injected:
    """The batch as it came."""
    return Injected(pool[0], pool[0].rows.y)


def covariate(subject: Subject, pool: Sequence[Batch], draw: np.random.Generator) -> Injected:
    """Rows with high values of the column come more often; what they mean stays."""
    values = np.concatenate([one.rows.columns[subject.used[0]] for one in pool])
    z = np.nan_to_num((values - subject.centre) / subject.spread)
    return _drawn(pool, np.exp(TILT * np.clip(z, -3, 3)), draw)


def prior(subject: Subject, pool: Sequence[Batch], draw: np.random.Generator) -> Injected:
    """Positives come more often; each class looks as before."""
    y = np.concatenate([one.rows.y for one in pool])
    return _drawn(pool, np.where(y == 1, ODDS, 1.0), draw)


def concept(subject: Subject, pool: Sequence[Batch], draw: np.random.Generator) -> Injected:
    """Above the column's median the relation is reversed: the labels there go to the rows that the
    network ranks at the other end. Inputs, and the share of positives, stay.
    """
    rows = pool[0].rows
    above = np.flatnonzero((rows.columns[subject.used[0]] > subject.centre) & (rows.y >= 0))
    p = subject.network.predict(rows.x[above])
    order = above[np.argsort(p if p.ndim == 1 else p[:, 1], kind="stable")]
    y = rows.y.copy()
    y[order] = rows.y[order][::-1]
    return Injected(replace(pool[0], rows=Rows(rows.x, y, rows.columns)), y)


def units(subject: Subject, pool: Sequence[Batch], draw: np.random.Generator) -> Injected:
    """The column comes in another unit."""
    name = subject.used[0]
    return _with_columns(subject, pool[0], {name: pool[0].rows.columns[name] * UNIT})


def missing(subject: Subject, pool: Sequence[Batch], draw: np.random.Generator) -> Injected:
    """Values of the column are missing."""
    name = subject.used[0]
    values = pool[0].rows.columns[name]
    gone = draw.random(len(values)) < GONE
    return _with_columns(subject, pool[0], {name: np.where(gone, np.nan, values)})


def swapped(subject: Subject, pool: Sequence[Batch], draw: np.random.Generator) -> Injected:
    """The two columns that are used most stand in each other's place."""
    first, second = subject.used[:2]
    columns = pool[0].rows.columns
    return _with_columns(subject, pool[0], {first: columns[second], second: columns[first]})


def label_noise(subject: Subject, pool: Sequence[Batch], draw: np.random.Generator) -> Injected:
    """Labels come wrong; what is judged are the true ones."""
    rows = pool[0].rows
    wrong = (draw.random(len(rows)) < NOISE) & (rows.y >= 0)
    further = 1 if subject.classes == 2 else draw.integers(1, subject.classes, len(rows))
    y = np.where(wrong, (rows.y + further) % subject.classes, rows.y).astype(rows.y.dtype)
    return Injected(replace(pool[0], rows=Rows(rows.x, y, rows.columns)), rows.y)


def _drawn(
    pool: Sequence[Batch], weights: NDArray[np.float64], draw: np.random.Generator
) -> Injected:
    """As many rows as the first batch has, with replacement, by their weights."""
    rows = [one.rows for one in pool]
    chosen = draw.choice(len(weights), len(rows[0]), p=weights / weights.sum())
    columns = {
        name: np.concatenate([one.columns[name] for one in rows])[chosen]
        for name in rows[0].columns
    }
    x, y = (np.concatenate(part)[chosen] for part in zip(*((r.x, r.y) for r in rows), strict=True))
    return Injected(replace(pool[0], rows=Rows(x, y, columns)), y)


def _with_columns(subject: Subject, batch: Batch, changed: dict[str, NDArray[Any]]) -> Injected:
    columns = {**batch.rows.columns, **changed}
    y = batch.rows.y
    return Injected(replace(batch, rows=Rows(subject.encoding.encode(columns), y, columns)), y)


KINDS: dict[str, Callable[[Subject, Sequence[Batch], np.random.Generator], Injected]] = {
    UNCHANGED: unchanged,
    "covariate": covariate,
    "prior": prior,
    "concept": concept,
    "units": units,
    "missing": missing,
    "swapped-columns": swapped,
    "label-noise": label_noise,
}
