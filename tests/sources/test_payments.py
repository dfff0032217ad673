"""The payments of the demonstration: what is said of them holds."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from selfheal_cli.metrics import score
from selfheal_cli.sources.payments import LABEL_TIME, TIME, Payments, draw_payments


@pytest.fixture(scope="module")
def payments() -> Payments:
    return draw_payments(7)


def test_the_chance_of_fraud_is_what_comes_true(payments: Payments) -> None:
    for low, high in ((0.0, 0.05), (0.05, 0.3), (0.3, 0.7), (0.7, 1.0)):
        rows = (payments.chance >= low) & (payments.chance < high)
        expected, share = payments.chance[rows].mean(), payments.fraud[rows].mean()
        assert share == pytest.approx(expected, abs=4 * np.sqrt(expected / rows.sum()))


def test_nothing_ranks_better_than_that_chance(payments: Payments) -> None:
    limit = score(payments.chance.astype(np.float32), payments.fraud, 0.5)
    amount = np.array(payments.columns["amount"], float)
    alone = score((amount / amount.max()).astype(np.float32), payments.fraud, 0.5)
    assert limit.roc_auc is not None
    assert alone.roc_auc is not None
    assert limit.roc_auc > 0.95 > alone.roc_auc


def test_each_change_has_the_effect_that_is_told(payments: Payments) -> None:
    holiday, app, wave = (change.row for change in payments.changes)
    distance = np.array(payments.columns["distance_km"], float)
    by_app = np.array(payments.columns["channel"]) == "app"
    honest = payments.fraud == 0
    before, after = slice(None, holiday), slice(holiday, None)
    times = np.median(distance[after][honest[after]]) / np.median(distance[before][honest[before]])
    assert times == pytest.approx(2.2, abs=0.1)
    assert by_app[:app][honest[:app]].mean() == pytest.approx(0.20, abs=0.02)
    assert by_app[app:][honest[app:]].mean() == pytest.approx(0.45, abs=0.02)
    assert payments.fraud[:wave].mean() == pytest.approx(0.04, abs=0.01)
    assert payments.fraud[wave:].mean() == pytest.approx(0.12, abs=0.015)


def test_labels_come_hours_after_their_payments(payments: Payments, tmp_path: Path) -> None:
    assert all(paid < known for paid, known in zip(payments.columns[TIME],
               payments.columns[LABEL_TIME], strict=True))  # fmt: skip
    with payments.write(tmp_path / "payments.csv").open() as stream:
        assert sum(1 for _ in csv.DictReader(stream)) == len(payments)
