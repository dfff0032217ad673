"""What was learned from labels that were corrected is learned anew, from before the row on.

What a recipe remembers hangs on the labels of all heals before: a wrong one is in it for good. So
the steps are kept, each with what was known before it, and gone through again with the labels as
they are known now. What serves follows by an ordinary heal on what came of it, through the gate.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np

from selfheal_cli.heal.engine import heal_or_fail
from selfheal_cli.heal.recipe import Recipes, kind_of
from selfheal_cli.heal.task import AdapterState, HealFailure, HealTask, Window
from selfheal_cli.labels.corrections import Correction, corrected
from selfheal_cli.labels.quarantine import LabelWatch
from selfheal_cli.labels.queue import Scored
from selfheal_cli.pipeline.stream.context import SessionContext


@dataclass(slots=True)
class LearningStep:
    """The labels that came with a batch; ``watch`` and ``state`` are as they were before it.

    ``held`` are the parts that were implausible, by position. ``task`` is the heal that learned
    from them, without its rows; None where there was none, or it gave nothing.
    """

    arrival: int
    batch: int
    parts: list[Scored]
    held: set[int]
    watch: LabelWatch
    state: AdapterState
    task: HealTask | None = None

    @property
    def learned(self) -> list[Scored]:
        """The parts that were learned from."""
        return [part for at, part in enumerate(self.parts) if at not in self.held]


@dataclass(frozen=True, slots=True)
class Relearned:
    """What came of corrections: ``rows`` of them were learned anew from batch ``since`` on, in
    ``heals`` heals; ``beyond`` rows were too long ago.

    ``released`` parts had been held back and are plausible now, ``withdrawn`` ones the other way
    round.
    """

    rows: int
    since: int
    heals: int
    beyond: int
    window: Window | None = None
    watch: LabelWatch | None = None
    state: AdapterState | None = None
    released: tuple[Scored, ...] = ()
    withdrawn: tuple[Scored, ...] = ()


class Relearning:
    """The latest steps of learning: ``horizon`` of them may be corrected, those before fill the
    window.
    """

    def __init__(self, run: SessionContext) -> None:
        config = run.config
        self._horizon, self._seed = config.labels.horizon, config.seed
        self._heal, self._live = config.heal, run.live
        kind = kind_of(config.heal.recipe)
        self._guarded, self._remembers = kind.guarded, kind.remembers
        self._recipes = Recipes(run.prepared.network, run.prepared.anchor, config.heal)
        self._steps: deque[LearningStep] = deque(maxlen=self._horizon + config.heal.window)

    def add(
        self, arrival: int, batch: int, parts: Sequence[Scored], held: set[int], watch: LabelWatch,
        after: Relearned | None,
    ) -> None:  # fmt: skip
        """A step is about to be learned from, ``after`` others were learned anew; ``watch`` is as
        it was before it.
        """
        anew = None if after is None else after.state
        state = anew or self._live.serving.adapter
        self._steps.append(LearningStep(arrival, batch, list(parts), held, watch, state))

    def healed(self, task: HealTask) -> None:
        """The heal that a batch asked for was done."""
        for step in reversed(self._steps):
            if step.batch == task.batch:
                none = np.zeros(len(task.rows), dtype=np.bool_)
                step.task = replace(task, rows=task.rows.where(none))
                return

    def correct(self, corrections: Sequence[Correction]) -> Relearned:
        """Put the labels right, and go through the steps again from the first that had one."""
        rows = 0
        first = len(self._steps)
        begin = max(0, len(self._steps) - self._horizon)
        for at in range(begin, len(self._steps)):
            changed = _put_right(self._steps[at], corrections)
            rows += changed
            first = min(first, at) if changed else first
        beyond = sum(map(len, corrections)) - rows
        if first == len(self._steps):
            return Relearned(0, 0, 0, beyond)
        return self._again(first, rows, beyond)

    def _again(self, first: int, rows: int, beyond: int) -> Relearned:
        steps = list(self._steps)
        window = Window(self._heal.window, self._heal.held_out, self._seed)
        for step in steps[max(0, first - self._heal.window) : first]:
            _learn(window, step)
        watch, state, heals = deepcopy(steps[first].watch), steps[first].state, 0
        released: list[Scored] = []
        withdrawn: list[Scored] = []
        for step in steps[first:]:
            state = state if step.state.memory else step.state  # a rollback began it anew
            step.watch, step.state = deepcopy(watch), state
            before = step.held
            verdicts = [watch.judge(part.labelled.y) for part in step.parts]
            step.held = {at for at, one in enumerate(verdicts) if one.implausible and self._guarded}
            released += [step.parts[at] for at in sorted(before - step.held)]
            withdrawn += [step.parts[at] for at in sorted(step.held - before)]
            _learn(window, step)
            if step.task is not None and self._remembers and len(window):
                state = self._heal_again(step.task, window, state)
                heals += 1
        return Relearned(
            rows, steps[first].batch, heals, beyond, window, watch, state,
            tuple(released), tuple(withdrawn),
        )  # fmt: skip

    def _heal_again(self, task: HealTask, window: Window, before: AdapterState) -> AdapterState:
        outcome = heal_or_fail(self._recipes, before, replace(task, rows=window.rows()))
        return before if isinstance(outcome, HealFailure) else outcome.after


def _put_right(step: LearningStep, corrections: Sequence[Correction]) -> int:
    """How many rows of the step were corrected."""
    rows = 0
    for at, part in enumerate(step.parts):
        for correction in corrections:
            if correction.part.batch == part.batch:
                now = corrected(step.parts[at], correction)
                rows += int((now.y != step.parts[at].y).sum())
                step.parts[at] = now
    return rows


def _learn(window: Window, step: LearningStep) -> None:
    for part in (one.labelled for one in step.learned):
        if not len(part):
            continue  # all of its labels were taken back
        window.add(step.arrival, part.features, part.y, part.rule_label, part.weight)
