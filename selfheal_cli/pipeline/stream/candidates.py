"""What other versions would have lost on the rows whose labels come: asked as the stream goes on.

The features of a row are computed once, when it is answered; a candidate costs its adapter and the
head. Few are kept: the baseline, what served when the run began, the version that served before,
and a ladder of older ones whose ages are about as far apart as they are old.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from typing import TYPE_CHECKING

import numpy as np

from selfheal_cli.events.evidence import quantile
from selfheal_cli.events.types import CandidatesCompared
from selfheal_cli.heal.engine import Serving
from selfheal_cli.heal.gate import log_losses
from selfheal_cli.labels.queue import Scored
from selfheal_cli.model.network import SelfHealingNetwork
from selfheal_cli.pipeline.prepare.continuing import WarmStart
from selfheal_cli.pipeline.stream.context import SessionContext

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfheal_cli.records import FloatArray, LabelArray

    Losses = NDArray[np.float64]

RUNGS = 6  # of the ladder
SPACING = 10  # batches between two versions that are taken into it
FEWEST, BATCHES = 50, 5  # rows that the brake looks at: at least, and of how many batches
NO_DIFFERENCE = 0.002  # log loss
DIGITS = 6  # of a sum of log losses, as it is written down


@dataclass(frozen=True, slots=True, eq=False)
class Contender:
    """A version that served from batch ``since`` on: it learned from no row of that or later."""

    served: Serving
    since: int

    @property
    def snapshot(self) -> str:
        """The snapshot that it is."""
        return self.served.snapshot

    @property
    def network(self) -> SelfHealingNetwork:
        """What answers by it."""
        return self.served.network


class CandidateWatch:
    """Holds versions against what serves, batch after batch, and notes what came of it."""

    def __init__(self, run: SessionContext) -> None:
        self._live, self._recorder = run.live, run.recorder
        self._frozen = run.live.serving
        self._always: dict[str, Contender] = {}
        self._ladder: list[Contender] = []
        self._serving: Contender | None = None
        self._before: Contender | None = None
        self._began = 0  # the batch from which on it serves
        self._taken = -SPACING
        self._versions: dict[str, int] = {}
        policy = run.config.policy
        self._brake = Brake(policy.brake_level, choosy=policy.brake_to == "best")

    def go_on_from(self, continued: WarmStart) -> None:
        """Ask also about the versions of an earlier run: its baseline, and what serves first."""
        baseline, champion = continued.baseline, continued.champion
        numbered = {one.tags["selfheal.snapshot"]: one.version for one in (baseline, champion)}
        first = next(iter(numbered))
        self._always[first] = Contender(replace(self._frozen, snapshot=first), 0)
        self._versions = numbered

    def observe(self, batch: int, learned: Sequence[Scored]) -> Alarm | None:
        """Labels that came with a batch: note what versions lost, and whether to go back at once.

        An alarm is told of once, with the first batch that gives it.
        """
        serving = self._look(batch)
        for part in learned:
            known = part.where(part.y >= 0)
            if len(known):
                self._compare(known, serving)
        if self._before is None:
            return None
        first = next(iter(self._always.values()))
        return self._brake.alarm(self._before.served, first.served)

    def correct(self, was: Scored, now: Scored) -> None:
        """Rows that were compared with another label: note by how much the sums change."""
        serving = self._serving
        if serving is None:
            return
        asked = [one for one in self._asked() if one.since <= was.batch]
        self._recorder.note(
            CandidatesCompared(
                batch=was.batch,
                rows=len(now.labelled) - len(was.labelled),
                positives=_positives(now.labelled) - _positives(was.labelled),
                serving=serving.snapshot,
                served=_changed(was.probabilities, was, now),
                losses={
                    one.snapshot: _changed(one.network.predict_features(was.features), was, now)
                    for one in asked
                },
                by_now=_changed(serving.network.predict_features(was.features), was, now),
                versions=self._versions,
            )
        )

    def _look(self, batch: int) -> Contender:
        """What serves by now, and whether to ask about it from here on."""
        now = self._live.serving
        if self._serving is None or self._serving.snapshot != now.snapshot:
            known = {one.snapshot: one for one in self._asked()}
            self._before = self._serving
            self._serving = known.get(now.snapshot) or Contender(now, batch)
            self._began = batch
            self._brake.reset()
        serving = self._serving
        if self._before is None:
            self._always.setdefault(now.snapshot, serving)
        elif batch - self._taken >= SPACING and now.snapshot not in self._always:
            self._take(serving, batch)
        return serving

    def _take(self, serving: Contender, batch: int) -> None:
        self._taken = batch
        self._ladder = [one for one in self._ladder if one.snapshot != serving.snapshot]
        self._ladder.append(serving)
        if len(self._ladder) > RUNGS:
            born = [0, *(one.since for one in self._ladder)]
            gaps = [after - before for before, after in zip(born, born[2:], strict=False)]
            ages = [batch + 1 - since for since in born[1:-1]]
            shares = [gap / age for gap, age in zip(gaps, ages, strict=True)]
            del self._ladder[shares.index(min(shares))]

    def _asked(self) -> Iterator[Contender]:
        """Each once, the oldest first."""
        beside = [one for one in (self._before, self._serving) if one is not None]
        chosen = {one.snapshot: one for one in (*self._always.values(), *self._ladder, *beside)}
        yield from chosen.values()

    def _compare(self, part: Scored, serving: Contender) -> None:
        late = self._began > part.batch  # something else answered them
        served = log_losses(part.probabilities, part.y)
        lost = {
            one: log_losses(one.network.predict_features(part.features), part.y)
            for one in self._asked()
            if one.since <= part.batch or one in (serving, self._before)
        }
        self._recorder.note(
            CandidatesCompared(
                batch=part.batch,
                rows=len(part),
                positives=_positives(part),
                serving=serving.snapshot,
                served=_total(served),
                losses={
                    one.snapshot: _total(losses)
                    for one, losses in lost.items()
                    if one.since <= part.batch
                },
                by_now=_total(lost[serving]) if late else None,
                versions=self._versions,
            )
        )
        if self._before is not None:  # no label of these rows has taught anything yet
            frozen = log_losses(part.shadow, part.y)
            self._brake.add(part.y, lost[serving], frozen, lost[self._before])


def _total(losses: Losses) -> float:
    return round(float(losses.sum()), DIGITS)


def _changed(probabilities: FloatArray, was: Scored, now: Scored) -> float:
    """By how much a sum of log losses changes with the labels; one that is gone has no loss."""
    after, before = (
        np.where(part.y >= 0, log_losses(probabilities, np.maximum(part.y, 0)), 0.0)
        for part in (now, was)
    )
    return _total(after - before)


def _positives(part: Scored) -> int:
    """Rows that are not of the commonest class; with two classes, the positives."""
    if part.probabilities.ndim > 1 and len(part):
        return len(part) - int(np.bincount(part.y).max())
    return int((part.y == 1).sum())


@dataclass(frozen=True, slots=True)
class Alarm:
    """What serves has lost so much more than the version ``to`` that it must go."""

    to: Serving
    reason: str


class Brake:
    """A one-sided alarm on the latest rows whose labels came since what serves was published: it
    loses more than the frozen baseline, and more than the version before it.

    By Student's t over the rows' paired differences (Biometrika 6, 1908), each at ``level``. Where
    positives are rare and none is among the rows, any difference is beyond chance: so it must be
    one, too. A ``choosy`` one goes back to the baseline where that lost less than the version
    before, and nowhere while the stream breaks: to what halves the loss, or loses less than who
    knows the label rate alone.
    """

    def __init__(self, level: float, *, choosy: bool = False) -> None:
        self._level, self._choosy = level, choosy
        self._lost: deque[Losses] = deque(maxlen=BATCHES)
        self._labels: deque[LabelArray] = deque(maxlen=BATCHES)

    def reset(self) -> None:
        """Something else serves."""
        self._lost.clear()
        self._labels.clear()

    def add(self, y: LabelArray, now: Losses, frozen: Losses, before: Losses) -> None:
        """Labels (n,) of a batch, and what what serves, the baseline, and what served before lost
        on each row.
        """
        self._lost.append(np.stack([now, frozen, before]))
        self._labels.append(y)

    def alarm(self, before: Serving, baseline: Serving) -> Alarm | None:
        """To go back to what served ``before``, or the baseline, where both differences are beyond
        chance.
        """
        if sum(map(len, self._labels)) < FEWEST:
            return None
        lost = np.concatenate(self._lost, axis=1)
        differences, rows = lost[:1] - lost[1:], lost.shape[1]
        means = differences.mean(axis=1)
        errors = differences.std(axis=1, ddof=1) / sqrt(rows)
        beyond_chance = -quantile(self._level, rows - 1) * errors
        if not bool((means > np.maximum(beyond_chance, NO_DIFFERENCE)).all()):
            return None
        to = baseline if self._choosy and means[0] > means[1] else before
        if self._choosy and not self._is_worth_it(lost.mean(axis=1)):
            return None
        self.reset()
        return Alarm(
            to,
            f"what serves loses {means[1]:.3f} a row more than the version before it, and "
            f"{means[0]:.3f} more than the frozen baseline, on the latest {rows} labelled rows",
        )

    def _is_worth_it(self, lost: Losses) -> bool:
        """By the mean losses of what serves, baseline and version before."""
        counts = np.bincount(np.concatenate(self._labels), minlength=2) + 1.0
        shares = counts / counts.sum()
        knowing_nothing = -float((shares * np.log(shares)).sum())
        return bool(lost[1:].min() < max(knowing_nothing, lost[0] / 2.0))
