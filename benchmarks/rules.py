"""Seconds that ten rules take on a million rows, and what each kind of question costs.

The ten use every question of the language on two columns of numbers and one of text, with missing
values. Columns are in memory; parsing is not counted (it takes less than a millisecond a rule).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Table

from selfheal_cli.rules.ruleset import RuleSet, parse_rule

if TYPE_CHECKING:
    from selfheal_cli.records import Columns

TEN = (
    "amount > 900 => 1 @ 0.9",
    "amount > 500 and country != 'AT' => 1 @ 0.7",
    "amount between 10 and 20 => 0 @ 0.4",
    "country in {'AT', 'DE', 'CH'} and amount < 100 => 0 @ 0.8",
    "country is missing and amount >= 300 => 1 @ 0.6",
    "age is not missing and age < 18 and amount > 250 => 1 @ 0.8",
    "not (age < 30 or amount > 400) => 0 @ 0.5",
    "age not between 18 and 90 or country == 'XX' => 1 @ 0.3",
    "age in {18, 21, 65} => 0 @ 0.1",
    "(amount > 700 or age > 80) and not country in {'AT', 'IT'} => 1 @ 0.75",
)
ALONE = (TEN[0], "country == 'AT' => 1", "country is missing => 1", TEN[8])


def drawn(rows: int) -> Columns:
    """Columns as a table gives them: float64 with NaN, texts as objects with None."""
    draw = np.random.default_rng(0)
    amount, age = draw.exponential(200, rows), draw.integers(16, 95, rows).astype(np.float64)
    country = draw.choice(["AT", "DE", "CH", "IT", "FR", "XX"], rows).astype(object)
    age[draw.random(rows) < 0.1] = np.nan
    country[draw.random(rows) < 0.05] = None
    return {"amount": amount, "age": age, "country": country}


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Print a table: medians over the rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    columns = drawn(given.rows)
    variants = {"ten rules, voted": RuleSet([parse_rule(text) for text in TEN])}
    variants |= {text: RuleSet([parse_rule(text)]) for text in ALONE}
    took: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(given.rounds):
        for name, rules in variants.items():
            took[name].append(seconds(lambda rules=rules: rules.judge(columns)))  # type: ignore[misc]
    table = Table("rules", "median s", "longest s", "rows a second")
    for name, spent in took.items():
        middle = median(spent)
        table.add_row(name, f"{middle:.3f}", f"{max(spent):.3f}", f"{given.rows / middle:,.0f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
