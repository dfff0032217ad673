"""What a batch's rows are answered, and what their labels say when they come.

A row that the model fails on, or gives no finite number for, is left out and counted: it is in no
figure and in no heal. Labels that are implausible are held back.
"""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from selfheal_cli.config import RunConfig
from selfheal_cli.errors import DataError
from selfheal_cli.events.types import (
    LabelsArrived,
    LabelsCorrected,
    LabelsMatured,
    LabelsQuarantined,
    LabelsRelearned,
)
from selfheal_cli.heal.engine import LiveModel
from selfheal_cli.heal.recipe import kind_of, unlabelled_batches
from selfheal_cli.heal.task import HealTask, Window
from selfheal_cli.labels.corrections import Correction, LabelledRows
from selfheal_cli.labels.maturing import MaturedLabels
from selfheal_cli.labels.quarantine import LabelWatch
from selfheal_cli.labels.queue import DelayedLabels, LabelJoiner, LabelQueue, Scored
from selfheal_cli.labels.selection import LabelSelection, seeded_lots
from selfheal_cli.metrics import classify, counts
from selfheal_cli.model.network import SelfHealingNetwork
from selfheal_cli.pipeline.prepare.baseline import Prepared
from selfheal_cli.pipeline.stream.context import SessionContext
from selfheal_cli.pipeline.stream.relearning import Relearned, Relearning
from selfheal_cli.records import Answers, Batch, LateLabels, Rows
from selfheal_cli.scores import AnyScores

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfheal_cli.records import FloatArray

REFUSED = "rows that the model fails on, left out"
NOT_FINITE = "rows that the model gives no finite number for, left out"


@dataclass(frozen=True, slots=True)
class AnsweredBatch:
    """The rows of ``batch`` have answers; ``left_out`` counts those that have none, by reason."""

    batch: Batch
    features: FloatArray
    answers: Answers
    shadow: FloatArray
    left_out: Counter[str]


def answer(batch: Batch, prepared: Prepared, live: LiveModel) -> AnsweredBatch:
    """Score a batch with what serves now, unless its rows were answered elsewhere.

    Raises `DataError` where not one row has an answer.
    """
    left_out: Counter[str] = Counter()
    features, taken = _features(prepared.network, batch.rows.x)
    if not taken.all():
        left_out[REFUSED] = int((~taken).sum())
        batch, features = chosen(batch, taken), features[taken]
    serving = live.serving
    answers = batch.answers or Answers(
        serving.network.predict_features(features), serving.threshold
    )
    shadow = prepared.shadow.predict(batch.rows.x)
    finite = _finite(features) & _finite(answers.probabilities) & _finite(shadow)
    if not finite.all():
        left_out[NOT_FINITE] = int((~finite).sum())
        batch, features, shadow = chosen(batch, finite), features[finite], shadow[finite]
        answers = _of_rows(answers, finite)
    if not len(batch.rows):
        raise DataError("; ".join(f"{count} {reason}" for reason, count in left_out.items()))
    return AnsweredBatch(batch, features, answers, shadow, left_out)


def chosen(batch: Batch, rows: NDArray[np.bool_]) -> Batch:
    """The chosen rows (n,), each with the place that it has in the whole batch."""
    whole, answers, label_at = batch.rows, batch.answers, batch.label_at
    columns = {name: values[rows] for name, values in whole.columns.items()}
    return replace(
        batch,
        rows=Rows(whole.x[rows], whole.y[rows], columns),
        places=batch.place[rows],
        label_at=None if label_at is None else label_at[rows],
        at=None if batch.at is None else batch.at[rows],
        lots=None if batch.lots is None else batch.lots[rows],
        answers=answers and _of_rows(answers, rows),
    )


def _of_rows(answers: Answers, rows: NDArray[np.bool_]) -> Answers:
    limit = answers.threshold
    return Answers(
        answers.probabilities[rows], limit[rows] if isinstance(limit, np.ndarray) else limit
    )


