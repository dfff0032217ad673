"""What rules are worth on rows: coverage, precision, recall, contradictions, and age."""

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
EXPECTED = 5  # firings that must have been expected before none of them is a sign


@dataclass(frozen=True, slots=True)
class Counts:
    """How a rule did on ``rows`` rows, of which ``known`` have labels and ``positives`` its own.

    It fired on ``fired`` of them; of these ``judged`` have labels and ``right`` have its own.
    """

    rows: int
    known: int
    positives: int
    fired: int
    judged: int
    right: int

    @property
    def coverage(self) -> float:
        """Share of the rows that it fires on."""
        return self.fired / max(self.rows, 1)

    @property
    def precision(self) -> float | None:
        """Share of the judged rows that are right; None where none is."""
        return self.right / self.judged if self.judged else None

    @property
    def recall(self) -> float | None:
        """Share of its label's rows that it finds; None where there are none."""
        return self.right / self.positives if self.positives else None

    @property
    def base_rate(self) -> float | None:
        """Share of its label among all rows: the precision of firing anywhere."""
        return self.positives / self.known if self.known else None


@dataclass(frozen=True, slots=True)
class Checked:
    """One rule; ``disagreed`` counts rows whose label the network finds improbable (None: nobody
    was asked), ``stale`` says why it is, and is empty where it is sound.
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
    """All rules on ``rows`` rows, and their vote: ``voted`` rows have a label by it.

    ``tied`` rows have as much for one label as for another, and on ``silent`` ones none fires;
    of the voted rows ``judged`` have labels, and ``right`` the same.
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
    """Hold rules against rows (n,) in time order.

    ``y`` is -1 where nobody knows. ``probabilities`` are the network's, and ``least`` the one
    below which a label conflicts. A rule is stale by what became of it in the ``latest`` share.
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
    """Where a rule fired (n,), against the labels (n,)."""
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
    return tuple(sorted(contradictions, key=lambda one: -one.both))


def _stale(
    named: NamedRule, fired: BoolArray, columns: Columns, y: LabelArray, z: float, latest: float
) -> str:
    """Why a rule is stale, most telling first; empty where it is not."""
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
    pooled = (before.right + now.right) / (before.judged + now.judged)
    error = sqrt(pooled * (1 - pooled) * (1 / before.judged + 1 / now.judged))
    if not error or (old - new) / error <= z:
        return ""
    return (
        f"its precision fell from {old:.1%} to {new:.1%} on the latest {now.rows:,} rows "
        f"({(new - old) / error:+.1f} standard errors)"
    )


def _rate_left(named: NamedRule, columns: Columns, cut: int, rows: int, z: float) -> str:
    """As a run finds it: the firing rate has left the range of the rows before."""
    earlier = {name: values[:cut] for name, values in columns.items()}
    starts = range(cut, rows, BATCH_ROWS)
    health = RuleHealth(
        calibrate_rules([named.rule], [earlier], BATCH_ROWS), window=max(len(starts), 1), z=z
    )
    for at in starts:
        health.observe({name: values[at : at + BATCH_ROWS] for name, values in columns.items()})
    return "".join(
        f"it fires on {one.rate:.1%} of the latest {one.rows:,} rows, on {one.trained_rate:.1%} "
        f"of those before ({one.z:+.1f} standard errors)"
        for one in health.stale()
    )
