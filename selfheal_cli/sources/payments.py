"""Payments drawn from a seed, for `selfheal demo`: times, money, categories, late labels, and three
changes whose effect is known.

Given whether a payment is fraud, its columns are drawn independently of one another; so the chance
of fraud given the columns follows from Bayes' rule, and nothing ranks payments better than it
(Neyman and Pearson 1933). Time, number and card of a payment tell nothing.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
TARGET, TIME, LABEL_TIME = "is_fraud", "paid_at", "label_known_at"
TELL_NOTHING = ("payment_id", "card")
ROWS = 24_000
SECONDS_APART = 60.0
LABELS_AFTER = (3_600.0, 14_400.0)  # seconds: between one hour and four
BEGIN = datetime(2026, 1, 5, 6)
CARDS = 4_000
# shares of a text in honest payments and in fraud
CHANNELS = {"shop": (0.45, 0.10), "web": (0.35, 0.75), "app": (0.20, 0.15)}
NEW_APP = {"shop": (0.30, 0.10), "web": (0.25, 0.15), "app": (0.45, 0.75)}
CATEGORIES = {
    "groceries": (0.34, 0.08), "fuel": (0.16, 0.06), "clothes": (0.18, 0.16),
    "travel": (0.12, 0.14), "electronics": (0.12, 0.34), "gaming": (0.08, 0.22),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Regime:
    """How payments are at a time; of each pair the first is of honest ones, the second of fraud.

    Amount, distance and age are log-normal (mean and standard deviation of the logarithm), the
    payments in the last hour are Poisson.
    """

    fraud: float = 0.04
    amount: tuple[tuple[float, float], ...] = ((3.3, 0.9), (4.2, 1.0))
    distance_km: tuple[tuple[float, float], ...] = ((1.5, 0.9), (2.7, 1.0))
    account_days: tuple[tuple[float, float], ...] = ((6.0, 0.9), (5.1, 1.1))
    last_hour: tuple[float, float] = (1.2, 2.6)
    channel: Mapping[str, tuple[float, float]] = field(default_factory=lambda: CHANNELS)
    category: Mapping[str, tuple[float, float]] = field(default_factory=lambda: CATEGORIES)


@dataclass(frozen=True, slots=True)
class Change:
    """From this row on payments are otherwise; ``columns`` are those in which it shows."""

    row: int
    name: str
    columns: tuple[str, ...]
    effect: str


def changes(rows: int) -> tuple[Change, ...]:
    """Those within so many payments; the first quarter, which trains a network, has none."""
    return (
        Change(
            rows * 5 // 12, "a holiday", ("distance_km", "last_hour"),
            "payments are 2.2 times as far from home, and 2.2 times as many in an hour",
        ),
        Change(
            rows * 15 // 24, "a new app", ("channel",),
            "the app's share rises from 20 to 45 %, and fraud moves to it from the web",
        ),
        Change(
            rows * 20 // 24, "a wave of fraud", (TARGET,),
            "the share of fraud rises from 4 to 12 %",
        ),
    )  # fmt: skip


def regimes() -> tuple[Regime, ...]:
    """How payments are before, between and after the `changes`."""
    usual = Regime()
    holiday = replace(usual, distance_km=((2.3, 0.9), (3.5, 1.0)), last_hour=(2.6, 5.7))
    moved = replace(holiday, channel=NEW_APP)
    return usual, holiday, moved, replace(moved, fraud=0.12)


@dataclass(frozen=True, slots=True)
class Payments:
    """Columns by name, whether each row is fraud (n,), and the chance of that (n,)."""

    columns: Mapping[str, Sequence[object]]
    fraud: NDArray[np.int64]
    chance: Floats
    changes: tuple[Change, ...] = ()

    def __len__(self) -> int:
        return len(self.fraud)

    def write(self, path: Path) -> Path:
        """As a CSV file with a header; existing contents are replaced."""
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(self.columns)
            writer.writerows(zip(*self.columns.values(), strict=True))
        return path


def draw_payments(seed: int, rows: int = ROWS) -> Payments:
    """The same ones for the same seed.

    >>> payments = draw_payments(7, 12_000)
    >>> len(payments), round(float(payments.chance.mean()), 2), int(payments.fraud.sum())
    (12000, 0.05, 607)
    """
    draw = np.random.default_rng(seed)
    told = changes(rows)
    ends = [change.row for change in told]
    parts = [
        _draw(draw, regime, end - begin)
        for regime, begin, end in zip(regimes(), [0, *ends], [*ends, rows], strict=True)
    ]
    fraud = np.concatenate([part.fraud for part in parts])
    seconds = np.cumsum(draw.exponential(SECONDS_APART, rows))
    known = seconds + draw.uniform(*LABELS_AFTER, rows)
    columns: dict[str, Sequence[object]] = {
        "payment_id": [f"p{number:06d}" for number in range(1, rows + 1)],
        TIME: list(_times(seconds)),
        "card": [f"c{number:04d}" for number in draw.integers(0, CARDS, rows)],
    }
    for name in parts[0].columns:
        columns[name] = [value for part in parts for value in part.columns[name]]
    columns[TARGET] = ["yes" if one else "no" for one in fraud]
    columns[LABEL_TIME] = list(_times(known))
    chance = np.concatenate([part.chance for part in parts])
    return Payments(columns, fraud, chance, told)


def _draw(draw: np.random.Generator, regime: Regime, rows: int) -> Payments:
    """Payments of one regime, and by Bayes' rule the chance that each is fraud."""
    fraud = (draw.random(rows) < regime.fraud).astype(np.int64)
    log_odds = np.full(rows, np.log(regime.fraud / (1 - regime.fraud)))
    columns: dict[str, Sequence[object]] = {}
    for name, digits in (("amount", 2), ("distance_km", 1), ("account_days", 0)):
        means, sds = np.array(getattr(regime, name)).T
        logs = draw.normal(means[fraud], sds[fraud])
        z = (logs[:, None] - means) / sds
        log_odds += (-0.5 * z**2 - np.log(sds)) @ (-1.0, 1.0)
        columns[name] = [round(value, digits or None) for value in np.exp(logs).tolist()]
    rates = np.array(regime.last_hour)
    counts = draw.poisson(rates[fraud])
    log_odds += counts * np.log(rates[1] / rates[0]) - (rates[1] - rates[0])
    columns["last_hour"] = counts.tolist()
    for name in ("channel", "category"):
        shares = np.array(list(getattr(regime, name).values())).T
        texts = list(getattr(regime, name))
        edges = np.cumsum(shares, axis=1)[fraud]
        places = (draw.random(rows)[:, None] > edges).sum(axis=1).clip(max=len(texts) - 1)
        log_odds += np.log(shares[1] / shares[0])[places]
        columns[name] = [texts[place] for place in places]
    return Payments(columns, fraud, np.asarray(1 / (1 + np.exp(-log_odds))))


def _times(seconds: Floats) -> Iterator[str]:
    for one in seconds.tolist():
        yield (BEGIN + timedelta(seconds=one)).isoformat(sep=" ", timespec="seconds")
