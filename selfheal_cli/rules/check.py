"""Checks rules against rows: coverage, precision, recall, contradictions, and staleness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import sqrt
from typing import TYPE_CHECKING

import numpy as np

from selfheal_cli.rules.conditions import RuleTable
from selfheal_cli.rules.health import RuleHealth, calibrate_rules
from selfheal_cli.rules.ruleset import NamedRule, RuleSet, RuleVerdict

if TYPE_CHECKING:
    from selfheal_cli.records import Columns, FloatArray, LabelArray
    from selfheal_cli.rules.conditions import BoolArray

BATCH_ROWS = 100  # firing rates vary from batch to batch; calibration measures by how much
EXPECTED = 5  # firings; where fewer were expected, that there is none says nothing


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts of a rule on ``rows`` rows, of which ``known`` have labels, ``positives`` the rule's.

    It fired on ``fired`` of them; of these ``judged`` have labels, and ``right`` the rule's.
    """

    rows: int
    known: int
    positives: int
    fired: int
    judged: int
    right: int

    @property
    def coverage(self) -> float:
        """Share of the rows that the rule fires on."""
        return self.fired / max(self.rows, 1)

    @property
    def precision(self) -> float | None:
        """Share of the judged rows that are right; None without judged rows."""
        return self.right / self.judged if self.judged else None

    @property
    def recall(self) -> float | None:
        """Share of the rows with its label that it fires on; None where there are none."""
        return self.right / self.positives if self.positives else None

    @property
    def base_rate(self) -> float | None:
        """Share of its label among all rows: the precision of firing anywhere."""
        return self.positives / self.known if self.known else None


@dataclass(frozen=True, slots=True)
class Checked:
    """A checked rule; ``disagreed`` counts rows whose label the network finds improbable (None:
    without a network), ``stale`` says why the rule is stale, and is empty where it is not.
    """

    named: NamedRule
    counts: Counts
    disagreed: int | None
    stale: str


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Two rules that both fire on ``both`` rows and give them different labels."""

    first: str
    second: str
    both: int


@dataclass(frozen=True, slots=True)
class Check:
    """All rules on ``rows`` rows, and their vote, which gives ``voted`` of them a label.

    On ``tied`` rows two labels have as many votes, and on ``silent`` ones no rule fires; of the
    voted rows ``judged`` have labels, and ``right`` the label of the vote.
    """

    rows: int
    rules: tuple[Checked, ...]
    contradictions: tuple[Contradiction, ...]
    voted: int
    tied: int
    silent: int
    judged: int
    right: int


def check_rules(
    rules: Sequence[NamedRule],
    columns: Columns,
    y: LabelArray,
    *,
    classes: int,
    probabilities: FloatArray | None = None,
    least: float = 0.3,
    z: float = 4.0,
    latest: float = 0.2,
) -> Check:
    """Check rules on n rows in time order.

    ``y`` (n,) is -1 where unknown. ``probabilities``, (n,) or (n, K), are the network's; a label
    with less than ``least`` conflicts. A rule is stale where the ``latest`` share of the rows is
    more than ``z`` standard errors from the earlier ones.
    """
    table = RuleTable(columns)
    fired = [named.rule.fires(table) for named in rules]
    checks = []
    for named, hits in zip(rules, fired, strict=True):
        disagreed = None
        if probabilities is not None:
            label = np.full(len(y), named.rule.label, dtype=np.int8)
            verdict = RuleVerdict(hits, label)
            disagreed = verdict.conflicts_with(probabilities, y, least).count
        stale = _stale(named, hits, columns, y, z, latest)
        checks.append(Checked(named, count(hits, y, named.rule.label), disagreed, stale))
    verdict = RuleSet([named.rule for named in rules], classes=classes).judge(columns)
    spoken = np.logical_or.reduce(fired)
    judged = verdict.fired & (y >= 0)
    return Check(
        rows=len(y),
        rules=tuple(checks),
        contradictions=_contradictions(rules, fired),
        voted=int(verdict.fired.sum()),
        tied=int((spoken & ~verdict.fired).sum()),
        silent=int((~spoken).sum()),
        judged=int(judged.sum()),
        right=int((verdict.label[judged] == y[judged]).sum()),
    )


def count(fired: BoolArray, y: LabelArray, label: int) -> Counts:
    """Counts of a rule with ``label`` that ``fired`` (n,), against the labels ``y`` (n,)."""
    known, positive = y >= 0, y == label
    return Counts(
        rows=len(y),
        known=int(known.sum()),
        positives=int(positive.sum()),
        fired=int(fired.sum()),
        judged=int((fired & known).sum()),
        right=int((fired & positive).sum()),
    )


def _contradictions(
    rules: Sequence[NamedRule], fired: Sequence[BoolArray]
) -> tuple[Contradiction, ...]:
    """Those with most rows first."""
    contradictions = [
        Contradiction(a.name, b.name, int((on_a & on_b).sum()))
        for (a, on_a), (b, on_b) in combinations(zip(rules, fired, strict=True), 2)
        if a.rule.label != b.rule.label and bool((on_a & on_b).any())
    ]
    return tuple(sorted(contradictions, key=lambda pair: -pair.both))


def _stale(
    named: NamedRule, fired: BoolArray, columns: Columns, y: LabelArray, z: float, latest: float
) -> str:
    """Why a rule is stale, by the plainest reason; empty where it is not."""
    cut = len(y) - int(latest * len(y))
    before = count(fired[:cut], y[:cut], named.rule.label)
    now = count(fired[cut:], y[cut:], named.rule.label)
    if not before.fired and not now.fired:
        return "it never fires"
    if not now.fired and before.coverage * now.rows >= EXPECTED:
        return (
            f"it does not fire on any of the latest {now.rows:,} rows, on {before.coverage:.1%} "
            "of those before"
        )
    fell = _precision_fell(before, now, z)
    return fell or _rate_left(named, columns, cut, len(y), z)


def _precision_fell(before: Counts, now: Counts, z: float) -> str:
    old, new = before.precision, now.precision
    if old is None or new is None or new >= old:
        return ""
    # the two-proportion z-test, with the pooled precision under "nothing changed"
    pooled = (before.right + now.right) / (before.judged + now.judged)
    error = sqrt(pooled * (1 - pooled) * (1 / before.judged + 1 / now.judged))
    if not error or (old - new) / error <= z:
        return ""
    return (
        f"its precision fell from {old:.1%} to {new:.1%} on the latest {now.rows:,} rows "
        f"({(new - old) / error:+.1f} standard errors)"
    )


def _rate_left(named: NamedRule, columns: Columns, cut: int, rows: int, z: float) -> str:
    """Whether the firing rate has left its range, by the same test as in a run."""
    earlier = {name: values[:cut] for name, values in columns.items()}
    starts = range(cut, rows, BATCH_ROWS)
    health = RuleHealth(
        calibrate_rules([named.rule], [earlier], BATCH_ROWS), window=max(len(starts), 1), z=z
    )
    for at in starts:
        health.observe({name: values[at : at + BATCH_ROWS] for name, values in columns.items()})
    return "".join(
        f"it fires on {stale.rate:.1%} of the latest {stale.rows:,} rows, on "
        f"{stale.trained_rate:.1%} of those before ({stale.z:+.1f} standard errors)"
        for stale in health.stale()
    )
