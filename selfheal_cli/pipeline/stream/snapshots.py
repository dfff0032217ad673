"""Snapshots: taken, written down, and given their figures when the labels come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from selfheal_cli.events.types import SnapshotScored, SnapshotTaken
from selfheal_cli.labels.queue import Scored
from selfheal_cli.metrics import score
from selfheal_cli.model.checkpoint import Packed
from selfheal_cli.model.network import SelfHealingNetwork, Weights
from selfheal_cli.pipeline.record.recorder import RunRecorder
from selfheal_cli.records import BEFORE, READINGS, Evaluation, Phase, Snapshot
from selfheal_cli.scores import AnyScores

KEPT = 2  # adapters whose bytes are at hand: what serves, and what a heal gave
MOST_BATCHES = 10  # of waiting rows that a snapshot is scored on; bounds what is kept


@dataclass(slots=True)
class _Awaiting:
    """Probabilities by batch and row, and those whose label has come.

    ``carried`` is the snapshot before the heal whose figures go with this one's; None where this
    is such a snapshot itself.
    """

    snapshot: str
    batch: int
    heal_id: str | None
    carried: str | None
    threshold: float
    probabilities: dict[int, dict[int, object]]
    scored: list[object]
    labels: list[int]


@dataclass(frozen=True, slots=True)
class Completed:
    """A heal whose figures came with its labels."""

    heal_id: str
    batch: int
    scores: AnyScores


class Snapshots:
    """Numbers, packs and keeps the snapshots of one run."""

    def __init__(self, recorder: RunRecorder, run_id: str) -> None:
        self._recorder = recorder
        self._prefix = run_id[:8]
        self._count = 0
        self._awaiting: list[_Awaiting] = []
        self._late: dict[str, dict[str, float]] = {}  # figures that wait for the version they go to
        self._packed: list[tuple[Weights, Packed]] = []  # the latest

    def take(
        self,
        weights: Weights,
        *,
        phase: Phase,
        batch: int,
        scores: AnyScores | None,
        evaluation: Evaluation,
        reason: str,
        threshold: float,
        parent: str | None = None,
        heal_id: str | None = None,
        rejected: str = "",
        extra: Mapping[str, float] | None = None,
        packed: Packed | None = None,
        same_as: str = "",
        carries: bool = False,
    ) -> str:
        """Write one down and have it registered; returns its id.

        ``packed`` where the weights were packed already. One that is the ``same_as`` another is
        not registered: the one that comes of it ``carries`` its figures.
        """
        self._count += 1
        packed = self._bytes_of(weights, packed)
        snapshot = Snapshot(
            id=f"{self._prefix}-s{self._count:06}",
            phase=phase,
            batch=batch,
            sha256=packed.sha256,
            scores=scores,
            evaluation=evaluation,
            reason=reason,
            threshold=threshold,
            parent=parent,
            heal_id=heal_id,
            rejected=rejected,
            metrics={**figures_of(scores), **(extra or {})},
            same_as=same_as,
            carries=carries,
        )
        if same_as:
            self._recorder.note(SnapshotTaken.of(snapshot))
        else:
            self._recorder.keep(snapshot, packed.data)
        return snapshot.id

    def _bytes_of(self, weights: Weights, packed: Packed | None) -> Packed:
        """Bytes and their hash. What serves before a heal is what was published after another:
        those bytes are still here.
        """
        kept, known = [], None
        for one in self._packed:
            if known is None and one[0] is weights:
                known = one
            else:
                kept.append(one)
        if known is None:
            known = (weights, packed or Packed.of(weights))
        self._packed = [*kept, known][-KEPT:]
        return known[1]

    def await_labels(
        self,
        snapshot: str,
        batch: int,
        network: SelfHealingNetwork,
        threshold: float,
        waiting: Sequence[Scored],
        heal_id: str | None = None,
        carried: str | None = "",
    ) -> None:
        """Score what waits for labels now; compare when they have come.

        ``heal_id`` where the snapshot is what a heal gave, so that its health can be watched.
        ``carried`` is the snapshot that has no version, and whose figures go with this one's; None
        for that one itself.
        """
        by_batch: dict[int, dict[int, object]] = {}
        for batch_waiting in waiting[-MOST_BATCHES:]:
            part = batch_waiting.where(batch_waiting.y >= 0)  # the others' labels never come
            if not len(part):
                continue
            answers = network.predict_features(part.features)
            by_batch[part.batch] = dict(zip(part.place.tolist(), answers, strict=True))
        if by_batch:
            self._awaiting.append(
                _Awaiting(snapshot, batch, heal_id, carried, threshold, by_batch, [], [])
            )

    def labels_came(
        self, learned: Sequence[Scored], held_back: Sequence[Scored]
    ) -> list[Completed]:
        """Complete the snapshots whose last awaited label is among these; returns the heals.

        Labels that are held back are waited for no longer, and count for nothing.
        """
        for awaiting in self._awaiting:
            for part in held_back:
                unjudged = awaiting.probabilities.get(part.batch, {})
                for place in part.place.tolist():
                    unjudged.pop(place, None)
                if not unjudged:
                    awaiting.probabilities.pop(part.batch, None)
            for part in learned:
                rows = awaiting.probabilities.get(part.batch)
                if rows is None:
                    continue
                for place, label in zip(part.place.tolist(), part.y.tolist(), strict=True):
                    if place in rows:
                        awaiting.scored.append(rows.pop(place))
                        awaiting.labels.append(label)
                if not rows:
                    del awaiting.probabilities[part.batch]
        completed = []
        for awaiting in [one for one in self._awaiting if not one.probabilities]:
            self._awaiting.remove(awaiting)
            if not awaiting.labels:
                continue
            scores = self._complete(awaiting)
            if awaiting.heal_id is not None:
                completed.append(Completed(awaiting.heal_id, awaiting.batch, scores))
        return completed

    def _complete(self, awaiting: _Awaiting) -> AnyScores:
        labels = np.array(awaiting.labels, dtype=np.int8)
        scores = score(np.array(awaiting.scored, dtype=np.float32), labels, awaiting.threshold)
        figures, snapshot, batch = figures_of(scores), awaiting.snapshot, awaiting.batch
        if awaiting.carried is None:
            self._recorder.note(SnapshotScored(snapshot=snapshot, batch=batch, scores=scores))
            self._late[snapshot] = figures
        else:
            figures |= before_the_heal(self._late.pop(awaiting.carried, {}))
            self._recorder.score_later(snapshot, batch, scores, figures)
        return scores


def figures_of(scores: AnyScores | None) -> dict[str, float]:
    """By metric name, as a version has them; none without labels."""
    return {} if scores is None else {**scores.figures(), "rows": float(scores.rows)}


def before_the_heal(figures: Mapping[str, float]) -> dict[str, float]:
    """Figures of what served before a heal, as the version that came of it carries them."""
    return {f"{BEFORE}{name}": value for name, value in figures.items() if name not in READINGS}