def _features(network: SelfHealingNetwork, x: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Features (n, f), and which rows (n,) have any; raises the network's own error for all rows.

    A network of somebody else's may fail on a single row, as for a token that it does not know:
    the rows are halved until that one is alone.
    """
    try:
        return network.features(x), np.ones(len(x), dtype=np.bool_)
    except Exception:
        if len(x) < 2:
            raise
    parts, failure = [], None
    for half in np.array_split(x, 2):
        try:
            parts.append(_features(network, half))
        except Exception as exc:
            failure = exc
            parts.append((np.empty((len(half), 0), np.float32), np.zeros(len(half), np.bool_)))
    if failure is not None and not any(taken.any() for _, taken in parts):
        raise failure
    width = max(features.shape[1] for features, _ in parts)
    wide = [
        features if features.shape[1] == width else np.full((len(taken), width), np.nan, np.float32)
        for features, taken in parts
    ]
    return np.concatenate(wide), np.concatenate([taken for _, taken in parts])


def _finite(values: FloatArray) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(values).reshape(len(values), -1).all(axis=1))


def label_queue(config: RunConfig) -> LabelQueue:
    """The queue that the label regime wants."""
    alone, ask = config.labels.regime == "arriving", config.labels.ask or 1.0
    together = max(1, round(config.batch_size * ask))
    if config.labels.negative_after is not None:
        return MaturedLabels(config.labels, together if alone else 1)
    if alone:
        corrects = config.labels.horizon > 0
        return LabelJoiner(together, config.labels.keep, corrects=corrects)
    return DelayedLabels(config.labels)


@dataclass(frozen=True, slots=True)
class ArrivedLabels:
    """Rows whose labels came: to learn from, and held back; and those whose label is another one
    than was told before.
    """

    learned: list[Scored]
    held_back: list[Scored]
    corrections: list[Correction]
    relearned: Relearned | None


class LabelFlow:
    """The queue of labels, the watch over label rates, and the windows of rows."""

    def __init__(self, run: SessionContext) -> None:
        config = run.config
        self._full = config.labels.regime == "full"
        self._guarded = kind_of(config.heal.recipe).guarded
        self._watch = run.prepared.label_watch
        self._classes = len(run.source.labels)
        self._recorder = run.recorder
        self._step = 0
        self._may: NDArray[np.bool_] | None = None  # rows that may get a label; None: all
        self.labels = label_queue(config)
        heal = config.heal
        self.labelled = Window(heal.window, heal.held_out, config.seed)
        self.unlabelled = Window(unlabelled_batches(heal), 0.0, config.seed)
        self.quarantined_rows = 0
        self._seed = config.seed
        self._selection = None
        if config.labels.only_when is not None:
            names = run.source.encoding.names
            share = config.policy.explore
            self._selection = LabelSelection(config.labels.only_when, share, names)
        elif config.labels.ask is not None and config.labels.regime != "arriving":
            self._selection = LabelSelection(None, config.labels.ask)
        self._grows = config.labels.negative_after is not None
        corrects = config.labels.horizon > 0
        self._known = LabelledRows(config.labels.keep) if corrects else None
        self._relearning = Relearning(run) if corrects else None

    def select(self, scored: Scored, batch: Batch) -> Scored:
        """The rows as they may be labelled: what was declined has no label, whoever knows it."""
        self._may = None
        if self._selection is None:
            return scored
        lots = batch.lots
        if lots is None:
            lots = seeded_lots(self._seed, batch.index, scored.place)
        scored, self._may = self._selection.select(scored, batch.rows.columns, lots)
        return scored

    def take(
        self, scored: Scored, now: float | None, late: LateLabels | None = None
    ) -> ArrivedLabels:
        """Hand in a scored batch; get the labels that came."""
        self._step += 1
        unknown = np.full(len(scored), -1, dtype=np.int8)
        self.unlabelled.add(self._step, scored.features, unknown, scored.rule_label)
        corrections, late = self._corrections(late)
        awaited = scored if self._may is None else scored.where(self._may)
        arrived = self.labels.take(awaited, now, late)
        corrections += self._corrections(self.labels.told_since())[0]
        for correction in corrections:
            self._note_correction(correction, scored.batch)
        relearned = self._learn_anew(corrections, scored.batch)
        for grown in self.labels.matured():
            self._recorder.note(LabelsMatured(**asdict(grown)))
        before = self._watch if self._relearning is None else deepcopy(self._watch)
        plausible = [self._plausible(part) for part in arrived]
        self._remember(arrived, scored.batch, plausible, before, relearned)
        learned = [part for part, holds in zip(arrived, plausible, strict=True) if holds]
        held_back = [part for part, holds in zip(arrived, plausible, strict=True) if not holds]
        for part in learned:
            self._learn(part)
        if not self._full:
            for part in arrived:
                self._note(part)
        return ArrivedLabels(learned, held_back, corrections, relearned)

    @property
    def may(self) -> NDArray[np.bool_] | None:
        """Which rows of the latest batch (n,) may get a label; None: all."""
        return self._may

    def recall(self, scored: Scored) -> None:
        """Rows of an earlier run: those whose labels came to it are learned from once more."""
        awaited = scored if self._may is None else scored.where(self._may)
        for part in self.labels.recall(awaited):
            self._step += 1
            self._remember([part], scored.batch, [True], self._watch, None)
            self._learn(part)

    def _learn(self, part: Scored) -> None:
        self.labelled.add(self._step, part.features, part.y, part.rule_label, part.weight)

    def _corrections(self, late: LateLabels | None) -> tuple[list[Correction], LateLabels | None]:
        """The labels that are of rows whose label has come before, and all others."""
        if late is None or self._known is None:
            return [], late
        corrections, late = self._known.corrections(late)
        if self._grows:  # nobody says anything of the row any more: it is old enough
            corrections = [replace(one, y=np.maximum(one.y, 0)) for one in corrections]
        return corrections, late

    def healed(self, task: HealTask) -> None:
        """A heal that learned from the labels of its batch was done."""
        if self._relearning is not None:
            self._relearning.healed(task)

    def _remember(
        self, parts: list[Scored], batch: int, plausible: list[bool], watch: LabelWatch,
        after: Relearned | None,
    ) -> None:  # fmt: skip
        """Keep what may be corrected later; ``watch`` is as it was before."""
        if self._known is None or self._relearning is None or not (parts or after):
            return
        for part in parts:
            self._known.add(part)
        held = {at for at, holds in enumerate(plausible) if not holds}
        self._relearning.add(self._step, batch, parts, held, watch, after)

    def _learn_anew(self, corrections: list[Correction], batch: int) -> Relearned | None:
        """Have the window and the recipe's memory as if the labels had been right at once."""
        if not corrections or self._relearning is None:
            return None
        relearned = self._relearning.correct(corrections)
        if relearned.window is not None and relearned.watch is not None:
            self.labelled, self._watch = relearned.window, relearned.watch
        self._recorder.note(
            LabelsRelearned(
                batch=batch, rows=relearned.rows, since=relearned.since, heals=relearned.heals,
                beyond=relearned.beyond,
            )
        )  # fmt: skip
        return relearned

    def _note_correction(self, correction: Correction, batch: int) -> None:
        was, now = correction.part.labelled, correction.corrected.labelled
        self._recorder.note(
            LabelsCorrected(
                batch=was.batch, rows=len(correction), in_batch=batch,
                live=self._live(now), shadow=self._shadow(now),
                was=self._live(was), was_shadow=self._shadow(was),
            )
        )  # fmt: skip

    def _plausible(self, part: Scored) -> bool:
        verdict = self._watch.judge(part.y)
        if not (verdict.implausible or verdict.believed):
            return True
        held = verdict.implausible and self._guarded
        self._recorder.note(
            LabelsQuarantined(batch=part.batch, rows=len(part), held_back=held, verdict=verdict)
        )
        self.quarantined_rows += len(part) if held else 0
        return not held

    def _note(self, part: Scored) -> None:
        self._recorder.note(
            LabelsArrived(
                batch=part.batch, rows=len(part), live=self._live(part), shadow=self._shadow(part)
            )
        )

    def _live(self, part: Scored) -> AnyScores:
        return counts(classify(part.probabilities, part.threshold), part.y, self._classes)

    def _shadow(self, part: Scored) -> AnyScores:
        return counts(classify(part.shadow, part.shadow_threshold), part.y, self._classes)
