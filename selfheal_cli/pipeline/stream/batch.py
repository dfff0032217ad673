"""What happens when labels come: score, hold implausible ones back, keep rows to heal on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from selfheal_cli.config import RunConfig
from selfheal_cli.events.types import LabelsArrived, LabelsQuarantined
from selfheal_cli.heal.recipe import KINDS
from selfheal_cli.heal.task import Window
from selfheal_cli.labels.queue import DelayedLabels, LabelJoiner, LabelQueue, Scored
from selfheal_cli.metrics import classify, counts
from selfheal_cli.pipeline.stream.context import SessionContext
from selfheal_cli.records import LateLabels

if TYPE_CHECKING:
    from selfheal_cli.records import FloatArray, LabelArray


def make_desk(config: RunConfig) -> LabelQueue:
    """The desk that the label regime wants."""
    if config.labels.regime == "arriving":
        return LabelJoiner(config.batch_size, config.labels.keep)
    return DelayedLabels(config.labels)


class LabelFlow:
    """The desk, the watch over label rates, and the windows of rows."""

    def __init__(self, run: SessionContext) -> None:
        config = run.config
        self._full = config.labels.regime == "full"
        self._guarded = KINDS[config.heal.recipe].guarded
        self._watch = run.prepared.label_watch
        self._classes = len(run.source.labels)
        self._recorder = run.recorder
        self._step = 0
        self.desk = make_desk(config)
        heal = config.heal
        self.labelled = Window(heal.window, heal.held_out, config.seed)
        self.unlabelled = Window(heal.window, 0.0, config.seed)
        self.quarantined_rows = 0

    def take(
        self, scored: Scored, now: float | None, late: LateLabels | None = None
    ) -> tuple[list[Scored], list[Scored]]:
        """Hand in a scored batch; get the labels that came: (to learn from, held back)."""
        self._step += 1
        unknown = np.full(len(scored), -1, dtype=np.int8)
        self.unlabelled.add(self._step, scored.features, unknown, scored.rule_label)
        arrived = self.desk.take(scored, now, late)
        learned: list[Scored] = []
        held_back: list[Scored] = []
        for part in arrived:
            (learned if self._plausible(part) else held_back).append(part)
        for part in learned:
            self.labelled.add(self._step, part.features, part.y, part.rule_label)
        if not self._full:
            for part in arrived:
                self._note(part)
        return learned, held_back

    def recall(self, features: FloatArray, y: LabelArray, rule_label: LabelArray) -> None:
        """Rows (n, features) whose labels came to an earlier run: to learn from once more."""
        self._step += 1
        self.labelled.add(self._step, features, y, rule_label)

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
        live = counts(classify(part.probabilities, part.threshold), part.y, self._classes)
        shadow = counts(classify(part.shadow, part.shadow_threshold), part.y, self._classes)
        self._recorder.note(
            LabelsArrived(batch=part.batch, rows=len(part), live=live, shadow=shadow)
        )
