"""What of a heal is worth a version, part by part: each segment's own adapter, and all rows'.

A segment's is where it is better than what the segment is answered, on rows of its own before
either learned from them, by an interval that holds however often it is looked at. All rows' is
judged for what it does beside these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from selfheal_cli.heal.experts.shelf import Remembered
from selfheal_cli.heal.publishing import changed
from selfheal_cli.heal.recipes.segmented import by_code
from selfheal_cli.heal.task import AdapterState, HealOutcome
from selfheal_cli.model.network import SelfHealingNetwork, Weights
from selfheal_cli.model.segmented import apart, replaced, together
from selfheal_cli.pipeline.stream.context import SessionContext
from selfheal_cli.pipeline.stream.segments import Segments
from selfheal_cli.segment_keys import CODE_COLUMNS, code_of, whole_code

if TYPE_CHECKING:
    from selfheal_cli.anytime import RunningMean
    from selfheal_cli.records import FloatArray

NAMED = 3  # segments in a reason


@dataclass(frozen=True, slots=True)
class PartsOfHeal:
    """Two heals of one: ``alone`` has the segments' adapters that are better and all rows' as it
    serves, ``full`` also all rows' new one. What it ``changes`` counts from what serves, or was
    kept last, with the same segments' adapters.

    ``fresh``: one of the segments' answers otherwise than what serves, or was kept last.
    """

    alone: HealOutcome
    full: HealOutcome
    fresh: bool
    changes: float


class SegmentParts:
    """Takes the heals of a run apart whose ``segments`` have adapters of their own."""

    def __init__(self, run: SessionContext, segments: Segments) -> None:
        policy = run.config.policy
        self._level, self._least = policy.segments.level, policy.publish_change
        self._rows, self._by = run.config.batch_size, run.config.segments.by
        self._live, self._segments = run.live, segments

    def of(
        self, outcome: HealOutcome, kept: SelfHealingNetwork | None, threshold: float
    ) -> PartsOfHeal:
        """The parts of a heal; ``kept`` was not published last, ``threshold`` is the new one."""
        serving, task = self._live.serving, outcome.task
        whole, own = apart(serving.adapter.weights)
        healed, learned = apart(outcome.after.weights)
        last_whole, last = apart(kept.adapter.state_dict()) if kept else (whole, own)
        better = self._better(outcome, own, learned)
        chosen = replaced(own, learned, better)
        alone = self._with(outcome, together(whole, chosen), better, whole=False)
        full = self._with(outcome, together(healed, chosen), better, whole=True)
        before = self._answers(outcome, together(whole, last))
        now, then = alone.probabilities_after, serving.threshold
        latest = slice(-self._rows, None)
        other = self._answers(outcome, together(last_whole, chosen)) if kept else now
        code = whole_code(task.rows.features[:, -CODE_COLUMNS:])
        fresh = any(
            changed(now[rows], before[rows], then, then) >= max(self._least, np.finfo(float).tiny)
            for rows in (np.flatnonzero(code == one)[latest] for one in better)
        )
        changes = changed(full.probabilities_after[latest], other[latest], threshold, then)
        return PartsOfHeal(alone, full, fresh, changes)

    def _better(
        self, outcome: HealOutcome, own: Weights, learned: Weights
    ) -> dict[int, RunningMean]:
        """What speaks for the segments' adapters that are better than what serves, by code."""
        held, now = by_code(own), by_code(learned)
        evidence = Remembered.of(outcome.after.memory).evidence
        worse = {code: evidence[code].worse for code in now if now[code] != held.get(code)}
        intervals = {code: one.interval(self._level) for code, one in worse.items()}
        return {code: worse[code] for code, one in intervals.items() if one and one[1] < 0}

    def _with(
        self,
        outcome: HealOutcome,
        weights: Weights,
        better: Mapping[int, RunningMean],
        *,
        whole: bool,
    ) -> HealOutcome:
        """A heal that gave other weights."""
        task = outcome.task
        if better:
            task = replace(
                task,
                reason=f"{task.reason}; {'and' if whole else 'alone'} for {self._told(better)}",
            )
        return replace(
            outcome,
            task=task,
            after=AdapterState(weights, outcome.after.memory),
            probabilities_after=self._answers(outcome, weights),
            measured={**outcome.measured, "segments_published": len(better),
                      "whole_published": float(whole)},
            packed=None,
        )  # fmt: skip

    def _answers(self, outcome: HealOutcome, weights: Weights) -> FloatArray:
        """What a heal's rows would be answered by these weights."""
        network = self._live.serving.network.with_adapter(weights)
        return network.predict_features(outcome.task.rows.features)

    def _told(self, better: Mapping[int, RunningMean]) -> str:
        """The segments, those that gain most first, each with its interval and rows."""
        names = {code_of(name): name for name in self._segments.names}
        ranked = sorted(better.items(), key=lambda pair: (pair[1].mean, pair[0]))
        told = []
        for code, worse in ranked[:NAMED]:
            low, high = worse.interval(self._level) or (0.0, 0.0)
            name = names.get(f"{code:012x}", f"{code:012x}")
            told.append(
                f"{self._by} {name} (log loss lower by {-high:.3f} to {-low:.3f} on "
                f"{worse.count:,} rows of its own)"
            )
        more = len(ranked) - NAMED
        return ", ".join(told) + (f" and {more:,} more" if more > 0 else "")


def segment_parts(run: SessionContext, segments: Segments | None) -> SegmentParts | None:
    """None where segments have no adapters of their own."""
    return SegmentParts(run, segments) if segments and run.config.segments.heal else None
