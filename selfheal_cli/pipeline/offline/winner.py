"""Who of those that were compared is ahead, and whether that may be chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from statistics import fmean, stdev

from selfheal_cli.config import Objective
from selfheal_cli.events.evidence import quantile
from selfheal_cli.report.gains import jackknife
from selfheal_cli.scores import AnyScores, Scores, title_of

STRETCHES = 20  # that the rows are cut into, so that neighbouring batches may be alike
FEWEST = 8  # stretches below which nothing is said of chance
SEEDS = "streams of the generator"
LEVEL = 0.05  # chance of naming anyone where all are alike


@dataclass(frozen=True, slots=True)
class Lead:
    """The leader's figure minus a contestant's on the same rows, and the interval of that.

    Positive is better for the leader, costs too. ``low`` and ``high`` are None where there are too
    few rows for an interval; their level is corrected for the number of contestants.
    """

    title: str
    value: float
    lead: float
    low: float | None = None
    high: float | None = None

    @property
    def certain(self) -> bool:
        """Whether the contestant is behind beyond chance."""
        return self.low is not None and self.low > 0


@dataclass(frozen=True, slots=True)
class Ranking:
    """The contestant with the best ``figure``, and by how much the others are behind it."""

    figure: str
    leader: str
    value: float
    others: tuple[Lead, ...]
    stretches: int  # of the rows, or streams of a generator, that the intervals rest on
    over: str = "stretches of the rows"

    @property
    def winner(self) -> str | None:
        """The leader, where every other contestant is behind it beyond chance."""
        return self.leader if all(other.certain for other in self.others) else None

    def behind(self, title: str) -> str:
        """By how much a contestant is behind, with half the interval; "first" is the leader."""
        if title == self.leader:
            return "first"
        digits = 1 if self.figure == "cost" else 3
        for other in self.others:
            if other.title == title:
                reach = "" if other.high is None else f" ±{other.high - other.lead:.{digits}f}"
                return f"{other.lead:,.{digits}f}{reach}"
        return "-"

    def _nearest(self) -> Lead:
        """The best of those that cannot be told from the leader, or who nearly could not."""
        alike = [other for other in self.others if not other.certain]
        return min(alike or self.others, key=lambda one: one.lead if alike else one.low or 0.0)

    def __str__(self) -> str:
        digits = 1 if self.figure == "cost" else 3
        name = "cost per 100 rows" if self.figure == "cost" else title_of(self.figure)
        if not self.others:
            return f"{self.leader} stands alone: {name} {self.value:.{digits}f}."
        near = self._nearest()
        told = (
            f"{self.leader} {self.value:,.{digits}f}, {near.title} {near.value:,.{digits}f}, "
            f"a difference of {near.lead:,.{digits}f}"
        )
        if near.low is None or near.high is None:
            few = "too few rows to tell it from chance"
            if self.over == SEEDS:
                few = "one stream of a generator cannot tell it from chance, more --seeds can"
            return f"First by {name}: {told}; {few}."
        told += f" ({near.low:.{digits}f} to {near.high:.{digits}f})"
        level = (
            f"Intervals over {self.stretches} {self.over} hold for all {len(self.others)} at "
            f"once, at {100 * (1 - LEVEL):.0f} %."
        )
        if self.winner:
            return f"Ahead by {name}: {told}. {level}"
        alike = [other.title for other in self.others if not other.certain]
        more = f"; {len(alike)} in all cannot be told from it" if len(alike) > 1 else ""
        return f"None is ahead by {name} beyond chance: {told}{more}. {level}"


def rank(parts: Mapping[str, Sequence[AnyScores]], objective: Objective) -> Ranking:
    """From each contestant's counts on the same rows, part by part and in the same order.

    The interval is the jackknife's over `STRETCHES` stretches of neighbouring parts (Tukey), with
    Bonferroni's correction, so that of equals rarely any is called ahead.
    """
    joined = {title: _stretches(counts) for title, counts in parts.items()}
    sign = -1 if objective.kind == "cost" else 1
    values = {title: _value(stretches, objective) for title, stretches in joined.items()}
    leader = max(values, key=lambda title: values[title])
    others = [
        Lead(title, sign * value, values[leader] - value,
             *_interval(joined[leader], joined[title], objective, len(values) - 1))
        for title, value in values.items()
        if title != leader
    ]  # fmt: skip
    stretches = len(joined[leader])
    return Ranking(objective.kind, leader, sign * values[leader], tuple(others), stretches)


def rank_over_seeds(parts: Mapping[str, Sequence[AnyScores]], objective: Objective) -> Ranking:
    """From each contestant's counts on the same streams, one a seed of a generator.

    The interval is Student's, of the differences by stream, with Bonferroni's correction.
    """
    figures = {title: [_value([one], objective) for one in each] for title, each in parts.items()}
    values = {title: fmean(each) for title, each in figures.items()}
    leader = max(values, key=lambda title: values[title])
    sign, seeds = -1 if objective.kind == "cost" else 1, len(figures[leader])
    others = []
    for title, value in values.items():
        if title == leader:
            continue
        leads = [a - b for a, b in zip(figures[leader], figures[title], strict=True)]
        lead, bounds = values[leader] - value, (None, None)
        if seeds > 1:
            level = 1 - LEVEL / 2 / (len(values) - 1)
            reach = quantile(level, seeds - 1) * stdev(leads) / seeds**0.5
            bounds = lead - reach, lead + reach
        others.append(Lead(title, sign * value, lead, *bounds))
    return Ranking(objective.kind, leader, sign * values[leader], tuple(others), seeds, over=SEEDS)


def _stretches(parts: Sequence[AnyScores]) -> list[AnyScores]:
    wanted = min(STRETCHES, len(parts))
    cuts = [place * len(parts) // wanted for place in range(wanted + 1)] if wanted else []
    return [total(parts[start:stop]) for start, stop in pairwise(cuts)]


def total(parts: Sequence[AnyScores]) -> AnyScores:
    """The counts of all parts."""
    return reduce(lambda whole, part: whole.plus(part), parts)


def _value(stretches: Sequence[AnyScores], objective: Objective) -> float:
    """The figure over all stretches; of a cost its negative, so that more is better."""
    scores = total(stretches) if stretches else Scores(0, 0, 0, 0)
    if objective.kind == "cost" and isinstance(scores, Scores):
        return -scores.cost(objective.fn, objective.fp)
    return scores.f1 if objective.kind == "f1" else scores.accuracy


def _interval(
    leader: Sequence[AnyScores], other: Sequence[AnyScores], objective: Objective, contests: int
) -> tuple[float, float] | tuple[None, None]:
    count = len(leader)
    if count < FEWEST:
        return None, None
    without = [
        _value([*leader[:place], *leader[place + 1 :]], objective)
        - _value([*other[:place], *other[place + 1 :]], objective)
        for place in range(count)
    ]
    reach = quantile(1 - LEVEL / 2 / contests, count - 1) * jackknife(without)
    lead = _value(leader, objective) - _value(other, objective)
    return lead - reach, lead + reach
